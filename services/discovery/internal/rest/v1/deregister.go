package v1

import (
	"fmt"
	"net/http"

	"github.com/weirproxy/weir/services/discovery/internal/registry"
)

// deregister takes the hosts at an address out of a service; with ?port= only
// those that listen there.
func (f *face) deregister(w http.ResponseWriter, r *http.Request) error {
	selected, err := selection(r)
	if err != nil {
		return err
	}
	removed, err := f.registry.Remove(selected, r.RemoteAddr)
	if err != nil {
		return err
	}
	if removed == 0 {
		return &refusal{http.StatusBadRequest, noHost(selected)}
	}
	answer(w, http.StatusOK, struct{}{})
	return nil
}

// selection reads which hosts a call is about from its path and query.
func selection(r *http.Request) (registry.Selection, error) {
	service, err := pathService(r)
	if err != nil {
		return registry.Selection{}, err
	}
	var f faults
	selected := registry.Selection{Service: service}
	ip, err := pathIP(r)
	if err != nil {
		return selected, err
	}
	if ip != "" {
		if selected.IP, err = readAddress(ip); err != nil {
			f.add("ip: %v", err)
		}
	}
	if query := r.URL.Query(); query.Has("port") {
		selected.Port = readPort(query.Get("port"), &f)
	}
	return selected, f.refusal()
}

func noHost(s registry.Selection) string {
	if s.Port != 0 {
		return fmt.Sprintf("service %q has no host at %s, port %d", s.Service, s.IP, s.Port)
	}
	return fmt.Sprintf("service %q has no host at %s", s.Service, s.IP)
}
