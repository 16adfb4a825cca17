// Package v1 is the first REST face of the registry: hosts register and beat
// with one form-encoded call, and anyone lists, deregisters and weighs them.
// The app serves its Handler; Envoys of the legacy SDS poll the list. It checks
// and normalises all that comes in, so that no host can spoil a list for the
// others, and it keeps no state.
package v1

import (
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"net/netip"
	"slices"
	"strings"
	"time"

	"github.com/cespare/xxhash/v2"
	"github.com/prometheus/client_golang/prometheus"

	"github.com/weirproxy/weir/services/discovery/internal/denial"
	"github.com/weirproxy/weir/services/discovery/internal/registry"
	"github.com/weirproxy/weir/services/discovery/internal/rest/httpjson"
)

// Options is what the face is made of. Every field but Registration and
// Denials is required.
type Options struct {
	Registry *registry.Registry
	// Env is what lists say as their env.
	Env string
	// TTL is that of a host that names none; MaxTTL is the longest that one may
	// name. Both are whole seconds.
	TTL, MaxTTL time.Duration
	// AutoIPHops is how many proxies of one's own stand in front: auto_ip is the
	// address that many from the end of X-Forwarded-For; with 0 it is that of
	// the connection. AutoIPRanges is where it must lie.
	AutoIPHops   int
	AutoIPRanges []netip.Prefix
	// Registration, unless nil, is told of each call by which a host of a
	// service registers or beats, and whether it was taken.
	Registration func(service string, taken bool)
	Log          *slog.Logger
	Metrics      prometheus.Registerer
	// Denials says how what a limit or a rule refuses is answered, and counts it.
	// It may be nil.
	Denials *denial.Counters
}

// face answers the calls.
type face struct {
	registry *registry.Registry
	env      string
	envHash  uint64
	terms    terms
	told     func(service string, taken bool)
	log      *slog.Logger
	denials  *denial.Counters
}

// handler is one call: it writes a success itself, and returns what is wrong
// otherwise, commonly a *refusal.
type handler func(w http.ResponseWriter, r *http.Request) error

// Handler returns the face's routes.
func Handler(o Options) http.Handler {
	f := &face{
		registry: o.Registry,
		env:      o.Env,
		envHash:  xxhash.Sum64String(o.Env),
		terms:    terms{ttl: o.TTL, maxTTL: o.MaxTTL, autoIP: autoIP{hops: o.AutoIPHops, ranges: o.AutoIPRanges}},
		told:     o.Registration,
		log:      o.Log,
		denials:  o.Denials,
	}
	if f.told == nil {
		f.told = func(string, bool) {}
	}
	requests := newRequests(o.Metrics)
	router := http.NewServeMux()
	route := func(path string, methods map[string]handler) {
		router.Handle(path, f.dispatch(methods, requests.of(path)))
	}
	route("/healthcheck", map[string]handler{"GET": f.healthcheck})
	route("/v1/registration/{service}", map[string]handler{"GET": f.list, "POST": f.checkIn})
	route("/v1/registration/{service}/{ip}", map[string]handler{"DELETE": f.deregister})
	// Hides the route above for the service "repo", and so takes its part too.
	route("/v1/registration/repo/{repo}", map[string]handler{"GET": f.listRepo, "DELETE": f.deregister})
	route("/v1/loadbalancing/{service}", map[string]handler{"POST": f.weigh})
	route("/v1/loadbalancing/{service}/{ip}", map[string]handler{"POST": f.weigh})
	router.Handle("/", f.dispatch(nil, requests.of("other")))
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
		status := f.statusOf(err)
		counters.count(status)
		if err != nil {
			f.refuse(w, r, status, err)
		}
	})
}

// refuse answers a call that was not done.
func (f *face) refuse(w http.ResponseWriter, r *http.Request, status int, err error) {
	f.denials.Note(err)
	if denied := f.denials.Of(err); denied != nil {
		denied.SetHeaders(w.Header())
	}
	if status == http.StatusServiceUnavailable {
		w.Header().Set("Retry-After", "1")
	}
	if status >= http.StatusInternalServerError && !errors.Is(err, registry.ErrNotLoaded) {
		f.log.Error("call not answered", "method", r.Method, "path", r.URL.Path, "error", err)
	}
	httpjson.Answer(w, status, map[string]string{"error": err.Error()})
}

// statusOf is the status that an error is answered with; 200 for none, which
// stands for what the handler wrote.
func (f *face) statusOf(err error) int {
	var refused *refusal
	denied := f.denials.Of(err)
	switch {
	case err == nil:
		return http.StatusOK
	case denied != nil:
		return denied.Status
	case errors.As(err, &refused):
		return refused.status
	case errors.Is(err, registry.ErrNotLoaded):
		return http.StatusServiceUnavailable
	case errors.Is(err, registry.ErrTagsTooLarge):
		return http.StatusBadRequest
	case errors.Is(err, registry.ErrServiceFull), errors.Is(err, registry.ErrTooManyServices):
		return http.StatusTooManyRequests
	default:
		return http.StatusInternalServerError
	}
}

// healthcheck says that the process lives; it asks nothing of the registry.
func (f *face) healthcheck(w http.ResponseWriter, _ *http.Request) error {
	w.Header().Set("Content-Type", "text/plain; charset=utf-8")
	fmt.Fprint(w, "OK")
	return nil
}
