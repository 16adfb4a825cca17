package app

import (
	"context"
	"time"

	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	"github.com/prometheus/client_golang/prometheus"

	"github.com/weirproxy/weir/internal/setting"
	"github.com/weirproxy/weir/services/discovery/internal/lrs"
)

// LoadOptions are the settings of load reports.
type LoadOptions struct {
	LRSInterval   time.Duration `envconfig:"DISCOVERY_LRS_INTERVAL" default:"10s" desc:"how often proxies are asked to report how many requests they send where"`
	LRSEndpoints  bool          `envconfig:"DISCOVERY_LRS_ENDPOINTS" default:"false" desc:"whether they are asked to report each host too, and not zones alone"`
	LRSMaxStreams int           `envconfig:"DISCOVERY_LRS_MAX_STREAMS" default:"10000" desc:"streams of load reports served at once; more are refused"`
	LRSMaxRows    int           `envconfig:"DISCOVERY_LRS_MAX_ROWS" default:"200000" desc:"clusters, zones and hosts remembered of all load reports together, a tenth of it of one client; a report beyond is passed over"`
}

// check reports each fault of a value that its type alone does not rule out.
func (o LoadOptions) check(fault func(format string, args ...any)) {
	setting.AtLeast("DISCOVERY_LRS_INTERVAL", o.LRSInterval, time.Second, fault)
	setting.AtLeast("DISCOVERY_LRS_MAX_STREAMS", o.LRSMaxStreams, 1, fault)
	setting.AtLeast("DISCOVERY_LRS_MAX_ROWS", o.LRSMaxRows, 1, fault)
}

// newLoads makes what takes load reports.
func newLoads(o LoadOptions, access *access, metrics prometheus.Registerer) *lrs.Server {
	return lrs.New(lrs.Options{
		Interval:   o.LRSInterval,
		Endpoints:  o.LRSEndpoints,
		MaxStreams: o.LRSMaxStreams,
		MaxRows:    o.LRSMaxRows,
		MayBe: func(ctx context.Context, node *corev3.Node) error {
			return access.mayBe(ctx, node.GetId(), node.GetCluster())
		},
		Metrics: metrics,
	})
}
