package rlsclient

import (
	"sync"

	"github.com/weirproxy/weir/services/proxy/internal/hold"
	"github.com/weirproxy/weir/services/proxy/internal/upstream"
)

// reports are the calls that nobody waits for. They end together.
type reports struct {
	mu      sync.Mutex
	running map[*hold.Holder]struct{}
	closed  bool
	wait    sync.WaitGroup
}

// run has call run on a goroutine of its own, unless the reports are closed.
func (r *reports) run(call func(upstream.Caller)) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.closed {
		return
	}
	if r.running == nil {
		r.running = map[*hold.Holder]struct{}{}
	}
	one := &hold.Holder{}
	r.running[one] = struct{}{}
	r.wait.Go(func() { // ends with the call; close waits for it
		call(one)
		r.mu.Lock()
		defer r.mu.Unlock()
		delete(r.running, one)
	})
}

// close ends all and waits for them.
func (r *reports) close() {
	r.mu.Lock()
	r.closed = true
	for one := range r.running {
		one.Cut()
	}
	r.mu.Unlock()
	r.wait.Wait()
}
