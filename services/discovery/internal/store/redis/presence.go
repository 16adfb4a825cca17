package redis

import (
	"cmp"
	"context"
	"slices"
	"time"

	"github.com/weirproxy/weir/services/discovery/internal/registry"
)

const (
	// presencePartition is whose slot of a Cluster has the key of replicas.
	presencePartition = 0
	// silence is how long a replica may tell nothing of itself, which it does with
	// each look, before others are told that it is silent: one look may fail.
	silence = 2 * time.Second
	// presenceTime is how long a silent replica is remembered.
	presenceTime = 24 * time.Hour
)

// presences is what a store knows of the other replicas. It is guarded by
// Store.exchange.
type presences struct {
	others map[string]*presence // by writer
	// asked is when Redis last told of them; steady is since when it did again and
	// again. Before, their silence may have been this store's.
	asked, steady time.Time
	told          []registry.Replica
}

// presence is what is known of one other replica.
type presence struct {
	name  string
	seen  string    // when it last told of itself, by Redis' clock in ms
	heard time.Time // the same by this machine's, which nobody sets
}

// presenceCall tells of this replica, and asks for the others.
func (s *Store) presenceCall() *call {
	return &call{
		partition: presencePartition, script: presenceScript, keys: s.keys(presencePartition, "replicas"),
		args: []any{s.writer, s.options.Name, presenceTime.Milliseconds(), silence.Milliseconds()},
	}
}

// meet reads the answer of a presenceCall that has one, and hands over which replicas
// are silent if that is other than before.
func (s *Store) meet(c *call, apply func(registry.Update)) error {
	answer, err := c.answer.Slice()
	now, known := time.Now(), &s.presences
	if now.Sub(known.asked) >= silence {
		known.steady = now
	}
	known.asked = now
	a, others := reader{answer: answer, err: err}, map[string]*presence{}
	redis := a.number()
	for a.err == nil && len(a.answer) > 0 {
		writer, seen, name := a.text(), a.text(), a.text()
		was := known.others[writer]
		switch {
		case was == nil:
			age := time.Duration(max(0, redis-micros(seen))) * time.Microsecond
			was = &presence{name, seen, now.Add(-age)}
		case was.seen != seen:
			was.seen, was.heard = seen, now
		}
		others[writer] = was
	}
	if a.err != nil {
		return s.fault(a.err)
	}
	known.others = others
	if silent := known.silent(now); !slices.Equal(silent, known.told) {
		known.told = silent
		apply(registry.Update{Silent: silent})
	}
	return nil
}

// alone says whether no other replica runs, or ran in the last presenceTime without an
// end, as Redis told lately.
func (k *presences) alone(now time.Time) bool {
	return now.Sub(k.asked) < silence && len(k.others) == 0
}

// isAlone says whether no other replica is known to run.
func (s *Store) isAlone() bool {
	s.exchange.Lock()
	defer s.exchange.Unlock()
	return s.presences.alone(time.Now())
}

// silent are the replicas that are silent now, by ID.
func (k *presences) silent(now time.Time) []registry.Replica {
	list := []registry.Replica{} // never nil, which would say nothing
	for writer, p := range k.others {
		if now.Sub(p.heard) >= silence && now.Sub(k.steady) >= silence {
			list = append(list, registry.Replica{ID: writer, Name: p.name, Heard: p.heard})
		}
	}
	slices.SortFunc(list, func(a, b registry.Replica) int { return cmp.Compare(a.ID, b.ID) })
	return list
}

// leave says that this replica ends, so that nobody misses it. If Redis does not
// answer, others miss it for a while, which loses nothing.
func (s *Store) leave() {
	if s.presences.asked.IsZero() {
		return // it never told of itself
	}
	ctx, cancel := context.WithTimeout(context.Background(), min(s.options.Timeout, time.Second))
	defer cancel()
	_ = s.client.HDel(ctx, s.keys(presencePartition, "replicas")[0], s.writer).Err()
}
