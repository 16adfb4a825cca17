package route

import (
	"bytes"
	"net/netip"

	routev3 "github.com/envoyproxy/go-control-plane/envoy/config/route/v3"

	"github.com/weirproxy/weir/services/proxy/internal/hashpolicy"
	"github.com/weirproxy/weir/services/proxy/internal/layeredruntime"
	"github.com/weirproxy/weir/services/proxy/internal/message"
	"github.com/weirproxy/weir/services/proxy/internal/pathindex"
)

// Input is what routing reads of a request.
type Input struct {
	Request *message.Request
	// ClientAddress is the trusted address of the client; invalid where it has
	// none that is an IP.
	ClientAddress netip.Addr
	// Random is a number of this request alone, by which shares and weights are
	// held.
	Random uint64
	// Runtime has the values that hold for the request; nil is none.
	Runtime *layeredruntime.Snapshot
}

// hashed is what a hash_policy reads of it.
func (in *Input) hashed() hashpolicy.Input {
	return hashpolicy.Input{Request: in.Request, ClientAddress: in.ClientAddress, Random: in.Random}
}

// Match returns the route of a request, or nil if there is none. Steps:
//
//  1. the virtual host by the authority;
//  2. the redirect to https, if the host wants one;
//  3. the first of the host's routes whose conditions hold, the path taken
//     without its query;
//  4. one of the route's clusters by their weights.
//
// A CONNECT, which has no path, matches none. It never blocks, and allocates
// nothing unless hashes of rewritten headers choose the cluster.
func (t *Table) Match(in Input) *Route {
	found := t.domains.find(in.Request.Authority)
	if found == nil || len(in.Request.Path) == 0 {
		return nil
	}
	if found.host.wantsTLS(in.Request) {
		return &toTLS
	}
	e := found.host.find(newQuery(in))
	if e == nil {
		return nil
	}
	return e.choose(in)
}

// virtualHost is the routes of some domains, in the order in which they are
// tried.
type virtualHost struct {
	name       string
	requireTLS routev3.VirtualHost_TlsRequirementType
	entries    []entry
	index      *pathindex.Index // nil for a short list
}

// toTLS is the route of a request that is to come again by https.
var toTLS = Route{Redirect: &Redirect{Status: 301, scheme: "https"}}

// wantsTLS says whether a request is to come again by https (require_tls).
func (h *virtualHost) wantsTLS(r *message.Request) bool {
	switch h.requireTLS {
	case routev3.VirtualHost_ALL:
	case routev3.VirtualHost_EXTERNAL_ONLY:
		if internal(r) {
			return false
		}
	default:
		return false
	}
	forwarded, _ := r.Headers.Get("x-forwarded-proto") // not what a client says of itself
	return string(forwarded) != "https"
}

// shortList is how many entries are tried one after the other without an index.
const shortList = 8

// makeIndex makes the index of a list that is not short.
func (h *virtualHost) makeIndex() {
	if len(h.entries) <= shortList {
		return
	}
	patterns := make([]pathindex.Pattern, len(h.entries))
	for i := range h.entries {
		e := &h.entries[i]
		patterns[i] = pathindex.Pattern{Kind: e.path.kind, Text: e.path.text, Fold: e.path.fold, Final: len(e.conditions) == 0}
	}
	h.index = pathindex.New(patterns)
}

// find is the first entry whose conditions hold, nil if there is none.
func (h *virtualHost) find(q query) *entry {
	if h.index == nil {
		return h.findInList(q)
	}
	var candidates pathindex.Candidates
	if !h.index.Find(q.path, &candidates) {
		return h.findInList(q)
	}
	for i := candidates.Next(); i >= 0; i = candidates.Next() {
		if e := &h.entries[i]; e.unmet(q) == nil {
			return e
		}
	}
	return nil
}

// findInList is find without the index.
func (h *virtualHost) findInList(q query) *entry {
	for i := range h.entries {
		if e := &h.entries[i]; e.unmet(q) == nil {
			return e
		}
	}
	return nil
}

// entry is one route of a virtual host: conditions, and what holds for the
// request if it fulfils them.
type entry struct {
	path       pathCondition
	conditions []condition // the others
	route      *Route
	weights    *weights // unless nil they choose one like route
}

// unmet is the first condition that the request does not fulfil; nil means that
// the entry matches.
func (e *entry) unmet(q query) condition {
	if !e.path.holds(q) {
		return &e.path
	}
	for _, c := range e.conditions {
		if !c.holds(q) {
			return c
		}
	}
	return nil
}

func (e *entry) choose(in Input) *Route {
	if e.weights == nil {
		return e.route
	}
	return e.weights.choose(in)
}

// query is a request as conditions see it.
type query struct {
	request *message.Request
	path    []byte // without its query
	random  uint64
	values  *layeredruntime.Snapshot
}

func newQuery(in Input) query {
	return query{in.Request, withoutQuery(in.Request.Path), in.Random, in.Runtime}
}

// withoutQuery is a path up to its query.
func withoutQuery(path []byte) []byte {
	if i := bytes.IndexByte(path, '?'); i >= 0 {
		return path[:i]
	}
	return path
}
