package v2

import (
	"net/http"

	"github.com/weirproxy/weir/services/discovery/internal/auth"
	"github.com/weirproxy/weir/services/discovery/internal/httpjson"
	"github.com/weirproxy/weir/services/discovery/internal/registry"
	"github.com/weirproxy/weir/services/discovery/internal/rest/call"
)

// get answers with one host.
func (f *face) get(w http.ResponseWriter, r *http.Request) (int, error) {
	q := call.ReadQuery(r)
	key := pathKey(r, &q.Faults)
	if err := q.End(); err != nil {
		return 0, err
	}
	view, found, err := f.registry.Find(key)
	if err != nil {
		return 0, err
	}
	if !found {
		return 0, noHost(key)
	}
	return httpjson.Write(w, append(appendHost(nil, &view), '\n'))
}

// remove takes a host out, at its own wish or an operator's.
func (f *face) remove(w http.ResponseWriter, r *http.Request) (int, error) {
	q := call.ReadQuery(r)
	key := pathKey(r, &q.Faults)
	caller := auth.FromContext(r.Context())
	if err := caller.MayRegister(key.Service); err != nil {
		return 0, err
	}
	if err := q.End(); err != nil {
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
	return httpjson.Nothing(w)
}

func noHost(k registry.Key) error {
	return call.Refuse(http.StatusNotFound, "service %q has no host %q", k.Service, k.ID)
}
