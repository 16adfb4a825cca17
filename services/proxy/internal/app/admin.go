package app

import (
	"net"
	"runtime"
	"slices"

	adminv3 "github.com/envoyproxy/go-control-plane/envoy/admin/v3"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"google.golang.org/protobuf/types/known/durationpb"

	"github.com/weirproxy/weir/internal/admin"
	"github.com/weirproxy/weir/services/proxy/internal/adminapi"
	"github.com/weirproxy/weir/services/proxy/internal/matcher"
	"github.com/weirproxy/weir/services/proxy/internal/web"
)

// newAdmin makes the admin interface on an open listener. The proxy's own
// sockets are bound by then.
func (a *App) newAdmin(l net.Listener) *admin.Server {
	metrics := prometheus.NewRegistry()
	metrics.MustRegister(a.registry, collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}))
	server := admin.New(l, admin.Options{
		Name:    "proxy",
		State:   func() admin.State { name := a.stateName(); return admin.State{Ready: name == stateLive, Text: name} },
		Metrics: metrics,
		Log:     a.log,
		Allow:   a.allowedPaths(),
		Around:  a.logged,
	})
	shown := adminapi.Options{
		Version:      a.options.Version,
		Started:      a.started,
		State:        a.stateName,
		CommandLine:  a.commandLine(),
		Bootstrap:    a.boot.Message,
		Node:         a.boot.Node,
		Clusters:     a.clusters,
		Listeners:    a.listeners,
		Routes:       a.routes,
		Stats:        a.registry,
		Runtime:      a.runtime,
		ControlPlane: a.xds,
		Control:      control{a},
		LogLevel:     &a.logLevel,
	}
	adminapi.Mount(server, shown)
	web.Mount(server)
	return server
}

// allowedPaths says which paths of the admin listener are answered (allow_paths);
// nil is all of them.
func (a *App) allowedPaths() func(target string) bool {
	conditions := a.boot.AdminPaths
	if len(conditions) == 0 {
		return nil
	}
	return func(target string) bool {
		return slices.ContainsFunc(conditions, func(c *matcher.String) bool { return c.Match([]byte(target)) })
	}
}

// stateLive is the state in which the proxy is ready.
const stateLive = "LIVE"

// stateName is what /ready answers, in Envoy's words.
func (a *App) stateName() string {
	switch a.state.Load() {
	case live:
		if a.failed.Load() {
			return "DRAINING"
		}
		return stateLive
	case draining:
		return "DRAINING"
	default:
		return "PRE_INITIALIZING"
	}
}

// control does what operators ask for.
type control struct{ *App }

// FailHealthChecks implements adminapi.Control.
func (c control) FailHealthChecks(fail bool) {
	c.telling.Lock()
	defer c.telling.Unlock()
	c.log.Info("told how to answer health checks", "fail", fail)
	c.failed.Store(fail)
	if c.failing() { // also if not told so: a stop goes on
		c.listeners.Drain()
	} else {
		c.listeners.Undrain()
	}
}

// DrainListeners implements adminapi.Control.
func (c control) DrainListeners(inboundOnly, graceful, keepOpen bool) {
	c.log.Info("told to drain listeners", "inbound_only", inboundOnly, "graceful", graceful, "keep_open", keepOpen)
	c.listeners.DrainListeners(inboundOnly, graceful, keepOpen)
}

// ReopenLogs implements adminapi.Control.
func (c control) ReopenLogs() { c.logs.Reopen() }

// Quit implements adminapi.Control.
func (c control) Quit() { c.quit() }

// commandLine is what /server_info says of the flags.
func (a *App) commandLine() *adminv3.CommandLineOptions {
	strategy := adminv3.CommandLineOptions_Immediate
	if a.options.DrainGradually {
		strategy = adminv3.CommandLineOptions_Gradual
	}
	return &adminv3.CommandLineOptions{
		ConfigPath:     a.options.ConfigPath,
		ConfigYaml:     a.options.ConfigYAML,
		ServiceNode:    a.options.ServiceNode,
		ServiceCluster: a.options.ServiceCluster,
		ServiceZone:    a.options.ServiceZone,
		LogLevel:       a.options.LogLevel,
		LogFormat:      a.options.LogFormat,
		DrainTime:      durationpb.New(a.options.DrainTime),
		DrainStrategy:  strategy,
		Concurrency:    uint32(runtime.GOMAXPROCS(0)),

		AdminAddressPath:  a.options.AdminAddressPath,
		DisableHotRestart: true,
	}
}
