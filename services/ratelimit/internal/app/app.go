// Package app is the rate-limit service in one piece: it turns settings into
// store, limiter, rule source and listeners, and runs them. cmd/ratelimit calls
// Main; tests call New and Run with ports of 0. It is the only package that
// wires, and it decides nothing about a request.
package app

import (
	"context"
	"log/slog"
	"os"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"

	"github.com/weirproxy/weir/internal/daemon"
	"github.com/weirproxy/weir/services/ratelimit/internal/builtin"
	"github.com/weirproxy/weir/services/ratelimit/internal/limiter"
	"github.com/weirproxy/weir/services/ratelimit/internal/limits"
	"github.com/weirproxy/weir/services/ratelimit/internal/localcache"
	"github.com/weirproxy/weir/services/ratelimit/internal/refusals"
	"github.com/weirproxy/weir/services/ratelimit/internal/rls"
	"github.com/weirproxy/weir/services/ratelimit/internal/statsd"
	"github.com/weirproxy/weir/services/ratelimit/internal/store/redis"
	"github.com/weirproxy/weir/services/ratelimit/internal/tracing"
)

// App is one instance of the service.
type App struct {
	group     daemon.Group
	listeners daemon.Listeners
}

// Addrs is the bound addresses by listener: grpc, http, admin, and prometheus
// where it is wanted.
func (a *App) Addrs() map[string]string { return a.listeners.Addrs() }

// Run serves until ctx ends, then drains. The error joins those of the parts
// that failed.
func (a *App) Run(ctx context.Context) error { return a.group.Run(ctx) }

// build is an App that is being put together. The steps of New fill it in.
type build struct {
	*App
	options Options
	log     *slog.Logger
	metrics *prometheus.Registry

	store    limiter.Store
	shown    string          // what may be said of where the store is
	tracer   *tracing.Tracer // nil if nothing is traced
	refusals refusals.Top
	stats    *limits.Stats
	limiter  *limiter.Limiter
	rules    ruleSource
	loaded   chan struct{} // has one when rules were loaded since it was last emptied
	health   *serviceHealth
	service  *rls.Service
}

// New builds the service: its listeners are open when it returns, its rules
// are read, and nothing is answered before Run. The order matters: the parts
// are stopped from the last to the first, so that the store outlives those who
// use it, statistics and spans are sent when all are made, and the admin
// listener tells the truth to the end. On an error nothing stays open.
func New(o Options, log *slog.Logger) (app *App, err error) {
	if err := o.check(); err != nil {
		return nil, err
	}
	b := &build{App: &App{}, options: o, log: log, metrics: prometheus.NewRegistry(), loaded: make(chan struct{}, 1)}
	b.group = daemon.Group{Log: log, Grace: o.DrainGrace, Deadline: o.DrainDeadline}
	b.metrics.MustRegister(
		collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}), newGCShare(),
	)
	defer func() {
		if err != nil {
			b.listeners.Close()
			if b.tracer != nil {
				_ = b.tracer.Stop(context.Background()) // it has no spans; the error is always nil
			}
			if b.store != nil {
				_ = b.store.Close()
			}
		}
	}()
	if err := inOrder(b.openStore, b.openStatsd, b.openTracing); err != nil {
		return nil, err
	}
	b.makeLimiter()
	b.makeService()
	if err := inOrder(b.openRules, b.listenAdmin, b.listenPrometheus, b.listenHTTP, b.listenGRPC); err != nil {
		return nil, err
	}
	// Last, so that it is the first to hear of the stop.
	probe := daemon.Background("health", b.health.run)
	probe.Drain = b.health.drain
	b.group.Add(probe)

	addresses := b.Addrs()
	log.Info("listening", "grpc", addresses["grpc"], "http", addresses["http"], "admin", addresses["admin"], "store", b.shown)
	return b.App, nil
}

// inOrder takes steps until one fails.
func inOrder(steps ...func() error) error {
	for _, step := range steps {
		if err := step(); err != nil {
			return err
		}
	}
	return nil
}

func (b *build) openStore() error {
	o := &b.options
	backend, err := o.backend()
	if err != nil {
		return err
	}
	b.store, err = backend.Open(builtin.StoreOptions{
		Redis: o.redis(), RedisPerSecond: o.redisPerSecond(), MaxCounters: o.MaxCounters, Metrics: b.metrics,
	})
	if err != nil {
		return err
	}
	b.shown = backend.Name
	if backend.Name == "redis" {
		b.shown += " at " + redis.Address(o.redis())
	}
	b.group.Add(daemon.Part{Name: "store", Stop: func(context.Context) error { return b.store.Close() }})
	return nil
}

func (b *build) openStatsd() error {
	o := &b.options
	sender, err := statsd.New(statsd.Options{
		Statsd: o.UseStatsd, Datadog: o.UseDogStatsd, Disable: o.DisableStats,
		Host: o.StatsdHost, Port: o.StatsdPort, Protocol: o.StatsdProtocol, Interval: o.FlushInterval,
		ExtraTags: o.ExtraTags, Mogrifiers: o.Mogrifiers, Getenv: os.Getenv, Metrics: b.metrics, Log: b.log,
	})
	if sender != nil {
		b.group.Add(daemon.Background("statsd", sender.Run))
	}
	return err
}

func (b *build) openTracing() (err error) {
	o := &b.options
	b.tracer, err = tracing.New(tracing.Options{
		Enabled: o.TracingEnabled, Protocol: o.TracingProtocol,
		ServiceName: o.TracingService, ServiceNamespace: o.TracingNamespace, ServiceInstanceID: o.TracingInstance,
		SamplingRate: o.TracingSampling, Getenv: os.Getenv, Log: b.log,
	})
	if b.tracer != nil {
		b.group.Add(daemon.Part{Name: "tracing", Stop: b.tracer.Stop})
	}
	return err
}

func (b *build) makeLimiter() {
	o := &b.options
	b.stats = limits.NewStats(b.metrics)
	b.stats.MaxNames, b.stats.IdleNames = o.MaxNames, o.IdleNames
	options := limiter.Options{
		Store:          tracing.Store(b.store, b.tracer, "Redis Pipeline Execution"), // the peer's name of the span
		Algorithm:      builtin.Algorithms()[0],
		KeyPrefix:      o.KeyPrefix,
		NearLimitRatio: o.NearLimitRatio,
		StopWhenOver:   o.StopWhenOver,
		ShadowMode:     o.ShadowMode,
		QuotaMode:      o.QuotaMode,
		Refused:        b.refusals.Add,
		DomainNotFound: b.stats.DomainNotFound,
		Metrics:        b.metrics,
	}
	if o.LocalCacheSize > 0 {
		options.LocalCache = localcache.New(o.LocalCacheSize, b.metrics)
	}
	b.limiter = limiter.New(options)
}
