// Package app is the discovery service in one piece: it turns settings into
// store, registry, REST and xDS listeners, and runs them. cmd/discovery calls
// Main; tests call New and Run with ports of 0. It is the only package that
// wires, and it decides nothing about a host.
package app

import (
	"context"
	"encoding/json"
	"errors"
	"log/slog"
	"net"
	"net/http"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"

	"github.com/weirproxy/weir/internal/admin"
	"github.com/weirproxy/weir/internal/daemon"
	"github.com/weirproxy/weir/services/discovery/internal/builtin"
	"github.com/weirproxy/weir/services/discovery/internal/registry"
	"github.com/weirproxy/weir/services/discovery/internal/rest/v1"
	"github.com/weirproxy/weir/services/discovery/internal/xds"
)

// App is one instance of the service.
type App struct {
	group     daemon.Group
	addresses map[string]string
}

// Addrs is the bound addresses by listener: http, xds and admin.
func (a *App) Addrs() map[string]string { return a.addresses }

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
	a := &App{addresses: map[string]string{}}
	a.group = daemon.Group{Log: log, Grace: o.DrainGrace, Deadline: o.DrainDeadline}
	metrics := prometheus.NewRegistry()
	metrics.MustRegister(collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}))

	var undo []func()
	defer func() {
		if err != nil {
			for _, u := range undo {
				u()
			}
		}
	}()
	listen := func(name, address, setting string) (net.Listener, error) {
		l, err := daemon.Listen(address, setting)
		if err == nil {
			undo = append(undo, func() { _ = l.Close() })
			a.addresses[name] = l.Addr().String()
		}
		return l, err
	}

	store, err := builtin.OpenStore(o.Store, builtin.StoreOptions{SnapshotInterval: o.SnapshotInterval, Log: log})
	if err != nil {
		return nil, err
	}
	undo = append(undo, func() { _ = store.Close() })
	a.group.Add(daemon.Part{Name: "store", Stop: func(context.Context) error { return store.Close() }})

	hosts := registry.New(registry.Options{
		Store:                 store,
		Log:                   log,
		Metrics:               metrics,
		SweepInterval:         o.SweepInterval,
		WarmUp:                o.WarmUp,
		EmptyServiceRetention: o.EmptyServiceRetention,
	})
	a.group.Add(loop("registry", hosts.Run))

	state := &serviceState{registry: hosts}
	adminListener, err := listen("admin", o.AdminAddress, "DISCOVERY_ADMIN_ADDRESS")
	if err != nil {
		return nil, err
	}
	operators := admin.New(adminListener, admin.Options{Name: "discovery", State: state.get, Metrics: metrics, Log: log})
	a.group.Add(daemon.Part{Name: "admin listener", Run: operators.Serve, Stop: operators.Stop})

	xdsListener, err := listen("xds", o.XDSAddress, "DISCOVERY_XDS_ADDRESS")
	if err != nil {
		return nil, err
	}
	server := xds.New(xdsListener, xds.Options{
		Registry:   hosts,
		Identifier: o.identifier(),
		Quiet:      o.DebounceQuiet,
		Longest:    o.DebounceLongest,
		MaxStreams: o.XDSMaxStreams,
		Keepalive:  o.XDSKeepalive,
		Log:        log,
		Metrics:    metrics,
	})
	operators.Handle("GET /registry", "known services and how many hosts each has", serveServices(hosts))
	operators.Handle("GET /xds", "open streams: who, what they have, what they refused", server.StatusHandler())
	a.group.Add(daemon.Part{Name: "xds listener", Run: server.Serve, Stop: server.Stop})

	httpListener, err := listen("http", o.httpAddress(), o.httpSetting())
	if err != nil {
		return nil, err
	}
	a.group.Add(serveREST(httpListener, log, v1.Handler(v1.Options{
		Registry:     hosts,
		Env:          o.Env,
		TTL:          o.hostTTL(),
		MaxTTL:       o.MaxTTL,
		AutoIPRanges: o.AutoIPRanges,
		Metrics:      metrics,
		Log:          log,
	})))

	// Last, so that it is the first to hear of the stop.
	a.group.Add(daemon.Part{Name: "readiness", Drain: func() { state.stopping.Store(true) }})

	log.Info("listening", "http", a.addresses["http"], "xds", a.addresses["xds"], "admin", a.addresses["admin"], "store", o.Store)
	return a, nil
}

// loop makes a part of something that runs until its context ends. Its Stop
// waits for that, since what it does last may need the parts before it.
func loop(name string, run func(context.Context) error) daemon.Part {
	running, stop := context.WithCancel(context.Background())
	ended := make(chan struct{})
	return daemon.Part{
		Name: name,
		Run: func() error {
			defer close(ended)
			return run(running)
		},
		Stop: func(ctx context.Context) error {
			stop()
			select {
			case <-ended:
				return nil
			case <-ctx.Done():
				return ctx.Err()
			}
		},
	}
}

// serveREST makes the part that serves handler on l.
func serveREST(l net.Listener, log *slog.Logger, handler http.Handler) daemon.Part {
	server := &http.Server{
		Handler:     handler,
		ReadTimeout: 10 * time.Second,
		IdleTimeout: 2 * time.Minute,
		ErrorLog:    slog.NewLogLogger(log.Handler(), slog.LevelWarn),
	}
	return daemon.Part{
		Name: "http listener",
		Run: func() error {
			if err := server.Serve(l); !errors.Is(err, http.ErrServerClosed) {
				return err
			}
			return nil
		},
		Stop: func(ctx context.Context) error {
			if err := server.Shutdown(ctx); err != nil {
				return server.Close()
			}
			return nil
		},
	}
}

// serviceState is what /ready tells.
type serviceState struct {
	registry *registry.Registry
	stopping atomic.Bool
}

// get says whether hosts may check in and readers may ask.
func (s *serviceState) get() admin.State {
	if s.stopping.Load() {
		return admin.State{Text: "stopping"}
	}
	select {
	case <-s.registry.Loaded():
		return admin.State{Ready: true, Text: "ready"}
	default:
		return admin.State{Text: "the registry is not loaded yet"}
	}
}

// serveServices answers with how many hosts each known service has.
func serveServices(r *registry.Registry) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "application/json")
		encoder := json.NewEncoder(w)
		encoder.SetIndent("", "  ")
		// A failed write means that the reader has gone.
		_ = encoder.Encode(struct {
			Services map[string]int `json:"services"`
		}{r.Services()})
	})
}
