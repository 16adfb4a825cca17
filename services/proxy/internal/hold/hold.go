// Package hold has one goroutine let go of what another waits for: who waits holds
// something that its wait ends with once that is closed, such as a connection. Streams
// wait so, and calls of the proxy's own. It closes nothing that is not held, and does not
// say why a wait has ended.
package hold

import (
	"context"
	"io"
	"sync"
	"time"
)

// Holder is who waits. The zero value is for use.
type Holder struct {
	mu   sync.Mutex
	held io.Closer
	cut  bool
}

// Hold makes c what Cut closes, so that whoever waits for it is let go; nil is nothing.
// After a Cut it is closed at once.
func (h *Holder) Hold(c io.Closer) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.held = c; h.cut {
		h.close()
	}
}

// Cut closes what is held, now and until Renew. It may be called from any goroutine.
func (h *Holder) Cut() {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.cut = true
	h.close()
}

// Renew takes a Cut back, for other waits than those it was for.
func (h *Holder) Renew() {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.cut = false
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
