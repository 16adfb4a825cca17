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
	if !s.knowsClocks(beats) {
		if err := s.readClocks(ctx, allPartitions()); err != nil {
			return nil, err
		}
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

// knowsClocks reports whether Redis' clock was read lately for all partitions with
// these beats.
func (s *Store) knowsClocks(beats []registry.Beat) bool {
	for i := range beats {
		c := s.partitions[partitionOf(beats[i].Key.Service)].clock.Load()
		if c == nil || time.Since(c.answered) >= clockLife {
			return false
		}
	}
	return true
}
