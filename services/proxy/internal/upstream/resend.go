package upstream

import (
	"errors"
	"net"
	"time"
)

// A request that failed may be sent once more at once (Replace), whatever is to be
// retried, where its host has not processed it:
//
//   - by the host's own word, which is the Failure Refused: REFUSED_STREAM, or a GOAWAY
//     that the stream is behind (RFC 9113 §8.7), or since the stream was never opened. No
//     other reset says so, nor does the end of a connection of HTTP/2;
//   - in all likelihood, on a connection of HTTP/1 that the host closed for being idle in
//     the moment in which the request went out, which Stale tells. So the request must be
//     idempotent (RFC 9110 §9.2.2).

// staleWithin is how soon behind a request its connection must end for Stale: a round
// trip to the other side of the world, and what a busy machine takes to notice. A host
// that ends it later has more likely read the request.
const staleWithin = 500 * time.Millisecond

// Stale says whether a failure of a request without a body, of which nothing came back,
// looks like the end of an idle connection of HTTP/1. Sent is when the request went out.
func (a *Attempt) Stale(method []byte, sent time.Time, err error) bool {
	return a.Why(err) == Terminated && !errors.Is(err, net.ErrClosed) &&
		!a.Conn.HTTP2() && a.Conn.Reused && !a.Conn.Reader.Buffered() &&
		time.Since(sent) < staleWithin && idempotent(method)
}

// idempotent says whether to do what a method says twice is as good as once.
func idempotent(method []byte) bool {
	switch string(method) {
	case "GET", "HEAD", "OPTIONS", "TRACE", "PUT", "DELETE":
		return true
	}
	return false
}
