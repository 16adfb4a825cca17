package registry

import (
	"net/netip"
	"slices"
	"time"
)

// Key names one host. Two check-ins with equal keys are of the same host.
type Key struct {
	Service string
	// ID is the host's name within the service. Each REST face says what it
	// makes it of.
	ID string
}

// Host is one instance of a service as it described itself. A *Host that the
// registry gave out is shared and never changes; nobody may write to it.
type Host struct {
	Key
	// Address is where the host takes requests: a valid address without zone,
	// and a port that is not 0.
	Address netip.AddrPort
	// Additional are further addresses of the host, at the same port: that of
	// the other family, as a rule. May be nil.
	Additional []netip.Addr
	// Ports are further ports, ordered by name, names once. May be nil.
	Ports []Port
	// Repo groups hosts over services; empty for none.
	Repo     string
	Revision string
	Tags     Tags
	// TTL is how long after a check-in the host lives; above 0.
	TTL time.Duration
	// Draining says that the host is about to go and wants no new work.
	Draining bool
}

// Port is a port with a name, such as that of metrics.
type Port struct {
	Name   string
	Number uint16
}

// Tags is what a host says of itself beside its address.
type Tags struct {
	Region, Zone, InstanceID string
	// Canary is nil when the host said nothing of it.
	Canary *bool
	// Weight is 1 to 100, or 0 when nothing was said of it.
	Weight uint8
	// Other holds all other tags. May be nil.
	Other TagList
}

// size is how many bytes count against Limits.TagBytes.
func (t *Tags) size() int {
	size := len(t.Region) + len(t.Zone) + len(t.InstanceID)
	for _, tag := range t.Other {
		size += len(tag.Name) + len(tag.Value)
	}
	return size
}

// merge returns newer laid over t: what newer does not mention stays.
func (t Tags) merge(newer Tags) Tags {
	merged := newer
	if merged.Canary == nil {
		merged.Canary = t.Canary
	}
	if merged.Weight == 0 {
		merged.Weight = t.Weight
	}
	merged.Other = t.Other.merge(newer.Other)
	return merged
}

// covers reports whether laying newer over t would change nothing.
func (t *Tags) covers(newer *Tags) bool {
	if t.Region != newer.Region || t.Zone != newer.Zone || t.InstanceID != newer.InstanceID {
		return false
	}
	if newer.Canary != nil && (t.Canary == nil || *t.Canary != *newer.Canary) {
		return false
	}
	if newer.Weight != 0 && newer.Weight != t.Weight {
		return false
	}
	return t.Other.covers(newer.Other)
}

// equal reports whether t and other say the same.
func (t *Tags) equal(other *Tags) bool {
	return len(t.Other) == len(other.Other) && t.Weight == other.Weight &&
		(t.Canary == nil) == (other.Canary == nil) && t.covers(other)
}

// covers reports whether a check-in that lays newer over h would change nothing.
func (h *Host) covers(newer *Host) bool {
	return h.sameBut(newer) && h.Tags.covers(&newer.Tags)
}

// equal reports whether h and other say the same.
func (h *Host) equal(other *Host) bool {
	return h.sameBut(other) && h.Tags.equal(&other.Tags)
}

// sameBut reports whether h and other are the same but for their tags.
func (h *Host) sameBut(other *Host) bool {
	return h.Address == other.Address && h.Repo == other.Repo && h.Revision == other.Revision &&
		h.TTL == other.TTL && h.Draining == other.Draining &&
		slices.Equal(h.Additional, other.Additional) && slices.Equal(h.Ports, other.Ports)
}

// Lease names one stay of a host in the registry, from its registration until
// it goes. It is drawn at random, never 0, and the same on all replicas. A host
// that comes back after it went has another.
type Lease uint64

// Record is a host with what the registry knows of it: what a Store keeps.
type Record struct {
	Host  *Host
	Lease Lease
	// FirstSeen is when the host last came from being unknown.
	FirstSeen   time.Time
	LastCheckIn time.Time
	// DrainingSince is when the host said that it is draining; zero while it
	// does not.
	DrainingSince time.Time
}
