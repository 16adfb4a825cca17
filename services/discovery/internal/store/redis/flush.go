package redis

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/weirproxy/weir/services/discovery/internal/registry"
)

// Flush writes the times of beats to Redis, those of a partition by one command.
// missing are those whose host Redis does not have, as far as it answered.
//
// The command changes only what is there (XX) to what is later (GT), and counts
// what it changed (CH). What it did not count is missing, or no later than what
// another replica told; which of both is asked for only then. Beats of partitions whose
// clock is not known are left out, with an error, and keep none of others.
func (s *Store) Flush(ctx context.Context, beats []registry.Beat) (missing []registry.Key, err error) {
	var timed partitionSet
	for i := range beats {
		timed[partitionOf(beats[i].Key.Service)] = true
	}
	untimed := s.readClocksOf(ctx, &timed, time.Now().Add(-clockLife))
	add := s.commands("zadd", "beat", "xx", "gt", "ch")
	for i := range beats {
		service := beats[i].Key.Service
		if p := partitionOf(service); timed[p] {
			at := s.partitions[p].clock.Load().latestAt(beats[i].At) / 1000
			add.add(service, i, at, hostMember(beats[i].Key))
		}
	}
	ask := s.commands("zmscore", "beat")
	unsaid := add.run(ctx, func(c *call) error {
		changed, err := c.answer.Int()
		if changed < len(c.things) {
			for _, i := range c.things {
				ask.add(beats[i].Key.Service, i, hostMember(beats[i].Key))
			}
		}
		return err
	})
	unasked := ask.run(ctx, func(c *call) error {
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
	return missing, errors.Join(untimed, unsaid, unasked)
}
