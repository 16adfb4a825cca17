package registry

import (
	"context"
	"time"

	"github.com/weirproxy/weir/services/discovery/internal/guard"
	"github.com/weirproxy/weir/services/discovery/internal/pause"
)

// follow applies what other writers of the shared store did until ctx ends. It
// logs once that it fails, and once that it does not any more.
func (r *Registry) follow(ctx context.Context) {
	for {
		err := r.shared.Follow(ctx, r.apply)
		if ctx.Err() != nil {
			return
		}
		if r.answered(following, err) {
			r.log.Error("changes of other replicas cannot be followed, trying on", "error", err, "every", retryDelay.String())
		}
		if !pause.For(ctx, retryDelay) {
			return
		}
	}
}

// apply takes over what other writers already stored. What this process has
// changed itself and not stored yet is newer, and stays.
func (r *Registry) apply(u Update) {
	if u.isEmpty() {
		if r.answered(following, nil) {
			r.log.Info("changes of other replicas are followed again")
		}
		if r.stale.CompareAndSwap(true, false) && r.Partial() {
			r.warmer()
		}
		r.mu.Lock()
		defer r.mu.Unlock()
		r.heardAll(time.Since(r.born))
		return
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	for i := range u.Changes {
		r.applyChange(&u.Changes[i])
	}
	heard := 0
	for _, b := range u.Beats {
		if e := r.find(b.Key); e != nil && r.hear(e, b.At) && e.counts(time.Duration(e.lastBeat.Load())) {
			heard++
		}
	}
	r.beats.Add(int64(heard))
	if u.Silent != nil {
		r.fellSilent(u.Silent)
	}
	if u.Whole != nil {
		if u.Lost {
			r.outbox.partial.Store(true)
		}
		r.reconcile(u.Whole, u.Covers, u.Lost)
	}
}

// applyChange takes over one change. It tells of another writer's, be it known here already
// or not; that a host which lingers went, once it goes here. r.mu must be held.
func (r *Registry) applyChange(c *Change) {
	switch {
	case c.Key == Key{}:
		r.applySetting(c)
	case c.Record != nil:
		r.applyPut(c)
	default:
		r.applyRemoval(c)
	}
}

// applied tells of a change that was taken over; of its own was told when it was made.
// r.mu must be held.
func (r *Registry) applied(c *Change) {
	if c.Event != nil && !c.Own {
		r.happened(c.Event)
	}
}

// applyPut is applyChange for a host that is there. What this replica changed of it itself
// and the Store was not told of yet is made over it, here as it will be there. Where the
// Store was told a moment ago, it may for as long as that be shown without: what another
// writer put before that comes first, and this replica's own change follows. What is
// changed here meanwhile undoes nothing, since that is made over what is kept. r.mu must
// be held.
func (r *Registry) applyPut(c *Change) {
	if record := r.outbox.over(c.Record); record != nil {
		r.take(record)
	}
	r.applied(c)
}

// applySetting is applyChange for a setting.
func (r *Registry) applySetting(c *Change) {
	switch {
	case r.outbox.waits(c):
	case c.Setting == nil:
		r.unset(c.SettingKey)
	default:
		r.set(c.Setting)
	}
	r.applied(c)
}

// applyRemoval is applyChange for a host that went.
func (r *Registry) applyRemoval(c *Change) {
	e := r.find(c.Key)
	if e != nil && c.Lease != 0 && c.Lease != e.lease {
		e = nil // that stay is over here too: it came back since
	}
	var expired bool
	switch {
	case c.Event != nil:
		expired = c.Event.Kind == Expired
	case e != nil: // nobody says why it went
		expired = !r.beatsHere(e)
	}
	if e != nil && c.Event != nil && !expired && !r.lingers(e) && r.registeredSince(e, c.Went) {
		r.happened(c.Event)
		r.comesBack(e)
		return
	}
	switch {
	case r.outbox.waits(c) || e == nil:
		r.applied(c)
	case expired && r.beatsHere(e):
		r.giveEntry(e, Parts{})
	case !expired && r.linger(e, c.Event):
	default:
		r.wentElsewhere(e, c.Event)
		r.applied(c)
	}
}

// wentElsewhere drops e, which another replica took out, with an event or nil. r.mu must
// be held.
func (r *Registry) wentElsewhere(e *entry, event *Event) {
	switch {
	case event == nil:
	case event.Kind == Expired:
		r.expiredElsewhere(e)
	default:
		r.deregistered(e)
	}
	r.drop(e)
}

// beatsHere says whether e, which another replica took for dead, is not: that one
// cannot have heard of its beats. What is nearly dead here is not given back: both
// may know the same last beat, and differ by a moment. r.mu must be held.
func (r *Registry) beatsHere(e *entry) bool {
	return e.deadline() > time.Since(r.born)+e.host.TTL/4
}

// registeredSince reports whether the host of e registered here after it went, as
// another replica was told: then this one answered that it is registered, with that
// lease, and may not drop it. It counts only who checked in as a whole, as v1's hosts
// always do, v2's by a PUT: where this replica alone had been asked, that would have
// registered the host anew, and a beat by its lease would have been unknown. went is the
// time by this process's clock, or slightly later: so a host that registered first, and
// then went, is never kept, and one that came back within a moment may have to do so
// again. r.mu must be held.
func (r *Registry) registeredSince(e *entry, went time.Time) bool {
	registered := r.registered(e)
	return !registered.IsZero() && !went.IsZero() && registered.After(went)
}

// registered is when the host of e last checked in here as a whole, zero if it did not.
func (r *Registry) registered(e *entry) time.Time {
	if registered := e.registered.Load(); registered != 0 {
		return r.born.Add(time.Duration(registered))
	}
	return time.Time{}
}

// comesBack has the Store told that the host of e registered here after it went. It has
// the lease that it was answered; readers here do not see it go. r.mu must be held.
func (r *Registry) comesBack(e *entry) {
	at := r.wall.at(time.Duration(e.registered.Load()))
	e.firstSeen = InstantOf(at)
	event := &Event{
		At: at, Kind: Registered, Service: e.host.Service, ID: e.host.ID,
		Actor: Itself, Detail: "it registered before this replica heard that it had gone",
	}
	r.tell(r.services[e.host.Service])
	r.happened(event)
	r.give(e, Parts{Anew: true, Whole: true}, event)
}

// take makes a stored record the registry's. r.mu must be held.
func (r *Registry) take(record *Record) {
	r.comesAnew(record.Host.Key)
	if e := r.find(record.Host.Key); e != nil && e.lease == record.Lease && e.host.equal(record.Host) {
		r.hear(e, record.LastCheckIn)
		return
	}
	r.put(*record, r.wall.of(record.LastCheckIn))
}

// echo is by how much later a beat that was heard here seems when the Store tells
// of it, at most.
const echo = 500 * time.Millisecond

// hear notes a beat that another replica heard, and reports whether it is one that
// is not known here. r.mu must be held.
func (r *Registry) hear(e *entry, at time.Time) (isNew bool) {
	now := time.Since(r.born)
	beat := min(r.wall.of(at), now)
	isNew = beat > time.Duration(e.lastBeat.Load())+echo
	e.beat(beat)
	if e.stale && e.deadline() > now {
		r.recover(e, Itself)
	}
	return isNew
}

// reconcile makes what is held of the covered services what the Store holds. What
// the Store has not, others took out, and it is given again only where it beats
// here and the Store takes it back, or registered here since; or, if the Store lost
// data, all of it is given again, and nothing is taken out: what the Store has of a host
// counts then if it may have been put since. r.mu must be held.
func (r *Registry) reconcile(whole *Contents, covers func(string) bool, lost bool) {
	stored, news := make(map[Key]struct{}, len(whole.Records)), make(map[Key]struct{}, len(whole.News))
	for _, key := range whole.News {
		news[key] = struct{}{}
	}
	for i := range whole.Records {
		record := &whole.Records[i]
		stored[record.Host.Key] = struct{}{}
		if _, isNews := news[record.Host.Key]; lost {
			r.giveBack(record, isNews)
		}
		r.applyChange(&Change{Key: record.Host.Key, Record: record})
	}
	buried := make(map[Lease]time.Time, len(whole.Buried))
	for _, b := range whole.Buried {
		buried[b.Lease] = b.At
	}
	for name, s := range r.services {
		if !covers(name) {
			continue
		}
		for _, e := range s.hosts {
			if _, ok := stored[e.host.Key]; ok || r.lingers(e) {
				continue
			}
			went, deregistered := buried[e.lease]
			switch {
			case deregistered && r.registeredSince(e, went):
				r.comesBack(e)
			case lost:
				told, _ := r.outbox.toldOf(e.host.Key)
				r.giveEntry(e, told)
				r.restored.hosts++
			case !deregistered && r.beatsHere(e):
				r.giveEntry(e, Parts{})
			default:
				r.applyChange(&Change{Key: e.host.Key})
			}
		}
	}
	r.reconcileSettings(whole.Settings, covers, lost)
	if lost {
		r.renew(guard.StoreAway, "the store lost data", time.Since(r.born))
	}
}

// giveBack gives a Store that lost data what is newer here of a host that it has, before
// that is applied: all that is other here; or, if the host was put since, what the Store was
// told of lately, which whoever put it may not have heard of. How late the last beat is
// says nothing: the Store may have been told of it since. r.mu must be held.
func (r *Registry) giveBack(kept *Record, isNews bool) {
	e := r.find(kept.Host.Key)
	if e == nil {
		return
	}
	newer, isNewer := r.outbox.toldOf(e.host.Key)
	if !isNews {
		newer = kept.Host.parts(e.host)
		newer.Anew, newer.Whole = true, true // if that is another stay
		isNewer = kept.Lease != e.lease || !kept.Host.equal(e.host) || r.wall.of(kept.LastCheckIn) < time.Duration(e.lastBeat.Load())
	}
	if isNewer {
		r.giveEntry(e, newer)
		r.restored.hosts++
	}
}

// reconcileSettings is reconcile for settings. r.mu must be held.
func (r *Registry) reconcileSettings(kept []Setting, covers func(string) bool, lost bool) {
	stored := make(map[SettingKey]struct{}, len(kept))
	for i := range kept {
		key := kept[i].Key()
		stored[key] = struct{}{}
		if s := r.settings[key]; lost && s != nil && s.Made.After(kept[i].Made) {
			r.giveSetting(s)
			continue
		}
		r.applyChange(&Change{SettingKey: key, Setting: &kept[i]})
	}
	for key, s := range r.settings {
		if _, ok := stored[key]; ok || !covers(key.Scope.Service) {
			continue
		}
		if lost {
			r.giveSetting(s)
		} else {
			r.applyChange(&Change{SettingKey: key})
		}
	}
}

// giveSetting gives a setting again to a Store that lost it, or has an earlier one in its
// place. r.mu must be held.
func (r *Registry) giveSetting(s *setting) {
	r.outbox.change(Change{SettingKey: s.Key(), Setting: &s.Setting})
	r.restored.settings++
}

// giveAgain gives the Store hosts that it should have and has not.
func (r *Registry) giveAgain(keys []Key) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, k := range keys {
		if e := r.find(k); e != nil {
			r.giveEntry(e, Parts{})
		}
	}
}

// giveEntry gives the Store a host once more, but none that went. Where the Store has it,
// put by another writer meanwhile, newer are the parts that are newer here. r.mu must be
// held.
func (r *Registry) giveEntry(e *entry, newer Parts) {
	if !r.lingers(e) {
		r.give(e, newer, nil)
	}
}

// give gives the Store a host, of which some parts are changed, with an event or nil. r.mu
// must be held.
func (r *Registry) give(e *entry, changed Parts, event *Event) {
	record := e.record(r.wall)
	r.outbox.change(Change{Key: e.host.Key, Record: &record, Parts: changed, Registered: r.registered(e), Event: event})
}
