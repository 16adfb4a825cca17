package redis

import (
	"context"
	"errors"
	"fmt"
	"time"
)

// clock tells the time of Redis by that of this machine: at that time Redis' clock
// said something between earliest and latest, in µs. It is that of the last reading,
// and of those before it as far as they are closer.
type clock struct {
	at               time.Time
	earliest, latest int64
}

// drift is how much longer or shorter one clock may find a time than the other does:
// a µs in so many. Those that are kept right by steering differ by less.
const drift = 1000

// with is c, nil for none, after a reading that was asked for and answered at times of
// this machine's. Redis made it between these: so of a reading that took long, for
// Redis stood still or the machine was busy, another one may know better. Of two that
// cannot both be the earlier one is forgotten: Redis' clock was set, or this is another
// server. c.at never goes back.
func (c *clock) with(asked, answered time.Time, redis int64) *clock {
	next := &clock{at: answered, earliest: redis, latest: redis + answered.Sub(asked).Microseconds()}
	if c == nil {
		return next
	}
	newest := next
	if answered.Before(c.at) { // another one was made beside it
		newest = c
	}
	a, b := c.until(newest.at), next.until(newest.at)
	if a.earliest > b.latest || b.earliest > a.latest {
		return newest
	}
	return &clock{newest.at, max(a.earliest, b.earliest), min(a.latest, b.latest)}
}

// until is what c says at a time that is not before c.at.
func (c *clock) until(at time.Time) *clock {
	since := at.Sub(c.at).Microseconds()
	return &clock{at, c.earliest + since - since/drift, c.latest + since + since/drift}
}

// read is what this machine's clock says at a time of Redis', or slightly later.
func (c *clock) read(redis int64) time.Time {
	return c.at.Add(time.Duration(redis-c.earliest) * time.Microsecond)
}

// latestAt is what Redis' clock says at a time of this machine's, in µs, or slightly
// later.
func (c *clock) latestAt(at time.Time) int64 { return c.latest + c.since(at) }

// earliestAt is the same, or slightly earlier.
func (c *clock) earliestAt(at time.Time) int64 { return c.earliest + c.since(at) }

// since is how many µs after c.at a time was, one that is to come as if it was now.
func (c *clock) since(at time.Time) int64 {
	now := time.Now()
	return (now.Sub(c.at) - age(at, now)).Microseconds()
}

// age is how long before now at was, never below 0. The zero time was 30 years ago.
func age(at, now time.Time) time.Duration {
	const longest = 30 * 365 * 24 * time.Hour
	return min(max(0, now.Sub(at)), longest)
}

// note takes a reading of the clock of p. It may be called from several goroutines.
func (p *partition) note(asked, answered time.Time, redis int64) {
	for {
		before := p.clock.Load()
		if p.clock.CompareAndSwap(before, before.with(asked, answered, redis)) {
			return
		}
	}
}

// clockLife is how long a reading of Redis' clock is used. While Follow runs it
// is read each second.
const clockLife = 10 * time.Second

// readClocksOf reads the clocks of those partitions of wanted that were last read
// before since, and takes out of it those that then still were. The error says why.
func (s *Store) readClocksOf(ctx context.Context, wanted *partitionSet, since time.Time) error {
	old := func(p int) bool {
		c := s.partitions[p].clock.Load()
		return c == nil || c.at.Before(since)
	}
	var list []int
	for p := range wanted {
		if wanted[p] && old(p) {
			list = append(list, p)
		}
	}
	if len(list) == 0 {
		return nil
	}
	err := s.readClocks(ctx, list)
	for _, p := range list {
		if wanted[p] = !old(p); !wanted[p] && err == nil {
			err = s.fault(fmt.Errorf("partition %d: its clock was not told", p))
		}
	}
	return err
}

// readClocks reads the clocks of some partitions, and no more: what else is wrong with
// one keeps no beats of others.
func (s *Store) readClocks(ctx context.Context, list []int) error {
	calls := make([]*call, len(list))
	for i, p := range list {
		calls[i] = &call{partition: p, script: clockScript, keys: s.keys(p, "meta")}
	}
	asked := time.Now()
	err := s.run(ctx, calls)
	answered := time.Now()
	for _, c := range calls {
		if c.answer.Err() != nil {
			continue
		}
		now, wrong := c.answer.Int64()
		if wrong != nil {
			err = errors.Join(err, s.fault(fmt.Errorf("partition %d: %w", c.partition, wrong)))
			continue
		}
		s.partitions[c.partition].note(asked, answered, now)
	}
	return err
}
