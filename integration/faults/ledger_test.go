package faults

import (
	"fmt"
	"sync"
	"time"
)

const (
	// mostLost is how long a host that beats may be missing.
	mostLost = time.Second
	// heardOf is how long after its first registration every replica must have
	// heard of a host.
	heardOf = 3 * time.Second
)

// view is one replica as it is seen by one way to ask it.
type view struct {
	name  string
	fleet *fleet
	// pushed says that answers come when something changes: until the next one the
	// last one holds.
	pushed bool

	mu      sync.Mutex
	answers int
	held    []seen // by host
	faults  []string
	// lost is the longest that a living host was missing, lostBy that host, and
	// lostFrom when that began.
	lost, lostFrom time.Duration
	lostBy         *host
	// unheard are hosts that may be missing, since nobody hears them.
	unheard func(*host) bool
}

// seen is what a view last said of a host.
type seen struct {
	listed bool
	// missing is when the first answer came that lacked it, since it was last
	// listed; 0 if none did.
	missing time.Duration
}

func newView(name string, f *fleet, pushed bool) *view {
	return &view{name: name, fleet: f, pushed: pushed, held: make([]seen, len(f.hosts))}
}

// answered judges an answer: that a service has just these hosts. By the test's
// clock the call began at asked, and the answer came now.
func (v *view) answered(service string, listed []*host, asked, now time.Duration) {
	v.mu.Lock()
	defer v.mu.Unlock()
	v.answers++
	there := make(map[*host]bool, len(listed))
	for _, h := range listed {
		there[h] = true
	}
	living := 0
	for _, h := range v.fleet.byService[service] {
		s := &v.held[h.index]
		s.listed = there[h]
		due := v.due(h, asked)
		if due {
			living++
		}
		switch {
		case s.listed || !due:
			if v.pushed {
				v.note(h, now)
			}
			s.missing = 0
		case s.missing == 0:
			s.missing = now
		default:
			v.note(h, now)
		}
	}
	if living > 0 && len(listed) == 0 {
		v.fault("%v: %s lists %s, of which %d hosts live, empty", now.Round(time.Millisecond), v.name, service, living)
	}
}

// settled says that the view has all hosts: those that it lacked before had yet to be
// heard of, which takes as long as the machine has other things to do.
func (v *view) settled() {
	v.mu.Lock()
	defer v.mu.Unlock()
	v.lost = 0
	for i := range v.held {
		v.held[i].missing = 0
	}
}

// due says whether an answer to a call that began then must have h.
func (v *view) due(h *host, asked time.Duration) bool {
	registered := time.Duration(h.registered.Load())
	return registered > 0 && asked-registered > heardOf && h.died.Load() == 0
}

// note notes for how long h has been missing.
func (v *view) note(h *host, now time.Duration) {
	s := &v.held[h.index]
	if s.missing == 0 || v.unheard != nil && v.unheard(h) {
		return
	}
	if lost := now - s.missing; lost > v.lost {
		v.lost, v.lostBy, v.lostFrom = lost, h, s.missing
	}
}

// broke says that the view knows no more what the replica says. What that does
// not list on another stream, for it does not know the service, is gone: a client
// with clusters from it has no use for it.
func (v *view) broke() {
	v.mu.Lock()
	defer v.mu.Unlock()
	now := v.fleet.clock()
	for _, h := range v.fleet.hosts {
		if v.pushed {
			v.note(h, now)
		}
		v.held[h.index] = seen{}
	}
}

// fault notes what must not be. v.mu must be held.
func (v *view) fault(format string, args ...any) {
	if len(v.faults) < 10 {
		v.faults = append(v.faults, fmt.Sprintf(format, args...))
	}
}

// wrong are the hosts that the view last saw and that are dead, or that it did
// not and that live.
func (v *view) wrong() (wrong []*host) {
	v.mu.Lock()
	defer v.mu.Unlock()
	for _, h := range v.fleet.hosts {
		if v.held[h.index].listed != v.fleet.beats(h) {
			wrong = append(wrong, h)
		}
	}
	return wrong
}

// verdict is all that was wrong.
func (v *view) verdict(mostLost time.Duration) []string {
	v.broke()
	v.mu.Lock()
	defer v.mu.Unlock()
	faults := v.faults
	if v.lost > mostLost {
		faults = append(faults, fmt.Sprintf("%v: %s lacks %s of %s, for %v",
			v.lostFrom.Round(time.Millisecond), v.name, v.lostBy.id, v.lostBy.service, v.lost.Round(time.Millisecond)))
	}
	return faults
}
