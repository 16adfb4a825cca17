package redis

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"strconv"
	"time"

	"github.com/weirproxy/weir/services/discovery/internal/registry"
	"github.com/weirproxy/weir/services/discovery/internal/store/record"
)

const (
	// logLength is about how many entries the log of a partition has. A replica
	// that missed more reads the partition anew.
	logLength = 1000
	// cutOff is how long a replica may have been cut off from Redis: later it tells of
	// no host that went. tombTime is for how long a lease that was deregistered stays
	// buried, for another replica that was cut off may hear the host.
	cutOff   = registry.RemovalLife
	tombTime = 2 * cutOff
)

// rounds is how often a change is made anew over what is kept, at most, in one call of
// Append: each time another writer was faster.
const rounds = 10

// Append writes changes to Redis, each with an entry in the log of its partition
// unless nothing changes by it. Those of a partition are one step; the order of
// steps is that of the log. A host with a lease that was deregistered is taken back only
// if it registered after that, and one is not removed that did, or meanwhile has another
// lease; then Follow hands over the partition as it is. A host is put as if it was not
// there; where it is, the change is made over what is kept, and put in its place alone:
// if another writer was faster, once more. What is kept and cannot be understood is
// replaced. The error is an AppendError: a server of a Cluster that is away keeps none
// from the others.
func (s *Store) Append(ctx context.Context, changes []registry.Change) error {
	s.exchange.Lock()
	defer s.exchange.Unlock()
	var timed partitionSet
	for i := range changes {
		timed[partitionOf(serviceOf(&changes[i]))] = true
	}
	err := s.readClocksOf(ctx, &timed, time.Now())
	tellings := make([]telling, len(changes))
	var untold []*telling
	for i := range changes {
		tellings[i] = telling{Change: &changes[i], record: changes[i].Record}
		if timed[partitionOf(serviceOf(&changes[i]))] {
			untold = append(untold, &tellings[i])
		}
	}
	for round := 0; round < rounds && len(untold) > 0; round++ {
		again, failed := s.tell(ctx, untold)
		err, untold = errors.Join(err, failed), again
	}
	var left []registry.Change
	for i := range tellings {
		if !tellings[i].kept {
			left = append(left, changes[i])
		}
	}
	if err == nil && len(left) > 0 {
		err = fmt.Errorf("put %d hosts, of which host %q of %q: another replica was faster %d times", len(left), left[0].Key.ID, left[0].Key.Service, rounds)
	}
	if err == nil {
		return nil
	}
	return &registry.AppendError{Left: left, Err: err}
}

// telling is a change that Redis is told of.
type telling struct {
	*registry.Change
	// record is, of a host that is there, what is put: the Record of the change, or what
	// that is over the value that is kept, of which head is the beginning; empty where
	// none is taken to be.
	record *registry.Record
	head   string
	// kept says that Redis has what the change says.
	kept bool
}

// tell tells Redis of changes, and returns those that were made over other values than
// those that are there, and are made over these now. After an error it may be told of
// some of them, and return some.
func (s *Store) tell(ctx context.Context, list []*telling) (again []*telling, err error) {
	b := s.scripted(appendScript, []string{"rec", "beat", "log", "ovr", "meta", "tomb"},
		schema, fresh(), s.writer, logLength, tombTime.Milliseconds())
	for i, t := range list {
		p := &s.partitions[partitionOf(serviceOf(t.Change))]
		if t.record != nil {
			p.heed(t.record)
		}
		args, err := t.args(p.clock.Load())
		if err != nil {
			return nil, err
		}
		b.add(serviceOf(t.Change), i, args...)
	}
	err = b.run(ctx, func(c *call) error {
		answer, err := c.answer.Slice()
		a := reader{answer: answer}
		refused, others := a.number(), a.texts()
		if err = cmp.Or(err, a.err); err != nil {
			return err
		}
		for _, i := range c.things {
			list[i].kept = true
		}
		for i := 0; i+1 < len(others); i += 2 {
			place, err := strconv.Atoi(others[i])
			if err != nil || place < 0 || place >= len(c.things) {
				return fmt.Errorf("an answer is of change %q, of %d", others[i], len(c.things))
			}
			if t := list[c.things[place]]; !t.meets(others[i+1]) {
				again = append(again, t)
			}
		}
		if refused > 0 {
			s.mu.Lock()
			s.refused[c.partition] = struct{}{}
			s.mu.Unlock()
		}
		return nil
	})
	return again, err
}

// meets makes t over a value that is kept, and reports whether that says all of it.
func (t *telling) meets(value string) bool {
	t.head = value[:min(len(value), valueHead)]
	kept, err := decodeHost(new(record.HostDecoder), hostMember(t.Key), value)
	if err != nil {
		t.record, t.kept = t.Record, false
		return false
	}
	t.record = t.Over(&kept)
	t.kept = t.record == &kept
	return t.kept
}

// serviceOf is whose partition a change is of.
func serviceOf(c *registry.Change) string {
	if c.Key != (registry.Key{}) {
		return c.Key.Service
	}
	return c.SettingKey.Scope.Service
}

// mayReturn says of a host that went by an event whether whoever hears it may bring
// it back with the lease that it had: it did not go at its own wish.
func mayReturn(e *registry.Event) bool {
	return e != nil && (e.Kind == registry.Expired || e.Kind == registry.Lost)
}

// args is what appendScript is told of t, at times of Redis' clock.
func (t *telling) args(redis *clock) ([]any, error) {
	c := t.Change
	var text, event []byte
	var err error
	if c.Event != nil {
		if event, err = record.EncodeEvent(c.Event); err != nil {
			return nil, err
		}
	}
	switch {
	case t.record != nil:
		kept := *t.record
		kept.LastCheckIn = time.Time{} // beats have a place of their own
		if text, err = record.EncodeHost(&kept); err != nil {
			return nil, err
		}
		member, registered := hostMember(c.Key), int64(0)
		if !c.Registered.IsZero() {
			registered = redis.earliestAt(c.Registered)
		}
		return []any{hostPut, member, value(member, kept.Lease, text), leaseText(kept.Lease), event, redis.latestAt(t.record.LastCheckIn), registered, t.head}, nil
	case c.Key != registry.Key{}:
		buried, now := "1", time.Now()
		went := now
		if c.Lease == 0 || mayReturn(c.Event) {
			buried = "0"
		}
		if !c.Went.IsZero() {
			went = now.Add(-min(age(c.Went, now), cutOff))
		}
		return []any{hostRemoved, hostMember(c.Key), buried, leaseText(c.Lease), event, redis.latestAt(went), 0, ""}, nil
	case c.Setting != nil:
		if text, err = record.EncodeSetting(c.Setting); err != nil {
			return nil, err
		}
		member := settingMember(c.SettingKey)
		return []any{settingPut, member, value(member, 0, text), leaseText(0), event, 0, 0, ""}, nil
	}
	return []any{settingEnded, settingMember(c.SettingKey), "", leaseText(0), event, 0, 0, ""}, nil
}

// leaseText is a lease as scripts and logs have it.
func leaseText(l registry.Lease) string { return fmt.Sprintf("%016x", uint64(l)) }

// parseLease is the way back.
func parseLease(text string) (registry.Lease, error) {
	lease, err := strconv.ParseUint(text, 16, 64)
	return registry.Lease(lease), err
}

// fresh draws the generation of a partition that has none.
func fresh() string { return strconv.FormatUint(rand.Uint64(), 36) }
