package rlsclient

import (
	"io"
	"sync"

	"github.com/weirproxy/weir/services/proxy/internal/upstream"
)

// reports are the calls that nobody waits for. They end together.
type reports struct {
	mu      sync.Mutex
	running map[*report]struct{}
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
		r.running = map[*report]struct{}{}
	}
	one := &report{}
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
		one.cut()
	}
	r.mu.Unlock()
	r.wait.Wait()
}

// report is one of them. It implements upstream.Caller.
type report struct {
	mu   sync.Mutex
	held io.Closer
	over bool
}

// Hold implements upstream.Caller.
func (r *report) Hold(c io.Closer) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.held = c; r.over {
		r.close()
	}
}

// cut closes what is held, now and later.
func (r *report) cut() {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.over = true
	r.close()
}

// close closes what is held. The lock is held.
func (r *report) close() {
	if r.held != nil {
		_ = r.held.Close() // it is of no use any more, whatever this says
	}
}
