package app

import (
	"net"
	"net/http"

	adminv3 "github.com/envoyproxy/go-control-plane/envoy/admin/v3"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"google.golang.org/protobuf/types/known/durationpb"

	"github.com/weirproxy/weir/internal/admin"
	"github.com/weirproxy/weir/services/proxy/internal/adminapi"
)

// newAdmin makes the admin interface on an open listener. The proxy's own
// sockets are bound by then.
func (a *App) newAdmin(l net.Listener) *admin.Server {
	metrics := prometheus.NewRegistry()
	metrics.MustRegister(a.registry, collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}))
	server := admin.New(l, admin.Options{
		Name:    "proxy",
		State:   func() admin.State { return admin.State{Ready: a.state.Load() == live, Text: a.stateName()} },
		Metrics: metrics,
		Log:     a.log,
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
		ControlPlane: a.xds,
	}
	adminapi.Mount(server, shown)
	server.Handle("POST /reopen_logs", "opens the files of access logs anew, as SIGUSR1 does", http.HandlerFunc(a.reopenLogs))
	return server
}

// stateName is what /ready answers, in Envoy's words.
func (a *App) stateName() string {
	switch a.state.Load() {
	case live:
		return "LIVE"
	case draining:
		return "DRAINING"
	default:
		return "PRE_INITIALIZING"
	}
}

// commandLine is what /server_info says of the flags.
func (a *App) commandLine() *adminv3.CommandLineOptions {
	return &adminv3.CommandLineOptions{
		ConfigPath:     a.options.ConfigPath,
		ConfigYaml:     a.options.ConfigYAML,
		ServiceNode:    a.options.ServiceNode,
		ServiceCluster: a.options.ServiceCluster,
		LogLevel:       a.options.LogLevel,
		DrainTime:      durationpb.New(a.options.DrainTime),
	}
}
