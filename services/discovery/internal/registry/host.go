package registry

import (
	"bytes"
	"encoding/json"
	"maps"
	"net/netip"
	"sync/atomic"
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
	// Repo groups hosts over services; empty for none.
	Repo     string
	Revision string
	Tags     Tags
	// TTL is how long after a check-in the host lives; above 0.
	TTL time.Duration
}

// Tags is what a host says of itself beside its address.
type Tags struct {
	Region, Zone, InstanceID string
	// Canary is nil when the host said nothing of it.
	Canary *bool
	// Weight is 1 to 100, or 0 when nothing was said of it.
	Weight uint8
	// Other holds all other tags as compact JSON values. May be nil.
	Other map[string]json.RawMessage
}

// MaxTags is how many bytes the tags of one host have at most, names and
// values. Without it a host that ever names new ones would grow for ever, since
// none is removed.
const MaxTags = 16 << 10

// size is how many bytes count against MaxTags.
func (t *Tags) size() int {
	size := len(t.Region) + len(t.Zone) + len(t.InstanceID)
	for name, value := range t.Other {
		size += len(name) + len(value)
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
	merged.Other = t.Other
	if len(newer.Other) > 0 {
		merged.Other = make(map[string]json.RawMessage, len(t.Other)+len(newer.Other))
		maps.Copy(merged.Other, t.Other)
		maps.Copy(merged.Other, newer.Other)
	}
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
	for name, value := range newer.Other {
		if held, ok := t.Other[name]; !ok || !bytes.Equal(held, value) {
			return false
		}
	}
	return true
}

// covers reports whether a check-in of newer would change nothing in h.
func (h *Host) covers(newer *Host) bool {
	return h.Address == newer.Address && h.Repo == newer.Repo && h.Revision == newer.Revision &&
		h.TTL == newer.TTL && h.Tags.covers(&newer.Tags)
}

// Record is a host with what the registry knows of it.
type Record struct {
	Host *Host
	// FirstSeen is when the host last came from being unknown.
	FirstSeen   time.Time
	LastCheckIn time.Time
}

// entry is a host in the registry. Fields but key, lastBeat and beaten are
// guarded by Registry.mu.
type entry struct {
	key       Key // never changes
	host      *Host
	firstSeen time.Time
	// heldFrom is when this process took the host over, on the registry's
	// clock, later by the pauses that the host is not to suffer for; the TTL
	// counts from here if the last beat is older.
	heldFrom time.Duration
	// lastBeat is the time of the last check-in on the registry's clock, in
	// nanoseconds; below 0 if it was before this process began.
	lastBeat atomic.Int64
	// beaten says that the beat waits in the outbox.
	beaten atomic.Bool

	due   time.Duration // when the sweeper looks at the entry next
	index int           // its place in the queue of expiries
}

// beat notes a check-in at a time of the registry's clock; an older one than
// the last is ignored.
func (e *entry) beat(at time.Duration) {
	for {
		last := e.lastBeat.Load()
		if int64(at) <= last || e.lastBeat.CompareAndSwap(last, int64(at)) {
			return
		}
	}
}

// since is when the host's TTL began to run.
func (e *entry) since() time.Duration {
	return max(time.Duration(e.lastBeat.Load()), e.heldFrom)
}

// deadline is when the host is dead if it does not check in before.
func (e *entry) deadline() time.Duration { return e.since() + e.host.TTL }

// record is what e is to readers; born is the zero of the registry's clock.
func (e *entry) record(born time.Time) Record {
	return Record{Host: e.host, FirstSeen: e.firstSeen, LastCheckIn: born.Add(time.Duration(e.lastBeat.Load()))}
}
