package registry

import (
	"net/netip"
	"time"
)

// Selection is some hosts of one service.
type Selection struct {
	Service string
	// IP is where the hosts are; its zero value selects those of any address.
	IP netip.Addr
	// Port is where they listen; 0 selects those of any port.
	Port uint16
}

// holds reports whether a host is selected.
func (s Selection) holds(h *Host) bool {
	return (!s.IP.IsValid() || s.IP == h.Address.Addr()) && (s.Port == 0 || s.Port == h.Address.Port())
}

// Remove takes out the selected hosts, at their own wish, and returns how many
// they were. The error is ErrNotLoaded or nil.
func (r *Registry) Remove(selected Selection) (int, error) {
	removed, err := r.remove(selected)
	for _, h := range removed {
		r.metrics.deregistrations.Inc()
		r.log.Info("host deregistered", "service", h.Service, "host", h.ID, "address", h.Address)
	}
	return len(removed), err
}

// remove is Remove, without saying so: nothing is logged under the lock.
func (r *Registry) remove(selected Selection) (removed []*Host, err error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	entries, err := r.selected(selected)
	for _, e := range entries {
		r.outbox.change(Change{Key: e.key})
		r.drop(e)
		removed = append(removed, e.host)
	}
	return removed, err
}

// SetWeight gives the selected hosts a weight of 1 to 100, which stays until
// another is set or checked in, and returns how many they were. The error is
// ErrNotLoaded or nil.
func (r *Registry) SetWeight(selected Selection, weight uint8) (int, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	entries, err := r.selected(selected)
	for _, e := range entries {
		h := *e.host
		h.Tags.Weight = weight
		record := e.record(r.born)
		record.Host = &h
		r.put(record)
		r.outbox.change(Change{Key: h.Key, Record: &record})
	}
	return len(entries), err
}

// selected returns the entries of a selection. r.mu must be held.
func (r *Registry) selected(s Selection) ([]*entry, error) {
	if !r.isLoaded {
		return nil, ErrNotLoaded
	}
	known := r.services[s.Service]
	if known == nil {
		return nil, nil
	}
	var entries []*entry
	for _, e := range known.hosts {
		if s.holds(e.host) {
			entries = append(entries, e)
		}
	}
	return entries, nil
}

// drop forgets a host; its service stays known for a while. r.mu must be held.
func (r *Registry) drop(e *entry) {
	s := r.services[e.host.Service]
	delete(s.hosts, e.host.ID)
	r.unindex(e)
	r.expiries.remove(e)
	r.hosts--
	r.metrics.hosts.Set(float64(r.hosts))
	if len(s.hosts) == 0 {
		s.emptySince = time.Since(r.born)
		s.empty = r.empties.PushBack(s)
	}
	r.tell(s.name)
}
