// Package builtin lists what ships with the proxy: its HTTP filters, network
// filters, listener filters and load-balancing policies, and the configuration that
// they support. App asks it once at start; to add one, add its line here.
package builtin

import (
	"log/slog"

	routev3 "github.com/envoyproxy/go-control-plane/envoy/config/route/v3"

	"github.com/weirproxy/weir/services/proxy/internal/accesslog"
	"github.com/weirproxy/weir/services/proxy/internal/bootstrap"
	"github.com/weirproxy/weir/services/proxy/internal/cluster"
	"github.com/weirproxy/weir/services/proxy/internal/cluster/lb"
	"github.com/weirproxy/weir/services/proxy/internal/coreconfig"
	"github.com/weirproxy/weir/services/proxy/internal/descriptor"
	"github.com/weirproxy/weir/services/proxy/internal/format"
	"github.com/weirproxy/weir/services/proxy/internal/hashpolicy"
	"github.com/weirproxy/weir/services/proxy/internal/headermutation"
	"github.com/weirproxy/weir/services/proxy/internal/httpfilter"
	"github.com/weirproxy/weir/services/proxy/internal/httpfilter/buffer"
	"github.com/weirproxy/weir/services/proxy/internal/httpfilter/fault"
	"github.com/weirproxy/weir/services/proxy/internal/httpfilter/healthcheck"
	"github.com/weirproxy/weir/services/proxy/internal/httpfilter/iptagging"
	"github.com/weirproxy/weir/services/proxy/internal/httpfilter/localratelimit"
	"github.com/weirproxy/weir/services/proxy/internal/httpfilter/ratelimit"
	"github.com/weirproxy/weir/services/proxy/internal/httpfilter/router"
	"github.com/weirproxy/weir/services/proxy/internal/layeredruntime"
	"github.com/weirproxy/weir/services/proxy/internal/listener"
	"github.com/weirproxy/weir/services/proxy/internal/listenerfilter"
	"github.com/weirproxy/weir/services/proxy/internal/listenerfilter/httpinspector"
	listenerlimit "github.com/weirproxy/weir/services/proxy/internal/listenerfilter/localratelimit"
	"github.com/weirproxy/weir/services/proxy/internal/matcher"
	"github.com/weirproxy/weir/services/proxy/internal/networkfilter"
	"github.com/weirproxy/weir/services/proxy/internal/networkfilter/hcm"
	"github.com/weirproxy/weir/services/proxy/internal/rds"
	"github.com/weirproxy/weir/services/proxy/internal/retry"
	"github.com/weirproxy/weir/services/proxy/internal/rlsclient"
	"github.com/weirproxy/weir/services/proxy/internal/route"
	"github.com/weirproxy/weir/services/proxy/internal/stats"
	"github.com/weirproxy/weir/services/proxy/internal/strict"
	"github.com/weirproxy/weir/services/proxy/internal/tokenbucket"
	"github.com/weirproxy/weir/services/proxy/internal/tracing"
)

// Dependencies are what the filters work with.
type Dependencies struct {
	Clusters   *cluster.Manager
	RateLimits *rlsclient.Services
	AccessLogs *accesslog.Files
	Stats      *stats.Registry
	Runtime    *layeredruntime.Runtime
	// StaticCluster is the cluster of that name, of the bootstrap or, once CDS has
	// answered, of that; nil if there is none.
	StaticCluster func(name string) *cluster.Config
	// CheckGRPCCluster reports what is wrong with a cluster that a filter's
	// gRPC service names.
	CheckGRPCCluster func(name string, at strict.Path, report *strict.Report)
	// Log is told of what is left out of a configuration.
	Log *slog.Logger
	// Routes are the route tables that come by RDS.
	Routes *rds.Manager
	// CheckSource reports what is wrong with a source that rds names.
	CheckSource func(source coreconfig.Source, at strict.Path, report *strict.Report)
	// ServiceName is the cluster of the proxy's node.
	ServiceName string
	// Failing says whether the proxy is to fail health checks; nil is never.
	Failing func() bool
}

// HTTPFilters are the filters that can stand in http_filters.
func HTTPFilters(d Dependencies) []httpfilter.Factory {
	return []httpfilter.Factory{
		buffer.Factory{},
		fault.Factory{},
		healthcheck.Factory{ServiceName: d.ServiceName, Failing: d.Failing, Healthy: d.healthy},
		iptagging.Factory{},
		localratelimit.Factory{Stats: d.Stats, ServiceName: d.ServiceName},
		&ratelimit.Factory{Services: d.RateLimits, CheckCluster: d.CheckGRPCCluster, ServiceName: d.ServiceName},
		router.Factory{AccessLogs: d.AccessLogs},
	}
}

// healthy counts the hosts of a cluster, for the health check filter.
func (d Dependencies) healthy(name string) (healthy, hosts int, ok bool) {
	c := d.Clusters.Get(name)
	if c == nil {
		return 0, 0, false
	}
	members := c.Hosts().Members
	for i := range members {
		if members[i].Healthy() {
			healthy++
		}
	}
	return healthy, len(members), true
}

// ListenerFilters are the filters that can stand in listener_filters.
func ListenerFilters(d Dependencies) []listenerfilter.Factory {
	return []listenerfilter.Factory{
		httpinspector.Factory{},
		listenerlimit.Factory{Runtime: d.Runtime},
	}
}

// NetworkFilters are the filters that can stand in a filter chain.
func NetworkFilters(d Dependencies) []networkfilter.Factory {
	return []networkfilter.Factory{
		&hcm.Factory{
			Filters: HTTPFilters(d), Clusters: d.Clusters, StaticCluster: d.StaticCluster, Runtime: d.Runtime, Stats: d.Stats,
			AccessLogs: d.AccessLogs, Routes: d.Routes, CheckSource: d.CheckSource, Log: d.Log,
		},
	}
}

// ParseRoutes makes the tables that come by RDS, whose routes may configure the
// HTTP filters.
func ParseRoutes(d Dependencies) func(*routev3.RouteConfiguration, strict.Path, *strict.Report) *route.Table {
	filters := HTTPFilters(d)
	return func(config *routev3.RouteConfiguration, at strict.Path, report *strict.Report) *route.Table {
		return hcm.ParseRoutes(filters, config, at, d.StaticCluster, false, report)
	}
}

// LoadBalancers are the policies that lb_policy and load_balancing_policy can
// name.
func LoadBalancers() []cluster.Policy {
	return []cluster.Policy{lb.RoundRobin(), lb.LeastRequest(), lb.Random(), lb.RingHash(), lb.Maglev()}
}

// Schema holds every field that is supported, in files and in xDS.
func Schema() (*strict.Schema, error) {
	schema, err := strict.NewSchema(fields()...)
	if err != nil {
		return nil, err
	}
	return schema.FirstKnown(cluster.FirstKnown()...).WithSlots(slots()), nil
}

// fields are what each package supports.
func fields() []strict.Fields {
	parts := []strict.Fields{
		bootstrap.Fields(), coreconfig.Fields(), listener.Fields(), route.Fields(), matcher.Fields(), hashpolicy.Fields(), descriptor.Fields(), cluster.Fields(),
		route.MutationFields(), route.FilterFields(), retry.Fields(), headermutation.Fields(), format.Fields(), accesslog.Fields(),
		layeredruntime.Fields(), tokenbucket.Fields(), tracing.Fields(),
	}
	for _, p := range LoadBalancers() {
		parts = append(parts, p.Fields)
	}
	for _, f := range ListenerFilters(Dependencies{}) {
		parts = append(parts, f.Fields())
	}
	for _, f := range NetworkFilters(Dependencies{}) {
		parts = append(parts, f.Fields())
	}
	for _, f := range HTTPFilters(Dependencies{}) {
		parts = append(parts, f.Fields())
	}
	return parts
}
