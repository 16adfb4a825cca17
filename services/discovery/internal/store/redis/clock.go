package redis

import "time"

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
// Redis stood still or the machine was busy, an earlier one may know better. One that
// can no longer be is forgotten: Redis' clock was set, or this is another server.
func (c *clock) with(asked, answered time.Time, redis int64) *clock {
	next := &clock{at: answered, earliest: redis, latest: redis + answered.Sub(asked).Microseconds()}
	if c == nil {
		return next
	}
	since := answered.Sub(c.at)
	slack := since.Abs().Microseconds() / drift
	earliest, latest := c.earliest+since.Microseconds()-slack, c.latest+since.Microseconds()+slack
	if earliest <= next.latest && next.earliest <= latest {
		next.earliest, next.latest = max(earliest, next.earliest), min(latest, next.latest)
	}
	return next
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
