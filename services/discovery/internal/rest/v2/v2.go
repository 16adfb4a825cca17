// Package v2 is the JSON face of the registry: hosts register, beat and go;
// readers list them, wait for changes and follow them; operators weigh hosts,
// drain them and set them in maintenance. openapi.yaml says all of it, and a
// test holds the handlers to that file. The app serves its Handler. It checks
// and normalises all that comes in, and keeps no state but who waits.
package v2

import (
	"errors"
	"log/slog"
	"net/http"
	"slices"
	"strings"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/weirproxy/weir/services/discovery/internal/denial"
	"github.com/weirproxy/weir/services/discovery/internal/registry"
)

// Options is what the face is made of. Every field but Denials is required.
type Options struct {
	Registry *registry.Registry
	// TTL is that of a host that names none; MaxTTL is the longest that one may
	// name. Both are whole seconds.
	TTL, MaxTTL time.Duration
	// LongPollMax is how long a list may be waited for at most.
	LongPollMax time.Duration
	// MaxWaiters is how many lists are waited for and event streams open at
	// once.
	MaxWaiters int
	// Stopping is closed when no call is to wait any longer.
	Stopping <-chan struct{}
	// Denials says how what a limit or a rule refuses is answered, and counts it.
	// It may be nil.
	Denials *denial.Counters
	Log     *slog.Logger
	Metrics prometheus.Registerer
}

// face answers the calls.
type face struct {
	registry    *registry.Registry
	terms       terms
	longPollMax time.Duration
	waiters     *waiters
	stopping    <-chan struct{}
	denials     *denial.Counters
	log         *slog.Logger
}

// handler is one call: it writes a success itself and returns its status, or
// returns what is wrong, commonly a *refusal.
type handler func(w http.ResponseWriter, r *http.Request) (status int, err error)

// route is a path with the handlers of its methods. HEAD is GET's.
type route struct {
	path    string
	methods map[string]handler
}

// routes are all paths.
func (f *face) routes() []route {
	const host = "/v2/services/{service}/hosts/{id}"
	return []route{
		{"/v2/services/{service}/hosts", map[string]handler{"GET": f.list}},
		{"/v2/heartbeats", map[string]handler{"POST": f.beatMany}},
		{host + "/heartbeat", map[string]handler{"POST": f.beat}},
		{host, map[string]handler{"PUT": f.put, "GET": f.get, "DELETE": f.remove}},
		{"/v2/services", map[string]handler{"GET": f.services}},
		{"/v2/services/{service}/revisions", map[string]handler{"GET": f.revisions}},
		{"/v2/services/{service}/history", map[string]handler{"GET": f.history}},
		{"/v2/events", map[string]handler{"GET": f.events}},
		{"/v2/settings", map[string]handler{"GET": f.settings}},
		{"/v2/settings/{kind}", map[string]handler{"PUT": f.putSetting, "DELETE": f.deleteSetting}},
		{"/v2/guard", map[string]handler{"GET": f.guard}},
		{"/v2/guard/suspension", map[string]handler{"DELETE": f.liftGuard}},
		{"/v2/openapi.yaml", map[string]handler{"GET": f.openAPI}},
	}
}

// Handler returns the face's routes.
func Handler(o Options) http.Handler {
	f := newFace(o)
	requests := newRequests(o.Metrics)
	router := http.NewServeMux()
	for _, route := range f.routes() {
		router.Handle(route.path, f.dispatch(route.methods, requests.of(route.path)))
	}
	router.Handle("/", f.dispatch(nil, requests.of("other")))
	return router
}

func newFace(o Options) *face {
	return &face{
		registry:    o.Registry,
		terms:       terms{ttl: o.TTL, maxTTL: o.MaxTTL},
		longPollMax: o.LongPollMax,
		waiters:     newWaiters(o.MaxWaiters, o.Metrics),
		stopping:    o.Stopping,
		denials:     o.Denials,
		log:         o.Log,
	}
}

// dispatch answers with the method's handler; without methods, that there is
// nothing at the path.
func (f *face) dispatch(methods map[string]handler, requests routeRequests) http.Handler {
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
		var status int
		var err error
		switch {
		case methods == nil:
			err = refuse(http.StatusNotFound, "nothing is at %s", r.URL.EscapedPath())
		case handle == nil:
			w.Header().Set("Allow", allow)
			err = refuse(http.StatusMethodNotAllowed, "method %s: not one of %s", r.Method, allow)
		default:
			status, err = handle(w, r)
		}
		if err != nil {
			status = f.answerError(w, r, err)
		}
		requests.count(status)
	})
}

// answerError answers a call that was not done, and returns the status.
func (f *face) answerError(w http.ResponseWriter, r *http.Request, err error) int {
	f.denials.Note(err)
	status, retryAfter := statusOf(err)
	if denied := f.denials.Of(err); denied != nil {
		status = denied.Status
		denied.SetHeaders(w.Header())
	}
	if retryAfter != "" {
		w.Header().Set("Retry-After", retryAfter)
	}
	if status == http.StatusInternalServerError {
		f.log.Error("call not answered", "method", r.Method, "path", r.URL.Path, "error", err)
	}
	body := errorJSON{Error: err.Error()}
	if refused, ok := errors.AsType[*refusal](err); ok {
		body.Fields = refused.fields
	}
	answer(w, status, body)
	return status
}

// statusOf is the status that an error is answered with, and after how many
// seconds to try again; empty where that would not help.
func statusOf(err error) (status int, retryAfter string) {
	if refused, ok := errors.AsType[*refusal](err); ok {
		return refused.status, refused.retryAfter
	}
	switch {
	case errors.Is(err, registry.ErrNotLoaded):
		return http.StatusServiceUnavailable, "1"
	case errors.Is(err, registry.ErrTagsTooLarge):
		return http.StatusBadRequest, ""
	case errors.Is(err, registry.ErrServiceFull), errors.Is(err, registry.ErrTooManyServices),
		errors.Is(err, registry.ErrTooManySettings):
		return http.StatusTooManyRequests, "10"
	default:
		return http.StatusInternalServerError, ""
	}
}
