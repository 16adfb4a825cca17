package app

import (
	"log/slog"
	"net"
	"testing"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/stretchr/testify/require"

	"github.com/weirproxy/weir/internal/daemon"
	"github.com/weirproxy/weir/services/ratelimit/internal/grpcserver"
	"github.com/weirproxy/weir/services/ratelimit/internal/limiter"
	"github.com/weirproxy/weir/services/ratelimit/internal/rls"
)

// A stop without a grace period may come before a part has begun to run.
func TestAStopBeforeTheFirstCallIsNoError(t *testing.T) {
	log := slog.New(slog.DiscardHandler)
	h := newHealth(ruled{}, &flaky{}, log)
	service := rls.New(rls.Options{
		Limiter: limiter.New(limiter.Options{Metrics: prometheus.NewRegistry()}), Metrics: prometheus.NewRegistry(),
	})
	for name, serve := range map[string]func(net.Listener) daemon.Part{
		"grpc": func(l net.Listener) daemon.Part {
			return serveGRPC(l, grpcserver.Options{Service: service, Health: h.grpc})
		},
		"http": func(l net.Listener) daemon.Part { return servePlain(l, service, h, log) },
	} {
		t.Run(name, func(t *testing.T) {
			l, err := net.Listen("tcp", "127.0.0.1:0")
			require.NoError(t, err)
			part := serve(l)
			require.NoError(t, part.Stop(t.Context()))
			require.NoError(t, part.Run())
			_, err = l.Accept()
			require.ErrorIs(t, err, net.ErrClosed)
		})
	}
}
