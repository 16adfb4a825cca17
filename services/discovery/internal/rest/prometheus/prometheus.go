// Package prometheus tells a Prometheus server which hosts there are to scrape,
// by HTTP service discovery (http_sd_configs): a list of targets with labels,
// all of it at each call. The app serves its Handler at Path. It reads the
// registry, and keeps nothing between calls.
package prometheus

import (
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"slices"
	"strings"

	"github.com/weirproxy/weir/services/discovery/internal/registry"
	"github.com/weirproxy/weir/services/discovery/internal/rest/httpjson"
)

// Path is where Handler is to be served.
const Path = "/v2/prometheus/sd"

// Handler answers GET with the hosts that serve or drain, as groups of targets:
//
//	[{"targets":["10.0.0.1:80"],"labels":{"__meta_discovery_service":"users", …}}]
//
// With ?service= they are those of one service. With ?port= they are at their
// port of that name, and hosts without one are left out. A Prometheus keeps the
// last list when it gets anything but 200.
func Handler(hosts *registry.Registry) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.Method != http.MethodGet && r.Method != http.MethodHead {
			w.Header().Set("Allow", "GET, HEAD")
			refuse(w, http.StatusMethodNotAllowed, fmt.Errorf("method %s: not one of GET, HEAD", r.Method))
			return
		}
		wanted, err := readQuery(r.URL.RawQuery)
		if err != nil {
			refuse(w, http.StatusBadRequest, err)
			return
		}
		err = answer(w, r, hosts, wanted)
		switch {
		case errors.Is(err, registry.ErrNotLoaded):
			w.Header().Set("Retry-After", "1")
			refuse(w, http.StatusServiceUnavailable, err)
		case err != nil:
			refuse(w, http.StatusInternalServerError, err)
		}
	})
}

func refuse(w http.ResponseWriter, status int, err error) {
	httpjson.Answer(w, status, map[string]string{"error": err.Error()})
}

// query is which targets a call asks for; its fields are empty for all services
// and the main port.
type query struct{ service, port string }

// readQuery reads the query of a URL. A parameter that means nothing is refused:
// it could be a misspelt one, and the answer would be all hosts.
func readQuery(raw string) (query, error) {
	values, err := url.ParseQuery(raw)
	if err != nil {
		return query{}, fmt.Errorf("query: %w", err)
	}
	var errs []string
	for name, given := range values {
		switch {
		case name != "service" && name != "port":
			errs = append(errs, fmt.Sprintf("%s: not one of service, port", name))
		case len(given) > 1:
			errs = append(errs, fmt.Sprintf("%s: there %d times", name, len(given)))
		case given[0] == "":
			errs = append(errs, fmt.Sprintf("%s: empty", name))
		}
	}
	if len(errs) > 0 {
		slices.Sort(errs)
		return query{}, errors.New(strings.Join(errs, "; "))
	}
	return query{service: values.Get("service"), port: values.Get("port")}, nil
}

// answer answers with what is wanted. The error is registry.ErrNotLoaded or nil.
func answer(w http.ResponseWriter, r *http.Request, hosts *registry.Registry, wanted query) error {
	services, version, err := find(hosts, wanted.service)
	if err != nil {
		return err
	}
	if httpjson.Unmodified(w, r, fmt.Sprintf(`W/"%016x"`, uint64(version))) {
		return nil
	}
	body := []byte{'['}
	for _, service := range services {
		listing, err := hosts.List(service)
		if err != nil {
			return err
		}
		body = appendGroups(body, listing.Hosts, wanted.port)
	}
	body = append(body, "]\n"...)
	httpjson.Write(w, body)
	return nil
}

// find returns the services that are wanted, in order, and the version of all
// their hosts. If they change before they are listed, the version is too old,
// and the caller is sent the same list again the next time.
func find(hosts *registry.Registry, service string) (services []string, version registry.Version, err error) {
	if service != "" {
		listing, err := hosts.List(service)
		return []string{service}, listing.Version, err
	}
	summaries, err := hosts.Services()
	for i := range summaries {
		services = append(services, summaries[i].Name)
		version ^= summaries[i].Version // as that of a list is made of its hosts'
	}
	return services, version, err
}
