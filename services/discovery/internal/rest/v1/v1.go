// Package v1 is the first REST face of the registry: hosts register and beat
// with one form-encoded call, and anyone lists, deregisters and weighs them.
// The app serves its Handler; Envoys of the legacy SDS poll the list. It checks
// and normalises all that comes in, so that no host can spoil a list for the
// others, and it keeps no state.
package v1

import (
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"net/netip"
	"net/url"
	"slices"
	"strings"
	"time"

	"github.com/gorilla/mux"
	"github.com/prometheus/client_golang/prometheus"

	"github.com/weirproxy/weir/services/discovery/internal/registry"
)

// Options is what the face is made of. Every field is required.
type Options struct {
	Registry *registry.Registry
	// Env is what lists say as their env.
	Env string
	// TTL is that of a host that names none; MaxTTL is the longest that one may
	// name. Both are whole seconds.
	TTL, MaxTTL time.Duration
	// AutoIPRanges is where an address taken from X-Forwarded-For must lie.
	AutoIPRanges []netip.Prefix
	Log          *slog.Logger
	Metrics      prometheus.Registerer
}

// face answers the calls.
type face struct {
	registry *registry.Registry
	env      string
	terms    terms
	log      *slog.Logger
}

// handler is one call: it writes a success itself, and returns what is wrong
// otherwise, commonly a *refusal.
type handler func(w http.ResponseWriter, r *http.Request) error

// Handler returns the face's routes.
func Handler(o Options) http.Handler {
	f := &face{
		registry: o.Registry,
		env:      o.Env,
		terms:    terms{ttl: o.TTL, maxTTL: o.MaxTTL, autoIPRanges: o.AutoIPRanges},
		log:      o.Log,
	}
	requests := newRequests(o.Metrics)
	// The path is matched as it came, so that a name may hold an escaped slash.
	router := mux.NewRouter().UseEncodedPath().SkipClean(true)
	route := func(path string, methods map[string]handler) {
		router.Handle(path, f.dispatch(methods, requests.of(path)))
	}
	route("/healthcheck", map[string]handler{"GET": f.healthcheck})
	// Before the route below, which it hides for the service "repo".
	route("/v1/registration/repo/{repo}", map[string]handler{"GET": f.listRepo, "DELETE": f.deregister})
	route("/v1/registration/{service}", map[string]handler{"GET": f.list, "POST": f.checkIn})
	route("/v1/registration/{service}/{ip}", map[string]handler{"DELETE": f.deregister})
	route("/v1/loadbalancing/{service}", map[string]handler{"POST": f.weigh})
	route("/v1/loadbalancing/{service}/{ip}", map[string]handler{"POST": f.weigh})
	router.NotFoundHandler = f.dispatch(nil, requests.of("other"))
	return router
}

// refusal is an answer to a call that is the caller's to mend, or to repeat.
type refusal struct {
	status int
	reason string
}

func (r *refusal) Error() string { return r.reason }

// dispatch answers with the method's handler; without methods, that there is
// nothing at the path.
func (f *face) dispatch(methods map[string]handler, counters requestCounters) http.Handler {
	var allowed []string
	for method := range methods {
		allowed = append(allowed, method)
		if method == "GET" {
			allowed = append(allowed, "HEAD")
		}
	}
	slices.Sort(allowed)
	allow := strings.Join(allowed, ", ")
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		handle := methods[r.Method]
		if r.Method == "HEAD" {
			handle = methods["GET"]
		}
		var err error
		switch {
		case methods == nil:
			err = &refusal{http.StatusNotFound, fmt.Sprintf("nothing is at %s", r.URL.EscapedPath())}
		case handle == nil:
			w.Header().Set("Allow", allow)
			err = &refusal{http.StatusMethodNotAllowed, fmt.Sprintf("method %s: not one of %s", r.Method, allow)}
		default:
			err = handle(w, r)
		}
		counters.count(err)
		if err != nil {
			f.refuse(w, r, err)
		}
	})
}

// refuse answers a call that was not done.
func (f *face) refuse(w http.ResponseWriter, r *http.Request, err error) {
	status := statusOf(err)
	if status == http.StatusServiceUnavailable {
		w.Header().Set("Retry-After", "1")
	}
	if status >= http.StatusInternalServerError && !errors.Is(err, registry.ErrNotLoaded) {
		f.log.Error("call not answered", "method", r.Method, "path", r.URL.Path, "error", err)
	}
	answer(w, status, map[string]string{"error": err.Error()})
}

// statusOf is the status that an error is answered with.
func statusOf(err error) int {
	var refused *refusal
	switch {
	case errors.As(err, &refused):
		return refused.status
	case errors.Is(err, registry.ErrNotLoaded):
		return http.StatusServiceUnavailable
	case errors.Is(err, registry.ErrTagsTooLarge):
		return http.StatusBadRequest
	case errors.Is(err, registry.ErrServiceFull), errors.Is(err, registry.ErrTooManyServices):
		return http.StatusForbidden
	default:
		return http.StatusInternalServerError
	}
}

// answer writes v as JSON.
func answer(w http.ResponseWriter, status int, v any) {
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(status)
	_ = json.NewEncoder(w).Encode(v) // a failed write means that the caller has gone
}

// healthcheck says that the process lives; it asks nothing of the registry.
func (f *face) healthcheck(w http.ResponseWriter, _ *http.Request) error {
	w.Header().Set("Content-Type", "text/plain; charset=utf-8")
	fmt.Fprint(w, "OK")
	return nil
}

// pathName returns an escaped segment of the path as the name that it stands
// for, or nothing if the route has no such segment.
func pathName(r *http.Request, segment string) (string, error) {
	name, err := url.PathUnescape(mux.Vars(r)[segment])
	if err != nil {
		return "", &refusal{http.StatusBadRequest, fmt.Sprintf("%s in the path: %v", segment, err)}
	}
	return name, nil
}

// pathService returns the service that a call about hosts names. Two routes
// share one shape: after the service "repo" an address stands in the place of
// a repository's name.
func pathService(r *http.Request) (string, error) {
	if _, ok := mux.Vars(r)["repo"]; ok {
		return "repo", nil
	}
	return pathName(r, "service")
}

// pathIP returns the address that a call about hosts names, or nothing where
// its route has none.
func pathIP(r *http.Request) (string, error) {
	if _, ok := mux.Vars(r)["repo"]; ok {
		return pathName(r, "repo")
	}
	return pathName(r, "ip")
}
