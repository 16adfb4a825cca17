package redis

import (
	"context"
	"fmt"
	"strconv"

	goredis "github.com/redis/go-redis/v9"
)

// probeTTL is how long the key of the probes outlives the last of them, in
// milliseconds.
const probeTTL = "60000"

// ask has a server carry out what a call would: it adds nothing to a counter of
// its own and gives that a time to live. So a server that refuses to count is not
// taken for one that works, be it a replica (READONLY), out of memory (OOM), or
// unable to save (MISCONF) or to replicate (NOREPLICAS); a PING is answered by
// all of these, and a PEXPIRE alone by one that is out of memory. Such answers
// cost calls no wait, so that the breaker does not count them.
//
// In a Cluster the answer may be that another server has the key, which is as
// good where this one has none of ours: see probeKey.
func (s *Store) ask(ctx context.Context, client *goredis.Client, name string) error {
	ctx, cancel := context.WithTimeout(ctx, probeWait)
	defer cancel()
	key := s.options.KeyPrefix + "ratelimit_probe"
	if s.nodes != nil {
		key = s.nodes.probeKey(ctx, client, key)
	}
	pipe := client.Pipeline()
	pipe.Do(ctx, "incrby", key, "0")
	pipe.Do(ctx, "pexpire", key, probeTTL)
	_, err := pipe.Exec(ctx)
	if err == nil || s.nodes == nil {
		return err
	}
	if isElsewhere(err) {
		return nil
	}
	return fmt.Errorf("%s: %w", name, err)
}

// probeTags is how many keys are tried for one that lies on a given server: so
// many that one with a hundredth of the slots has one of them, all but surely.
const probeTags = 1024

// probeKey is key with a tag behind it by which it lies on the server of client.
// A server that is full says that others have a key before it says that it is
// full, so that each is asked for one of its own. It is key itself if no tag
// does that: the server has no slots, or the prefix of all keys chose others.
func (n *nodes) probeKey(ctx context.Context, client *goredis.Client, key string) string {
	for tag := range probeTags {
		tagged := key + "{" + strconv.Itoa(tag) + "}"
		if at, err := n.client.MasterForKey(ctx, tagged); err == nil && at == client {
			return tagged
		}
	}
	return key
}
