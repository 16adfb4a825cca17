package v1

import (
	"encoding/json"
	"net/http"

	"github.com/weirproxy/weir/services/discovery/internal/registry"
)

// host is one host as lists show it. The legacy SDS wants ip_address, port as
// an integer, and in tags az as text, canary as a boolean and the weight as an
// integer of 1 to 100; one host that breaks this spoils the whole list for it.
type host struct {
	Service     string                     `json:"service"`
	IPAddress   string                     `json:"ip_address"`
	Repo        string                     `json:"service_repo_name"`
	Port        uint16                     `json:"port"`
	Revision    string                     `json:"revision"`
	LastCheckIn string                     `json:"last_check_in"`
	Tags        map[string]json.RawMessage `json:"tags"`
}

// timeForm is how last_check_in is written: UTC, to the microsecond.
const timeForm = "2006-01-02 15:04:05.000000+00:00"

// list answers with the hosts of a service. An unknown service is no error: a
// reader cannot tell it from one without hosts.
func (f *face) list(w http.ResponseWriter, r *http.Request) error {
	service, err := pathName(r, "service")
	if err != nil {
		return err
	}
	records, _, err := f.registry.List(service)
	if err != nil {
		return err
	}
	answer(w, http.StatusOK, struct {
		Service string `json:"service"`
		Env     string `json:"env"`
		Hosts   []host `json:"hosts"`
	}{service, f.env, hosts(records)})
	return nil
}

// listRepo answers with the hosts of a repository.
func (f *face) listRepo(w http.ResponseWriter, r *http.Request) error {
	repo, err := pathName(r, "repo")
	if err != nil {
		return err
	}
	records, err := f.registry.ListRepo(repo)
	if err != nil {
		return err
	}
	answer(w, http.StatusOK, struct {
		Repo  string `json:"service_repo_name"`
		Env   string `json:"env"`
		Hosts []host `json:"hosts"`
	}{repo, f.env, hosts(records)})
	return nil
}

// hosts never returns nil, which would be null in JSON.
func hosts(records []registry.Record) []host {
	shown := make([]host, len(records))
	for i, r := range records {
		shown[i] = host{
			Service:     r.Host.Service,
			IPAddress:   r.Host.Address.Addr().String(),
			Repo:        r.Host.Repo,
			Port:        r.Host.Address.Port(),
			Revision:    r.Host.Revision,
			LastCheckIn: r.LastCheckIn.UTC().Format(timeForm),
			Tags:        showTags(&r.Host.Tags),
		}
	}
	return shown
}
