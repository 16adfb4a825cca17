package redis

import (
	"context"
	"fmt"
	"time"

	"github.com/weirproxy/weir/services/discovery/internal/registry"
	"github.com/weirproxy/weir/services/discovery/internal/store/record"
)

// sweepLease is how long a replica is the only one to take out dead hosts of a
// partition, from when it last did: so that the guard of one alone decides.
const sweepLease = 3 * time.Second

// Expire takes dead hosts out of Redis, those whose last beat there is not later
// than the one given, in partitions where this replica holds the sweep lease or
// nobody does. Of a host with a later beat Follow tells that.
func (s *Store) Expire(ctx context.Context, dead []registry.Beat) (gone []registry.Key, err error) {
	b := s.scripted(expireScript, []string{"rec", "beat", "log", "meta", "sweep"},
		schema, fresh(), s.writer, logLength, sweepLease.Milliseconds())
	for i := range dead {
		key := dead[i].Key
		event, err := record.EncodeEvent(&registry.Event{
			At: time.Now(), Kind: registry.Expired, Service: key.Service, ID: key.ID, Actor: registry.Itself,
		})
		if err != nil {
			return nil, err
		}
		b.add(key.Service, i, hostMember(key), age(dead[i].At, time.Now()).Milliseconds(), event)
	}
	asked := time.Now()
	err = b.run(ctx, func(c *call) error {
		answer, err := c.answer.Slice()
		if err != nil || len(answer) == 0 { // another holds the lease
			return err
		}
		now, ok := answer[0].(int64)
		if !ok || len(answer) != 1+len(c.things) {
			return fmt.Errorf("%d answers for %d hosts", len(answer)-1, len(c.things))
		}
		s.partitions[c.partition].note(asked, time.Now(), now)
		reading := s.partitions[c.partition].clock.Load()
		s.mu.Lock()
		defer s.mu.Unlock()
		for i, thing := range c.things {
			key := dead[thing].Key
			if score, _ := answer[1+i].(string); score != "" {
				s.heard[key] = reading.read(micros(score))
				continue
			}
			gone = append(gone, key)
		}
		return nil
	})
	return gone, err
}
