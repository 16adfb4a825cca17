// Package app is the discovery service in one piece: it turns settings into
// store, registry, HTTP, gRPC and admin listeners, and runs them. cmd/discovery
// calls Main; tests call New and Run with ports of 0. It is the only package that
// wires, and it decides nothing about a host.
package app

import (
	"context"
	"errors"
	"log/slog"
	"strings"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"

	"github.com/weirproxy/weir/internal/daemon"
	"github.com/weirproxy/weir/services/discovery/internal/hds"
	"github.com/weirproxy/weir/services/discovery/internal/lrs"
	"github.com/weirproxy/weir/services/discovery/internal/registry"
	"github.com/weirproxy/weir/services/discovery/internal/resources"
	"github.com/weirproxy/weir/services/discovery/internal/statsd"
	"github.com/weirproxy/weir/services/discovery/internal/xds"
)

// App is one instance of the service.
type App struct {
	group     daemon.Group
	listeners daemon.Listeners

	// What the parts are made of.
	options Options
	log     *slog.Logger
	metrics *prometheus.Registry
	inputs  inputs
	access  *access
	hosts   *registry.Registry
	loads   *lrs.Server
	control *xds.Server // there before anything runs
	checks  *hds.Server // nil if there are none
}

// Addrs is the bound addresses by listener: http, xds and admin.
func (a *App) Addrs() map[string]string { return a.listeners.Addrs() }

// Run serves until ctx ends, then drains. The error joins those of the parts
// that failed.
func (a *App) Run(ctx context.Context) error { return a.group.Run(ctx) }

// New builds the service: its listeners are open when it returns, and nothing
// is answered before Run. The order matters: the parts are stopped from the
// last to the first. So whether it is ready is the first to hear of the stop;
// calls that wait are answered, and the listeners close, that of operators last;
// then the registry ends, and the store takes its last words. On an error
// nothing stays open.
func New(o Options, log *slog.Logger) (*App, error) {
	if o.check() != nil {
		return nil, o.faults()
	}
	a := newApp(o, log)
	a.group = daemon.Group{Log: log, Grace: o.DrainGrace, Deadline: o.DrainDeadline}
	a.metrics.MustRegister(collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}))

	store, badStore := a.openStore()
	err := errors.Join(badStore, a.openFiles(store), a.openListeners())
	var maker *resources.Maker
	if err == nil {
		maker, err = o.newMaker(a.inputs.template)
	}
	if err != nil {
		a.listeners.Close()
		if store != nil {
			err = errors.Join(err, store.Close())
		}
		return nil, err
	}
	a.group.Add(daemon.Part{Name: "store", Stop: func(context.Context) error { return store.Close() }})
	a.group.Add(daemon.Background("registry", a.hosts.Run))
	a.access.addParts(&a.group, a.recheckClients)
	registration := a.addStatsd()
	a.loads = newLoads(o.LoadOptions, a.access, a.metrics)
	state := &serviceState{registry: a.hosts}
	operators := a.addOperators(state)
	a.addGRPC(maker, operators)
	a.addHTTP(registration, operators)
	a.group.Add(daemon.Part{Name: "readiness", Drain: func() { state.stopping.Store(true) }})

	// The rest of the URL may hold a password.
	scheme, _, _ := strings.Cut(o.Store, ":")
	addresses := a.Addrs()
	a.access.warnIfOpen(o.AccessOptions, addresses["http"], log)
	log.Info("listening", "http", addresses["http"], "xds", addresses["xds"], "admin", addresses["admin"], "store", scheme)
	return a, nil
}

// newApp makes an App that has no parts yet.
func newApp(o Options, log *slog.Logger) *App {
	return &App{options: o, log: log, metrics: prometheus.NewRegistry()}
}

// recheckClients has other access rules hold for streams that are open: who may not
// be its node any more is let go, and the others have the secrets that they may.
func (a *App) recheckClients() {
	a.control.RecheckNodes()
	a.control.RecheckSecrets()
	a.loads.RecheckNodes()
	if a.checks != nil {
		a.checks.RecheckNodes()
	}
}

// newRegistry makes the registry, on a store.
func (a *App) newRegistry(store registry.Store) *registry.Registry {
	o := a.options
	return registry.New(registry.Options{
		Store:                 store,
		Log:                   a.log,
		Metrics:               a.metrics,
		SweepInterval:         o.SweepInterval,
		WarmUp:                o.warmUp(),
		LostWarmUp:            o.hostTTL(),
		EmptyServiceRetention: o.EmptyServiceRetention,
		DrainTime:             o.DrainTime,
		Linger:                o.DebounceEmpty,
		Limits: registry.Limits{
			HostsPerService: o.MaxHostsPerService,
			Services:        o.MaxServices,
			TagBytes:        o.MaxTagBytes,
		},
		Guard: o.guard(),
	})
}

// addStatsd has counters sent, if anywhere, and returns who is to be told of each
// registration by v1; nil for nobody.
func (a *App) addStatsd() (registration func(service string, taken bool)) {
	address := a.options.statsd()
	if address == "" {
		return nil
	}
	sender := statsd.New(statsd.Options{Address: address, Registry: a.hosts, Log: a.log})
	a.group.Add(daemon.Background("statsd", sender.Run))
	return sender.Registration
}
