// Package app is the discovery service in one piece: it turns settings into
// store, registry, REST and xDS listeners, and runs them. cmd/discovery calls
// Main; tests call New and Run with ports of 0. It is the only package that
// wires, and it decides nothing about a host.
package app

import (
	"context"
	"fmt"
	"log/slog"
	"strings"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"

	"github.com/weirproxy/weir/internal/admin"
	"github.com/weirproxy/weir/internal/daemon"
	"github.com/weirproxy/weir/services/discovery/internal/beats"
	"github.com/weirproxy/weir/services/discovery/internal/builtin"
	"github.com/weirproxy/weir/services/discovery/internal/registry"
	"github.com/weirproxy/weir/services/discovery/internal/statsd"
	"github.com/weirproxy/weir/services/discovery/internal/xds"
)

// App is one instance of the service.
type App struct {
	group     daemon.Group
	listeners daemon.Listeners
}

// Addrs is the bound addresses by listener: http, xds and admin.
func (a *App) Addrs() map[string]string { return a.listeners.Addrs() }

// Run serves until ctx ends, then drains. The error joins those of the parts
// that failed.
func (a *App) Run(ctx context.Context) error { return a.group.Run(ctx) }

// New builds the service: its listeners are open when it returns, and nothing
// is answered before Run. The order matters: the parts are stopped from the
// last to the first, so that the store takes the registry's last words and the
// registry outlives those who use it. On an error nothing stays open.
func New(o Options, log *slog.Logger) (app *App, err error) {
	if err := o.check(); err != nil {
		return nil, err
	}
	a := &App{}
	a.group = daemon.Group{Log: log, Grace: o.DrainGrace, Deadline: o.DrainDeadline}
	metrics := prometheus.NewRegistry()
	metrics.MustRegister(collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}))

	access, err := newAccess(o.AccessOptions, metrics, log)
	if err != nil {
		return nil, err
	}
	store, err := builtin.OpenStore(o.Store, builtin.StoreOptions{
		Snapshot: o.Snapshot, SnapshotInterval: o.SnapshotInterval, Log: log,
	})
	if err != nil {
		return nil, fmt.Errorf("DISCOVERY_STORE: %w", err)
	}
	defer func() {
		if err != nil {
			a.listeners.Close()
			_ = store.Close()
		}
	}()
	a.group.Add(daemon.Part{Name: "store", Stop: func(context.Context) error { return store.Close() }})

	hosts := registry.New(registry.Options{
		Store:                 store,
		Log:                   log,
		Metrics:               metrics,
		SweepInterval:         o.SweepInterval,
		WarmUp:                o.WarmUp,
		EmptyServiceRetention: o.EmptyServiceRetention,
		DrainTime:             o.DrainTime,
		Limits: registry.Limits{
			HostsPerService: o.MaxHostsPerService,
			Services:        o.MaxServices,
			TagBytes:        o.MaxTagBytes,
		},
		Guard: o.guard(),
	})
	a.group.Add(daemon.Background("registry", hosts.Run))
	access.addParts(&a.group)

	var registration func(service string, taken bool)
	if address := o.statsd(); address != "" {
		sender := statsd.New(statsd.Options{Address: address, Registry: hosts, Log: log})
		registration = sender.Registration
		a.group.Add(daemon.Background("statsd", sender.Run))
	}

	state := &serviceState{registry: hosts}
	adminListener, err := a.listeners.Open("admin", o.AdminAddress, "DISCOVERY_ADMIN_ADDRESS")
	if err != nil {
		return nil, err
	}
	operators := admin.New(adminListener, admin.Options{Name: "discovery", State: state.get, Metrics: metrics, Log: log})
	a.group.Add(daemon.Part{Name: "admin listener", Run: operators.Serve, Stop: operators.Stop})

	xdsListener, err := a.listeners.Open("xds", o.XDSAddress, "DISCOVERY_XDS_ADDRESS")
	if err != nil {
		return nil, err
	}
	server := xds.New(xds.Options{
		Registry:   hosts,
		Identifier: o.identifier(),
		Quiet:      o.DebounceQuiet,
		Longest:    o.DebounceLongest,
		MaxStreams: o.XDSMaxStreams,
		Log:        log,
		Metrics:    metrics,
	})
	operators.Handle("GET /registry", "known services and how many hosts each has", serveServices(hosts))
	operators.Handle("GET /xds", "open streams: who, what they have, what they refused", server.StatusHandler())
	a.group.Add(daemon.Background("xds", server.Run))
	streams := newGRPCServer(o, access)
	server.Register(streams)
	heartbeats := beats.New(beats.Options{
		Registry:   hosts,
		Silence:    o.BeatSilence,
		LossEnds:   o.BeatLossEnds,
		MaxStreams: o.BeatMaxStreams,
		MaxHosts:   o.BeatMaxHosts,
		Log:        log,
		Metrics:    metrics,
	})
	heartbeats.Register(streams)
	a.group.Add(daemon.ServeGRPC("xds listener", xdsListener, streams, helloTimeout, func() {
		server.Stop()
		heartbeats.Stop()
	}))

	httpAddress, httpSetting := o.httpAddress()
	httpListener, err := a.listeners.Open("http", httpAddress, httpSetting)
	if err != nil {
		return nil, err
	}
	stopping := make(chan struct{})
	faces := newFaces(o, hosts, registration, stopping, access.denials, metrics, log)
	a.group.Add(daemon.ServeHTTP("http listener", access.http(httpListener), access.gate.HTTP(faces), log))
	// Just before the listener stops, which waits for the calls in flight: those
	// that wait for a change are answered, and find another replica.
	a.group.Add(daemon.Part{Name: "waiting calls", Stop: func(context.Context) error { close(stopping); return nil }})

	// Last, so that it is the first to hear of the stop.
	a.group.Add(daemon.Part{Name: "readiness", Drain: func() { state.stopping.Store(true) }})

	// The rest of the URL may hold a password.
	scheme, _, _ := strings.Cut(o.Store, ":")
	addresses := a.Addrs()
	access.warnIfOpen(o.AccessOptions, addresses["http"], log)
	log.Info("listening", "http", addresses["http"], "xds", addresses["xds"], "admin", addresses["admin"], "store", scheme)
	return a, nil
}
