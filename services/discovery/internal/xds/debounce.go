package xds

import "time"

// Debounce says how long a change waits for others of its service, to be sent
// with them. Hosts that leave wait longer than those that come. Who comes is
// capacity that somebody waits for. Who leaves in order drained before, which goes
// out as fast as a coming host and takes the work off it, and one takes its place
// soon, as a rule, so that one assignment tells of both. Who died was dead for its
// TTL already, and clients go round it. The last one waits longest: a client without
// hosts fails no less than one whose host is gone, and where this one only moves to
// another replica it takes a moment to hear of that.
type Debounce struct {
	// Quiet is how long a service must not have changed.
	Quiet time.Duration
	// Leaving is the same for one that has fewer hosts to show than when it was
	// last sent. One of Quiet or less makes no difference.
	Leaving time.Duration
	// Empty is how long a service must have been without any host, of which there
	// were some to show when it was last sent. A host that comes meanwhile is sent
	// after Quiet. One whose last hosts drained until they are Out has some, and is
	// sent after Leaving: they stay where they are.
	Empty time.Duration
	// Longest is how long a change waits at most, but for that of Empty.
	Longest time.Duration
}

// debounce holds the services whose changes wait. It has no clock and no lock of
// its own.
type debounce struct {
	Debounce
	waiting map[string]burst
}

// burst is the changes of one service that wait to be sent together.
type burst struct {
	first, last time.Time
	quiet       time.Duration
	// until is when it is due, whatever the other times say; zero if these tell.
	until time.Time
}

func newDebounce(d Debounce) *debounce {
	return &debounce{Debounce: d, waiting: map[string]burst{}}
}

// add notes that a service changed: first since, last before now.
func (d *debounce) add(service string, since, now time.Time) {
	b, ok := d.waiting[service]
	if !ok {
		b.first = since
	}
	b.last, b.quiet, b.until = now, d.Quiet, time.Time{}
	d.waiting[service] = b
}

// leaving makes a burst that was taken, and left fewer hosts, wait on, if it has not
// waited long enough for that. It reports whether it waits.
func (d *debounce) leaving(service string, b burst, now time.Time) bool {
	b.quiet, b.until = d.Leaving, time.Time{}
	if !d.due(b).After(now) {
		return false
	}
	d.waiting[service] = b
	return true
}

// emptied makes a burst that was taken, and left no host, wait on, if it has not been
// so for long enough: since is the listing's EmptySince, zero where some are there and
// Out. It reports whether it waits.
func (d *debounce) emptied(service string, b burst, since, now time.Time) bool {
	if b.until = since.Add(d.Empty); !b.until.After(now) {
		return false
	}
	if again := now.Add(d.Quiet); b.until.Before(again) { // since may be later by then
		b.until = again
	}
	d.waiting[service] = b
	return true
}

// due is when a burst is to be sent.
func (d *debounce) due(b burst) time.Time {
	if !b.until.IsZero() {
		return b.until
	}
	quiet, longest := b.last.Add(b.quiet), b.first.Add(d.Longest)
	if longest.Before(quiet) {
		return longest
	}
	return quiet
}

// take removes and returns the bursts that are due, by service.
func (d *debounce) take(now time.Time) map[string]burst {
	taken := map[string]burst{}
	for service, b := range d.waiting {
		if !d.due(b).After(now) {
			taken[service] = b
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
