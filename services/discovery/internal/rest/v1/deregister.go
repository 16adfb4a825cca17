package v1

import (
	"fmt"
	"net/http"
	"net/url"

	"github.com/weirproxy/weir/services/discovery/internal/auth"
	"github.com/weirproxy/weir/services/discovery/internal/registry"
	"github.com/weirproxy/weir/services/discovery/internal/rest/rule"
)

// deregister takes the hosts at an address out of a service; with ?port= only
// those that listen there.
func (f *face) deregister(w http.ResponseWriter, r *http.Request) error {
	selected, err := selection(r)
	if err != nil {
		return err
	}
	caller := auth.FromContext(r.Context())
	if err := caller.MayRegister(selected.Service); err != nil {
		return err
	}
	if err := caller.MayRegisterAddress(selected.IP); err != nil {
		return err
	}
	removed, err := f.registry.Remove(selected, caller.Actor())
	if err != nil {
		return err
	}
	if removed == 0 {
		return &refusal{http.StatusBadRequest, noHost(selected)}
	}
	done(w)
	return nil
}

// selection reads which hosts a call is about from its path and query. Two
// routes share one shape: after the service "repo" an address stands in the
// place of a repository's name.
func selection(r *http.Request) (registry.Selection, error) {
	service, ip := r.PathValue("service"), r.PathValue("ip")
	if repo := r.PathValue("repo"); repo != "" {
		service, ip = "repo", repo
	}
	var f faults
	selected := registry.Selection{Service: service}
	if ip != "" {
		var err error
		if selected.IP, err = rule.Address(ip); err != nil {
			f.add("ip: %v", err)
		}
	}
	// What cannot be read could be the port that keeps the other hosts.
	query, err := url.ParseQuery(r.URL.RawQuery)
	if err != nil {
		f.add("query: %v", err)
	}
	switch ports := query["port"]; len(ports) {
	case 0:
	case 1:
		selected.Port = readPort(ports[0], &f)
	default:
		f.add("port: there %d times", len(ports))
	}
	return selected, f.refusal()
}

func noHost(s registry.Selection) string {
	if s.Port != 0 {
		return fmt.Sprintf("service %q has no host at %s, port %d", s.Service, s.IP, s.Port)
	}
	return fmt.Sprintf("service %q has no host at %s", s.Service, s.IP)
}
