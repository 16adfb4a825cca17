package v1

import (
	"fmt"
	"net/http"

	"github.com/weirproxy/weir/services/discovery/internal/auth"
)

// weigh sets the weight of the hosts at an address, with ?port= only of those
// that listen there, or of all hosts of a service, be there any or not.
func (f *face) weigh(w http.ResponseWriter, r *http.Request) error {
	selected, err := selection(r)
	if err != nil {
		return err
	}
	caller := auth.FromContext(r.Context())
	if err := caller.MayRegister(selected.Service); err != nil {
		return err
	}
	form, err := readForm(w, r)
	if err != nil {
		return err
	}
	text := form.weight.value
	if text == "" {
		return &refusal{http.StatusBadRequest, tagWeight + ": missing"}
	}
	weight, err := readWeight(text)
	if err != nil {
		return &refusal{http.StatusBadRequest, fmt.Sprintf("%s: %v", tagWeight, err)}
	}
	found, err := f.registry.SetWeight(selected, weight, caller.Actor())
	if err != nil {
		return err
	}
	if found == 0 && selected.IP.IsValid() {
		return &refusal{http.StatusNotFound, noHost(selected)}
	}
	w.WriteHeader(http.StatusNoContent)
	return nil
}
