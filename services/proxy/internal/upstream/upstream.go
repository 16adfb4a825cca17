// Package upstream is what every request goes through at a host of a cluster, whoever
// sends it: the choice of the host, the wait for a connection, the circuit breakers, and
// what is counted and reported of how it went. The router attempts requests of clients
// with it, and grpccall calls of the proxy's own. It writes no request and reads no
// response, and says nothing of whether to try again.
package upstream

import (
	"context"
	"errors"
	"io"
	"time"

	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"

	"github.com/weirproxy/weir/services/proxy/internal/cluster"
	"github.com/weirproxy/weir/services/proxy/internal/cluster/breaker"
	"github.com/weirproxy/weir/services/proxy/internal/connpool"
	"github.com/weirproxy/weir/services/proxy/internal/grpcwire"
	"github.com/weirproxy/weir/services/proxy/internal/hold"
	"github.com/weirproxy/weir/services/proxy/internal/message"
)

// Caller is who waits for an attempt, such as a stream.Stream or another hold.Holder.
type Caller interface {
	// Hold makes c what is closed as soon as nobody waits any more, which may be at
	// once; nil is nothing.
	Hold(c io.Closer)
}

// Attempt is a request at one host of a cluster. The zero value is for use, and for the
// next one after End. It belongs to one goroutine.
type Attempt struct {
	Cluster *cluster.Cluster
	Host    *cluster.Host  // nil if there is none
	Conn    *connpool.Conn // nil before there is one, and once it was given back or discarded

	caller   Caller
	context  context.Context
	breakers *breaker.Set
	burdens  bool // what Burden has taken is to be released
}

// Begin picks a host that is wanted and says whether there is one. Ctx ends with the
// process; caller is held while the attempt waits for a connection, and let go of with
// it. End is to follow, whatever this says.
func (a *Attempt) Begin(ctx context.Context, caller Caller, c *cluster.Cluster, priority corev3.RoutingPriority, wanted *cluster.PickContext) bool {
	a.context, a.caller, a.Cluster, a.breakers = ctx, caller, c, c.Breakers(priority)
	if a.Host = c.Pick(wanted); a.Host == nil {
		c.Stats.NoHealthyHost.Inc()
		return false
	}
	return true
}

// Await waits for a connection of a pool that has no idle one, until a deadline; the
// zero time is none. Errors are those of connpool.Pool.Get.
func (a *Attempt) Await(pool *connpool.Pool, until time.Time) (*connpool.Conn, error) {
	stats := a.Cluster.Stats
	stats.PendingActive.Add(1)
	defer stats.PendingActive.Add(-1)
	ctx, cancel := a.Waiting(until)
	defer cancel()
	conn, err := pool.Get(ctx, a.breakers)
	if !errors.Is(err, connpool.ErrOverflow) && !errors.Is(err, connpool.ErrPools) {
		stats.PendingTotal.Inc()
	}
	return conn, err
}

// Replace gets a new connection, or of HTTP/2 a stream of any, for a request that is safe
// to send again, in place of the one on which that failed for a cause. It is bounded as
// Await is. The request counts once all the same (upstream_rq_total), and here
// (upstream_rq_resend).
func (a *Attempt) Replace(pool *connpool.Pool, cause error, until time.Time) (*connpool.Conn, error) {
	a.Cluster.Stats.RequestResends.Inc()
	a.lost(cause)
	a.Discard()
	ctx, cancel := a.Waiting(until)
	defer cancel()
	return pool.Connect(ctx, a.breakers)
}

// Waiting is a context for who waits for a connection, or for what its server says
// first, until a deadline; the zero time is none. It must be cancelled.
func (a *Attempt) Waiting(until time.Time) (context.Context, context.CancelFunc) {
	var ctx context.Context
	var cancel context.CancelFunc
	if until.IsZero() {
		ctx, cancel = context.WithCancel(a.context)
	} else {
		ctx, cancel = context.WithDeadline(a.context, until)
	}
	a.caller.Hold(hold.Cancel(cancel))
	return ctx, func() {
		a.caller.Hold(nil)
		cancel()
	}
}

// ErrFull is that as many requests are under way as may (Thresholds.max_requests).
var ErrFull = errors.New("too many requests are under way")

// Burden burdens the cluster with the request, for which there is a connection, up to
// End. If that is more than it may bear, the connection is given back, and the error is
// ErrFull.
func (a *Attempt) Burden(conn *connpool.Conn) error {
	stats := a.Cluster.Stats
	if !a.breakers.Requests.Acquire() {
		conn.Return()
		stats.ActiveOverflow.Inc()
		return ErrFull
	}
	a.burdens = true
	stats.RequestsTotal.Inc()
	stats.RequestsActive.Add(1)
	a.Host.Stats.RequestsTotal.Add(1)
	a.Host.Stats.RequestsActive.Add(1)
	return nil
}

// Answered reports the head of the response to the host. Of an answer to gRPC that is a
// head alone, its status of gRPC counts.
func (a *Attempt) Answered(m *message.Response, grpc bool) {
	status := m.Status
	if grpc {
		value, _ := m.Headers.Get("grpc-status")
		if code, ok := grpcwire.Status(value); ok {
			status = grpcwire.HTTP(code)
		}
	}
	a.Host.Outlier.ReportStatus(status)
	if m.Headers.Has("x-envoy-immediate-health-check-fail") {
		a.Cluster.FailPassively(a.Host)
	}
}

// GiveBack gives the connection back for the next request. The response was read to its
// end, and the request went out as a whole.
func (a *Attempt) GiveBack() {
	a.caller.Hold(nil)
	a.Conn.Release()
	a.Conn = nil
}

// Discard closes the connection, or resets the stream, if there still is one.
func (a *Attempt) Discard() {
	if a.Conn != nil {
		a.caller.Hold(nil)
		a.Conn.Discard()
		a.Conn = nil
	}
}

// End lets go of the connection, the host and the cluster.
func (a *Attempt) End() {
	a.Discard()
	if a.burdens {
		a.Host.Stats.RequestsActive.Add(-1)
		a.Cluster.Stats.RequestsActive.Add(-1)
		a.breakers.Requests.Release()
	}
	*a = Attempt{}
}
