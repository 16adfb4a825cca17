package registry

import "slices"

// Parts are those of a Record that a Change is of. What the Record says beside them is
// how the host was known here, and no part of the change. With none of them the host is
// given to a Store that may lack it.
type Parts struct {
	// Anew says that the host came from being unknown, and so has a new lease: what was
	// known of it with another lease is over, but for tags that it does not mention.
	// With Whole these are over too.
	Anew, Whole bool
	// Description is all of a Host that is not named below: its address and ports,
	// revision, TTL, zone and so on. It is one part, so that no host is ever put
	// together of two descriptions.
	Description bool
	// Canary and Weight are those of the Tags; Tags are the names of the Other tags, in
	// order. Each is said, or not any more.
	Canary, Weight bool
	Tags           []string
}

// parts are those in which newer is not as h.
func (h *Host) parts(newer *Host) Parts {
	described := newer.tagged(&h.Tags)
	return Parts{
		Description: !h.equal(&described),
		Canary:      h.Tags.canary() != newer.Tags.canary(),
		Weight:      h.Tags.Weight != newer.Tags.Weight,
		Tags:        h.Tags.Other.differing(newer.Tags.Other),
	}
}

// tagged is h as it describes itself, with those tags that are parts of their own from
// another host.
func (h *Host) tagged(t *Tags) Host {
	host := *h
	host.Tags.Canary, host.Tags.Weight, host.Tags.Other = t.Canary, t.Weight, t.Other
	return host
}

// and are the parts of two changes of one host together.
func (p Parts) and(other Parts) Parts {
	tags := slices.Concat(p.Tags, other.Tags)
	slices.Sort(tags)
	return Parts{
		Anew: p.Anew || other.Anew, Whole: p.Whole || other.Whole,
		Description: p.Description || other.Description,
		Canary:      p.Canary || other.Canary, Weight: p.Weight || other.Weight,
		Tags: slices.Compact(tags),
	}
}

// Over is what a host is once c, by which it is there, is made where it is kept, which
// others may have changed; kept is nil where it is not. It is kept itself if it has all
// that c says. What c is no part of stays as it is kept, the lease too unless c has it
// Anew. Tags of two writers may be more together than Limits.TagBytes, which bounds what
// each may say.
func (c *Change) Over(kept *Record) *Record {
	switch {
	case kept == nil:
		return c.Record
	case c.Parts.Anew && c.Record.Lease != kept.Lease:
		return c.anewOver(kept)
	}
	host := c.Parts.of(c.Record.Host, kept.Host)
	if host.equal(kept.Host) {
		return kept
	}
	merged := *kept
	merged.Host = &host
	if c.Parts.Description {
		merged.DrainingSince = c.Record.DrainingSince
	}
	if c.Record.LastCheckIn.After(merged.LastCheckIn) {
		merged.LastCheckIn = c.Record.LastCheckIn
	}
	return &merged
}

// anewOver is Over for a host that came anew, where another stay of it is kept.
func (c *Change) anewOver(kept *Record) *Record {
	if c.Parts.Whole {
		return c.Record
	}
	merged, host := *c.Record, *c.Record.Host
	host.Tags = kept.Host.Tags.merge(host.Tags)
	merged.Host = &host
	return &merged
}

// of is a host with these parts as newer has them, and all others as kept has them.
func (p *Parts) of(newer, kept *Host) Host {
	host := *kept
	if p.Description {
		host = newer.tagged(&kept.Tags)
	}
	if p.Canary {
		host.Tags.Canary = newer.Tags.Canary
	}
	if p.Weight {
		host.Tags.Weight = newer.Tags.Weight
	}
	host.Tags.Other = kept.Tags.Other.with(p.Tags, newer.Tags.Other)
	return host
}
