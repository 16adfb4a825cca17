package v1

import (
	"net/http"

	"github.com/weirproxy/weir/services/discovery/internal/auth"
	"github.com/weirproxy/weir/services/discovery/internal/httpjson"
	"github.com/weirproxy/weir/services/discovery/internal/rest/call"
)

// weigh sets the weight of the hosts at an address, with ?port= only of those
// that listen there, or of all hosts of a service, be there any or not. At an
// address it takes who may register there; for a service its rule is enough.
func (f *face) weigh(w http.ResponseWriter, r *http.Request) (int, error) {
	selected, err := selection(r)
	if err != nil {
		return 0, err
	}
	caller := auth.FromContext(r.Context())
	if err := caller.MayRegister(selected.Service); err != nil {
		return 0, err
	}
	if selected.IP.IsValid() {
		if err := caller.MayRegisterAddress(selected.IP); err != nil {
			return 0, err
		}
	}
	form, err := readForm(w, r)
	if err != nil {
		return 0, err
	}
	text := form.weight.value
	if text == "" {
		return 0, call.Refuse(http.StatusBadRequest, "%s: missing", tagWeight)
	}
	weight, err := readWeight(text)
	if err != nil {
		return 0, call.Refuse(http.StatusBadRequest, "%s: %v", tagWeight, err)
	}
	found, err := f.registry.SetWeight(selected, weight, caller.Actor())
	if err != nil {
		return 0, err
	}
	if found == 0 && selected.IP.IsValid() {
		return 0, call.Refuse(http.StatusNotFound, "%s", noHost(selected))
	}
	return httpjson.Nothing(w)
}
