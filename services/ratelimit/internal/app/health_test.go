package app_test

import (
	"context"
	"net"
	"net/http"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"google.golang.org/grpc/codes"
	healthpb "google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/grpc/status"

	"github.com/weirproxy/weir/internal/servicetest"
)

func TestRedisThatGoesAwayIsToldAtOnceAndItsReturnToo(t *testing.T) {
	server := servicetest.Redis(t)
	o := options(t)
	o.RedisURL = "redis://" + server.Address
	r := start(t, o)
	resp, err := r.ask(t.Context(), "user", "alice")
	require.NoError(t, err)
	require.Equal(t, uint32(2), resp.GetStatuses()[0].GetLimitRemaining())

	server.Kill()
	begin := time.Now()
	_, err = r.ask(t.Context(), "user", "alice")
	require.Equal(t, codes.Unavailable, status.Code(err), "%v", err)
	require.Less(t, time.Since(begin), o.RedisTimeout, "it is not waited for")
	_, err = r.ask(t.Context(), "free", "x")
	require.NoError(t, err, "what needs no counter is still answered")
	servicetest.Eventually(t, "not ready", func() bool {
		code, _ := r.get(t, "admin", "/ready")
		return code == http.StatusServiceUnavailable
	})
	code, body := r.get(t, "http", "/healthcheck")
	require.Equal(t, http.StatusInternalServerError, code)
	require.Contains(t, body, "ping redis at "+server.Address)
	require.Equal(t, healthpb.HealthCheckResponse_NOT_SERVING, r.health(t, "ratelimit"))
	require.Equal(t, healthpb.HealthCheckResponse_NOT_SERVING, r.health(t, ""))
	code, _ = r.get(t, "admin", "/healthz")
	require.Equal(t, http.StatusOK, code, "the process lives all the same")

	server.Start()
	servicetest.Eventually(t, "ready", func() bool {
		code, _ := r.get(t, "admin", "/ready")
		return code == http.StatusOK
	})
	_, err = r.ask(t.Context(), "user", "alice")
	require.NoError(t, err)
}

func TestAHungRedisIsTold(t *testing.T) {
	for _, timeout := range []time.Duration{50 * time.Millisecond, 5 * time.Second} {
		t.Run(timeout.String(), func(t *testing.T) {
			server := servicetest.Redis(t)
			o := options(t)
			o.RedisURL, o.RedisTimeout = server.Address, timeout
			r := start(t, o)
			ready := func() bool {
				code, _ := r.get(t, "admin", "/ready")
				return code == http.StatusOK
			}
			servicetest.Eventually(t, "ready", ready)

			require.NoError(t, server.Process().Signal(syscall.SIGSTOP))
			begin := time.Now()
			ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
			defer cancel()
			_, err := r.ask(ctx, "user", "alice")
			require.Contains(t, []codes.Code{codes.Unavailable, codes.DeadlineExceeded}, status.Code(err), "%v", err)
			require.Less(t, time.Since(begin), servicetest.Patience, "50 ms on a machine that may be busy")
			servicetest.Eventually(t, "not ready", func() bool { return !ready() })
			require.Equal(t, healthpb.HealthCheckResponse_NOT_SERVING, r.health(t, "ratelimit"))

			require.NoError(t, server.Process().Signal(syscall.SIGCONT))
			servicetest.Eventually(t, "ready", ready)
		})
	}
}

func TestStartsWithoutRedisAndSaysSo(t *testing.T) {
	o := options(t)
	o.RedisURL = "127.0.0.1:1"
	r := start(t, o)
	code, body := r.get(t, "admin", "/ready")
	require.Equal(t, http.StatusServiceUnavailable, code)
	require.Contains(t, body, "ping redis at 127.0.0.1:1: ")
	code, _ = r.get(t, "http", "/healthz")
	require.Equal(t, http.StatusOK, code, "it lives all the same")
}

func TestAStopIsToldBeforeTheListenersClose(t *testing.T) {
	o := options(t)
	o.DrainGrace = 5 * time.Second // the calls below come within it on a busy machine too
	o.DrainDeadline = time.Hour
	r := start(t, o)
	_, err := r.ask(t.Context(), "user", "alice")
	require.NoError(t, err)
	watch, err := healthpb.NewHealthClient(r.conn).Watch(t.Context(), &healthpb.HealthCheckRequest{Service: "ratelimit"})
	require.NoError(t, err)
	update, err := watch.Recv()
	require.NoError(t, err)
	require.Equal(t, healthpb.HealthCheckResponse_SERVING, update.GetStatus())

	begin := time.Now()
	ended := make(chan error, 1)
	// Ends when the service has; the test waits for it below.
	go func() { ended <- r.stop() }()
	update, err = watch.Recv()
	require.NoError(t, err)
	require.Equal(t, healthpb.HealthCheckResponse_NOT_SERVING, update.GetStatus())
	code, body := r.get(t, "admin", "/ready")
	require.Equal(t, http.StatusServiceUnavailable, code)
	require.Equal(t, "stopping\n", body)
	_, err = r.ask(t.Context(), "user", "alice")
	require.NoError(t, err, "work is taken until the grace period ends")

	require.NoError(t, <-ended)
	require.Less(t, time.Since(begin), servicetest.Patience, "the watch does not hold up the stop")
	_, err = watch.Recv()
	require.Error(t, err)
}

// Of such a client the server knows no more than that it has connected.
func TestAClientThatSaysNothingDoesNotHoldUpTheStop(t *testing.T) {
	for _, c := range []struct {
		name     string
		deadline time.Duration
	}{
		{"it_is_cut_off_at_the_deadline", 100 * time.Millisecond},
		{"it_is_not_waited_for_longer_than_a_handshake_takes", time.Hour},
	} {
		t.Run(c.name, func(t *testing.T) {
			o := options(t)
			o.DrainDeadline = c.deadline
			r := start(t, o)
			silent, err := net.Dial("tcp", r.addrs["grpc"])
			require.NoError(t, err)
			defer silent.Close()
			_, err = r.ask(t.Context(), "user", "alice")
			require.NoError(t, err, "who came later is served, so that the silent one was accepted")

			begin := time.Now()
			require.NoError(t, r.stop())
			require.Less(t, time.Since(begin), servicetest.Patience)
		})
	}
}
