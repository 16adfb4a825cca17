// Package prometheus tells a Prometheus server which hosts there are to scrape,
// by HTTP service discovery (http_sd_configs): a list of targets with labels,
// all of it at each call. The app serves its Routes. It reads the registry,
// and keeps nothing between calls.
package prometheus

import (
	"errors"
	"net/http"

	"github.com/weirproxy/weir/services/discovery/internal/httpjson"
	"github.com/weirproxy/weir/services/discovery/internal/registry"
	"github.com/weirproxy/weir/services/discovery/internal/rest/call"
)

// Routes answer GET with the hosts that serve or drain, as groups of targets:
//
//	[{"targets":["10.0.0.1:80"],"labels":{"__meta_discovery_service":"users", …}}]
//
// With ?service= they are those of one service. With ?port= they are at their
// port of that name, and hosts without one are left out. A Prometheus keeps the
// last list when it gets anything but 200.
func Routes(hosts *registry.Registry) []call.Route {
	list := func(w http.ResponseWriter, r *http.Request) (int, error) {
		wanted, err := readQuery(r)
		if err != nil {
			return 0, err
		}
		return answer(w, r, hosts, wanted)
	}
	return []call.Route{{Path: "/v2/prometheus/sd", Methods: map[string]call.Handler{"GET": list}}}
}

// query is which targets a call asks for; its fields are empty for all services
// and the main port.
type query struct{ service, port string }

// readQuery reads the query of a call. A parameter that means nothing is refused:
// it could be a misspelt one, and the answer would be all hosts.
func readQuery(r *http.Request) (wanted query, err error) {
	q := call.ReadQuery(r)
	wanted.service, _ = q.Checked("service", notEmpty)
	wanted.port, _ = q.Checked("port", notEmpty)
	return wanted, q.End()
}

func notEmpty(text string) error {
	if text == "" {
		return errors.New("empty")
	}
	return nil
}

// answer answers with what is wanted. The error is registry.ErrNotLoaded,
// registry.ErrNotWarm or nil.
func answer(w http.ResponseWriter, r *http.Request, hosts *registry.Registry, wanted query) (int, error) {
	services, all, err := find(hosts, wanted.service)
	if err != nil {
		return 0, err
	}
	if !all.Partial && httpjson.Unmodified(w, r, httpjson.Tag(uint64(all.Version))) {
		return http.StatusNotModified, nil
	}
	body := []byte{'['}
	var room []registry.View // of all in turn
	for _, service := range services {
		listing, err := hosts.ListInto(room, service)
		if err != nil {
			return 0, err
		}
		if cap(listing.Hosts) > cap(room) {
			room = listing.Hosts
		}
		body = appendGroups(body, listing.Hosts, wanted.port)
	}
	if err := all.Safe(len(body) == 1, httpjson.Holds(r)); err != nil {
		return 0, err
	}
	return httpjson.Write(w, append(body, "]\n"...))
}

// find returns the services that are wanted, in order, and all but the hosts of
// a list of them all. If they change before they are listed, the version is too
// old, and the caller is sent the same list again the next time.
func find(hosts *registry.Registry, service string) (services []string, all registry.Listing, err error) {
	if service != "" {
		all, err = hosts.List(service)
		return []string{service}, all, err
	}
	all.Partial = hosts.Partial()
	summaries, err := hosts.Services()
	for i := range summaries {
		services = append(services, summaries[i].Name)
		all.Version ^= summaries[i].Version // as that of a list is made of its hosts'
	}
	return services, all, err
}
