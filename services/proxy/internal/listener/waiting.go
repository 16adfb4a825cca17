package listener

import (
	"errors"
	"io"
	"net"
	"os"
	"time"

	"github.com/weirproxy/weir/services/proxy/internal/listenerfilter"
)

// waiting is a connection that listener filters look at. The listener's lock guards
// what changes.
type waiting struct {
	conn net.Conn
	// config is that by which it was accepted: the one whose filters look at it.
	config *Config
	// finished and ended say that it was told so.
	finished, ended bool
}

// lastWait is how long a client that listener filters wait for may take to say more
// once the listener stops: what it has sent may be on its way.
const lastWait = time.Second

// finish leaves the client hardly any time.
func (w *waiting) finish() {
	w.finished = true
	_ = w.conn.SetReadDeadline(time.Now().Add(lastWait)) // of one that may have gone
}

func (w *waiting) cut() {
	w.ended = true
	_ = w.conn.Close()
}

// eachWaiting calls f for the connections that listener filters look at.
func (l *Listener) eachWaiting(f func(*waiting)) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for w := range l.waiting {
		f(w)
	}
}

// inspect has the listener filters look at a connection, and serves it then. The lock
// is held.
func (l *Listener) inspect(conn net.Conn) {
	w := &waiting{conn: conn, config: l.config}
	l.waiting[w] = true
	l.stats.preActive.Add(1)
	if timeout := w.config.filtersTimeout; timeout > 0 {
		_ = conn.SetReadDeadline(time.Now().Add(timeout)) // of one that may have gone
	}
	// Ends with the connection; Stop waits for it.
	l.serving.Go(func() {
		facts, err := w.config.inspect(conn)
		if h := l.inspected(w, facts, err); h != nil {
			l.serve(h)
		}
	})
}

// inspected gives a connection that listener filters have looked at to its filter
// chain, of the configuration of now, whose filters may be others. Err is why they did
// not look to the end. It returns what is to be served then, nil for a connection that
// was closed.
func (l *Listener) inspected(w *waiting, facts listenerfilter.Facts, err error) *handle {
	l.mu.Lock()
	defer l.mu.Unlock()
	delete(l.waiting, w)
	l.stats.preActive.Add(-1)
	if w.ended || !l.goesOn(w, err) {
		l.drop(w.conn)
		return nil
	}
	_ = w.conn.SetReadDeadline(time.Time{}) // of one that may have gone
	h := l.hand(w.conn, facts)
	if h != nil && w.finished {
		h.finish()
	}
	return h
}

// goesOn says whether a connection may go on that its filters ended with an error, or
// with nil, and counts why not.
func (l *Listener) goesOn(w *waiting, err error) bool {
	switch {
	case err == nil:
		return true
	case errors.Is(err, listenerfilter.ErrClose): // the filter has counted it
	case errors.Is(err, os.ErrDeadlineExceeded) && w.finished:
	case errors.Is(err, os.ErrDeadlineExceeded):
		l.stats.preTimeout.Inc()
		return w.config.afterTimeout
	case errors.Is(err, io.EOF):
		l.stats.remoteClose.Inc()
	default:
		l.stats.filterError.Inc()
	}
	return false
}
