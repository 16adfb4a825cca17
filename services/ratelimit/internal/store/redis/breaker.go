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
	// probeInterval is the time between probes of a server that has failed,
	// probeWait the most that one may take.
	probeInterval = 250 * time.Millisecond
	probeWait     = time.Second
)

// breaker refuses the calls of one shard after it has failed for a while, so
// that only the first callers wait for a server that hangs. Its probe asks the
// server until it answers, and ends the refusal.
type breaker struct {
	shard *shard
	// open is what calls are refused with; nil while they are not.
	open atomic.Pointer[refusal]
	// failing is the number of failures in a row.
	failing atomic.Int32
	mu      sync.Mutex // of what follows, and of writes to open and failing
	since   time.Time  // of the first of them
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

// succeeded notes that the server has answered.
func (b *breaker) succeeded() {
	if b.failing.Load() == 0 {
		return
	}
	b.mu.Lock()
	b.failing.Store(0)
	b.mu.Unlock()
}

// failed notes that the server has not answered, because of cause. It is called
// only while a sender or an Apply runs.
func (b *breaker) failed(cause error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	now := time.Now()
	if b.failing.Add(1) == 1 {
		b.since = now
	}
	s := b.shard.store
	if b.open.Load() != nil || b.failing.Load() < failures || now.Sub(b.since) < min(patience*s.options.Timeout, time.Second/2) {
		return
	}
	b.open.Store(&refusal{b.since, cause})
	s.work.Add(1)
	// Ends when the server answers, or when Close is called, which waits for it.
	go b.probe()
}

// probe asks the server until it answers, and then ends the refusal.
func (b *breaker) probe() {
	s := b.shard.store
	defer s.work.Done()
	tick := time.NewTicker(probeInterval)
	defer tick.Stop()
	for {
		err := s.ask(s.running, b.shard.client, b.shard.name)
		if err == nil {
			break
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
	b.mu.Lock()
	defer b.mu.Unlock()
	b.failing.Store(0)
	b.open.Store(nil)
}

// ping asks the server of h.
func (h *shard) ping(ctx context.Context) error {
	if err := h.store.ask(ctx, h.client, h.name); err != nil {
		return fmt.Errorf("ping redis at %s: %w", h.name, err)
	}
	return nil
}

// ask has a server carry out a command that writes but changes nothing: a PING
// is answered also by a replica, and where no write is taken for other reasons.
// In a Cluster the answer may be that another server has the key, which is as
// good.
func (s *Store) ask(ctx context.Context, client *goredis.Client, name string) error {
	ctx, cancel := context.WithTimeout(ctx, probeWait)
	defer cancel()
	err := client.Do(ctx, "pexpire", s.options.KeyPrefix+"probe", "1").Err()
	if err == nil || s.nodes == nil {
		return err
	}
	if isElsewhere(err) {
		return nil
	}
	return fmt.Errorf("%s: %w", name, err)
}
