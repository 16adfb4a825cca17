package registry

import (
	"maps"
	"slices"
	"strings"
	"time"
)

// CommonHosts is the room that a reader has on its stack for the hosts of a service,
// so that a list of as many takes no memory of its own.
const CommonHosts = 16

// List returns the hosts of a service. The work is proportional to the answer,
// which alone is allocated. The error is ErrNotLoaded or nil.
func (r *Registry) List(name string) (Listing, error) { return r.ListInto(nil, name) }

// ListInto is List for a reader that has room for the hosts: they are in room,
// over what is there, if its capacity is enough, and nothing is allocated.
func (r *Registry) ListInto(room []View, name string) (Listing, error) {
	r.mu.RLock()
	if !r.isLoaded {
		r.mu.RUnlock()
		return Listing{}, ErrNotLoaded
	}
	s := r.services[name]
	if s == nil {
		r.mu.RUnlock()
		return Listing{Partial: r.Partial()}, nil
	}
	list := r.listing(room, s.ordered)
	if s.empty != nil {
		list.EmptySince = time.Now().Add(-r.heardFor(s.emptySince))
	}
	r.mu.RUnlock()
	list.Known = true
	return list, nil
}

// ListRepo returns the hosts of a repository over all services. The work is
// proportional to the answer. The error is ErrNotLoaded or nil.
func (r *Registry) ListRepo(repo string) (Listing, error) {
	r.mu.RLock()
	if !r.isLoaded {
		r.mu.RUnlock()
		return Listing{}, ErrNotLoaded
	}
	var entries []*entry
	for e := r.repos[repo]; e != nil; e = e.after {
		entries = append(entries, e)
	}
	slices.SortFunc(entries, compareEntries)
	list := r.listing(nil, entries)
	r.mu.RUnlock()
	list.Known = len(entries) > 0
	return list, nil
}

// Find returns one host, and whether it is there. The error is ErrNotLoaded or
// nil.
func (r *Registry) Find(k Key) (View, bool, error) {
	r.mu.RLock()
	defer r.mu.RUnlock()
	if !r.isLoaded {
		return View{}, false, ErrNotLoaded
	}
	e := r.find(k)
	if e == nil {
		return View{}, false, nil
	}
	return r.view(e, time.Now()), true, nil
}

// listing is hosts, in their order, as readers see them now, in room if that is
// enough. r.mu must be held.
func (r *Registry) listing(room []View, entries []*entry) Listing {
	if cap(room) < len(entries) {
		room = make([]View, len(entries))
	}
	list := Listing{Hosts: room[:len(entries)], Partial: r.Partial()}
	// What hosts hold lies anywhere in memory, and takes longer to come than all
	// else here takes to do. So this loop goes before, whose work the next one does
	// again: it is so short that the processor asks for many hosts at once.
	for i, e := range entries {
		v := &list.Hosts[i]
		v.Host, v.Weight = e.host, e.host.Tags.Weight
	}
	now := time.Now()
	for i, e := range entries {
		v := &list.Hosts[i]
		r.see(v, e, now)
		list.Version ^= seal(e.hash, v.State, v.Weight, v.Stale, v.Unhealthy)
	}
	return list
}

// compareEntries orders entries as a Listing is ordered. Most hosts differ in
// their addresses, and hosts of one service share its name.
func compareEntries(a, b *entry) int {
	if order := strings.Compare(a.host.Service, b.host.Service); order != 0 {
		return order
	}
	if order := a.host.Address.Compare(b.host.Address); order != 0 {
		return order
	}
	return strings.Compare(a.host.ID, b.host.ID)
}

// view is e as readers see it now. r.mu must be held.
func (r *Registry) view(e *entry, now time.Time) (v View) {
	r.see(&v, e, now)
	return v
}

// see makes v what readers see of e now. r.mu must be held.
func (r *Registry) see(v *View, e *entry, now time.Time) {
	*v = View{Record: e.record(r.wall), Stale: e.stale, Unhealthy: e.unhealthy}
	v.State, v.Weight = r.outlook(e, now)
}

// outlook is the State of e now, and its weight. r.mu must be held.
func (r *Registry) outlook(e *entry, now time.Time) (State, uint8) {
	drainingSince, weight := r.orders(e)
	switch {
	case drainingSince.IsZero():
		return Serving, weight
	case now.Sub(drainingSince) < r.options.DrainTime:
		return Draining, weight
	default:
		return Out, weight
	}
}

// orders are since when e drains, by its own word or an operator's, zero if it does
// not, and its weight. r.mu must be held.
func (r *Registry) orders(e *entry) (drainingSince time.Time, weight uint8) {
	drainingSince, weight = e.drainingSince.Time(), e.host.Tags.Weight
	if len(r.settings) > 0 {
		if s := r.settingOf(Weigh, e.host); s != nil {
			weight = s.Weight
		}
		for _, kind := range [...]SettingKind{Drain, Maintenance} {
			if s := r.settingOf(kind, e.host); s != nil && (drainingSince.IsZero() || s.Made.Before(drainingSince)) {
				drainingSince = s.Made
			}
		}
	}
	return drainingSince, weight
}

// ServiceSummary is a service in the index of all.
type ServiceSummary struct {
	Name string
	// Hosts is how many it has; Serving, Draining and Out are those by state,
	// Stale those held beyond their TTL and Unhealthy those found to be so, which
	// are in one of these too.
	Hosts, Serving, Draining, Out, Stale, Unhealthy int
	Version                                         Version
	ChangedAt                                       time.Time
}

// summaryBatch is about how many hosts are counted under one hold of the lock.
const summaryBatch = 1024

// Services returns all known services, ordered by name, each as it was at one
// moment while they were counted. The work is proportional to the number of all
// hosts. The slice is the caller's. The error is ErrNotLoaded or nil.
func (r *Registry) Services() ([]ServiceSummary, error) {
	r.mu.RLock()
	if !r.isLoaded {
		r.mu.RUnlock()
		return nil, ErrNotLoaded
	}
	services := slices.Collect(maps.Values(r.services))
	r.mu.RUnlock()
	now := time.Now()
	summaries := make([]ServiceSummary, 0, len(services))
	for len(services) > 0 {
		var n int
		summaries, n = r.summarizeSome(services, summaries, now)
		services = services[n:]
	}
	slices.SortFunc(summaries, func(a, b ServiceSummary) int { return strings.Compare(a.Name, b.Name) })
	return summaries, nil
}

// summarizeSome appends the summaries of the first of some services, with
// summaryBatch hosts or the first with more, and returns how many services these
// were. Those that were forgotten meanwhile are left out.
func (r *Registry) summarizeSome(services []*service, summaries []ServiceSummary, now time.Time) ([]ServiceSummary, int) {
	r.mu.RLock()
	defer r.mu.RUnlock()
	looked := 0
	for i, s := range services {
		if looked >= summaryBatch {
			return summaries, i
		}
		looked += 1 + len(s.ordered)
		if r.services[s.name] == s {
			summaries = append(summaries, r.summarize(s, now))
		}
	}
	return summaries, len(services)
}

// summarize counts the hosts of a service. r.mu must be held.
func (r *Registry) summarize(s *service, now time.Time) ServiceSummary {
	sum := ServiceSummary{Name: s.name, Hosts: len(s.ordered), ChangedAt: s.changedAt}
	for _, e := range s.ordered {
		state, weight := r.outlook(e, now)
		sum.Version ^= seal(e.hash, state, weight, e.stale, e.unhealthy)
		switch state {
		case Serving:
			sum.Serving++
		case Draining:
			sum.Draining++
		case Out:
			sum.Out++
		}
		if e.stale {
			sum.Stale++
		}
		if e.unhealthy {
			sum.Unhealthy++
		}
	}
	return sum
}
