package registry

import (
	"errors"
	"net/netip"
)

// ErrUnheard is the answer in the place of that no such host is there, where one may be.
var ErrUnheard = errors.New("the store has not answered since this replica began, which does not know of the host: others may")

// Selection is some hosts of one service.
type Selection struct {
	Service string
	// ID is the host's; empty selects any.
	ID string
	// Lease is that of the host's stay; 0 selects any.
	Lease Lease
	// IP is where the hosts are; its zero value selects those of any address.
	IP netip.Addr
	// Port is where they listen; 0 selects those of any port.
	Port uint16
	// Allow says why nothing may be done to a host at an address; nil if it may
	// be. It is called while the registry is locked, and may be nil itself.
	Allow func(netip.Addr) error
}

// holds reports whether a host is selected. r.mu must be held.
func (s *Selection) holds(e *entry) bool {
	h := e.host
	return (s.ID == "" || s.ID == h.ID) && (s.Lease == 0 || s.Lease == e.lease) &&
		(!s.IP.IsValid() || s.IP == h.Address.Addr()) && (s.Port == 0 || s.Port == h.Address.Port())
}

// allowed says whether something may be done to all of entries, the error of Allow
// if not. r.mu must be held.
func (s *Selection) allowed(entries []*entry) error {
	if s.Allow == nil {
		return nil
	}
	for _, e := range entries {
		if err := s.Allow(e.host.Address.Addr()); err != nil {
			return err
		}
	}
	return nil
}

// selected returns the entries of a selection. The error is ErrNotLoaded, that of
// s.Allow, ErrUnheard if there are none and the Store is Stale still, or nil. r.mu must be
// held, for reading at least.
func (r *Registry) selected(s Selection) (entries []*entry, err error) {
	if !r.isLoaded {
		return nil, ErrNotLoaded
	}
	known := r.services[s.Service]
	switch {
	case known == nil:
	case s.ID != "":
		if e := known.hosts[s.ID]; e != nil && s.holds(e) {
			entries = append(entries, e)
		}
	default:
		for _, e := range known.ordered {
			if s.holds(e) {
				entries = append(entries, e)
			}
		}
	}
	if len(entries) == 0 && r.stale.Load() {
		return nil, ErrUnheard
	}
	if err := s.allowed(entries); err != nil {
		return nil, err
	}
	return entries, nil
}
