package v1

import (
	"net/http"

	"github.com/weirproxy/weir/services/discovery/internal/httpjson"
	"github.com/weirproxy/weir/services/discovery/internal/rest/call"
)

// weigh sets the weight of the hosts at an address, with ?port= only of those
// that listen there, or of all hosts of a service, be there any or not. At an
// address it takes who may register there; for a service its rule is enough. What
// is wrong with the weight, and that there is no host, is told in the peer's words,
// which callers may look for.
func (f *face) weigh(w http.ResponseWriter, r *http.Request) (int, error) {
	selected, caller, err := registering(r)
	if err != nil {
		return 0, err
	}
	form, err := readForm(w, r)
	if err != nil {
		return 0, err
	}
	if err := form.faults.Line(); err != nil {
		return 0, err
	}
	if form.weight.value == "" {
		return 0, call.Refuse(http.StatusBadRequest, "Required parameter 'weight' is missing.")
	}
	weight, err := readWeight(form.weight.value)
	if err != nil {
		return 0, call.Refuse(http.StatusBadRequest, "Invalid load_balancing_weight. Supply an integer between 1 and 100.")
	}
	found, err := f.registry.SetWeight(selected, weight, caller.Actor())
	if err != nil {
		return 0, err
	}
	if found == 0 && selected.IP.IsValid() {
		return 0, call.Refuse(http.StatusNotFound, "Host not found")
	}
	return httpjson.Nothing(w)
}
