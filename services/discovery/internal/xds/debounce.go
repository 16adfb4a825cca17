package xds

import "time"

// debounce says when a service's change is to be sent: when the service has
// been quiet for a while, or has kept changing for too long. It has no clock
// and no lock of its own.
type debounce struct {
	quiet, longest time.Duration
	waiting        map[string]burst
}

// burst is the changes of one service that wait to be sent together.
type burst struct{ first, last time.Time }

func newDebounce(quiet, longest time.Duration) *debounce {
	return &debounce{quiet: quiet, longest: longest, waiting: map[string]burst{}}
}

// add notes that a service changed.
func (d *debounce) add(service string, now time.Time) {
	b, ok := d.waiting[service]
	if !ok {
		b.first = now
	}
	b.last = now
	d.waiting[service] = b
}

// due is when a burst is to be sent.
func (d *debounce) due(b burst) time.Time {
	quiet, longest := b.last.Add(d.quiet), b.first.Add(d.longest)
	if longest.Before(quiet) {
		return longest
	}
	return quiet
}

// take removes and returns the services that are due, each with the time of
// its first change.
func (d *debounce) take(now time.Time) map[string]time.Time {
	taken := map[string]time.Time{}
	for service, b := range d.waiting {
		if !d.due(b).After(now) {
			taken[service] = b.first
			delete(d.waiting, service)
		}
	}
	return taken
}

// next returns how long to wait until a service is due. ok is false if none
// waits.
func (d *debounce) next(now time.Time) (wait time.Duration, ok bool) {
	for _, b := range d.waiting {
		if left := d.due(b).Sub(now); !ok || left < wait {
			wait, ok = left, true
		}
	}
	return wait, ok
}
