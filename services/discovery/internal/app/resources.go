package app

import (
	"context"
	"log/slog"
	"unicode/utf8"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/weirproxy/weir/internal/daemon"
	"github.com/weirproxy/weir/internal/filewatch"
	"github.com/weirproxy/weir/internal/setting"
	"github.com/weirproxy/weir/services/discovery/internal/resources"
	"github.com/weirproxy/weir/services/discovery/internal/templatefile"
)

// ResourceOptions are the settings of what xDS clients are shown of services.
type ResourceOptions struct {
	ClusterTemplate string `envconfig:"DISCOVERY_XDS_CLUSTER_TEMPLATE" desc:"file of what clusters are made of, for all services and for single ones, YAML or JSON; read again when it changes"`
	TagNamespace    string `envconfig:"DISCOVERY_XDS_TAG_NAMESPACE" default:"weir.tags" desc:"filter namespace in which endpoints carry their hosts' tags; envoy.lb is that of Envoy's subset load balancer; if empty, they carry none"`
	ZonePriorities  bool   `envconfig:"DISCOVERY_XDS_ZONE_PRIORITIES" default:"false" desc:"show an xDS client the hosts of its zone first, then those of its region, then the others"`
	SubsetSize      int    `envconfig:"DISCOVERY_XDS_SUBSET_SIZE" default:"0" desc:"hosts of a service that one xDS client is shown, those of its zone first; 0: all"`
	StaleDegraded   bool   `envconfig:"DISCOVERY_XDS_STALE_DEGRADED" default:"false" desc:"show hosts that a guard holds beyond their TTL as DEGRADED: Envoy uses them last, gRPC not at all"`
}

// check reports each fault of a value that its type alone does not rule out.
func (o ResourceOptions) check(fault func(format string, args ...any)) {
	setting.AtLeast("DISCOVERY_XDS_SUBSET_SIZE", o.SubsetSize, 0, fault)
	if !utf8.ValidString(o.TagNamespace) {
		fault("DISCOVERY_XDS_TAG_NAMESPACE=%q: not UTF-8", o.TagNamespace)
	}
}

// openTemplate reads the template of clusters, and returns it with what reads it
// again; both are nil if there is none. The error names the setting and all that is
// wrong.
func (o ResourceOptions) openTemplate(metrics prometheus.Registerer, log *slog.Logger) (*templatefile.Watch, *resources.Template, error) {
	if o.ClusterTemplate == "" {
		return nil, nil, nil
	}
	return templatefile.Open(templatefile.Options{
		File:    filewatch.File{Setting: "DISCOVERY_XDS_CLUSTER_TEMPLATE", Path: o.ClusterTemplate},
		Poll:    filePoll,
		Log:     log,
		Metrics: metrics,
	})
}

// newMaker makes what makes resources, by a template of clusters, if there is one.
func (o ResourceOptions) newMaker(template *resources.Template) (*resources.Maker, error) {
	return resources.NewMaker(resources.Options{
		Template:       template,
		TagNamespace:   o.TagNamespace,
		ZonePriorities: o.ZonePriorities,
		SubsetSize:     o.SubsetSize,
		StaleDegraded:  o.StaleDegraded,
	})
}

// followTemplate gives set a maker like m with each new template, until ctx
// ends. The error is always nil.
func followTemplate(watch *templatefile.Watch, m *resources.Maker, set func(*resources.Maker)) daemon.Part {
	return daemon.Background("cluster template", func(ctx context.Context) error {
		watch.Run(ctx, func(t *resources.Template) { set(m.WithTemplate(t)) })
		return nil
	})
}
