package registry

import (
	"cmp"
	"context"
	"errors"
	"maps"
	"slices"
	"sync"
	"sync/atomic"
	"time"
)

// flushInterval is how often beats are handed to the Store. Changes go at once.
const flushInterval = time.Second

// RemovalLife is how long a Store that is away will be told that a host went: after
// that it may hold a host that is gone, until its TTL has passed there too.
const RemovalLife = time.Hour

// outbox holds what the Store has not been told yet: at most one change and
// one beat per host, and one change per setting. While the Store is away it grows
// with every host that comes, and those that went stay in it for RemovalLife, since
// the Store may still hold them.
type outbox struct {
	registry *Registry     // whose lock is never taken under mu
	wake     chan struct{} // has a value when there are changes
	// healthy says that the Store took what it was last handed. It is run's alone.
	healthy bool
	// partial says that the Store was not told yet that it has all hosts, or lost some
	// since.
	partial atomic.Bool

	mu      sync.Mutex
	changes map[subject]Change
	// sent are those that the Store is just being told of. contested are those of
	// which a change by another writer came meanwhile: it did not undo ours here, but may
	// be the later one in the Store, so the Store is told of ours once more.
	sent      map[subject]Change
	contested map[subject]struct{}
	beats     []*entry
	// told are the parts of hosts that the Store was told of since it last took all beats,
	// toldBefore those before that, since the time before: it may lose what is so new before
	// others heard of it. A host that goes is in neither.
	told, toldBefore map[Key]Parts
}

// subject is what a change is of: a host, or a setting.
type subject struct {
	key     Key
	setting SettingKey
}

func (c *Change) subject() subject { return subject{c.Key, c.SettingKey} }

func newOutbox(r *Registry) *outbox {
	o := &outbox{
		registry: r, wake: make(chan struct{}, 1), healthy: true,
		changes: map[subject]Change{}, contested: map[subject]struct{}{}, told: map[Key]Parts{},
	}
	o.partial.Store(true)
	return o
}

// change takes a change to be stored; it replaces an earlier one of its host or
// setting.
func (o *outbox) change(c Change) {
	o.mu.Lock()
	of := c.subject()
	if earlier, waits := o.changes[of]; waits {
		c.inherit(earlier)
	}
	o.changes[of] = c
	o.mu.Unlock()
	o.rouse()
}

// inherit has c, which comes in the place of a change that the Store was not told of,
// be of the parts that that was of too; and tell of it where c only gives the same once
// more. Of a host that went, nothing holds for one that comes.
func (c *Change) inherit(earlier Change) {
	sameHost := c.Record != nil && earlier.Record != nil && c.Record.Lease == earlier.Record.Lease
	sameSetting := c.Setting != nil && earlier.Setting != nil
	switch {
	case sameHost:
		c.Parts = c.Parts.and(earlier.Parts)
	case c.Record != nil && earlier.Record == nil:
		c.Parts.Whole = true
	}
	if c.Event == nil && (sameHost || sameSetting) {
		c.Event = earlier.Event
	}
}

// noteTold notes which parts of a host the Store was told of. o.mu must be held.
func (o *outbox) noteTold(c *Change) {
	if c.Record != nil && o.registry.shared != nil { // or there is nobody who had not heard
		o.told[c.Key] = o.told[c.Key].and(c.Parts)
	}
}

// forgetToldOf forgets what the Store was told of a host.
func (o *outbox) forgetToldOf(k Key) {
	o.mu.Lock()
	defer o.mu.Unlock()
	delete(o.told, k)
	delete(o.toldBefore, k)
}

// toldOf are the parts of a host that the Store was told of lately, and whether it was.
func (o *outbox) toldOf(k Key) (parts Parts, ok bool) {
	o.mu.Lock()
	defer o.mu.Unlock()
	now, told := o.told[k]
	before, toldBefore := o.toldBefore[k]
	return now.and(before), told || toldBefore
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

// waits reports whether the Store has yet to be told of a change of the same host or
// setting. One that it is just being told of is contested then.
func (o *outbox) waits(c *Change) bool {
	o.mu.Lock()
	defer o.mu.Unlock()
	of := c.subject()
	if _, waiting := o.changes[of]; waiting {
		return true
	}
	_, sent := o.sent[of]
	if sent {
		o.contested[of] = struct{}{}
	}
	return sent
}

// over is a host that a writer put, with what of it the Store has yet to be told; nil if
// that is that it goes. What it has yet to be told is made over the host too, and is
// contested if it is just being told.
func (o *outbox) over(record *Record) *Record {
	o.mu.Lock()
	defer o.mu.Unlock()
	of := subject{key: record.Host.Key}
	if _, sent := o.sent[of]; sent {
		o.contested[of] = struct{}{}
	}
	for _, untold := range []map[subject]Change{o.sent, o.changes} { // in this order
		c, waits := untold[of]
		switch {
		case !waits:
		case c.Record == nil:
			record = nil
		default:
			record = c.Over(record)
			c.Record = record
			untold[of] = c
		}
	}
	return record
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
	for {
		select {
		case <-o.wake:
			if o.healthy { // otherwise the ticker tries again
				o.hand(ctx, false)
			}
		case <-ticker.C:
			o.hand(ctx, true)
		case <-ctx.Done():
			last, cancel := context.WithTimeout(context.WithoutCancel(ctx), lastFlush)
			defer cancel()
			o.hand(last, true)
			return
		}
	}
}

// hand gives the Store all changes, and the beats too if so told: those also where it
// did not take all changes, of which there may be for one server of a Cluster alone.
// What the Store does not take waits for the next call.
func (o *outbox) hand(ctx context.Context, withBeats bool) {
	err := o.handChanges(ctx)
	if withBeats {
		unheard := o.handBeats(ctx)
		err = cmp.Or(err, unheard)
	}
	if err == nil && withBeats {
		o.forgetTold()
		err = o.complete(ctx)
	}
	if err != nil {
		o.registry.metrics.storeErrors.Inc()
	}
	switch healthy := err == nil; {
	case healthy != o.healthy:
		o.healthy = healthy
		o.turned(err)
	case !healthy:
		o.registry.answered(telling, err) // why it does not may be another by now
	}
}

// turned tells that the Store ceased to take what it is handed, or with nil that it
// does again.
func (o *outbox) turned(err error) {
	if err != nil {
		o.registry.log.Error("the store does not take changes; they are kept and sent again", "error", err)
	} else {
		o.registry.log.Info("the store takes changes again")
	}
	o.registry.answered(telling, err)
}

// handChanges tells the Store of all changes.
func (o *outbox) handChanges(ctx context.Context) error {
	taken := o.takeChanges()
	if len(taken) == 0 {
		return nil
	}
	err := o.registry.store.Append(ctx, taken)
	o.handed(err)
	return err
}

// takeChanges returns the changes, which are those that are sent from now on.
func (o *outbox) takeChanges() []Change {
	o.mu.Lock()
	defer o.mu.Unlock()
	if len(o.changes) == 0 {
		return nil
	}
	o.sent, o.changes = o.changes, map[subject]Change{}
	return slices.Collect(maps.Values(o.sent))
}

// handed ends what takeChanges began: the Store was told of those that were sent, or has
// yet to be of those that err, which Append returned, leaves.
func (o *outbox) handed(err error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	left := leftOf(o.sent, err)
	for of, c := range o.sent {
		newer, waits := o.changes[of]
		_, contested := o.contested[of]
		_, isLeft := left[of]
		if !isLeft {
			c.Event = nil // that is told
			o.noteTold(&c)
		}
		switch {
		case !isLeft && !contested:
		case waits:
			newer.inherit(c)
			o.changes[of] = newer
		case isLeft && c.isOldRemoval():
		default:
			o.changes[of] = c
			o.rouse()
		}
	}
	o.sent = nil
	clear(o.contested)
}

// leftOf are those of changes that an Append which returned err did not take.
func leftOf(changes map[subject]Change, err error) map[subject]Change {
	var some *AppendError
	switch {
	case err == nil:
		return nil
	case !errors.As(err, &some):
		return changes
	}
	left := make(map[subject]Change, len(some.Left))
	for _, c := range some.Left {
		left[c.subject()] = c
	}
	return left
}

// isOldRemoval reports whether c tells only that a host went, RemovalLife ago.
func (c *Change) isOldRemoval() bool {
	return c.Key != (Key{}) && c.Record == nil && !c.Went.IsZero() && time.Since(c.Went) > RemovalLife
}

// waiting is how many changes the Store has not taken.
func (o *outbox) waiting() int {
	o.mu.Lock()
	defer o.mu.Unlock()
	return len(o.changes) + len(o.sent)
}

// handBeats tells the Store of beats, and gives it again the hosts that it has lost.
func (o *outbox) handBeats(ctx context.Context) error {
	there, beats := o.registry.beatsOf(o.takeBeats())
	if len(there) == 0 {
		return nil
	}
	missing, err := o.registry.store.Flush(ctx, beats)
	if err != nil {
		o.beatAgain(there)
	}
	if len(missing) > 0 {
		o.registry.giveAgain(missing)
	}
	return err
}

// complete tells the Store that it has all hosts, once that is so, and once more
// after it lost some.
func (o *outbox) complete(ctx context.Context) error {
	if o.registry.Partial() || o.waiting() > 0 || !o.partial.CompareAndSwap(true, false) {
		return nil
	}
	err := o.registry.store.Complete(ctx)
	if err != nil {
		o.partial.Store(true)
	}
	return err
}

// forgetTold forgets what the Store was told of before it took all beats twice.
func (o *outbox) forgetTold() {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.told, o.toldBefore = map[Key]Parts{}, o.told
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
