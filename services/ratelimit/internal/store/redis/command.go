package redis

import (
	"context"
	"slices"

	goredis "github.com/redis/go-redis/v9"
)

// kind is what a command does.
type kind uint8

const (
	count kind = iota
	look
	giveBack
)

// command is one counter to be read or changed. What it sends refers to its
// fields, so that it is made once and sent many times.
type command struct {
	kind  kind
	shard *shard
	key   bytesArg // that of the operation, and the end of its window
	hits  int64
	ttl   int64 // milliseconds; with the jitter where the key is about to be given it
	most  int64 // hits that fit into the limit; set in a step only
	// hash is what memo knows the key by, expires that the key is to be given
	// a time to live; both are set of a count only.
	hash    uint64
	expires bool
	// first is the command that carries the hits to Redis: the command itself, or
	// an earlier one of the batch on the same counter. total is the hits that a
	// first one carries, before those that it carries ahead of this one's.
	first         *command
	total, before int64
	// after is what the counter would stand at if all of the call's commands
	// counted, stands what it stands at once this one was carried out; they differ
	// in a step only. Err is why it was not carried out, or may not have been.
	after, stands uint64
	err           error

	counting, looking, givingBack, expiring *goredis.IntCmd
}

// bytesArg is an argument that the driver need not box.
type bytesArg []byte

// MarshalBinary returns the argument itself.
func (b *bytesArg) MarshalBinary() ([]byte, error) { return *b, nil }

// main is what the driver is to send for d.
func (d *command) main() *goredis.IntCmd {
	switch d.kind {
	case look:
		return renew(&d.looking, "get", &d.key)
	case giveBack:
		return renew(&d.givingBack, "evalsha", giveBackHash, "1", &d.key, &d.hits)
	default:
		return renew(&d.counting, "incrby", &d.key, &d.total)
	}
}

// expire is what the driver is to send for d after main, if d.expires.
func (d *command) expire() *goredis.IntCmd {
	return renew(&d.expiring, "pexpire", &d.key, &d.ttl)
}

// renew returns *to without the outcome that it had, and makes it if it is nil.
func renew(to **goredis.IntCmd, args ...any) *goredis.IntCmd {
	if *to == nil {
		*to = goredis.NewIntCmd(context.Background(), slices.Clone(args)...)
	}
	(*to).SetErr(nil)
	return *to
}
