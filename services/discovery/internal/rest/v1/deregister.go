package v1

import (
	"fmt"
	"net/http"

	"github.com/weirproxy/weir/services/discovery/internal/auth"
	"github.com/weirproxy/weir/services/discovery/internal/registry"
	"github.com/weirproxy/weir/services/discovery/internal/rest/call"
	"github.com/weirproxy/weir/services/discovery/internal/rule"
)

// deregister takes the hosts at an address out of a service; with ?port= only
// those that listen there.
func (f *face) deregister(w http.ResponseWriter, r *http.Request) (int, error) {
	selected, caller, err := registering(r)
	if err != nil {
		return 0, err
	}
	removed, err := f.registry.Remove(selected, caller.Actor())
	if err != nil {
		return 0, err
	}
	if removed == 0 {
		return 0, call.Refuse(http.StatusBadRequest, "%s", noHost(selected))
	}
	return done(w)
}

// registering reads which hosts a call is about, and that its caller may register
// them: any of the service, where it names no address.
func registering(r *http.Request) (registry.Selection, *auth.Caller, error) {
	selected, err := selection(r)
	if err != nil {
		return selected, nil, err
	}
	caller := auth.FromContext(r.Context())
	err = caller.MayRegister(selected.Service)
	if err == nil && selected.IP.IsValid() {
		err = caller.MayRegisterAddress(selected.IP)
	}
	return selected, caller, err
}

// selection reads which hosts a call is about from its path and query. Two
// routes share one shape: after the service "repo" an address stands in the
// place of a repository's name.
func selection(r *http.Request) (registry.Selection, error) {
	service, ip := r.PathValue("service"), r.PathValue("ip")
	if repo := r.PathValue("repo"); repo != "" {
		service, ip = "repo", repo
	}
	query := call.ReadQuery(r)
	if err := rule.Name(service); err != nil {
		query.Faults.Add("service", "%v", err)
	}
	selected := registry.Selection{Service: service}
	if ip != "" {
		var err error
		if selected.IP, err = rule.Address(ip); err != nil {
			query.Faults.Add("ip", "%v", err)
		}
	}
	// What cannot be read could be the port that keeps the other hosts.
	if port, given := query.Text("port"); given {
		selected.Port = readPort(&field{value: port}, &query.Faults)
	}
	return selected, query.Faults.Line()
}

func noHost(s registry.Selection) string {
	if s.Port != 0 {
		return fmt.Sprintf("service %q has no host at %s, port %d", s.Service, s.IP, s.Port)
	}
	return fmt.Sprintf("service %q has no host at %s", s.Service, s.IP)
}
