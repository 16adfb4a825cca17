package app

import (
	"fmt"
	"io"
	"log/slog"
	"os"

	"github.com/weirproxy/weir/internal/daemon"
	"github.com/weirproxy/weir/services/proxy/internal/bootstrap"
	"github.com/weirproxy/weir/services/proxy/internal/builtin"
	"github.com/weirproxy/weir/services/proxy/internal/cluster"
	"github.com/weirproxy/weir/services/proxy/internal/listener"
	"github.com/weirproxy/weir/services/proxy/internal/rlsclient"
	"github.com/weirproxy/weir/services/proxy/internal/stats"
	"github.com/weirproxy/weir/services/proxy/internal/strict"
)

// Validate checks the configuration and binds nothing. The error lists every
// fault, with its file, line and path.
func Validate(o Options) error {
	if _, err := daemon.Logger(io.Discard, daemon.LogOptions{Level: o.LogLevel}); err != nil {
		return err
	}
	_, err := configure(o, slog.New(slog.DiscardHandler), func([]string) {})
	return err
}

// configuration is a bootstrap without faults, and what was made of it.
type configuration struct {
	boot      *bootstrap.Bootstrap
	registry  *stats.Registry
	clusters  *cluster.Manager
	limits    *rlsclient.Services
	listeners []*listener.Config
	// static are the clusters of the bootstrap, not yet added to clusters.
	static []*cluster.Config
}

// configure reads the bootstrap and makes everything of it that opens no
// socket and starts no timer. Services is told which assignments are wanted
// from EDS.
func configure(o Options, log *slog.Logger, services func(names []string)) (*configuration, error) {
	schema, err := builtin.Schema()
	if err != nil {
		return nil, err
	}
	boot, report, err := load(o, schema)
	if err != nil {
		return nil, err
	}
	c := &configuration{boot: boot, registry: stats.NewRegistry()}
	static := newStaticClusters(report)
	for _, entry := range boot.Clusters {
		config := cluster.Parse(entry.Message, entry.At, builtin.LoadBalancers(), report)
		static.add(config, entry.At, report)
		c.static = append(c.static, config)
	}
	if boot.ADS != nil {
		static.checkADS(boot.ADS, report)
	}

	c.clusters = cluster.NewManager(cluster.ManagerOptions{
		Policies: builtin.LoadBalancers(), Schema: schema, Stats: c.registry, Log: log, SetServices: services,
	}, boot.CDS != nil)
	c.limits = rlsclient.New(c.clusters, log)
	filters := builtin.NetworkFilters(builtin.Dependencies{
		Clusters: c.clusters, RateLimits: c.limits, Stats: c.registry,
		StaticCluster:    static.get,
		CheckGRPCCluster: static.checkGRPC,
	})
	names := map[string]bool{}
	for _, entry := range boot.Listeners {
		config := listener.Parse(entry.Message, entry.At, filters, report)
		if names[config.Name] {
			report.Add(entry.At.Field("name"), "listener %q is there twice", config.Name)
		}
		names[config.Name] = true
		c.listeners = append(c.listeners, config)
	}
	return c, report.Err()
}

// load reads the bootstrap; its faults are in the report, to be added to.
func load(o Options, schema *strict.Schema) (*bootstrap.Bootstrap, *strict.Report, error) {
	var text []byte
	if o.ConfigPath != "" {
		var err error
		if text, err = os.ReadFile(o.ConfigPath); err != nil {
			return nil, nil, fmt.Errorf("read the bootstrap: %w", err)
		}
	}
	boot, report := bootstrap.Load(bootstrap.Source{
		File: o.ConfigPath, Text: text, Overlay: []byte(o.ConfigYAML),
		NodeID: o.ServiceNode, NodeCluster: o.ServiceCluster,
	}, schema)
	return boot, report, nil
}

// staticClusters are the clusters of the bootstrap by name. What could not be
// read of them is a fault of its own, and what others miss for that is none.
type staticClusters struct {
	byName map[string]*cluster.Config
	// unread says that there may be more of them.
	unread bool
	// unclear are those of which it is not known whether they speak HTTP/2.
	unclear map[string]bool
}

func newStaticClusters(report *strict.Report) *staticClusters {
	return &staticClusters{
		byName: map[string]*cluster.Config{}, unclear: map[string]bool{},
		unread: report.Missing("static_resources.clusters"),
	}
}

// add takes in a cluster that stands at the path at.
func (s *staticClusters) add(config *cluster.Config, at strict.Path, report *strict.Report) {
	if s.byName[config.Name] != nil {
		report.Add(at.Field("name"), "cluster %q is there twice", config.Name)
		return
	}
	s.byName[config.Name] = config
	s.unread = s.unread || config.Name == ""
	s.unclear[config.Name] = !report.Whole(at.Field("typed_extension_protocol_options"))
}

// get is the cluster of that name, nil if there is none.
func (s *staticClusters) get(name string) *cluster.Config {
	if config := s.byName[name]; config != nil || !s.unread {
		return config
	}
	return &cluster.Config{Name: name}
}

// checkGRPC holds a cluster to what gRPC needs: it is in the bootstrap, as
// Envoy wants it too, and speaks HTTP/2.
func (s *staticClusters) checkGRPC(name string, at strict.Path, report *strict.Report) {
	switch config := s.byName[name]; {
	case config == nil && !s.unread:
		report.Add(at, "unknown cluster %q: the cluster of a gRPC service must be in the bootstrap", name)
	case config != nil && !config.HTTP2 && !s.unclear[name]:
		report.Add(at, "cluster %q needs http2_protocol_options in its typed_extension_protocol_options, since gRPC is HTTP/2", name)
	}
}

// checkADS holds the control plane's cluster to what is needed to reach it
// before there is any xDS.
func (s *staticClusters) checkADS(ads *bootstrap.ADS, report *strict.Report) {
	s.checkGRPC(ads.Cluster, ads.At, report)
	if config := s.byName[ads.Cluster]; config != nil && config.ServiceName != "" {
		report.Add(ads.At, "cluster %q is of type EDS: the control plane's cluster must be STATIC", ads.Cluster)
	}
}
