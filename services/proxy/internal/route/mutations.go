package route

import (
	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"

	"github.com/weirproxy/weir/services/proxy/internal/format"
	"github.com/weirproxy/weir/services/proxy/internal/headermutation"
	"github.com/weirproxy/weir/services/proxy/internal/message"
	"github.com/weirproxy/weir/services/proxy/internal/strict"
)

// MutationFields are the supported fields that change the headers of requests
// and responses.
func MutationFields() strict.Fields {
	return strict.Fields{
		"envoy.config.route.v3.RouteConfiguration": {
			"request_headers_to_add", "request_headers_to_remove", "response_headers_to_add", "response_headers_to_remove",
			"most_specific_header_mutations_wins",
		},
		"envoy.config.route.v3.VirtualHost": {
			"request_headers_to_add", "request_headers_to_remove", "response_headers_to_add", "response_headers_to_remove",
		},
		"envoy.config.route.v3.WeightedCluster.ClusterWeight": {
			"request_headers_to_add", "request_headers_to_remove", "response_headers_to_add", "response_headers_to_remove",
		},
		"envoy.config.route.v3.Route": {
			"request_headers_to_add", "request_headers_to_remove", "response_headers_to_add", "response_headers_to_remove",
		},
	}
}

// Mutations is what one level does to the headers of a request and of its
// response.
type Mutations struct{ request, response *headermutation.Mutations }

// headerLists are the lists that the messages of all levels have.
type headerLists interface {
	GetRequestHeadersToAdd() []*corev3.HeaderValueOption
	GetRequestHeadersToRemove() []string
	GetResponseHeadersToAdd() []*corev3.HeaderValueOption
	GetResponseHeadersToRemove() []string
}

// ParseMutations reads the lists of a level that lies at the path at: a route
// configuration, a virtual host, a route, or the cluster of a weight.
func ParseMutations(m headerLists, at strict.Path, report *strict.Report) Mutations {
	return Mutations{
		request: headermutation.Parse(m.GetRequestHeadersToAdd(), at.Field("request_headers_to_add"),
			m.GetRequestHeadersToRemove(), at.Field("request_headers_to_remove"), report),
		response: headermutation.Parse(m.GetResponseHeadersToAdd(), at.Field("response_headers_to_add"),
			m.GetResponseHeadersToRemove(), at.Field("response_headers_to_remove"), report),
	}
}

// levels are the mutations above a route, and how they are ordered.
type levels struct {
	all, virtualHost Mutations
	routeWins        bool // most_specific_header_mutations_wins
}

// with are the mutations of a route in the order in which they come: the route's
// own first, unless the most specific is to win, which is then the last. What a
// cluster of a weight does comes before them all.
func (l levels) with(own Mutations) []Mutations {
	if l.routeWins {
		return []Mutations{l.all, l.virtualHost, own}
	}
	return []Mutations{own, l.virtualHost, l.all}
}

// MutateRequest changes the headers of a request as the route and what it stands
// in want it.
func (r *Route) MutateRequest(h *message.Headers, f *format.Facts) {
	for i := range r.mutations {
		r.mutations[i].request.Apply(h, f)
	}
}

// MutateResponse is MutateRequest for the response.
func (r *Route) MutateResponse(h *message.Headers, f *format.Facts) {
	for i := range r.mutations {
		r.mutations[i].response.Apply(h, f)
	}
}
