package registry

import (
	"cmp"
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
	list := Listing{Hosts: make([]View, 0, len(s.hosts)), Known: true, Partial: r.Partial()}
	now := time.Now()
	for _, e := range s.hosts {
		r.addTo(&list, e, now)
	}
	r.mu.RUnlock()
	sortViews(list.Hosts)
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
	first := r.repos[repo]
	list := Listing{Known: first != nil, Partial: r.Partial()}
	now := time.Now()
	for e := first; e != nil; e = e.after {
		r.addTo(&list, e, now)
	}
	r.mu.RUnlock()
	sortViews(list.Hosts)
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

// addTo adds a host to a list as it is seen now. r.mu must be held.
func (r *Registry) addTo(list *Listing, e *entry, now time.Time) {
	v := r.view(e, now)
	list.Version ^= v.seal(e.hash)
	list.Hosts = append(list.Hosts, v)
}

// view is e as readers see it now. r.mu must be held.
func (r *Registry) view(e *entry, now time.Time) View {
	v := View{Record: e.record(r.wall), Weight: e.host.Tags.Weight, Stale: e.stale}
	drainingSince := e.drainingSince.time()
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
	return v
}

func sortViews(views []View) {
	slices.SortFunc(views, func(a, b View) int {
		return cmp.Or(
			cmp.Compare(a.Host.Service, b.Host.Service),
			a.Host.Address.Compare(b.Host.Address),
			cmp.Compare(a.Host.ID, b.Host.ID))
	})
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
