package redis

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"

	goredis "github.com/redis/go-redis/v9"
)

// call is one script or command on one partition, and its answer.
type call struct {
	partition int
	script    *script // nil for a command, the words of which are args
	keys      []string
	args      []any
	// things are what the call is told of, as places in what the caller has.
	things []int
	answer *goredis.Cmd
}

// run carries out calls in one pipeline, within the timeout. Each holds its own
// answer or error afterwards; the error is the first of them. All calls may be
// carried out twice, so those whose answer is that Redis does not know the
// script, as after a restart, are sent once more after it was told: then this takes
// three exchanges. A server of a Cluster that is away keeps none from the others.
func (s *Store) run(ctx context.Context, calls []*call) error {
	unknown := s.send(ctx, calls)
	var untold error
	if len(unknown) > 0 {
		untold = s.loadScripts(ctx)
		s.send(ctx, unknown)
	}
	for _, c := range calls {
		err := c.answer.Err()
		switch {
		case err == nil:
		case untold != nil && goredis.HasErrorPrefix(err, "NOSCRIPT"):
			return s.fault(untold)
		default:
			return s.fault(c.named(err))
		}
	}
	return nil
}

// named is an error of c, with the keys where one of them is of another type: Redis
// does not say which.
func (c *call) named(err error) error {
	switch {
	case !isOfAnotherType(err):
		return err
	case c.script == nil:
		return fmt.Errorf("%v: %w", c.args[1], err)
	default:
		return fmt.Errorf("one of %s: %w", strings.Join(c.keys, ", "), err)
	}
}

// send carries out calls, and returns those whose script is not known.
func (s *Store) send(ctx context.Context, calls []*call) (unknown []*call) {
	ctx, cancel := context.WithTimeout(ctx, s.options.Timeout)
	defer cancel()
	pipe := s.client.Pipeline()
	for _, c := range calls {
		if c.script == nil {
			c.answer = pipe.Do(ctx, c.args...)
			continue
		}
		c.answer = pipe.EvalSha(ctx, c.script.hash, c.keys, c.args...)
	}
	_, err := pipe.Exec(ctx)
	if err == nil {
		return nil
	}
	if !slices.ContainsFunc(calls, func(c *call) bool { return c.answer.Err() != nil }) {
		// The driver leaves commands as they were where a server refuses the
		// connection in its own words, a wrong password for one.
		for _, c := range calls {
			c.answer.SetErr(err)
		}
	}
	for _, c := range calls {
		if err := c.answer.Err(); err != nil && goredis.HasErrorPrefix(err, "NOSCRIPT") {
			unknown = append(unknown, c)
		}
	}
	return unknown
}

// loadScripts makes the scripts known to the server, or each of a Cluster.
func (s *Store) loadScripts(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, s.options.Timeout)
	defer cancel()
	load := func(ctx context.Context, client *goredis.Client) error {
		pipe := client.Pipeline()
		for _, script := range scripts() {
			pipe.ScriptLoad(ctx, script.text)
		}
		_, err := pipe.Exec(ctx)
		return err
	}
	switch client := s.client.(type) {
	case *goredis.ClusterClient:
		return client.ForEachMaster(ctx, load)
	case *goredis.Client:
		return load(ctx, client)
	}
	return errors.New("no such client")
}

// fault is err as the registry is told it. In a Cluster it is asked anew who has
// what: of a server that is away no other is known to have its place, and the
// driver would look for that once a minute.
func (s *Store) fault(err error) error {
	if client, ok := s.client.(*goredis.ClusterClient); ok {
		client.ReloadState(context.Background()) // does not wait
	}
	return s.told(err)
}

const (
	// scriptSize is the most things that one call is told of, exchangeSize about
	// the most of one exchange.
	scriptSize   = 500
	exchangeSize = 4000
)

// batch is calls that are told of many things.
type batch struct {
	store *Store
	// begin makes a call on a partition that is told of nothing yet.
	begin  func(p int) *call
	calls  []*call
	filled [partitionCount]*call // the last of each partition
}

// scripted is a batch of calls of a script, on these keys, with these arguments
// before those of the things.
func (s *Store) scripted(script *script, keys []string, head ...any) *batch {
	return &batch{store: s, begin: func(p int) *call {
		return &call{script: script, keys: s.keys(p, keys...), args: slices.Clone(head)}
	}}
}

// commands is a batch of a command that has the key as its first argument, and
// these arguments before those of the things.
func (s *Store) commands(name, key string, head ...any) *batch {
	return &batch{store: s, begin: func(p int) *call {
		return &call{args: append([]any{name, s.keys(p, key)[0]}, head...)}
	}}
}

// add has a call on the partition of a service told of a thing.
func (b *batch) add(service string, thing int, args ...any) {
	p := partitionOf(service)
	c := b.filled[p]
	if c == nil || len(c.things) == scriptSize {
		c = b.begin(p)
		c.partition = p
		b.filled[p] = c
		b.calls = append(b.calls, c)
	}
	c.things = append(c.things, thing)
	c.args = append(c.args, args...)
}

// run carries out all calls, in as many exchanges as it takes, and has read take
// the answer of each that has one. The error is the first; calls after an
// exchange with an error are not carried out.
func (b *batch) run(ctx context.Context, read func(*call) error) error {
	for len(b.calls) > 0 {
		n, things := 0, 0
		for n < len(b.calls) && things < exchangeSize {
			things += len(b.calls[n].things)
			n++
		}
		err := b.store.run(ctx, b.calls[:n])
		for _, c := range b.calls[:n] {
			if c.answer.Err() != nil {
				continue
			}
			if wrong := read(c); wrong != nil {
				err = errors.Join(err, b.store.fault(wrong))
			}
		}
		if err != nil {
			return err
		}
		b.calls = b.calls[n:]
	}
	return nil
}
