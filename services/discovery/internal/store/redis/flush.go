package redis

import (
	"context"
	"fmt"
	"time"

	"github.com/weirproxy/weir/services/discovery/internal/registry"
)

// Flush writes the times of beats to Redis, those of a partition by one command.
// missing are those whose host Redis does not have, as far as it answered.
//
// The command changes only what is there (XX) to what is later (GT), and counts
// what it changed (CH). What it did not count is missing, or no later than what
// another replica told; which of both is asked for only then.
func (s *Store) Flush(ctx context.Context, beats []registry.Beat) (missing []registry.Key, err error) {
	if err := s.readClocks(ctx, beats); err != nil {
		return nil, err
	}
	add := s.commands("zadd", "beat", "xx", "gt", "ch")
	for i := range beats {
		service := beats[i].Key.Service
		at := s.partitions[partitionOf(service)].clock.Load().write(beats[i].At)
		add.add(service, i, at, hostMember(beats[i].Key))
	}
	ask := s.commands("zmscore", "beat")
	err = add.run(ctx, func(c *call) error {
		changed, err := c.answer.Int()
		if changed < len(c.things) {
			for _, i := range c.things {
				ask.add(beats[i].Key.Service, i, hostMember(beats[i].Key))
			}
		}
		return err
	})
	if err != nil {
		return nil, err
	}
	err = ask.run(ctx, func(c *call) error {
		scores, err := c.answer.Slice()
		if err == nil && len(scores) != len(c.things) {
			err = fmt.Errorf("%d scores of %d hosts", len(scores), len(c.things))
		}
		for i, score := range scores {
			if score == nil {
				missing = append(missing, beats[c.things[i]].Key)
			}
		}
		return err
	})
	return missing, err
}

// clockLife is how long a reading of Redis' clock is used. While Follow runs it
// is read each second.
const clockLife = 10 * time.Second

// readClocks reads the clock of all partitions, if that of one with beats was not
// read lately.
func (s *Store) readClocks(ctx context.Context, beats []registry.Beat) error {
	known := true
	for i := range beats {
		c := s.partitions[partitionOf(beats[i].Key.Service)].clock.Load()
		known = known && c != nil && time.Since(c.answered) < clockLife
	}
	if known {
		return nil
	}
	calls := make([]*call, partitionCount)
	for p := range calls {
		calls[p] = s.lookCall(p, "")
	}
	asked := time.Now()
	if err := s.run(ctx, calls); err != nil {
		return err
	}
	now := time.Now()
	for p, c := range calls {
		answer, err := c.answer.Slice()
		a := reader{answer: answer, err: err}
		reading := &clock{asked: asked, answered: now, redis: a.number()}
		if a.err != nil {
			return s.fault(a.err)
		}
		s.partitions[p].clock.Store(reading)
	}
	return nil
}
