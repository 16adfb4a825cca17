package registry

import (
	"slices"
	"strings"
	"time"
)

// List returns the hosts of a service. The work is proportional to the answer,
// which alone is allocated. The error is ErrNotLoaded or nil.
func (r *Registry) List(name string) (Listing, error) {
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
	entries := make([]*entry, 0, 32) // on the stack, for as many hosts as are common
	for _, e := range s.hosts {
		entries = append(entries, e)
	}
	list := r.listing(entries)
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
	list := r.listing(entries)
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

// listing is hosts as readers see them now. It orders entries, which are a
// twelfth of a View each. r.mu must be held.
func (r *Registry) listing(entries []*entry) Listing {
	slices.SortFunc(entries, compareEntries)
	list := Listing{Hosts: make([]View, len(entries)), Partial: r.Partial()}
	now := time.Now()
	for i, e := range entries {
		v := &list.Hosts[i]
		r.see(v, e, now)
		list.Version ^= v.seal(e.hash)
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
	*v = View{Record: e.record(r.wall), Weight: e.host.Tags.Weight, Stale: e.stale}
	drainingSince := e.drainingSince.Time()
	if len(r.settings) > 0 {
		if s := r.settingOf(Weigh, e.host); s != nil {
			v.Weight = s.Weight
		}
		for _, kind := range [...]SettingKind{Drain, Maintenance} {
			if s := r.settingOf(kind, e.host); s != nil && (drainingSince.IsZero() || s.Made.Before(drainingSince)) {
				drainingSince = s.Made
			}
		}
	}
	switch {
	case drainingSince.IsZero():
	case now.Sub(drainingSince) < r.options.DrainTime:
		v.State = Draining
	default:
		v.State = Out
	}
}

// ServiceSummary is a service in the index of all.
type ServiceSummary struct {
	Name string
	// Hosts is how many it has; Serving, Draining and Out are those by state,
	// Stale those held beyond their TTL, which are in one of these too.
	Hosts, Serving, Draining, Out, Stale int
	Version                              Version
	ChangedAt                            time.Time
}

// Services returns all known services, ordered by name. The work is
// proportional to the number of all hosts. The slice is the caller's. The error
// is ErrNotLoaded or nil.
func (r *Registry) Services() ([]ServiceSummary, error) {
	r.mu.RLock()
	if !r.isLoaded {
		r.mu.RUnlock()
		return nil, ErrNotLoaded
	}
	now := time.Now()
	summaries := make([]ServiceSummary, 0, len(r.services))
	for _, s := range r.services {
		summaries = append(summaries, r.summarize(s, now))
	}
	r.mu.RUnlock()
	slices.SortFunc(summaries, func(a, b ServiceSummary) int { return strings.Compare(a.Name, b.Name) })
	return summaries, nil
}

// summarize counts the hosts of a service. r.mu must be held.
func (r *Registry) summarize(s *service, now time.Time) ServiceSummary {
	sum := ServiceSummary{Name: s.name, Hosts: len(s.hosts), ChangedAt: s.changedAt}
	for _, e := range s.hosts {
		v := r.view(e, now)
		sum.Version ^= v.seal(e.hash)
		switch v.State {
		case Serving:
			sum.Serving++
		case Draining:
			sum.Draining++
		case Out:
			sum.Out++
		}
		if v.Stale {
			sum.Stale++
		}
	}
	return sum
}
