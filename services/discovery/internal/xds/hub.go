package xds

import (
	"context"
	"hash/maphash"
	"log/slog"
	"sync"
	"time"

	"github.com/weirproxy/weir/services/discovery/internal/registry"
	"github.com/weirproxy/weir/services/discovery/internal/resources"
)

// hub holds the topics, turns changed services into resources and tells the
// streams that subscribe to them. It never sends anything itself. Only its run
// makes resources, so that a later listing never comes before an earlier one.
type hub struct {
	registry *registry.Registry
	feed     *registry.Feed
	listing  func(service string) (registry.Listing, error) // the registry's List
	debounce *debounce
	log      *slog.Logger
	metrics  *metrics

	// given is what was sent before warm.
	given *given

	// seed is of the hashes of names, which nobody may foresee.
	seed maphash.Seed

	// hosts is how many hosts of each service were shown when it was last made.
	// Only run uses it.
	hosts map[string]int
	// duplicates is the same of hosts that are left out for others' sake, of services
	// that have such.
	duplicates map[string]int

	// asked has a value when there is something in unmade or freshShelves.
	asked chan struct{}

	// mu guards all below. It is never held while anything is made or sent.
	mu        sync.RWMutex
	loaded    bool // everything that the registry was loaded with is known
	warm      bool // what the registry does not know is not there
	maker     *resources.Maker
	known     map[string]struct{} // services that the registry knows
	topics    [resources.Types]map[string]*topic
	ofService map[string]map[*topic]struct{}
	// own are the services with hosts whose names read as a subset of another's or
	// end in a port: what bears such a name is theirs.
	own     map[string]struct{}
	shelves [resources.Types]map[resources.View]*shelf
	// unmade are the topics whose editions have to be made anew, freshShelves the
	// shelves that are made when those are.
	unmade       map[*topic]struct{}
	freshShelves []*shelf
	// withheld are the topics with editions that are.
	withheld map[*topic]struct{}
	// idle are the editions and shelves without subscribers, and since when.
	idle        map[*edition]time.Time
	idleShelves map[*shelf]time.Time
	streams     map[*stream]struct{}
	ofNode      map[string]use // what the streams of each node take
	woken       []*stream      // those to wake when the lock is given back
}

func newHub(r *registry.Registry, m *resources.Maker, d Debounce, log *slog.Logger, metrics *metrics) *hub {
	h := &hub{
		registry:    r,
		feed:        r.Subscribe(),
		listing:     r.List,
		debounce:    newDebounce(d),
		log:         log,
		metrics:     metrics,
		given:       newGiven(),
		seed:        maphash.MakeSeed(),
		hosts:       map[string]int{},
		duplicates:  map[string]int{},
		asked:       make(chan struct{}, 1),
		maker:       m,
		known:       map[string]struct{}{},
		ofService:   map[string]map[*topic]struct{}{},
		own:         map[string]struct{}{},
		unmade:      map[*topic]struct{}{},
		withheld:    map[*topic]struct{}{},
		idle:        map[*edition]time.Time{},
		idleShelves: map[*shelf]time.Time{},
		streams:     map[*stream]struct{}{},
		ofNode:      map[string]use{},
	}
	for t := range resources.Types {
		h.topics[t] = map[string]*topic{}
		h.shelves[t] = map[resources.View]*shelf{}
	}
	return h
}

// tick is the least time between two looks through what waits.
const tick = 20 * time.Millisecond

// sweepInterval is the time between two looks at all streams.
const sweepInterval = time.Second

// run follows the registry until ctx ends.
func (h *hub) run(ctx context.Context, limits *Limits) {
	select {
	case <-h.registry.Loaded():
	case <-ctx.Done():
		return
	}
	// All that was restored, at once: streams wait for it.
	for service := range h.feed.Take() {
		h.refresh(service, time.Now())
	}
	h.makeAsked()
	h.open(&h.loaded)

	warm := h.registry.Warm()
	sweep := time.NewTicker(sweepInterval)
	defer sweep.Stop()
	timer := time.NewTimer(0)
	defer timer.Stop()
	<-timer.C
	// Once armed, the timer fires no later than any change is due that comes
	// after, or a tick later: so what waits is looked through per tick and not per
	// change.
	soonest := min(h.debounce.Quiet, h.debounce.Longest)
	armed := false
	for {
		select {
		case <-h.feed.Ready():
			now := time.Now()
			for service, since := range h.feed.Take() {
				h.debounce.add(service, since, now)
			}
			if !armed {
				timer.Reset(soonest)
				armed = true
			}
		case <-timer.C:
			h.push(time.Now())
			var wait time.Duration
			if wait, armed = h.debounce.next(time.Now()); armed {
				timer.Reset(max(min(wait, soonest), tick))
			}
		case <-h.asked:
			h.makeAsked()
		case <-warm:
			warm = nil
			h.warmUp()
		case now := <-sweep.C:
			h.sweep(now)
			h.sweepStreams(now, limits)
		case <-ctx.Done():
			return
		}
	}
}

// push sends what is due.
func (h *hub) push(now time.Time) {
	for service, b := range h.debounce.take(now) {
		list, err := h.listing(service)
		if err != nil {
			continue // nothing is loaded; then there is nothing to do yet
		}
		if h.holdsBack(service, list, b, now) {
			continue
		}
		h.metrics.debounce.Observe(now.Sub(b.first).Seconds())
		h.show(service, list, b.first)
	}
	h.metrics.waiting.Set(float64(len(h.debounce.waiting)))
}

// holdsBack has a burst wait on whose service has fewer hosts to show than when it was
// last made, be there new ones among them or not, if it has not waited long enough for
// that. It reports whether it waits.
func (h *hub) holdsBack(service string, list registry.Listing, b burst, now time.Time) bool {
	switch shown := shownHosts(list); {
	case shown >= h.hosts[service]:
		return false
	case shown == 0 && h.debounce.emptied(service, b, list.EmptySince, now):
		return true
	default:
		return h.debounce.leaving(service, b, now)
	}
}

// justEmptied reports whether a service has no host, had some to show when it was last
// made, and has not been so for long enough to be made anew: who asks for it meanwhile
// is sent what others of its view have, or is withheld it.
func (h *hub) justEmptied(service string, list registry.Listing) bool {
	return h.hosts[service] > 0 && shownHosts(list) == 0 && time.Since(list.EmptySince) < h.debounce.Empty
}

// shownHosts is how many hosts of a listing clients are shown.
func shownHosts(list registry.Listing) (n int) {
	for i := range list.Hosts {
		if list.Hosts[i].State != registry.Out {
			n++
		}
	}
	return n
}

// open sets a flag of the hub and wakes every stream, which may wait for it.
func (h *hub) open(flag *bool) {
	h.mu.Lock()
	defer h.unlock()
	*flag = true
	for s := range h.streams {
		h.woken = append(h.woken, s)
	}
}

// ready says whether a subscription may be answered: the registry is loaded,
// and, for a client that holds something from before, is not only just filling.
// h.mu must be held.
func (h *hub) ready(holdsEarlier bool) bool {
	return h.loaded && (h.warm || !holdsEarlier)
}

// ask has run make what is asked for. h.mu must be held.
func (h *hub) ask() {
	select {
	case h.asked <- struct{}{}:
	default: // run has yet to see the last one
	}
}

// isLoaded reports whether anything may be answered at all.
func (h *hub) isLoaded() bool {
	h.mu.RLock()
	defer h.mu.RUnlock()
	return h.loaded
}
