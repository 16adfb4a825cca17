// Package registry knows which hosts each service has: it takes their
// check-ins, drops a host when its TTL has passed since the last one, and tells
// subscribers which services changed. The REST faces write to it and read from
// it, xds reads from it, and a Store keeps it over restarts and carries it
// between replicas. Memory is the truth for every read; the registry never
// waits for the Store to answer a caller, and it knows nothing of HTTP or of
// Envoy.
package registry

import (
	"container/list"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/weirproxy/weir/services/discovery/internal/guard"
	"github.com/weirproxy/weir/services/discovery/internal/pause"
)

// ErrNotLoaded is the answer to every call before the Store has been read: the
// registry knows nothing yet, which is not the same as knowing of no host.
var ErrNotLoaded = errors.New("the registry is not loaded yet")

// The answers to a check-in that would go beyond a limit. What was known stays
// as it was, without the check-in.
var (
	ErrTagsTooLarge    = errors.New("tags too large")
	ErrServiceFull     = errors.New("the service has as many hosts as it may")
	ErrTooManyServices = errors.New("there are as many services as there may be")
)

// Options is what a registry is made of. Every field is required.
type Options struct {
	// Store keeps the hosts; the registry is its only user and does not close it.
	// If it is a SharedStore, the registry is one of several replicas.
	Store Store
	// Log gets one line per host that comes, goes or expires.
	Log *slog.Logger
	// Metrics is where the registry's metrics are registered.
	Metrics prometheus.Registerer
	// SweepInterval is how often dead hosts are looked for: a dead host is gone
	// its TTL and at most this after its last check-in.
	SweepInterval time.Duration
	// WarmUp is how long after a start with no host restored, or with some of a Store
	// that may lack others, the registry is not warm: the hosts of an earlier life may
	// only be about to check in. Where the Store says that it lost some, it is
	// LostWarmUp, if that is longer; where what it has is Stale, it lasts until the
	// Store has answered at least. With a WarmUp of 0 the registry is warm at once.
	WarmUp, LostWarmUp time.Duration
	// EmptyServiceRetention is how long a service whose last host went is still
	// known, as one without hosts.
	EmptyServiceRetention time.Duration
	// DrainTime is how long a host is Draining before it is Out.
	DrainTime time.Duration
	// Linger is how long readers are still shown the last host of a service, after
	// another replica took it out at its own wish; 0 for not at all.
	Linger time.Duration
	Limits Limits
	// Guard is how careful the registry is with hosts that fall silent. What is
	// left 0 is not guarded.
	Guard guard.Limits
}

// Limits bounds what callers can fill a registry with. All are above 0.
type Limits struct {
	HostsPerService int
	Services        int
	// TagBytes is how many bytes the tags of one host have at most, names and
	// values. Without it a host that ever names new ones would grow for ever,
	// since a check-in removes none.
	TagBytes int
}

// Registry holds the hosts of all services. Its methods may be called from
// many goroutines; Run must be running for anything to be loaded or to expire.
type Registry struct {
	store   Store
	shared  SharedStore // the same; nil if nobody else writes to it
	log     *slog.Logger
	metrics *metrics
	options Options
	// born is the zero of the registry's clock; it carries a monotonic reading,
	// so a step of the wall clock expires nobody.
	born  time.Time
	wall  *wall
	beats atomic.Int64 // that count, taken here or told by the Store, since the guard was last told

	loaded, warm chan struct{} // closed when so
	// cold is how much the registry waits for before it is warm, stale whether Follow has
	// yet to say that the Store answers, which is one of that.
	cold   atomic.Int32
	stale  atomic.Bool
	outbox *outbox

	// mu guards all below. A check-in that changes nothing takes it for reading.
	mu       sync.RWMutex
	isLoaded bool
	services map[string]*service
	leases   map[Lease]*entry
	repos    map[string]*entry // the first of the chain of each repository
	expiries expiryQueue
	draining map[*entry]struct{} // those whose hosts say so
	settings map[SettingKey]*setting
	// settingsHeld is until when no setting ends by itself, on the registry's clock.
	settingsHeld time.Duration
	// empties are the *service without hosts, the longest empty first, but that one
	// whose last host lingered stands where that ended: it makes room, or is forgotten,
	// by so much later.
	empties   *list.List
	feeds     []*Feed
	events    map[*EventFeed]struct{}
	waiters   map[string]*waiter // by service
	lingering map[*entry]parting // the hosts that linger
	// heard is when all was last heard that others told the Store, hears since when
	// that is so without a gap, on the registry's clock.
	heard, hears time.Duration
	guard        *guard.Guard
	// ticked is when the sweeper last looked, on the registry's clock.
	ticked time.Duration
	// leaving is how many hosts the Store is asked to let go, away how many are
	// expected to be.
	leaving, away int
	// counted are the hosts that leave and that the guard counts as gone: until
	// when.
	counted map[*entry]time.Duration
	// restored is what was given again to a Store that lost data, since that was
	// last logged.
	restored struct{ hosts, settings int }
	failing  uint8 // ways to call the Store that fail, a bit for each storeCall
	// troubles are what is wrong with each way to call the Store.
	troubles [storeCalls]trouble
}

// service is one known service: one that has, or lately had, a host.
type service struct {
	name    string
	hosts   map[string]*entry // by Key.ID
	ordered []*entry          // the same, as a Listing is ordered
	history history
	// leaving and away are those of Registry, lingering is how many linger, of this
	// service's hosts.
	leaving, away, lingering int
	// changedAt is when it last changed, changes how often it did.
	changedAt time.Time
	changes   uint64
	kept      shelf
	// emptySince is when the last host went, on the registry's clock; empty is
	// the place in Registry.empties, nil while there are hosts.
	emptySince time.Duration
	empty      *list.Element
}

// New makes a registry that holds nothing. Call Run to load it.
func New(o Options) *Registry {
	r := &Registry{
		store:     o.Store,
		log:       o.Log,
		metrics:   newMetrics(o.Metrics),
		options:   o,
		born:      time.Now(),
		loaded:    make(chan struct{}),
		warm:      make(chan struct{}),
		services:  map[string]*service{},
		leases:    map[Lease]*entry{},
		repos:     map[string]*entry{},
		draining:  map[*entry]struct{}{},
		settings:  map[SettingKey]*setting{},
		empties:   list.New(),
		events:    map[*EventFeed]struct{}{},
		waiters:   map[string]*waiter{},
		counted:   map[*entry]time.Duration{},
		lingering: map[*entry]parting{},
		guard:     guard.New(o.Guard),
	}
	r.shared, _ = o.Store.(SharedStore)
	r.wall = newWall(r.born)
	r.outbox = newOutbox(r)
	addWaiting(o.Metrics, r.outbox.waiting)
	return r
}

// Loaded is closed once the Store has been read.
func (r *Registry) Loaded() <-chan struct{} { return r.loaded }

// retryDelay is the time between attempts to reach a Store that fails.
const retryDelay = time.Second

// lastFlush bounds the handing over to the Store when Run ends.
const lastFlush = 2 * time.Second

// Run loads the registry from its Store, however often it takes, and then
// expires hosts and hands changes to the Store until ctx ends. It returns nil,
// after the last change was handed over or lastFlush has passed; or an error if the
// Store refuses to be loaded, as ErrRefused says.
func (r *Registry) Run(ctx context.Context) error {
	if loaded, err := r.load(ctx); !loaded {
		return err
	}
	var running sync.WaitGroup
	defer running.Wait()
	// Both end with ctx; Run waits for them.
	running.Go(func() { r.outbox.run(ctx) })
	if r.shared != nil {
		running.Go(func() { r.follow(ctx) })
	}
	r.sweepUntil(ctx)
	return nil
}

// load reads the Store until it answers, and reports whether it did before ctx
// ended. The error is that of a Store whose answer is that it refuses: what is wrong
// from the beginning an operator must mend, and is to see at once.
func (r *Registry) load(ctx context.Context) (loaded bool, err error) {
	for {
		contents, err := r.store.Load(ctx)
		r.notLoaded(err)
		if err == nil {
			r.restore(contents)
			return true, nil
		}
		if ctx.Err() != nil {
			return false, nil //nolint:nilerr // that it ends is no error
		}
		if errors.Is(err, ErrRefused) {
			return false, fmt.Errorf("load the registry: %w", err)
		}
		r.log.Error("the registry cannot be loaded, trying again", "error", err, "in", retryDelay.String())
		if !pause.For(ctx, retryDelay) {
			return false, nil
		}
	}
}

// restore takes over what the Store held. Every host gets its full TTL from
// now, since nobody could check in while this process was away.
func (r *Registry) restore(contents *Contents) {
	r.mu.Lock()
	for _, record := range contents.Records {
		r.put(record, r.wall.of(record.LastCheckIn))
	}
	for i := range contents.Settings {
		r.set(&contents.Settings[i])
	}
	for i := range contents.Events {
		r.remember(&contents.Events[i])
	}
	if len(contents.Records) > 0 {
		r.renew(guard.Started, "what came before was not heard", time.Since(r.born))
	}
	r.stale.Store(contents.Stale)
	warmUp := r.warmUp(contents)
	if warmUp == 0 {
		close(r.warm) // before anybody is answered
	} else {
		r.cold.Add(1)
		if contents.Stale {
			r.cold.Add(1)
		}
		time.AfterFunc(warmUp, r.warmer)
	}
	r.isLoaded = true
	r.mu.Unlock()
	close(r.loaded)
	switch {
	case warmUp == 0:
	case contents.Stale:
		r.log.Warn("the store does not answer, and what it had lately may not be all; lists without hosts are held back until it does", "for_at_least", warmUp.String())
	case contents.Lost:
		r.log.Warn("the store had hosts that it cannot tell of; lists without hosts are held back until they have beaten", "for", warmUp.String())
	default:
		r.log.Info("the store may not have all hosts yet; lists without hosts are held back until they have beaten", "for", warmUp.String())
	}
	r.log.Info("registry loaded", "hosts", len(contents.Records), "settings", len(contents.Settings))
}

// find returns the entry of k, or nil. r.mu must be held.
func (r *Registry) find(k Key) *entry {
	s := r.services[k.Service]
	if s == nil {
		return nil
	}
	return s.hosts[k.ID]
}
