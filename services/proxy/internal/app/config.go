package app

import (
	"cmp"
	"fmt"
	"io"
	"log/slog"
	"math"
	"net/netip"
	"os"

	"github.com/weirproxy/weir/internal/daemon"
	"github.com/weirproxy/weir/services/proxy/internal/accesslog"
	"github.com/weirproxy/weir/services/proxy/internal/bootstrap"
	"github.com/weirproxy/weir/services/proxy/internal/builtin"
	"github.com/weirproxy/weir/services/proxy/internal/cluster"
	"github.com/weirproxy/weir/services/proxy/internal/layeredruntime"
	"github.com/weirproxy/weir/services/proxy/internal/listener"
	"github.com/weirproxy/weir/services/proxy/internal/rds"
	"github.com/weirproxy/weir/services/proxy/internal/rlsclient"
	"github.com/weirproxy/weir/services/proxy/internal/stats"
	"github.com/weirproxy/weir/services/proxy/internal/strict"
	"github.com/weirproxy/weir/services/proxy/internal/xds"
)

// Validate checks the configuration and binds nothing. The error lists every
// fault, with its file, line and path. What is no fault, but worth a warning, goes to
// the log.
func Validate(o Options) error {
	log, err := daemon.Logger(cmp.Or(o.Log, io.Discard), daemon.LogOptions{Level: o.LogLevel, Format: o.LogFormat})
	if err != nil {
		return err
	}
	_, err = configure(o, log, nil)
	return err
}

// configuration is a bootstrap without faults, and what was made of it.
type configuration struct {
	boot      *bootstrap.Bootstrap
	report    *strict.Report // on the bootstrap, without a fault
	registry  *stats.Registry
	runtime   *layeredruntime.Runtime
	xds       *xds.Client
	clusters  *cluster.Manager
	routes    *rds.Manager
	limits    *rlsclient.Services
	logs      *accesslog.Files
	adminLogs []*accesslog.Log
	listeners *listener.Manager
	// static and staticListeners are those of the bootstrap, not yet added to the
	// managers.
	static          []*cluster.Config
	staticListeners []*listener.Config
}

// configure reads the bootstrap and makes everything of it that opens no
// socket and starts no timer. Failing says whether the proxy is to fail health
// checks.
func configure(o Options, log *slog.Logger, failing func() bool) (*configuration, error) {
	schema, err := builtin.Schema()
	if err != nil {
		return nil, err
	}
	boot, report, err := load(o, schema)
	if err != nil {
		return nil, err
	}
	c := &configuration{boot: boot, report: report, registry: stats.NewRegistry()}
	c.registry.ShowAbsent(builtin.AbsentMetrics())
	c.runtime = layeredruntime.New(boot.Runtime, c.registry.Scope("runtime"))
	static := newStaticClusters(boot, report)
	for _, entry := range boot.Clusters {
		config := cluster.Parse(entry.Message, entry.At, builtin.LoadBalancers(), report)
		static.add(config, entry.At, report)
		c.static = append(c.static, config)
	}
	static.checkSources(c.static, report)

	c.xds = c.newClient(schema, log)
	c.clusters = cluster.NewManager(cluster.ManagerOptions{
		Policies: builtin.LoadBalancers(), Schema: schema, Runtime: c.runtime, Zone: boot.Node.GetLocality().GetZone(), Stats: c.registry, Log: log,
		SetServices: c.setServices, CheckSource: static.checkSource,
	}, boot.CDS != nil)
	known := func(name string) *cluster.Config {
		if config := static.get(name); config != nil {
			return config
		}
		if dynamic := c.clusters.Get(name); dynamic != nil {
			return dynamic.Config
		}
		return nil
	}
	c.limits = rlsclient.New(c.clusters, c.runtime, log)
	c.logs = accesslog.NewFiles(c.registry, log)
	c.adminLogs = c.parseAdminLogs(report)
	dependencies := builtin.Dependencies{
		Clusters: c.clusters, RateLimits: c.limits, AccessLogs: c.logs, Stats: c.registry, Runtime: c.runtime,
		StaticCluster:    known,
		CheckGRPCCluster: static.checkGRPC,
		CheckSource:      static.checkSource,
		Log:              log,
		ServiceName:      boot.Node.GetCluster(),
		Failing:          failing,
	}
	c.routes = rds.New(rds.Options{
		Schema: schema, Parse: builtin.ParseRoutes(dependencies), SetName: c.setRoute, Log: log,
	})
	dependencies.Routes = c.routes
	filters := listener.Filters{Listener: builtin.ListenerFilters(dependencies), Network: builtin.NetworkFilters(dependencies)}
	c.listeners = listener.NewManager(listener.ManagerOptions{
		Filters: filters, Schema: schema, Stats: c.registry, Log: log, DrainTime: o.DrainTime, DrainGradually: o.DrainGradually,
		ConnectionLimit: c.connectionLimit, TotalLimit: c.limitOf(layeredruntime.TotalConnectionLimit),
	}, boot.LDS != nil)
	c.parseListeners(filters, report)
	if err := report.Err(); err != nil {
		return nil, err
	}
	strict.LogWarnings(log, report)
	return c, nil
}

// parseAdminLogs makes the access logs of the admin listener.
func (c *configuration) parseAdminLogs(report *strict.Report) []*accesslog.Log {
	m := c.boot.Message.GetAdmin()
	logs := c.logs.Parse(m.GetAccessLog(), "admin.access_log", report)
	if path := m.GetAccessLogPath(); path != "" { //nolint:staticcheck // it is deprecated, and in wide use
		logs = append(logs, c.logs.At(path))
	}
	return logs
}

// connectionLimit is how the runtime bounds the connections of a listener at once.
func (c *configuration) connectionLimit(listener string) func() int64 {
	return c.limitOf(layeredruntime.ConnectionLimitKey(listener))
}

// limitOf is the limit that the runtime has under a key.
func (c *configuration) limitOf(key string) func() int64 {
	return func() int64 { return int64(c.runtime.Snapshot().Integer(key, math.MaxInt64)) }
}

// parseListeners makes the listeners of the bootstrap.
func (c *configuration) parseListeners(filters listener.Filters, report *strict.Report) {
	names := map[string]bool{}
	addresses := map[netip.AddrPort]string{}
	for _, entry := range c.boot.Listeners {
		config := listener.Parse(entry.Message, entry.At, filters, report)
		if names[config.Name] {
			report.Add(entry.At.Field("name"), "listener %q is there twice", config.Name)
		}
		names[config.Name] = true
		if other, taken := addresses[config.Address]; taken && config.Address.Port() != 0 {
			report.Add(entry.At.Field("address"), "%s is that of listener %q", config.Address, other)
		}
		addresses[config.Address] = config.Name
		c.staticListeners = append(c.staticListeners, config)
	}
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
		NodeID: o.ServiceNode, NodeCluster: o.ServiceCluster, NodeZone: o.ServiceZone,
	}, schema)
	return boot, report, nil
}
