package router

import (
	"errors"
	"io"
	"sync"

	"github.com/weirproxy/weir/services/proxy/internal/message"
)

// replay is the body of a request that may be sent again: it keeps what came of
// it, up to a limit, for each attempt to read from the start. At most one of the
// attempts' readers pulls the client's body at a time, even one that was left
// while it waited for the client; the others wait for what it gets.
type replay struct {
	mu      sync.Mutex
	changed sync.Cond // that what follows did
	inner   message.Body
	kept    []byte
	limit   uint64
	// beyond is a chunk that was not kept. It is inner's, which is not pulled
	// again before a reader took it.
	beyond  []byte
	full    bool  // nothing more is kept
	lost    bool  // a reader took what was not kept
	err     error // how inner ended
	pulling bool
	// ended is called when the client's body is at its end, full when nothing more
	// is kept.
	onEnd, onFull func()
}

func newReplay(inner message.Body, limit uint64, onEnd, onFull func()) *replay {
	p := &replay{inner: inner, limit: limit, onEnd: onEnd, onFull: onFull}
	p.changed.L = &p.mu
	return p
}

// reader reads a replay for one attempt. It implements message.Body.
type reader struct {
	*replay
	at   int
	left bool
}

// newReader reads from the start.
func (p *replay) newReader() *reader { return &reader{replay: p} }

// errLeft is what a reader says whose attempt was given up.
var errLeft = errors.New("the attempt was given up")

// leave gives the reader up, unless the body can't be read again from the start,
// which it says.
func (r *reader) leave() bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.lost {
		return false
	}
	r.left = true
	r.changed.Broadcast()
	return true
}

// Next implements message.Body.
func (r *reader) Next() ([]byte, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for {
		switch {
		case r.left:
			return nil, errLeft
		case r.at < len(r.kept):
			chunk := r.kept[r.at:]
			r.at = len(r.kept)
			return chunk, nil
		case r.beyond != nil:
			chunk := r.beyond
			r.beyond, r.lost = nil, true
			return chunk, nil
		case r.err != nil:
			return nil, r.err
		case r.pulling:
			r.changed.Wait()
		default:
			r.pull()
		}
	}
}

// pull waits for the next chunk, without the lock.
func (p *replay) pull() {
	p.pulling = true
	p.mu.Unlock()
	chunk, err := p.inner.Next()
	p.mu.Lock()
	p.pulling = false
	switch {
	case errors.Is(err, io.EOF):
		p.onEnd()
		p.err = err
	case err != nil:
		p.err = err
	case !p.full && uint64(len(p.kept)+len(chunk)) <= p.limit:
		p.kept = append(p.kept, chunk...)
	default:
		if !p.full {
			p.full = true
			p.onFull()
		}
		p.beyond = chunk
	}
	p.changed.Broadcast()
}

// Ready implements message.Body.
func (r *reader) Ready() bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.left || r.at < len(r.kept) || r.beyond != nil || r.err != nil || !r.pulling && r.inner.Ready()
}
