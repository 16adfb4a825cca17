// Package registrytest gives a registry in memory, with the settings that the
// app has by default. Tests of the faces stand on it; it is in no binary.
package registrytest

import (
	"context"
	"log/slog"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/weirproxy/weir/services/discovery/internal/registry"
	"github.com/weirproxy/weir/services/discovery/internal/store/memory"
)

// Options are those of a registry in memory, which warms up at once, logs nothing
// and guards nothing: a dead host goes, be it the last one or not.
func Options() registry.Options {
	return registry.Options{
		Store:                 memory.New(),
		Log:                   slog.New(slog.DiscardHandler),
		Metrics:               prometheus.NewRegistry(),
		SweepInterval:         100 * time.Millisecond,
		EmptyServiceRetention: time.Hour,
		DrainTime:             30 * time.Second,
		Limits:                registry.Limits{HostsPerService: 20_000, Services: 50_000, TagBytes: 16 << 10},
	}
}

// Run runs r until the test ends.
func Run(t testing.TB, r *registry.Registry) {
	t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	// Ends with ctx; the cleanup waits for it.
	go func() { ended <- r.Run(ctx) }()
	t.Cleanup(func() {
		cancel()
		if err := <-ended; err != nil {
			t.Errorf("run the registry: %v", err)
		}
	})
}

// Loaded is a registry that runs until the test ends, and is loaded.
func Loaded(t testing.TB) *registry.Registry {
	t.Helper()
	r := registry.New(Options())
	Run(t, r)
	<-r.Loaded()
	return r
}
