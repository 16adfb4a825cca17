package route

import (
	"math"
	"time"

	routev3 "github.com/envoyproxy/go-control-plane/envoy/config/route/v3"

	"github.com/weirproxy/weir/services/proxy/internal/coreconfig"
	"github.com/weirproxy/weir/services/proxy/internal/descriptor"
	"github.com/weirproxy/weir/services/proxy/internal/grpcwire"
	"github.com/weirproxy/weir/services/proxy/internal/hashpolicy"
	"github.com/weirproxy/weir/services/proxy/internal/layeredruntime"
	"github.com/weirproxy/weir/services/proxy/internal/matcher"
	"github.com/weirproxy/weir/services/proxy/internal/message"
	"github.com/weirproxy/weir/services/proxy/internal/retry"
	"github.com/weirproxy/weir/services/proxy/internal/strict"
)

// defaultTimeout bounds an upstream exchange where a route sets no timeout
// (RouteAction.timeout).
const defaultTimeout = 15 * time.Second

// forward reads a RouteAction into the entry, and its route. Shared is what the
// virtual host has for all.
func (p *parser) forward(e *entry, m *routev3.RouteAction, shared inherited, at strict.Path) {
	r := e.route
	r.ClusterNotFound = map[routev3.RouteAction_ClusterNotFoundResponseCode]int{
		routev3.RouteAction_SERVICE_UNAVAILABLE:   503,
		routev3.RouteAction_NOT_FOUND:             404,
		routev3.RouteAction_INTERNAL_SERVER_ERROR: 500,
	}[m.GetClusterNotFoundResponseCode()]
	r.Timeout = coreconfig.Duration(m.GetTimeout(), defaultTimeout, at.Field("timeout"), p.report)
	r.IdleTimeout = coreconfig.Duration(m.GetIdleTimeout(), r.IdleTimeout, at.Field("idle_timeout"), p.report)
	r.FlushTimeout = coreconfig.Duration(m.GetFlushTimeout(), r.FlushTimeout, at.Field("flush_timeout"), p.report)
	if m.GetMaxStreamDuration() != nil { // which is in the place of timeout, as in Envoy
		r.Timeout = 0
	}
	r.duration = p.streamDuration(m.GetMaxStreamDuration(), at.Field("max_stream_duration"))
	r.upgrades = p.upgrades(m.GetUpgradeConfigs(), at.Field("upgrade_configs"))
	r.Priority = m.GetPriority()
	r.HashPolicy = hashpolicy.Parse(m.GetHashPolicy(), at.Field("hash_policy"), p.report)
	r.RateLimits = descriptor.Parse(m.GetRateLimits(), at.Field("rate_limits"), p.report)
	//nolint:staticcheck // deprecated, but Envoy accepts it and so do we
	r.includesHostLimits = m.GetIncludeVhRateLimits().GetValue()
	r.VirtualHostRateLimits = shared.rateLimits
	if r.Retry = retry.Parse(m.GetRetryPolicy(), at.Field("retry_policy"), p.report); r.Retry == nil {
		r.Retry = shared.retry
	}
	r.path = p.pathRewrite(m, e.path.replaced(), at)
	r.host = p.hostRewrite(m, at)

	switch s := m.GetClusterSpecifier().(type) {
	case *routev3.RouteAction_Cluster:
		r.Cluster = s.Cluster
		p.table.references = append(p.table.references, Reference{r.Cluster, at.Field("cluster")})
	case *routev3.RouteAction_ClusterHeader:
		r.clusterHeader = matcher.ParseName(s.ClusterHeader, at.Field("cluster_header"), p.report)
	case *routev3.RouteAction_WeightedClusters:
		e.weights = p.weights(s.WeightedClusters, *r, at.Field("weighted_clusters"))
	}
}

// weights is a weighted_clusters: it chooses one of several routes that differ
// in their clusters.
type weights struct {
	total   uint64 // of the configured weights
	choices []choice
	runtime bool   // keys of the runtime may set the weights
	header  string // whose number chooses; lower case, empty for none
	hashed  bool   // the hash of the request chooses, if it has one
}

// choice is a route with its weight, which the runtime may set by a key, empty for
// none.
type choice struct {
	route      *Route
	configured uint64
	key        string
}

// weight is that of a choice by the values, as far as 32 bits hold it.
func (c *choice) weight(values *layeredruntime.Snapshot) uint64 {
	return min(values.Integer(c.key, c.configured), math.MaxUint32)
}

// present is the sum of the weights, and the values that they are by. Where the
// runtime leaves no cluster any weight the configured ones hold.
func (w *weights) present(values *layeredruntime.Snapshot) (uint64, *layeredruntime.Snapshot) {
	total := uint64(0)
	if w.runtime {
		for i := range w.choices {
			total += w.choices[i].weight(values)
		}
	}
	if total == 0 {
		return w.total, nil
	}
	return total, values
}

// weights reads a WeightedCluster whose routes are like r.
func (p *parser) weights(m *routev3.WeightedCluster, r Route, at strict.Path) *weights {
	prefix := m.GetRuntimeKeyPrefix()
	w := &weights{runtime: prefix != "", header: matcher.ParseName(m.GetHeaderName(), at.Field("header_name"), p.report), hashed: m.GetUseHashPolicy().GetValue()}
	for i, c := range m.GetClusters() {
		at := at.Field("clusters").Index(i)
		own := r
		own.mutations = append([]Mutations{ParseMutations(c, at, p.report)}, r.mutations...)
		own.filters = p.filterConfigs(c.GetTypedPerFilterConfig(), r.filters, at.Field("typed_per_filter_config"))
		own.Cluster, own.clusterHeader = c.GetName(), matcher.ParseName(c.GetClusterHeader(), at.Field("cluster_header"), p.report)
		switch {
		case own.Cluster == "" && own.clusterHeader == "":
			p.report.Add(at, "a cluster is needed: name or cluster_header")
		case own.Cluster != "" && own.clusterHeader != "":
			p.report.Add(at, "name and cluster_header name a cluster both")
		case own.Cluster != "":
			p.table.references = append(p.table.references, Reference{own.Cluster, at.Field("name")})
		}
		own.host.weighted = p.host(c.GetHostRewriteLiteral(), at.Field("host_rewrite_literal"))
		weight := uint64(c.GetWeight().GetValue())
		w.total += weight
		choice := choice{route: &own, configured: weight}
		if w.runtime {
			choice.key = prefix + "." + c.GetName()
		}
		w.choices = append(w.choices, choice)
	}
	if w.total == 0 || w.total > math.MaxUint32 {
		p.report.Add(at.Field("clusters"), "the weights' sum is %d: not between 1 and %d", w.total, uint32(math.MaxUint32))
	}
	return w
}

// choose picks a route by the weights: by the number in the header, by the hash
// of the request, or by its random number.
func (w *weights) choose(in Input) *Route {
	number, ok := w.headerNumber(in)
	if !ok && w.hashed {
		number, ok, _ = w.choices[0].route.HashPolicy.Hash(in.hashed())
	}
	if !ok {
		number = in.Random
	}
	total, values := w.present(in.Runtime)
	number %= total
	for i := range w.choices {
		weight := w.choices[i].weight(values)
		if number < weight {
			return w.choices[i].route
		}
		number -= weight
	}
	return nil // it is below the total
}

// headerNumber is the number in the header, if there is one such field and its
// value is a number.
func (w *weights) headerNumber(in Input) (number uint64, ok bool) {
	if w.header == "" {
		return 0, false
	}
	var text []byte
	fields := 0
	for i := range in.Request.Headers.Len() {
		if name, value := in.Request.Headers.At(i); string(name) == w.header {
			text = value
			fields++
		}
	}
	if fields != 1 || len(text) == 0 {
		return 0, false
	}
	for _, c := range text {
		digit := uint64(c) - '0'
		if digit > 9 || number > (math.MaxUint64-digit)/10 {
			return 0, false
		}
		number = number*10 + digit
	}
	return number, true
}

// streamDuration is a max_stream_duration.
type streamDuration struct {
	set        bool          // it is there, be it empty
	max        time.Duration // negative: not set
	grpcMax    time.Duration // negative: not set; 0: as the header says
	grpcOffset time.Duration
}

func (p *parser) streamDuration(m *routev3.RouteAction_MaxStreamDuration, at strict.Path) streamDuration {
	return streamDuration{
		set:        m != nil,
		max:        coreconfig.Duration(m.GetMaxStreamDuration(), -1, at.Field("max_stream_duration"), p.report),
		grpcMax:    coreconfig.Duration(m.GetGrpcTimeoutHeaderMax(), -1, at.Field("grpc_timeout_header_max"), p.report),
		grpcOffset: coreconfig.Duration(m.GetGrpcTimeoutHeaderOffset(), 0, at.Field("grpc_timeout_header_offset"), p.report),
	}
}

// MaxStreamDuration is how long the stream of a request may last, and whether
// the route says so; if it doesn't, the connection manager's limit holds
// (RouteAction.max_stream_duration, grpc-timeout). 0 is without end; a
// nanosecond is what is left of a grpc-timeout that the offset uses up.
func (r *Route) MaxStreamDuration(request *message.Request) (limit time.Duration, ok bool) {
	d := &r.duration
	timeout, isGRPC := grpcTimeout(request)
	if !isGRPC || d.grpcMax < 0 {
		return max(d.max, 0), d.max >= 0
	}
	if d.grpcMax > 0 {
		timeout = min(timeout, d.grpcMax)
	}
	return max(timeout-d.grpcOffset, 1), true
}

// TellsGRPCTimeout says whether an upstream is to take how long the stream of a request
// of gRPC may last for its grpc-timeout, whatever the client's is: where the route has a
// max_stream_duration, as in Envoy.
func (r *Route) TellsGRPCTimeout() bool { return r.duration.set }

// grpcTimeout is the grpc-timeout of a request that has one.
func grpcTimeout(r *message.Request) (time.Duration, bool) {
	text, _ := matcher.Value(r, "grpc-timeout")
	return grpcwire.ParseTimeout(text)
}
