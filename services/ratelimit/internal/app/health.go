package app

import (
	"context"
	"log/slog"
	"sync"
	"time"

	"google.golang.org/grpc/health"
	healthpb "google.golang.org/grpc/health/grpc_health_v1"

	"github.com/weirproxy/weir/internal/admin"
	"github.com/weirproxy/weir/services/ratelimit/internal/limiter"
)

// A probe asks the store twice before it fails, so that one late answer does
// not flip readiness; one failed probe is enough. A store that went away or
// hangs shows after an interval and two waits at most: within two seconds.
const (
	// probeInterval is the time between the beginnings of probes.
	probeInterval = time.Second
	// probeWait is how long each answer may take, whatever REDIS_TIMEOUT is.
	probeWait = 400 * time.Millisecond
)

// healthNames are the services that gRPC health knows: the one that
// envoyproxy/ratelimit has, and the process as a whole.
var healthNames = [...]string{"", "ratelimit"}

// serviceHealth is what /ready, /healthcheck and gRPC health all say: whether
// rules were loaded once, whether the store answered the last probe, and
// whether the process is stopping.
type serviceHealth struct {
	// noRules returns nil once there were rules, else why there were none.
	noRules func() error
	store   limiter.Store
	// loaded has run probe at once when rules were loaded; nil never does.
	loaded <-chan struct{}
	log    *slog.Logger
	grpc   *health.Server

	mu       sync.Mutex
	now      admin.State
	draining bool
}

// newHealth probes once, so that the first answer is a true one.
func newHealth(noRules func() error, store limiter.Store, log *slog.Logger) *serviceHealth {
	h := &serviceHealth{noRules: noRules, store: store, log: log, grpc: health.NewServer()}
	h.probe(context.Background())
	return h
}

// state is what /ready answers.
func (h *serviceHealth) state() admin.State {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.now
}

// run probes now and then, and when rules were loaded, until ctx ends. The error is
// always nil.
func (h *serviceHealth) run(ctx context.Context) error {
	tick := time.NewTicker(probeInterval)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
		case <-h.loaded:
		}
		h.probe(ctx)
	}
}

// drain makes every answer "not ready" from now on.
func (h *serviceHealth) drain() {
	h.mu.Lock()
	h.draining = true
	h.mu.Unlock()
	h.set(admin.State{Text: "stopping"})
}

func (h *serviceHealth) probe(ctx context.Context) {
	if err := h.noRules(); err != nil {
		h.set(admin.State{Text: err.Error()})
		return
	}
	err := h.ask(ctx)
	if err != nil {
		err = h.ask(ctx)
	}
	if err != nil {
		h.set(admin.State{Text: err.Error()})
		return
	}
	h.set(admin.State{Ready: true, Text: "ready"})
}

func (h *serviceHealth) ask(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, probeWait)
	defer cancel()
	return h.store.Ping(ctx)
}

// set changes the state, unless the process is stopping and s says ready.
func (h *serviceHealth) set(s admin.State) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.draining {
		s = admin.State{Text: "stopping"}
	}
	if s.Ready != h.now.Ready || h.now.Text == "" {
		h.log.Info("readiness", "ready", s.Ready, "state", s.Text)
	}
	h.now = s
	status := healthpb.HealthCheckResponse_NOT_SERVING
	if s.Ready {
		status = healthpb.HealthCheckResponse_SERVING
	}
	for _, name := range healthNames {
		h.grpc.SetServingStatus(name, status)
	}
}
