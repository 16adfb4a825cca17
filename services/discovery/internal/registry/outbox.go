package registry

import (
	"context"
	"log/slog"
	"maps"
	"slices"
	"sync"
	"time"
)

// flushInterval is how often beats are handed to the Store. Changes go at once.
const flushInterval = time.Second

// removalLife is how long a Store that is away will be told that a host went: after
// that it may hold a host that is gone, until its TTL has passed there too.
const removalLife = time.Hour

// outbox holds what the Store has not been told yet: at most one change and
// one beat per host, and one change per setting. While the Store is away it grows
// with every host that comes, and those that went stay in it for removalLife, since
// the Store may still hold them.
type outbox struct {
	store   Store
	log     *slog.Logger
	metrics *metrics
	wake    chan struct{} // has a value when there are changes

	// beatsOf says when hosts last beat, and that they wait here no more; those that
	// went are left out.
	beatsOf func([]*entry) ([]*entry, []Beat)
	// giveAgain gets the keys of hosts that the Store should have and has not.
	giveAgain func([]Key)
	// answered is told when the Store ceases to answer, and when it does again.
	answered func(error)

	mu      sync.Mutex
	changes map[subject]Change
	// sent are those that the Store is just being told of. contested are those of
	// which a change by another writer came meanwhile: it was not applied, but may
	// be the later one in the Store, so the Store is told of ours once more.
	sent      map[subject]Change
	contested map[subject]struct{}
	beats     []*entry
}

// subject is what a change is of: a host, or a setting.
type subject struct {
	key     Key
	setting SettingKey
}

func newOutbox(store Store, log *slog.Logger, m *metrics, beatsOf func([]*entry) ([]*entry, []Beat), giveAgain func([]Key), answered func(error)) *outbox {
	return &outbox{
		store: store, log: log, metrics: m, beatsOf: beatsOf, giveAgain: giveAgain, answered: answered,
		wake: make(chan struct{}, 1), changes: map[subject]Change{}, contested: map[subject]struct{}{},
	}
}

// change takes a change to be stored; it replaces an earlier one of its host or
// setting.
func (o *outbox) change(c Change) {
	o.mu.Lock()
	of := subject{c.Key, c.SettingKey}
	c.inherit(o.changes[of])
	o.changes[of] = c
	o.mu.Unlock()
	o.rouse()
}

// inherit has c, which comes in the place of a change that the Store was not told
// of, tell of that too where it only gives the same once more.
func (c *Change) inherit(earlier Change) {
	if c.Event != nil {
		return
	}
	sameHost := c.Record != nil && earlier.Record != nil && c.Record.Lease == earlier.Record.Lease
	sameSetting := c.Setting != nil && earlier.Setting != nil
	if sameHost || sameSetting {
		c.Event = earlier.Event
	}
}

// rouse has the writer see that there are changes.
func (o *outbox) rouse() {
	select {
	case o.wake <- struct{}{}:
	default: // it has yet to see the last one
	}
}

// forget takes back what the Store has yet to be told of a host.
func (o *outbox) forget(k Key) {
	o.mu.Lock()
	defer o.mu.Unlock()
	delete(o.changes, subject{key: k})
}

// waits reports whether the Store has yet to be told of a change of the same
// host or setting.
func (o *outbox) waits(c *Change) bool {
	o.mu.Lock()
	defer o.mu.Unlock()
	of := subject{c.Key, c.SettingKey}
	if _, waiting := o.changes[of]; waiting {
		return true
	}
	_, sent := o.sent[of]
	if sent {
		o.contested[of] = struct{}{}
	}
	return sent
}

// beat takes note that e beat; how often does not matter.
func (o *outbox) beat(e *entry) {
	if e.beaten.Load() || !e.beaten.CompareAndSwap(false, true) {
		return
	}
	o.mu.Lock()
	o.beats = append(o.beats, e)
	o.mu.Unlock()
}

// run hands changes and beats to the Store until ctx ends, and once more then.
func (o *outbox) run(ctx context.Context) {
	ticker := time.NewTicker(flushInterval)
	defer ticker.Stop()
	healthy := true
	for {
		select {
		case <-o.wake:
			if healthy { // otherwise the ticker tries again
				healthy = o.hand(ctx, healthy, false)
			}
		case <-ticker.C:
			healthy = o.hand(ctx, healthy, true)
		case <-ctx.Done():
			last, cancel := context.WithTimeout(context.WithoutCancel(ctx), lastFlush)
			defer cancel()
			o.hand(last, healthy, true)
			return
		}
	}
}

// hand gives the Store all changes, and the beats too if so told. It reports
// whether the Store took them, and logs when that is other than before. What
// the Store did not take waits for the next call.
func (o *outbox) hand(ctx context.Context, healthy, withBeats bool) bool {
	err := o.handChanges(ctx)
	switch {
	case err == nil && withBeats:
		err = o.handBeats(ctx)
	case withBeats:
		o.dropBeats()
	}
	switch {
	case err != nil && healthy:
		o.log.Error("the store does not take changes; they are kept and sent again", "error", err)
	case err == nil && !healthy:
		o.log.Info("the store takes changes again")
	}
	if (err == nil) != healthy {
		o.answered(err)
	}
	if err != nil {
		o.metrics.storeErrors.Inc()
	}
	return err == nil
}

func (o *outbox) handChanges(ctx context.Context) error {
	o.mu.Lock()
	taken := o.changes
	if len(taken) == 0 {
		o.mu.Unlock()
		return nil
	}
	o.changes, o.sent = map[subject]Change{}, taken
	o.mu.Unlock()

	err := o.store.Append(ctx, slices.Collect(maps.Values(taken)))
	o.mu.Lock()
	defer o.mu.Unlock()
	o.sent = nil
	for key, c := range taken {
		newer, waits := o.changes[key]
		_, contested := o.contested[key]
		switch {
		case waits:
			if err != nil {
				newer.inherit(c)
				o.changes[key] = newer
			}
		case err != nil && c.isOldRemoval():
		case err != nil:
			o.changes[key] = c
		case contested:
			c.Event = nil // that is told
			o.changes[key] = c
			o.rouse()
		}
	}
	clear(o.contested)
	return err
}

// isOldRemoval reports whether c tells only that a host went, removalLife ago.
func (c *Change) isOldRemoval() bool {
	return c.Key != (Key{}) && c.Record == nil && c.Event != nil && time.Since(c.Event.At) > removalLife
}

// waiting is how many changes the Store has not taken.
func (o *outbox) waiting() int {
	o.mu.Lock()
	defer o.mu.Unlock()
	return len(o.changes) + len(o.sent)
}

func (o *outbox) handBeats(ctx context.Context) error {
	there, beats := o.beatsOf(o.takeBeats())
	if len(there) == 0 {
		return nil
	}
	missing, err := o.store.Flush(ctx, beats)
	if err != nil {
		o.beatAgain(there)
	}
	if len(missing) > 0 {
		o.giveAgain(missing)
	}
	return err
}

// dropBeats forgets the beats of hosts that went.
func (o *outbox) dropBeats() {
	there, _ := o.beatsOf(o.takeBeats())
	o.beatAgain(there)
}

// takeBeats returns whose beats wait, of which none waits any more.
func (o *outbox) takeBeats() []*entry {
	o.mu.Lock()
	defer o.mu.Unlock()
	taken := o.beats
	o.beats = make([]*entry, 0, len(taken))
	return taken
}

// beatAgain undoes takeBeats.
func (o *outbox) beatAgain(entries []*entry) {
	for _, e := range entries {
		o.beat(e)
	}
}
