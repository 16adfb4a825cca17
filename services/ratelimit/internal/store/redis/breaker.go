package redis

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"time"

	goredis "github.com/redis/go-redis/v9"
)

const (
	// failures is how many exchanges and calls must fail in a row, and patience
	// of how many timeouts (but at most half a second) they must be spread over,
	// before a shard's calls are refused: a short pause of Redis must not do.
	failures = 5
	patience = 2
	// pings is how many pings must fail in a row for the same. One of which the
	// caller waits less than pingLeast says nothing, unless it fails otherwise.
	pings     = 2
	pingLeast = 200 * time.Millisecond
	// probeInterval is the time between probes of a server that has failed,
	// probeWait the most that one may take, or any ping.
	probeInterval = 250 * time.Millisecond
	probeWait     = 400 * time.Millisecond
)

// breaker refuses the calls of one shard after it has failed for a while, so
// that only the first callers wait for a server that hangs. It learns of that
// from exchanges, from callers that waited for the store's timeout while no
// exchange was answered, and from pings, which soon find out what calls with a
// long timeout, or with callers that leave sooner, do not. Its probe asks the
// server until it answers, be it with an error, and ends the refusal, as does a
// ping that is answered.
type breaker struct {
	shard *shard
	// open is what calls are refused with; nil while they are not.
	open atomic.Pointer[refusal]
	// failing is the number of failures in a row, unpinged that of pings.
	failing, unpinged atomic.Int32
	// answers is how often the server has answered an exchange.
	answers       atomic.Uint64
	mu            sync.Mutex // of what follows, and of writes to the above
	since, pinged time.Time  // of the first of each
}

// refusal is why calls are refused.
type refusal struct {
	since time.Time
	cause error
}

// refusedError is that of an operation whose shard was not asked.
type refusedError struct {
	name  string // of the shard
	since time.Duration
	cause error
}

// Error says since when and why.
func (e *refusedError) Error() string {
	return fmt.Sprintf("redis at %s has failed for %v and is asked again every %v: %v",
		e.name, e.since.Round(time.Millisecond), probeInterval, e.cause)
}

// Unwrap returns the cause.
func (e *refusedError) Unwrap() error { return e.cause }

// refusal is the error with which h's calls are to fail at once, nil if none.
func (h *shard) refusal() error {
	r := h.breaker.open.Load()
	if r == nil {
		return nil
	}
	return &refusedError{h.name, time.Since(r.since), r.cause}
}

// answered notes that the server has answered an exchange.
func (b *breaker) answered() {
	b.answers.Add(1)
	b.succeeded()
}

// succeeded notes that the server has answered.
func (b *breaker) succeeded() {
	if b.failing.Load() == 0 && b.unpinged.Load() == 0 {
		return
	}
	b.mu.Lock()
	b.failing.Store(0)
	b.unpinged.Store(0)
	b.mu.Unlock()
}

// failed notes that the server has not answered a call, because of cause. It is
// called only while a sender or an Apply runs.
func (b *breaker) failed(cause error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	now := time.Now()
	if b.failing.Add(1) == 1 {
		b.since = now
	}
	if b.failing.Load() >= failures && now.Sub(b.since) >= min(patience*b.shard.store.options.Timeout, time.Second/2) {
		b.refuse(b.since, cause)
	}
}

// noteOf notes the outcome of a ping that took so long. It is called only while
// a Ping or a sender runs.
func (b *breaker) noteOf(ctx context.Context, took time.Duration, err error) {
	s := b.shard.store
	switch {
	case (err == nil || answered(err)) && b.open.Load() != nil:
		b.end()
		return
	case err == nil || answered(err):
		b.succeeded()
		return
	case s.running.Err() != nil || errors.Is(err, goredis.ErrClosed):
		return
	case ctx.Err() != nil && took < min(pingLeast, s.options.Timeout):
		return
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.unpinged.Add(1) == 1 {
		b.pinged = time.Now().Add(-took)
	}
	if b.unpinged.Load() >= pings {
		b.refuse(b.pinged, err)
	}
}

// refuse begins to refuse calls, unless they are already. b.mu is held.
func (b *breaker) refuse(since time.Time, cause error) {
	if b.open.Load() != nil {
		return
	}
	r := &refusal{since, cause}
	b.open.Store(r)
	b.shard.giveUp()
	s := b.shard.store
	s.work.Add(1)
	// Ends when the server answers, or when Close is called, which waits for it.
	go b.probe(r)
}

// end has calls go on.
func (b *breaker) end() {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.failing.Store(0)
	b.unpinged.Store(0)
	b.open.Store(nil)
}

// probe asks the server until it answers, and then ends r, unless a ping has.
func (b *breaker) probe(r *refusal) {
	s := b.shard.store
	defer s.work.Done()
	tick := time.NewTicker(probeInterval)
	defer tick.Stop()
	for {
		err := s.ask(s.running, b.shard.client, b.shard.name)
		if b.open.Load() != r {
			return
		}
		if err == nil || answered(err) { // a server that refuses does not keep anybody waiting
			b.end()
			return
		}
		if s.nodes != nil {
			if errors.Is(err, goredis.ErrClosed) {
				s.nodes.forget(b.shard) // the server has left the Cluster
				return
			}
			// Another server may have taken its slots over.
			s.nodes.client.ReloadState(s.running)
		}
		select {
		case <-s.running.Done():
			return
		case <-tick.C:
		}
	}
}

// ping asks the server of h.
func (h *shard) ping(ctx context.Context) error {
	begin := time.Now()
	err := h.store.ask(ctx, h.client, h.name)
	h.breaker.noteOf(ctx, time.Since(begin), err)
	if err != nil {
		return fmt.Errorf("ping redis at %s: %w", h.name, err)
	}
	return nil
}
