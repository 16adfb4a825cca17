package registry

import (
	"cmp"
	"slices"
)

// List returns the hosts of a service, ordered by address, then ID. known is
// false for a service that never had hosts, or none for long. The work is
// proportional to the answer, which alone is allocated; the slice is the
// caller's. The error is ErrNotLoaded or nil.
func (r *Registry) List(name string) (records []Record, known bool, err error) {
	r.mu.RLock()
	if !r.isLoaded {
		r.mu.RUnlock()
		return nil, false, ErrNotLoaded
	}
	s := r.services[name]
	if s == nil {
		r.mu.RUnlock()
		return nil, false, nil
	}
	records = make([]Record, 0, len(s.hosts))
	for _, e := range s.hosts {
		records = append(records, e.record(r.born))
	}
	r.mu.RUnlock()
	sortRecords(records)
	return records, true, nil
}

// ListRepo returns the hosts of a repository over all services, ordered by
// service, address, ID. The work is proportional to the answer, and the slice
// is the caller's. The error is ErrNotLoaded or nil.
func (r *Registry) ListRepo(repo string) ([]Record, error) {
	r.mu.RLock()
	if !r.isLoaded {
		r.mu.RUnlock()
		return nil, ErrNotLoaded
	}
	records := make([]Record, 0, len(r.repos[repo]))
	for e := range r.repos[repo] {
		records = append(records, e.record(r.born))
	}
	r.mu.RUnlock()
	sortRecords(records)
	return records, nil
}

func sortRecords(records []Record) {
	slices.SortFunc(records, func(a, b Record) int {
		return cmp.Or(
			cmp.Compare(a.Host.Service, b.Host.Service),
			a.Host.Address.Compare(b.Host.Address),
			cmp.Compare(a.Host.ID, b.Host.ID))
	})
}

// Services returns how many hosts each known service has. The map is the
// caller's. The error is ErrNotLoaded or nil.
func (r *Registry) Services() (map[string]int, error) {
	r.mu.RLock()
	defer r.mu.RUnlock()
	if !r.isLoaded {
		return nil, ErrNotLoaded
	}
	counts := make(map[string]int, len(r.services))
	for name, s := range r.services {
		counts[name] = len(s.hosts)
	}
	return counts, nil
}
