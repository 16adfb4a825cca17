package redis

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/weirproxy/weir/services/discovery/internal/registry"
)

const (
	// lookEvery is how often it is looked whether Redis still has what it had: as many
	// hosts and settings in each partition. With each look the digest of one is computed
	// anew, which tells of values that are others, and takes 256 looks for all.
	lookEvery = time.Second
	// hearEvery is with how many looks the beats are read too, which others heard.
	// That costs Redis as much as to note them. What a replica has not read yet it
	// is told when it takes the host for dead. That is to be an exception: so where
	// a host has a TTL below shortTTL, beats are read with every look.
	hearEvery = 4
	shortTTL  = 20 * time.Second
	// hearAlone is the same where no other replica runs: nobody else hears any, and what
	// is looked for are times from before Redis' clock was set back.
	hearAlone = 16
	// hearBack is how much older than the last reading a beat may be that was not
	// there then: the registry gathers beats for a second, and they are some time
	// under way. Older ones are seen with the next beat of their host, or when
	// the registry takes it for dead.
	hearBack = 1500 * time.Millisecond
)

// look compares what Redis says of each partition with what was followed, marks
// those to be read anew, and, with some looks, hands over new beats. It tells of
// this replica, and hands over which others are silent. It says whether any server
// answered.
func (s *Store) look(ctx context.Context, apply func(registry.Update)) (answered bool, err error) {
	looks, beats := make([]*call, partitionCount), []*call(nil)
	alone := s.presences.alone(time.Now())
	for i := range looks {
		looks[i] = s.lookCall(i, s.looks%partitionCount == i)
		if p := &s.partitions[i]; p.known && p.isHeard(s.looks, alone) {
			since := (p.heard - hearBack.Microseconds()) / 1000
			beats = append(beats, &call{partition: i, args: []any{"zrangebyscore", s.keys(i, "beat")[0], since, "+inf", "withscores"}})
		}
	}
	s.looks++
	replicas := s.presenceCall()
	asked := time.Now()
	err = s.run(ctx, slices.Concat(looks, beats, []*call{replicas}))
	now := time.Now()
	var made [partitionCount]int64 // when each look was, by Redis' clock in µs; 0 for none
	for i, c := range looks {
		if c.answer.Err() != nil {
			continue
		}
		answered = true
		p := &s.partitions[i]
		m, wrong := c.meta()
		if made[i] = m.made; m.made > 0 {
			p.note(asked, now, m.made)
		}
		if wrong != nil { // and the others are all right
			err = errors.Join(err, s.fault(wrong))
			continue
		}
		p.compare(m)
	}
	err = errors.Join(err, s.hear(ctx, beats, &made, apply))
	if replicas.answer.Err() == nil {
		err = errors.Join(err, s.meet(replicas, apply))
	}
	return answered, err
}

// isHeard says whether the beats of p are read with the look of that number.
func (p *partition) isHeard(look int, alone bool) bool {
	if alone {
		return look%hearAlone == 0
	}
	return p.short || look%hearEvery == 0
}

// lookCall asks what the meta of a partition says. Before, its digest is computed anew,
// always or where the count of values is wrong; where it differs the partition gets
// another generation.
func (s *Store) lookCall(p int, always bool) *call {
	return &call{partition: p, script: lookScript, keys: s.keys(p, "rec", "ovr", "meta"), args: []any{fresh(), always}}
}

// meta is what lookScript tells of a partition.
type meta struct {
	made        int64 // when it does, by Redis' clock in µs; 0 if it was not told
	gen, digest string
	last        entryID
}

// meta reads the answer of a lookCall. On an error it may say when it was made.
func (c *call) meta() (m meta, err error) {
	answer, err := c.answer.Slice()
	a := reader{answer: answer, err: err}
	m.made = a.number()
	m.gen, m.digest, m.last = a.text(), a.text(), a.id()
	if a.err != nil {
		return m, fmt.Errorf("partition %d: %w", c.partition, a.err)
	}
	return m, nil
}

// hear hands over the beats that were read. Those later than Redis' clock, by more
// than they can be too late, are from before it was set back, or from another
// server: they are made beats of now, or else the hosts would be kept until then,
// and later beats not be noted. made is when the look was that they were read with:
// where it did not tell, they wait for one that does.
func (s *Store) hear(ctx context.Context, calls []*call, made *[partitionCount]int64, apply func(registry.Update)) error {
	var beats []registry.Beat
	ahead := s.commands("zadd", "beat", "xx", "lt")
	for _, c := range calls {
		p := &s.partitions[c.partition]
		scores, err := c.answer.StringSlice()
		if err != nil {
			continue // that is told by the exchange
		}
		now := made[c.partition]
		if now == 0 {
			continue
		}
		p.heard = now
		reading := p.clock.Load()
		for i := 0; i+1 < len(scores); i += 2 {
			key, err := parseHostMember(scores[i])
			if err != nil {
				s.skip(c.partition, "a beat", err)
				continue
			}
			at := micros(scores[i+1])
			if at > now+s.options.Timeout.Microseconds() {
				ahead.add(key.Service, len(beats), now/1000, scores[i])
			}
			beats = append(beats, registry.Beat{Key: key, At: reading.read(at)})
		}
	}
	tellBeats(beats, apply)
	return ahead.run(ctx, func(c *call) error { return c.answer.Err() })
}

// compare marks p to be read anew if what meta says now cannot come of what it
// said, and of entries in the log that were not read yet.
func (p *partition) compare(m meta) {
	older := m.last.compare(p.last)
	switch {
	case !p.known:
	case p.gen == "" && older >= 0:
		// What is there now came after: the log tells.
	case m.gen != p.gen, older < 0, older == 0 && m.digest != p.digest:
		p.again = true
	}
}

// hadMore says whether w, read anew, lacks what p had: then what is not in it need not
// be gone, and the registry is told that it is lost.
func (p *partition) hadMore(w *whole) bool {
	switch {
	case !p.known: // nothing can be said
		return true
	case p.gen != "" && w.gen != p.gen, w.last.compare(p.last) < 0:
		return true
	case p.last == entryID{}:
		return false
	case w.followed:
		return w.last == p.last && w.digest != p.digest
	}
	// Entries go from the beginning, but for those that the data never had that
	// is there now.
	return !w.logged || w.first.compare(p.last) < 0
}

// isContinuedBy says whether the log of w tells of all hosts that were put after what the
// registry was told of p.
func (p *partition) isContinuedBy(w *whole) bool {
	return p.known && w.logged && w.first.compare(p.last) <= 0
}

// readAgain reads the partitions that are to be, and hands them over as a whole. On
// an error those that could be read have been.
func (s *Store) readAgain(ctx context.Context, apply func(registry.Update)) error {
	s.mu.Lock()
	for p := range s.refused {
		s.partitions[p].again = true
	}
	clear(s.refused)
	s.mu.Unlock()
	var list []int
	for p := range s.partitions {
		if !s.partitions[p].known || s.partitions[p].again {
			list = append(list, p)
		}
	}
	said := s.unsaid
	var err error
	if said {
		err = s.sayPartial(ctx)
	}
	if len(list) == 0 {
		return err
	}
	batches, _, mute := s.batches(ctx, list)
	err = errors.Join(err, mute)
	for _, batch := range batches {
		wholes, unread := s.readWhole(ctx, batch, 0)
		err = errors.Join(err, unread)
		var less, all []*whole
		for _, w := range wholes {
			if p := &s.partitions[w.partition]; p.hadMore(w) {
				if !p.isContinuedBy(w) {
					w.takeAllForNews()
				}
				less = append(less, w)
			} else {
				all = append(all, w)
			}
		}
		if len(less) > 0 && !said {
			said = true
			err = errors.Join(err, s.sayPartial(ctx))
		}
		s.tellWhole(less, true, apply)
		s.tellWhole(all, false, apply)
	}
	return err
}

// tellWhole hands partitions over as a whole.
func (s *Store) tellWhole(wholes []*whole, lost bool, apply func(registry.Update)) {
	if len(wholes) == 0 {
		return
	}
	var covered [partitionCount]bool
	contents := &registry.Contents{}
	for _, w := range wholes {
		covered[w.partition] = true
		w.addTo(contents)
	}
	s.options.Log.Info("partitions of redis were read anew", "redis", s.place.String(),
		"partitions", len(wholes), "hosts", len(contents.Records), "lost_data", lost)
	apply(registry.Update{
		Whole: contents, Lost: lost,
		Covers: func(service string) bool { return covered[partitionOf(service)] },
	})
	for _, w := range wholes {
		p := &s.partitions[w.partition]
		p.goOnFrom(w)
		p.shared = true // this too may have overwritten something
	}
}
