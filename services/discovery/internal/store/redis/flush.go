package redis

import (
	"context"

	"github.com/weirproxy/weir/services/discovery/internal/registry"
)

// Flush writes the times of beats to Redis, all of a partition by one command.
// missing are those whose host Redis does not have, as far as it answered. A
// registry may well hold back the beats of a host with a long TTL, for a third
// of it at most: others then see the host as older by as much, and no more.
func (s *Store) Flush(ctx context.Context, beats []registry.Beat) (missing []registry.Key, err error) {
	b := s.newBatch(flushScript, "beat")
	for i := range beats {
		b.add(beats[i].Key.Service, i, age(beats[i].At), hostMember(beats[i].Key))
	}
	err = b.run(ctx, func(c *call) error {
		places, err := c.answer.Int64Slice()
		if err != nil {
			return err
		}
		for _, place := range places {
			missing = append(missing, beats[c.things[place]].Key)
		}
		return nil
	})
	return missing, err
}
