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
	return httpjson.Write(w, append(appendHost(nil, &view, appendTime), '\n'))
}

// remove takes a host out, at its own wish or an operator's. With its lease it goes
// only if it has that still: it may have come back since.
func (f *face) remove(w http.ResponseWriter, r *http.Request) (int, error) {
	q := call.ReadQuery(r)
	key := pathKey(r, &q.Faults)
	caller := auth.FromContext(r.Context())
	if err := caller.MayRegister(key.Service); err != nil {
		return 0, err
	}
	lease := queryLease(q)
	if err := q.End(); err != nil {
		return 0, err
	}
	removed, err := f.registry.Remove(registry.Selection{
		Service: key.Service, ID: key.ID, Lease: lease, Allow: caller.MayRegisterAddress,
	}, caller.Actor())
	switch {
	case err != nil:
		return 0, err
	case removed == 0 && lease != 0:
		return 0, call.Refuse(http.StatusNotFound, "service %q has no host %q with that lease", key.Service, key.ID)
	case removed == 0:
		return 0, noHost(key)
	}
	return httpjson.Nothing(w)
}

// queryLease takes the lease that a call names, 0 for none.
func queryLease(q *call.Query) registry.Lease {
	text, given := q.Text("lease")
	if !given {
		return 0
	}
	lease, ok := readHex(text)
	if !ok || lease == 0 { // which would select any
		q.Faults.Add("lease", "%q is not %d hexadecimal digits in lower case, other than 0", text, hexDigits)
	}
	return registry.Lease(lease)
}

func noHost(k registry.Key) error {
	return call.Refuse(http.StatusNotFound, "service %q has no host %q", k.Service, k.ID)
}
