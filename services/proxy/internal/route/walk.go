package route

import (
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/weirproxy/weir/services/proxy/internal/descriptor"
	"github.com/weirproxy/weir/services/proxy/internal/format"
	"github.com/weirproxy/weir/services/proxy/internal/grpcwire"
	"github.com/weirproxy/weir/services/proxy/internal/layeredruntime"
	"github.com/weirproxy/weir/services/proxy/internal/message"
)

// Walk is how a request finds its route, for people to read.
type Walk struct {
	// Domain is the domain by which the virtual host was found, and VirtualHost
	// the name of that; both are empty if there is none.
	Domain, VirtualHost string
	// ToTLS says that the virtual host sends the request to https first.
	ToTLS bool
	// Steps are the routes that the request was held to, the chosen one last.
	Steps []Step
	// Weights are the clusters of the chosen route with their weights, if it
	// has several.
	Weights []string
	// Route is what Match returns.
	Route *Route
}

// Step is one route that a request was held to.
type Step struct {
	// Name is the route's, and may be empty.
	Name string
	// Wants are its conditions in words.
	Wants []string
	// Unmet is the first of them that does not hold; empty if all do.
	Unmet string
}

// Walk does what Match does, by the plain list of routes, and tells how.
func (t *Table) Walk(in Input) Walk {
	var w Walk
	found := t.domains.find(in.Request.Authority)
	if found == nil {
		return w
	}
	w.Domain, w.VirtualHost = found.name, found.host.name
	if len(in.Request.Path) == 0 { // of a CONNECT
		return w
	}
	if found.host.wantsTLS(in.Request) {
		w.ToTLS, w.Route = true, &toTLS
		return w
	}
	q := newQuery(in)
	for i := range found.host.entries {
		e := &found.host.entries[i]
		step := Step{Name: e.route.Name, Wants: []string{e.path.String()}}
		for _, c := range e.conditions {
			step.Wants = append(step.Wants, c.String())
		}
		unmet := e.unmet(q)
		if unmet != nil {
			step.Unmet = unmet.String()
		}
		w.Steps = append(w.Steps, step)
		if unmet == nil {
			w.Weights, w.Route = e.weights.list(in.Runtime), e.choose(in)
			break
		}
	}
	return w
}

// list is the clusters with their weights by the values; nil has none.
func (w *weights) list(values *layeredruntime.Snapshot) []string {
	if w == nil {
		return nil
	}
	var list []string
	_, values = w.present(values)
	for i := range w.choices {
		c := &w.choices[i]
		list = append(list, fmt.Sprintf("%s %d", c.route.destination(), c.weight(values)))
	}
	return list
}

// destination is what names the cluster.
func (r *Route) destination() string {
	if r.clusterHeader != "" {
		return "that of header " + r.clusterHeader
	}
	return r.Cluster
}

// Explain writes the walk of a request, and what becomes of it, a line for each
// fact. It rewrites the request, as the router would, unless refuse, which
// gets the route or nil, says with which answer something before the router refuses it;
// if refuse is nil, nothing does.
func (t *Table) Explain(in Input, refuse func(*Route) string) string {
	w := t.Walk(in)
	var e explanation
	if w.Domain == "" {
		e.line("virtual host", "none has a domain for %q", in.Request.Authority)
	} else {
		e.line("virtual host", "%s, by its domain %q", named(w.VirtualHost), w.Domain)
	}
	if w.ToTLS {
		e.line("require_tls", "the request is to come by https")
	}
	for i, step := range w.Steps {
		label := fmt.Sprintf("route %d", i+1)
		if step.Unmet != "" {
			e.line(label, "%s does not match, as this does not hold: %s", named(step.Name), step.Unmet)
		} else {
			e.line(label, "%s matches: %s", named(step.Name), strings.Join(step.Wants, "; "))
		}
	}
	answer := ""
	if refuse != nil {
		answer = refuse(w.Route)
	}
	if answer != "" {
		e.line("answer", "%s", answer)
	} else {
		e.action(w, in)
	}
	return e.String()
}

// Answer is the status that a request gets with an answer of the proxy's own, in words: a
// request of gRPC gets one of gRPC for it, as by httpfilter.Reply.
func Answer(request *message.Request, status int) string {
	if ofGRPC(request) {
		return fmt.Sprintf("200, grpc-status %d for %d", grpcwire.OfHTTP(status), status)
	}
	return strconv.Itoa(status)
}

// named is a name in quotes, or that there is none.
func named(name string) string {
	if name == "" {
		return "(no name)"
	}
	return fmt.Sprintf("%q", name)
}

// explanation is lines of a label and a text.
type explanation struct{ strings.Builder }

func (e *explanation) line(label, format string, args ...any) {
	fmt.Fprintf(e, "%-16s %s\n", label, fmt.Sprintf(format, args...))
}

// action writes what becomes of the request.
func (e *explanation) action(w Walk, in Input) {
	r := w.Route
	switch {
	case r == nil:
		e.line("answer", "%s: no route", Answer(in.Request, 404))
		return
	case r.Redirect != nil:
		e.line("answer", "%s, location: %s", Answer(in.Request, r.Redirect.Status), r.Redirect.Location(in.Request, &format.Facts{Request: in.Request}))
		return
	case r.DirectResponse != nil:
		part := "body"
		if ofGRPC(in.Request) {
			part = "grpc-message"
		}
		e.line("answer", "%s, with a %s of %d bytes", Answer(in.Request, r.DirectResponse.Status), part, len(r.DirectResponse.Body))
		if location := r.DirectResponse.Location(in.Request); location != "" {
			e.line("location", "%s", location)
		}
		return
	}
	cluster := r.ClusterName(in.Request)
	switch {
	case cluster == "":
		e.line("answer", "%s: header %s, which names the cluster, is missing", Answer(in.Request, r.ClusterNotFound), r.clusterHeader)
		return
	case w.Weights != nil:
		e.line("cluster", "%s, of these by weight: %s", cluster, strings.Join(w.Weights, ", "))
	default:
		e.line("cluster", "%s", cluster)
	}
	e.hash(r, in)
	e.rateLimits(r, in, cluster)
	e.rewrites(r, in.Request)
	e.line("timeout", "%s", orNone(r.Timeout))
	if r.IdleTimeout >= 0 {
		e.line("idle timeout", "%s", orNone(r.IdleTimeout))
	}
	if r.FlushTimeout >= 0 {
		e.line("flush timeout", "%s", orNone(r.FlushTimeout))
	}
	if limit, ok := r.MaxStreamDuration(in.Request); ok {
		e.line("stream duration", "%s", orNone(limit))
	}
	if r.Retry != nil {
		e.line("retries", "%s", r.Retry)
	}
	e.line("priority", "%s", r.Priority)
}

func (e *explanation) hash(r *Route, in Input) {
	if r.HashPolicy.Empty() {
		return
	}
	hash, ok, cookies := r.HashPolicy.Hash(in.hashed())
	if ok {
		e.line("hash", "%#016x, by %s", hash, r.HashPolicy)
	} else {
		e.line("hash", "none, as nothing of this is there: %s", r.HashPolicy)
	}
	for _, cookie := range cookies {
		e.line("set-cookie", "%s", cookie)
	}
}

func (e *explanation) rateLimits(r *Route, in Input, cluster string) {
	policies := r.RateLimits
	if r.takesHostLimits(OverrideHostLimits) {
		policies = slices.Concat(policies, r.VirtualHostRateLimits)
	}
	for i := range policies {
		if !policies[i].Enabled(in.Runtime) {
			e.line("rate limit", "none by policy %d: the runtime turns it off", i+1)
			continue
		}
		var list descriptor.List
		if !policies[i].Append(&list, &descriptor.Input{
			Request: in.Request, ClientAddress: in.ClientAddress, Service: "(the proxy's own)", Cluster: cluster, RouteMetadata: r.Metadata,
		}) {
			e.line("rate limit", "no descriptor of policy %d, an action of which has no value", i+1)
			continue
		}
		var entries []string
		for _, entry := range list.At(0) {
			entries = append(entries, fmt.Sprintf("(%q, %q)", entry.Key, entry.Value))
		}
		e.line("rate limit", "%s", strings.Join(entries, ", "))
	}
}

func (e *explanation) rewrites(r *Route, request *message.Request) {
	path, host := request.Path, request.Authority
	r.Rewrite(request, &format.Facts{Request: request}, true, nil)
	e.line("path", "%s", change(path, request.Path))
	if r.host.auto {
		e.line("host", "that of the upstream host that is picked")
		return
	}
	e.line("host", "%s", change(host, request.Authority))
}

// change is a text, and what it was before if that was another.
func change(before, now []byte) string {
	if string(before) == string(now) {
		return string(now)
	}
	return fmt.Sprintf("%s, rewritten from %s", now, before)
}

func orNone(d time.Duration) string {
	if d == 0 {
		return "none"
	}
	return d.String()
}
