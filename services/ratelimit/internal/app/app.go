// Package app is the rate-limit service in one piece: it turns settings into
// store, limiter, rule source and listeners, and runs them. cmd/ratelimit calls
// Main; tests call New and Run with ports of 0. It is the only package that
// wires, and it decides nothing about a request.
package app

import (
	"context"
	"fmt"
	"log/slog"
	"net/http"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"

	"github.com/weirproxy/weir/internal/admin"
	"github.com/weirproxy/weir/internal/daemon"
	"github.com/weirproxy/weir/services/ratelimit/internal/builtin"
	"github.com/weirproxy/weir/services/ratelimit/internal/grpcserver"
	"github.com/weirproxy/weir/services/ratelimit/internal/limiter"
	"github.com/weirproxy/weir/services/ratelimit/internal/limits"
	"github.com/weirproxy/weir/services/ratelimit/internal/limitsource"
	"github.com/weirproxy/weir/services/ratelimit/internal/rls"
	"github.com/weirproxy/weir/services/ratelimit/internal/store/redis"
)

// App is one instance of the service.
type App struct {
	group     daemon.Group
	listeners daemon.Listeners
}

// Addrs is the bound addresses by listener: grpc, http and admin.
func (a *App) Addrs() map[string]string { return a.listeners.Addrs() }

// Run serves until ctx ends, then drains. The error joins those of the parts
// that failed.
func (a *App) Run(ctx context.Context) error { return a.group.Run(ctx) }

// New builds the service: its listeners are open when it returns, its rules
// are read, and nothing is answered before Run. The order matters: the parts
// are stopped from the last to the first, so that the store outlives those who
// use it and the admin listener tells the truth to the end. On an error
// nothing stays open.
func New(o Options, log *slog.Logger) (app *App, err error) {
	if err := o.check(); err != nil {
		return nil, err
	}
	a := &App{}
	a.group = daemon.Group{Log: log, Grace: o.DrainGrace, Deadline: o.DrainDeadline}
	metrics := prometheus.NewRegistry()
	metrics.MustRegister(collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}))

	backend, err := o.backend()
	if err != nil {
		return nil, err
	}
	redisOptions := redis.Options{
		URL:              o.RedisURL,
		Timeout:          o.RedisTimeout,
		Connections:      o.RedisPoolSize,
		ExpirationJitter: time.Duration(o.ExpirationJitter) * time.Second,
		KeyPrefix:        o.KeyPrefix,
	}
	store, err := backend.Open(builtin.StoreOptions{Redis: redisOptions, MaxCounters: o.MaxCounters, Metrics: metrics})
	if err != nil {
		return nil, err
	}
	defer func() {
		if err != nil {
			a.listeners.Close()
			_ = store.Close()
		}
	}()
	a.group.Add(daemon.Part{Name: "store", Stop: func(context.Context) error { return store.Close() }})

	l := limiter.New(limiter.Options{
		Store:          store,
		Algorithm:      builtin.Algorithms()[0],
		KeyPrefix:      o.KeyPrefix,
		NearLimitRatio: o.NearLimitRatio,
		Metrics:        metrics,
	})
	source := limitsource.New(limitsource.Options{
		Directory: o.rulesDirectory(),
		Root:      o.RuntimeRoot,
		IgnoreDot: o.IgnoreDotFiles,
		Poll:      o.RulesPoll,
		Parser: &limits.Parser{
			Algorithms:     builtin.Algorithms(),
			NearLimitRatio: o.NearLimitRatio,
			Stats:          limits.NewStats(metrics),
		},
		Sink:    l,
		Log:     log,
		Metrics: metrics,
	})
	source.Load()
	a.group.Add(daemon.Background("rule source", source.Run))

	health := newHealth(source, store, log)
	adminListener, err := a.listeners.Open("admin", address(o.DebugHost, o.DebugPort), "DEBUG_PORT")
	if err != nil {
		return nil, err
	}
	operators := admin.New(adminListener, admin.Options{Name: "ratelimit", State: health.state, Metrics: metrics, Log: log})
	operators.Handle("GET /rlconfig", "rules in force, and what was refused", serveRules(l, source))
	a.group.Add(daemon.Part{Name: "admin listener", Run: operators.Serve, Stop: operators.Stop})

	service := rls.New(rls.Options{Limiter: l, JSONTimeout: time.Second, Metrics: metrics})
	httpListener, err := a.listeners.Open("http", address(o.Host, o.Port), "PORT")
	if err != nil {
		return nil, err
	}
	a.group.Add(servePlain(httpListener, service, health, log))

	grpcListener, err := a.listeners.Open("grpc", address(o.GRPCHost, o.GRPCPort), "GRPC_PORT")
	if err != nil {
		return nil, err
	}
	a.group.Add(serveGRPC(grpcListener, grpcserver.Options{
		Service:               service,
		Health:                health.grpc,
		Reflection:            true,
		MaxConnectionAge:      o.MaxConnectionAge,
		MaxConnectionAgeGrace: o.MaxConnectionAgeGrace,
		MaxConcurrentStreams:  1024,
		KeepaliveMinTime:      10 * time.Second,
		StreamWorkers:         64,
	}))

	// Last, so that it is the first to hear of the stop.
	probe := daemon.Background("health", health.run)
	probe.Drain = health.drain
	a.group.Add(probe)

	addresses := a.Addrs()
	log.Info("listening", "grpc", addresses["grpc"], "http", addresses["http"],
		"admin", addresses["admin"], "backend", backend.Name, "redis", redis.Address(redisOptions))
	return a, nil
}

// serveRules writes one line for each rule in force, and before them, as
// comments, what is wrong with the files.
func serveRules(l *limiter.Limiter, source *limitsource.Source) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "text/plain; charset=utf-8")
		for _, line := range source.Refused() {
			fmt.Fprintf(w, "# refused: %s\n", line)
		}
		for d := range l.Rules().Domains() {
			for _, rule := range d.Rules {
				fmt.Fprintln(w, rule)
			}
		}
	})
}
