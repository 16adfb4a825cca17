package upstream

import (
	"errors"
	"net"
	"syscall"

	"github.com/weirproxy/weir/services/proxy/internal/cluster/outlier"
	"github.com/weirproxy/weir/services/proxy/internal/connpool"
	"github.com/weirproxy/weir/services/proxy/internal/message"
)

// Failure is why an attempt has no response, or not the whole of it.
type Failure int

// The failures.
const (
	None        Failure = iota
	Overflow            // a circuit breaker of the cluster was open
	NoPool              // as many pools have connections as may
	Unconnected         // no connection came to be
	Malformed           // the response broke the protocol
	Terminated          // the connection ended before the response did
	Refused             // the host has not processed the request, and said so
	Reset               // the host reset the stream
	TimedOut            // a deadline passed: of the request, or of the connect
)

// Why is the failure that an error of the attempt is, be it of a connect, of writing or
// of reading.
func (a *Attempt) Why(err error) Failure {
	var protocol *message.ProtocolError
	_, isRefused := errors.AsType[*connpool.UnprocessedError](err)
	_, isReset := errors.AsType[*connpool.ResetError](err)
	switch {
	case errors.As(err, &protocol):
		return Malformed
	case errors.Is(err, connpool.ErrOverflow), errors.Is(err, ErrFull):
		return Overflow
	case errors.Is(err, connpool.ErrPools):
		return NoPool
	case isRefused:
		return Refused
	case isReset:
		return Reset
	case IsTimeout(err):
		return TimedOut
	case a.Conn == nil:
		return Unconnected
	}
	return Terminated
}

// IsTimeout says whether an error is that a deadline passed, and not that the kernel
// hears nothing of the host any more (ETIMEDOUT).
func IsTimeout(err error) bool {
	var network net.Error
	return errors.As(err, &network) && network.Timeout() && !errors.Is(err, syscall.ETIMEDOUT)
}

// Count counts a failure, which err is, and reports it to the host.
func (a *Attempt) Count(f Failure, err error) {
	stats := a.Cluster.Stats
	switch f {
	case None, NoPool: // which the pool has counted
	case Overflow:
		if errors.Is(err, connpool.ErrOverflow) {
			stats.PendingOverflow.Inc()
		}
	case Unconnected: // the pool tells of the connect
		stats.PendingEjected.Inc()
	case Malformed:
		stats.ProtocolErrors.Inc()
		a.lost(err)
		a.reportReset(err)
	case Terminated, Refused, Reset:
		a.lost(err)
		a.reportReset(err)
	case TimedOut:
		stats.RequestTimeouts.Inc()
		if a.Conn != nil {
			a.Host.Stats.RequestTimeouts.Add(1)
		}
		a.Host.Outlier.ReportLocal(outlier.Timeout)
	}
}

// reportReset reports a connection that broke before the end of the response, unless
// the proxy closed it itself since its client went or time was up.
func (a *Attempt) reportReset(err error) {
	if !errors.Is(err, net.ErrClosed) {
		a.Host.Outlier.ReportLocal(outlier.Reset)
	}
}

// lost tells the connection that its server has ended it, if that is what went wrong.
func (a *Attempt) lost(err error) {
	_, said := errors.AsType[*message.ProtocolError](err)
	if a.Conn != nil && !said && !errors.Is(err, net.ErrClosed) && !IsTimeout(err) {
		a.Conn.Lost()
	}
}
