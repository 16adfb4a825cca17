// Package call is what the REST faces do with a call alike: it leads it to the
// handler of its path and method, reads its query and its body, and answers and
// counts what is refused, be it by a face, a rule or a limit. The faces give it
// their Routes, and the app serves the Router of all. Of the registry it knows
// the errors alone, to which it has an answer each; it asks it nothing.
package call

import (
	"errors"
	"log/slog"
	"maps"
	"net/http"
	"path"
	"slices"
	"strings"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/weirproxy/weir/services/discovery/internal/denial"
	"github.com/weirproxy/weir/services/discovery/internal/httpjson"
	"github.com/weirproxy/weir/services/discovery/internal/registry"
)

// Handler is one call: it writes a success itself and returns its status, or
// returns what is wrong, commonly a *Refusal or a *denial.Error.
type Handler func(w http.ResponseWriter, r *http.Request) (status int, err error)

// Route is a path, as http.ServeMux writes it, with the handlers of its methods.
// HEAD is GET's.
type Route struct {
	Path    string
	Methods map[string]Handler
}

// Options is what a router is made of. Every field is required.
type Options struct {
	Log     *slog.Logger
	Metrics prometheus.Registerer
	// Denials says how what a limit refuses is answered, and counts it.
	Denials *denial.Counters
}

// router answers what the handlers do not.
type router struct {
	log     *slog.Logger
	denials *denial.Counters
}

// NewRouter serves routes. Other paths are answered with 404, other methods of the
// same paths with 405, and paths with empty segments, "." or ".." with 307 to the
// straight one. What is of no path, as CONNECT and OPTIONS * are, is 405 too.
func NewRouter(o Options, routes ...Route) http.Handler {
	t := &router{o.Log, o.Denials}
	requests := newRequests(o.Metrics)
	mux := http.NewServeMux()
	for _, route := range routes {
		mux.Handle(route.Path, t.lead(route.byMethod(), requests.of(route.Path)))
	}
	other := requests.of("other")
	mux.Handle("/", t.lead(nowhere, other))
	return straight(mux, t.lead(redirect, other), t.lead(pathless(routes), other))
}

// straight leads a path that goes round about to redirect, before the mux does,
// which escapes once more what is escaped and so names something else; and a call of
// no path to pathless, which the mux would answer in words of its own.
func straight(mux, redirect, pathless http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		escaped := r.URL.EscapedPath()
		switch {
		case strings.HasPrefix(escaped, "/") && escaped != straightPath(escaped):
			redirect.ServeHTTP(w, r)
		case escaped == "*" || escaped == "" && r.Method == "CONNECT":
			pathless.ServeHTTP(w, r)
		default:
			mux.ServeHTTP(w, r)
		}
	})
}

// pathless is the handler of calls that are of no path, but of a server to be reached
// (CONNECT) or of this one as a whole (*), as RFC 9112 §3.2 has them. Allow names what
// any route has.
func pathless(routes []Route) Handler {
	all := map[string]Handler{}
	for _, route := range routes {
		maps.Copy(all, route.Methods)
	}
	allow := allowed(all)
	return func(w http.ResponseWriter, r *http.Request) (int, error) {
		w.Header().Set("Allow", allow)
		return 0, Refuse(http.StatusMethodNotAllowed, "method %s: not one of %s, of a path", r.Method, allow)
	}
}

// redirect answers with the straight path, escaped as the call's was.
func redirect(w http.ResponseWriter, r *http.Request) (int, error) {
	location := straightPath(r.URL.EscapedPath())
	if r.URL.RawQuery != "" {
		location += "?" + r.URL.RawQuery
	}
	w.Header().Set("Location", location)
	w.WriteHeader(http.StatusTemporaryRedirect)
	return http.StatusTemporaryRedirect, nil
}

// straightPath is an escaped path without empty segments, "." and "..". A slash at
// its end stays.
func straightPath(escaped string) string {
	clean := path.Clean(escaped)
	if strings.HasSuffix(escaped, "/") && clean != "/" {
		clean += "/"
	}
	return clean
}

// lead answers with a handler, and counts the call.
func (t *router) lead(handle Handler, requests routeRequests) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		status, err := handle(w, r)
		if err != nil {
			status = t.refuse(w, r, err)
		}
		requests.count(status)
	})
}

// byMethod is the handler of all methods.
func (route Route) byMethod() Handler {
	methods := route.Methods
	allow := allowed(methods)
	return func(w http.ResponseWriter, r *http.Request) (int, error) {
		handle := methods[r.Method]
		if r.Method == "HEAD" {
			handle = methods["GET"]
		}
		if handle == nil {
			w.Header().Set("Allow", allow)
			return 0, Refuse(http.StatusMethodNotAllowed, "method %s: not one of %s", r.Method, allow)
		}
		return handle(w, r)
	}
}

// allowed is the value of Allow for methods.
func allowed(methods map[string]Handler) string {
	names := slices.Collect(maps.Keys(methods))
	if methods["GET"] != nil {
		names = append(names, "HEAD")
	}
	slices.Sort(names)
	return strings.Join(names, ", ")
}

// nowhere is the handler of a path that no route has.
func nowhere(_ http.ResponseWriter, r *http.Request) (int, error) {
	return 0, Refuse(http.StatusNotFound, "nothing is at %s", r.URL.EscapedPath())
}

// refuse answers a call that was not done, and returns the status.
func (t *router) refuse(w http.ResponseWriter, r *http.Request, err error) int {
	t.denials.Note(err)
	refused, isRefusal := errors.AsType[*Refusal](err)
	denied := t.denials.Of(err)
	status := http.StatusInternalServerError
	switch {
	case denied != nil:
		status = denied.Status
		denied.SetHeaders(w.Header())
	case isRefusal:
		status = refused.Status
		denial.SetRetryAfter(w.Header(), refused.RetryAfter)
	case errors.Is(err, registry.ErrNotLoaded), errors.Is(err, registry.ErrNotWarm), errors.Is(err, registry.ErrUnheard):
		status = http.StatusServiceUnavailable
		denial.SetRetryAfter(w.Header(), time.Second)
	default:
		t.log.Error("call not answered", "method", r.Method, "path", r.URL.Path, "error", err)
	}
	body := struct {
		Error  string `json:"error"`
		Fields Faults `json:"fields,omitempty"`
	}{Error: err.Error()}
	if isRefusal {
		body.Fields = refused.Fields
	}
	_, _ = httpjson.Answer(w, status, body)
	return status
}

// ErrTooManyWaiters is the answer to a call that would wait, where as many wait as may.
var ErrTooManyWaiters = errors.New("too many calls wait for changes already")

// Limits are the answers to what goes beyond the registry's limits, that of a body
// and that of calls that wait.
func Limits() []denial.Limit {
	return []denial.Limit{
		{Err: registry.ErrServiceFull, Reason: denial.Hosts, Status: http.StatusTooManyRequests, RetryAfter: 10 * time.Second},
		{Err: registry.ErrTooManyServices, Reason: denial.Services, Status: http.StatusTooManyRequests, RetryAfter: 10 * time.Second},
		{Err: registry.ErrTagsTooLarge, Reason: denial.Tags, Status: http.StatusBadRequest},
		{Err: errBodyTooLong, Reason: denial.Body, Status: http.StatusRequestEntityTooLarge},
		{Err: ErrTooManyWaiters, Reason: denial.Waiters, Status: http.StatusTooManyRequests, RetryAfter: 10 * time.Second},
		{Err: registry.ErrTooManySettings, Reason: denial.Settings, Status: http.StatusTooManyRequests, RetryAfter: 10 * time.Second},
	}
}
