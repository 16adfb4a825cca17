// Package hold has one goroutine let go of what another waits for: who waits holds
// something that its wait ends with once that is closed, such as a connection. Streams
// wait so, and calls of the proxy's own. It closes nothing that is not held, and does not
// say why a wait has ended. What has moved on connections to hosts meanwhile it counts.
package hold

import (
	"context"
	"io"
	"sync"
	"time"

	"github.com/weirproxy/weir/services/proxy/internal/message"
)

// Holder is who waits. The zero value is for use.
type Holder struct {
	mu   sync.Mutex
	held io.Closer
	cut  bool
	// upstream is what is held if its traffic counts; received and sent is what has moved
	// on those before.
	upstream       Upstream
	received, sent message.Traffic
}

// Upstream is a connection to a host.
type Upstream interface {
	io.Closer
	// Traffic is what has moved on it for the request that it is held for.
	Traffic() (received, sent message.Traffic)
}

// Hold makes c what Cut closes, so that whoever waits for it is let go; nil is nothing.
// After a Cut it is closed at once. What moves on it does not count.
func (h *Holder) Hold(c io.Closer) { h.hold(c, nil) }

// HoldUpstream is Hold of a connection whose traffic counts, up to the next Hold.
func (h *Holder) HoldUpstream(c Upstream) { h.hold(c, c) }

func (h *Holder) hold(c io.Closer, upstream Upstream) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.received, h.sent = h.traffic()
	h.upstream = upstream
	if h.held = c; h.cut {
		h.close()
	}
}

// Traffic is what came on all connections that were held by HoldUpstream, and what went
// out on them. It may be called from any goroutine.
func (h *Holder) Traffic() (received, sent message.Traffic) {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.traffic()
}

// traffic is Traffic. The lock is held.
func (h *Holder) traffic() (received, sent message.Traffic) {
	if h.upstream == nil {
		return h.received, h.sent
	}
	received, sent = h.upstream.Traffic()
	return h.received.Plus(received), h.sent.Plus(sent)
}

// Cut closes what is held, now and until Renew. It may be called from any goroutine.
func (h *Holder) Cut() {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.cut = true
	h.close()
}

// Renew takes a Cut back and begins to count anew, for other waits than those before.
func (h *Holder) Renew() {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.cut, h.upstream = false, nil
	h.received, h.sent = message.Traffic{}, message.Traffic{}
}

// close closes what is held. The lock is held.
func (h *Holder) close() {
	if h.held != nil {
		_ = h.held.Close() // it is of no use any more, whatever this says
	}
}

// Sleep waits for d and says whether that has passed: a Cut ends the wait, and so does
// ctx. Nothing is held behind it.
func (h *Holder) Sleep(ctx context.Context, d time.Duration) bool {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	h.Hold(Cancel(cancel))
	defer h.Hold(nil)
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
		return true
	case <-ctx.Done():
		return false
	}
}

// Cancel is a context as what is held.
type Cancel context.CancelFunc

// Close implements io.Closer.
func (c Cancel) Close() error {
	c()
	return nil
}
