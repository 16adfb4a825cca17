package registry

import (
	"sync"
	"time"
)

// Feed tells one reader which services changed. It holds each name once,
// however often the service changed and however slow the reader is.
type Feed struct {
	ready chan struct{} // has a value when there are names

	mu    sync.Mutex
	names map[string]time.Time // since when each is there
}

// Subscribe returns a feed of all services that change from now on, and of
// those that are known already. It lives as long as the registry.
func (r *Registry) Subscribe() *Feed {
	f := &Feed{ready: make(chan struct{}, 1), names: map[string]time.Time{}}
	now := time.Now()
	r.mu.Lock()
	defer r.mu.Unlock()
	r.feeds = append(r.feeds, f)
	for name := range r.services {
		f.add(name, now)
	}
	return f
}

// tell says to all who wait for it that a service changed. Whatever changes what a
// View shows, but the time of the last check-in, calls it before it lets go of r.mu,
// which must be held.
func (r *Registry) tell(s *service) {
	s.changed(time.Now())
	for _, f := range r.feeds {
		f.add(s.name, s.changedAt)
	}
	if w := r.waiters[s.name]; w != nil {
		close(w.changed)
		w.changed = make(chan struct{})
	}
}

// waiter is those who wait for one service to change.
type waiter struct {
	changed chan struct{} // closed at the next change
	count   int
}

// Changed returns what is closed at the next change of a service, be it known
// yet or not. Who has it calls stop when done waiting. To miss nothing, call it
// before List.
func (r *Registry) Changed(name string) (changed <-chan struct{}, stop func()) {
	r.mu.Lock()
	defer r.mu.Unlock()
	w := r.waiters[name]
	if w == nil {
		w = &waiter{changed: make(chan struct{})}
		r.waiters[name] = w
	}
	w.count++
	return w.changed, sync.OnceFunc(func() {
		r.mu.Lock()
		defer r.mu.Unlock()
		if w.count--; w.count == 0 {
			delete(r.waiters, name)
		}
	})
}

func (f *Feed) add(service string, now time.Time) {
	f.mu.Lock()
	if _, there := f.names[service]; !there {
		f.names[service] = now
	}
	f.mu.Unlock()
	select {
	case f.ready <- struct{}{}:
	default: // the reader has yet to see the last one
	}
}

// Ready gives a value when Take has something to return.
func (f *Feed) Ready() <-chan struct{} { return f.ready }

// Take returns the services that changed since the last Take, and when each first
// did. The map is the caller's.
func (f *Feed) Take() map[string]time.Time {
	f.mu.Lock()
	taken := f.names
	f.names = make(map[string]time.Time)
	f.mu.Unlock()
	return taken
}
