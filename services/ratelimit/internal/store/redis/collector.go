package redis

import (
	"context"
	"fmt"
	"math"
	"strings"
	"time"

	goredis "github.com/redis/go-redis/v9"
)

const (
	// queued is how many calls may wait for a sender before callers wait to be
	// queued.
	queued = 1024
	// batched is the most calls that one pipeline carries.
	batched = 64
)

// send carries out queued calls until the store is closed. There is one sender
// for each connection. A batch is whatever came in while the last one was under
// way, so that batches grow with the load and a lone call waits for nothing.
func (s *Store) send() {
	batch := make([]*call, 0, batched)
	for {
		batch = batch[:0]
		select {
		case c := <-s.queue:
			batch = append(batch, c)
		case <-s.closing:
			return
		}
		for full := false; !full && len(batch) < batched; {
			select {
			case c := <-s.queue:
				batch = append(batch, c)
			default:
				full = true
			}
		}
		s.exchange(batch)
	}
}

// exchange sends the commands of a batch in one pipeline and hands each call
// its outcome.
func (s *Store) exchange(batch []*call) {
	begin := time.Now()
	ctx, cancel := context.WithTimeout(context.Background(), s.timeout)
	defer cancel()
	pipe := s.client.Pipeline()
	var sent []*call
	var replies []*goredis.IntCmd
	for _, c := range batch {
		if c.gone.Load() {
			continue
		}
		sent = append(sent, c)
		for i := range c.commands {
			replies = append(replies, pipe.IncrBy(ctx, c.commands[i].key, c.commands[i].hits))
			pipe.PExpire(ctx, c.commands[i].key, c.commands[i].ttl)
		}
	}
	if len(sent) == 0 {
		return
	}
	// Each command holds its own outcome; this is only the first error.
	_, _ = pipe.Exec(ctx)
	s.stats.batchTime.Observe(time.Since(begin).Seconds())
	s.stats.batchCalls.Observe(float64(len(sent)))
	for _, c := range sent {
		n := len(c.commands)
		c.done <- s.read(c, replies[:n])
		replies = replies[n:]
	}
}

// read copies the replies to a call's increments into it. A reply to PEXPIRE
// does not matter: without one, the next hit sets the time to live.
func (s *Store) read(c *call, replies []*goredis.IntCmd) error {
	for i, reply := range replies {
		after, err := reply.Result()
		switch {
		case err == nil:
			c.commands[i].after = uint64(max(0, after))
		case strings.Contains(err.Error(), "would overflow"):
			// The counter is as full as it gets, and stays so.
			c.commands[i].after = math.MaxInt64
		default:
			return fmt.Errorf("increase a counter in redis at %s: %w", s.client.Options().Addr, err)
		}
	}
	return nil
}
