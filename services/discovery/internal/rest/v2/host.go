package v2

import (
	"net/http"

	"github.com/weirproxy/weir/services/discovery/internal/auth"
	"github.com/weirproxy/weir/services/discovery/internal/registry"
	"github.com/weirproxy/weir/services/discovery/internal/rest/httpjson"
)

// get answers with one host.
func (f *face) get(w http.ResponseWriter, r *http.Request) (int, error) {
	q := readQuery(r)
	key := pathKey(r, &q.faults)
	if err := q.end(); err != nil {
		return 0, err
	}
	view, found, err := f.registry.Find(key)
	if err != nil {
		return 0, err
	}
	if !found {
		return 0, noHost(key)
	}
	httpjson.Write(w, append(appendHost(nil, &view), '\n'))
	return http.StatusOK, nil
}

// remove takes a host out, at its own wish or an operator's.
func (f *face) remove(w http.ResponseWriter, r *http.Request) (int, error) {
	q := readQuery(r)
	key := pathKey(r, &q.faults)
	caller := auth.FromContext(r.Context())
	if err := caller.MayRegister(key.Service); err != nil {
		return 0, err
	}
	if err := q.end(); err != nil {
		return 0, err
	}
	view, found, err := f.registry.Find(key)
	if err != nil {
		return 0, err
	}
	if !found {
		return 0, noHost(key)
	}
	if err := caller.MayRegisterAddress(view.Host.Address.Addr()); err != nil {
		return 0, err
	}
	removed, err := f.registry.Remove(registry.Selection{Service: key.Service, ID: key.ID}, caller.Actor())
	if err != nil {
		return 0, err
	}
	if removed == 0 { // it went a moment ago
		return 0, noHost(key)
	}
	return answerNothing(w), nil
}

func noHost(k registry.Key) error {
	return refuse(http.StatusNotFound, "service %q has no host %q", k.Service, k.ID)
}
