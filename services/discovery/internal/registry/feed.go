package registry

import (
	"maps"
	"slices"
	"sync"
)

// Feed tells one reader which services changed. It holds each name once,
// however often the service changed and however slow the reader is.
type Feed struct {
	ready chan struct{} // has a value when there are names

	mu    sync.Mutex
	names map[string]struct{}
}

// Subscribe returns a feed of all services that change from now on, and of
// those that are known already. It lives as long as the registry.
func (r *Registry) Subscribe() *Feed {
	f := &Feed{ready: make(chan struct{}, 1), names: map[string]struct{}{}}
	r.mu.Lock()
	defer r.mu.Unlock()
	r.feeds = append(r.feeds, f)
	for name := range r.services {
		f.add(name)
	}
	return f
}

// tell says to all feeds that a service changed. r.mu must be held.
func (r *Registry) tell(service string) {
	for _, f := range r.feeds {
		f.add(service)
	}
}

func (f *Feed) add(service string) {
	f.mu.Lock()
	f.names[service] = struct{}{}
	f.mu.Unlock()
	select {
	case f.ready <- struct{}{}:
	default: // the reader has yet to see the last one
	}
}

// Ready gives a value when Take has something to return.
func (f *Feed) Ready() <-chan struct{} { return f.ready }

// Take returns the names of the services that changed since the last Take, in
// no order. The slice is the caller's.
func (f *Feed) Take() []string {
	f.mu.Lock()
	taken := f.names
	f.names = make(map[string]struct{})
	f.mu.Unlock()
	return slices.Collect(maps.Keys(taken))
}
