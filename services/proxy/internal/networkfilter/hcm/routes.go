package hcm

import (
	"time"

	routev3 "github.com/envoyproxy/go-control-plane/envoy/config/route/v3"
	hcmv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/network/http_connection_manager/v3"

	"github.com/weirproxy/weir/services/proxy/internal/cluster"
	"github.com/weirproxy/weir/services/proxy/internal/coreconfig"
	"github.com/weirproxy/weir/services/proxy/internal/httpfilter"
	"github.com/weirproxy/weir/services/proxy/internal/rds"
	"github.com/weirproxy/weir/services/proxy/internal/route"
	"github.com/weirproxy/weir/services/proxy/internal/strict"
)

// ParseRoutes makes a table of a RouteConfiguration at the path at, whose routes
// may configure filters of the factories. Known is the cluster of a name, nil if
// there is none; validate is what validate_clusters is where it is left out: true
// for a route_config, false for what comes by RDS.
func ParseRoutes(
	filters []httpfilter.Factory, config *routev3.RouteConfiguration, at strict.Path, known func(string) *cluster.Config, validate bool, report *strict.Report,
) *route.Table {
	table := route.ParseFor(httpfilter.RouteParser(filters), config, at, report)
	if v := config.GetValidateClusters(); v != nil {
		validate = v.GetValue()
	}
	for _, r := range table.References() {
		switch known := known(r.Cluster); {
		case known == nil && validate:
			report.Add(r.At, "unknown cluster %q (validate_clusters: false allows clusters that come by CDS)", r.Cluster)
		}
	}
	return table
}

// rdsConfig is where a manager's routes come from.
type rdsConfig struct {
	routes              *rds.Manager
	source              coreconfig.Source
	name                string
	initialFetchTimeout time.Duration
}

func (f *Factory) parseRDS(config *hcmv3.Rds, at strict.Path, report *strict.Report) *rdsConfig {
	r := &rdsConfig{routes: f.Routes, name: config.GetRouteConfigName()}
	if r.name == "" {
		report.Add(at.Field("route_config_name"), "a name is needed")
	}
	at = at.Field("config_source")
	r.source, r.initialFetchTimeout = coreconfig.ConfigSource(config.GetConfigSource(), at, report)
	if f.CheckSource != nil {
		f.CheckSource(r.source, at, report)
	}
	return r
}

// Start implements networkfilter.Starter.
func (m *manager) Start(source coreconfig.Source, ready func()) (stop func()) {
	if m.rds == nil {
		return nil
	}
	return m.rds.routes.Subscribe(rds.Request{
		Source: m.rds.source.Of(source), Name: m.rds.name, InitialFetchTimeout: m.rds.initialFetchTimeout,
		Into: &m.routes, Ready: ready, Stats: m.scope().Scope("rds").Tagged("envoy_rds_route_config", m.rds.name),
	}).Close
}
