// Package route is the route table of an http_connection_manager: made once
// from a RouteConfiguration, never changed, and asked for each request. It
// picks the virtual host by the request's authority and the first route whose
// conditions hold, and says what is to become of the request: which cluster it
// goes to, with what path and host, or what it is answered. It does not know
// whether a cluster exists, and sends nothing anywhere: the router filter
// carries out what a route says.
package route

import (
	"math"
	"strings"
	"time"
	"unique"

	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	routev3 "github.com/envoyproxy/go-control-plane/envoy/config/route/v3"
	"google.golang.org/protobuf/types/known/wrapperspb"

	"github.com/weirproxy/weir/services/proxy/internal/descriptor"
	"github.com/weirproxy/weir/services/proxy/internal/hashpolicy"
	"github.com/weirproxy/weir/services/proxy/internal/matcher"
	"github.com/weirproxy/weir/services/proxy/internal/message"
	"github.com/weirproxy/weir/services/proxy/internal/retry"
	"github.com/weirproxy/weir/services/proxy/internal/strict"
	"github.com/weirproxy/weir/services/proxy/internal/tracing"
)

// Fields are the supported fields of the messages that Parse reads.
func Fields() strict.Fields {
	return strict.Fields{
		"envoy.config.route.v3.RouteConfiguration": {
			"name", "virtual_hosts", "validate_clusters", "internal_only_headers", "max_direct_response_body_size_bytes", "metadata",
		},
		"envoy.config.route.v3.VirtualHost": {
			"name", "domains", "routes", "require_tls", "rate_limits", "retry_policy", "include_request_attempt_count",
			"include_attempt_count_in_response", "include_is_timeout_retry_header", "request_body_buffer_limit", "metadata",
		},
		"envoy.config.route.v3.Route": {"name", "stat_prefix", "match", "metadata", "route", "redirect", "direct_response", "request_body_buffer_limit", "tracing"},
		"envoy.config.route.v3.RouteMatch": {
			"prefix", "path", "path_separated_prefix", "safe_regex", "case_sensitive",
			"headers", "query_parameters", "grpc", "runtime_fraction",
		},
		"envoy.config.route.v3.RouteMatch.GrpcRouteMatchOptions": {},
		"envoy.config.route.v3.RouteAction": {
			"cluster", "cluster_header", "weighted_clusters", "cluster_not_found_response_code",
			"prefix_rewrite", "regex_rewrite", "path_rewrite",
			"host_rewrite_literal", "auto_host_rewrite", "host_rewrite_header", "host_rewrite_path_regex", "host_rewrite",
			"append_x_forwarded_host",
			"timeout", "idle_timeout", "flush_timeout", "max_stream_duration", "upgrade_configs", "priority", "hash_policy", "rate_limits", "include_vh_rate_limits", "retry_policy",
		},
		"envoy.config.route.v3.RouteAction.UpgradeConfig": {"upgrade_type", "enabled"},
		"envoy.config.route.v3.RouteAction.MaxStreamDuration": {
			"max_stream_duration", "grpc_timeout_header_max", "grpc_timeout_header_offset",
		},
		"envoy.config.route.v3.WeightedCluster":               {"clusters", "runtime_key_prefix", "header_name", "use_hash_policy"},
		"envoy.config.route.v3.WeightedCluster.ClusterWeight": {"name", "cluster_header", "weight", "host_rewrite_literal"},
		"envoy.config.route.v3.RedirectAction": {
			"https_redirect", "scheme_redirect", "host_redirect", "port_redirect", "path_redirect", "prefix_rewrite",
			"regex_rewrite", "path_rewrite", "response_code", "strip_query",
		},
		"envoy.config.route.v3.DirectResponseAction": {"status", "body", "body_format"},
	}
}

// Table is a parsed RouteConfiguration.
type Table struct {
	domains          domains
	references       []Reference
	filterReferences []FilterReference
	internalOnly     []string // internal_only_headers, in lower case
	upgrades         bool     // some route enables one
}

// Route is what becomes of a request: one entry of a virtual host, or one of
// the clusters that it chooses from. It never changes.
type Route struct {
	// Name is the route's, and VirtualHost that of the virtual host. Both can
	// be empty.
	Name, VirtualHost string
	// StatName is what metrics call the route, the zero value if they leave it out.
	StatName unique.Handle[StatName]
	// Metadata is what others are to know of the route; it may be nil.
	Metadata *corev3.Metadata
	// VirtualHostMetadata is the same of the virtual host.
	VirtualHostMetadata *corev3.Metadata

	// Redirect or DirectResponse is what the request is answered. If both are
	// nil it is forwarded, and the rest says how.
	Redirect       *Redirect
	DirectResponse *DirectResponse

	// Cluster is the name of the cluster that gets the request; empty where a
	// header names it: see ClusterName.
	Cluster string
	// ClusterNotFound is the status if there is no such cluster
	// (cluster_not_found_response_code).
	ClusterNotFound int
	// Timeout is the time from the end of the request to the end of the
	// response; 0 is none.
	Timeout time.Duration
	// IdleTimeout is how long the stream may stand still, in place of the
	// connection manager's time; 0 is as long as it takes, and a negative one
	// leaves the connection manager's.
	IdleTimeout time.Duration
	// FlushTimeout is the same for what is left of a response that a client of HTTP/2
	// does not take.
	FlushTimeout time.Duration
	// Priority is the set of connections and limits that the request is of.
	Priority corev3.RoutingPriority
	// HashPolicy binds the request to a host.
	HashPolicy hashpolicy.List
	// RateLimits are the route's own policies, and VirtualHostRateLimits those of
	// its virtual host: AppendDescriptors says which count.
	RateLimits, VirtualHostRateLimits []descriptor.Policy
	// includesHostLimits is include_vh_rate_limits.
	includesHostLimits bool

	// Retry says when the request is sent again: the route's own policy, or the
	// virtual host's; nil is that neither has one.
	Retry *retry.Policy
	// Attempts says who is told of attempts.
	Attempts AttemptHeaders
	// Tracing says which requests are traced; nil is those that the connection manager
	// says.
	Tracing *tracing.Sampling
	// BodyBufferLimit is how many bytes of a request's body are kept for it to be
	// sent again (request_body_buffer_limit); a negative one is what its connection may
	// hold.
	BodyBufferLimit int64

	clusterHeader string // lower case; empty for none
	path          pathRewrite
	host          hostRewrite
	duration      streamDuration
	upgrades      []upgrade
	// mutations are what is done to headers, in order.
	mutations []Mutations
	filters   filterConfigs
}

// StatName is what metrics call a route (stat_prefix).
type StatName struct{ VirtualHost, Prefix string }

// AttemptHeaders says who is told of the attempts to send a request.
type AttemptHeaders struct {
	// Request and Response set x-envoy-attempt-count, from 1 on
	// (include_request_attempt_count, include_attempt_count_in_response).
	Request, Response bool
	// IsTimeout sets x-envoy-is-timeout-retry in requests that are sent again
	// (include_is_timeout_retry_header).
	IsTimeout bool
}

// Reference is a cluster that a route names, with its place.
type Reference struct {
	Cluster string
	At      strict.Path
}

// References lists the clusters that the routes name.
func (t *Table) References() []Reference { return t.references }

// DropInternalOnly takes the headers out of a request that only internal
// clients may send (internal_only_headers). An internal request is one that the
// connection manager marked with x-envoy-internal.
func (t *Table) DropInternalOnly(r *message.Request) {
	if len(t.internalOnly) == 0 || internal(r) {
		return
	}
	for _, name := range t.internalOnly {
		r.Headers.Remove(name)
	}
}

func internal(r *message.Request) bool {
	value, _ := r.Headers.Get("x-envoy-internal")
	return string(value) == "true"
}

// ClusterName is the name of the cluster that gets the request, empty if the
// header that names it is missing. It allocates only if there is such a header.
func (r *Route) ClusterName(request *message.Request) string {
	if r.clusterHeader == "" {
		return r.Cluster
	}
	name, _ := matcher.Value(request, r.clusterHeader)
	return string(name)
}

// Parse makes a table of config, which lies at the path at. Faults go to
// report; the table is for use only if there are none. Files that direct
// responses name are read here. Its routes cannot configure filters: ParseFor is
// for that.
func Parse(config *routev3.RouteConfiguration, at strict.Path, report *strict.Report) *Table {
	return ParseFor(nil, config, at, report)
}

// ParseFor is Parse of a table whose routes may configure the HTTP filters that
// filters knows.
func ParseFor(filters FilterParser, config *routev3.RouteConfiguration, at strict.Path, report *strict.Report) *Table {
	p := &parser{report: report, table: &Table{}, largestBody: defaultBodySize, filters: filters}
	if limit := config.GetMaxDirectResponseBodySizeBytes(); limit != nil {
		p.largestBody = int(limit.GetValue())
	}
	for i, name := range config.GetInternalOnlyHeaders() {
		p.table.internalOnly = append(p.table.internalOnly, matcher.ParseName(name, at.Field("internal_only_headers").Index(i), report))
	}
	names := map[string]bool{}
	all := ParseMutations(config, at, report)
	filterConfigs := p.filterConfigs(config.GetTypedPerFilterConfig(), nil, at.Field("typed_per_filter_config"))
	for i, v := range config.GetVirtualHosts() {
		at := at.Field("virtual_hosts").Index(i)
		if names[v.GetName()] {
			report.Add(at.Field("name"), "virtual host %q is there twice", v.GetName())
		}
		names[v.GetName()] = true
		host := p.virtualHost(v, levels{all: all, routeWins: config.GetMostSpecificHeaderMutationsWins()}, filterConfigs, at)
		for j, name := range v.GetDomains() {
			p.domain(name, host, at.Field("domains").Index(j))
		}
	}
	p.table.domains.sort()
	return p.table
}

// parser makes one table.
type parser struct {
	table       *Table
	report      *strict.Report
	largestBody int // of a direct response, in bytes
	filters     FilterParser
}

// domain files a domain of a virtual host.
func (p *parser) domain(name string, host *virtualHost, at strict.Path) {
	name = strings.ToLower(name)
	known, ok := p.table.domains.add(name, host)
	if known {
		p.report.Add(at, "domain %q is there twice", name)
	}
	if !ok {
		p.report.Add(at, "domain %q: a * stands at its beginning or its end, once", name)
	}
}

// inherited is what a route has of its virtual host if it has none of its own.
type inherited struct {
	rateLimits []descriptor.Policy
	retry      *retry.Policy
}

// bufferLimit is the request_body_buffer_limit of the first that has one, −1 if none has.
func bufferLimit(from ...interface {
	GetRequestBodyBufferLimit() *wrapperspb.UInt64Value
}) int64 {
	for _, m := range from {
		if limit := m.GetRequestBodyBufferLimit(); limit != nil {
			return int64(min(limit.GetValue(), math.MaxInt64))
		}
	}
	return -1
}

// virtualHost makes a virtual host with its routes.
func (p *parser) virtualHost(v *routev3.VirtualHost, mutations levels, filters filterConfigs, at strict.Path) *virtualHost {
	host := &virtualHost{name: v.GetName(), requireTLS: v.GetRequireTls()}
	shared := inherited{
		rateLimits: descriptor.Parse(v.GetRateLimits(), at.Field("rate_limits"), p.report),
		retry:      retry.Parse(v.GetRetryPolicy(), at.Field("retry_policy"), p.report),
	}
	attempts := AttemptHeaders{
		Request: v.GetIncludeRequestAttemptCount(), Response: v.GetIncludeAttemptCountInResponse(), IsTimeout: v.GetIncludeIsTimeoutRetryHeader(),
	}
	mutations.virtualHost = ParseMutations(v, at, p.report)
	filters = p.filterConfigs(v.GetTypedPerFilterConfig(), filters, at.Field("typed_per_filter_config"))
	for i, m := range v.GetRoutes() {
		at := at.Field("routes").Index(i)
		e := entry{route: &Route{Name: m.GetName(), VirtualHost: v.GetName(), Metadata: m.GetMetadata(), VirtualHostMetadata: v.GetMetadata(), IdleTimeout: -1, FlushTimeout: -1, Attempts: attempts}}
		if m.GetStatPrefix() != "" {
			e.route.StatName = unique.Make(StatName{v.GetName(), m.GetStatPrefix()})
		}
		e.route.BodyBufferLimit = bufferLimit(m, v)
		e.route.Tracing = tracing.ParseRoute(m.GetTracing())
		e.route.mutations = mutations.with(ParseMutations(m, at, p.report))
		e.route.filters = p.filterConfigs(m.GetTypedPerFilterConfig(), filters, at.Field("typed_per_filter_config"))
		e.path, e.conditions = p.conditions(m.GetMatch(), at.Field("match"), i)
		switch action := m.GetAction().(type) {
		case *routev3.Route_Route:
			p.forward(&e, action.Route, shared, at.Field("route"))
		case *routev3.Route_Redirect:
			e.route.Redirect = p.redirect(action.Redirect, e.path.replaced(), at.Field("redirect"))
		case *routev3.Route_DirectResponse:
			e.route.DirectResponse = p.directResponse(action.DirectResponse, at.Field("direct_response"))
		} // another one is refused by the schema, and that there is none by the messages' own rules
		host.entries = append(host.entries, e)
	}
	host.makeIndex()
	return host
}
