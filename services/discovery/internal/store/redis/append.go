package redis

import (
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

// Append writes changes to Redis, each with an entry in the log of its partition
// unless nothing changes by it. Those of a partition are one step; the order of
// steps is that of the log, and the later of two writers wins. A host with a
// lease that was deregistered is taken back only if it registered after that, and one
// is not removed that did, or meanwhile has another lease; then Follow hands over the
// partition as it is. The error is an AppendError: a server of a Cluster that is away
// keeps none from the others.
func (s *Store) Append(ctx context.Context, changes []registry.Change) error {
	s.exchange.Lock()
	defer s.exchange.Unlock()
	var timed partitionSet
	for i := range changes {
		timed[partitionOf(serviceOf(&changes[i]))] = true
	}
	untimed := s.readClocksOf(ctx, &timed, time.Now())
	b := s.scripted(appendScript, []string{"rec", "beat", "log", "ovr", "meta", "tomb"},
		schema, fresh(), s.writer, logLength, tombTime.Milliseconds())
	for i := range changes {
		c := &changes[i]
		number := partitionOf(serviceOf(c))
		p := &s.partitions[number]
		if c.Record != nil {
			p.heed(c.Record)
		}
		if !timed[number] {
			continue
		}
		args, err := argsOf(c, p.clock.Load())
		if err != nil {
			return err
		}
		b.add(serviceOf(c), i, args...)
	}
	kept := make([]bool, len(changes))
	err := b.run(ctx, func(c *call) error {
		refused, err := c.answer.Slice()
		for _, i := range c.things {
			kept[i] = err == nil
		}
		if len(refused) > 0 {
			s.mu.Lock()
			s.refused[c.partition] = struct{}{}
			s.mu.Unlock()
		}
		return err
	})
	if err = errors.Join(untimed, err); err == nil {
		return nil
	}
	failed := &registry.AppendError{Err: err}
	for i := range changes {
		if !kept[i] {
			failed.Left = append(failed.Left, changes[i])
		}
	}
	return failed
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

// argsOf is what appendScript is told of c, at times of Redis' clock.
func argsOf(c *registry.Change, redis *clock) ([]any, error) {
	var text, event []byte
	var err error
	if c.Event != nil {
		if event, err = record.EncodeEvent(c.Event); err != nil {
			return nil, err
		}
	}
	switch {
	case c.Record != nil:
		kept := *c.Record
		kept.LastCheckIn = time.Time{} // beats have a place of their own
		if text, err = record.EncodeHost(&kept); err != nil {
			return nil, err
		}
		member, registered := hostMember(c.Key), int64(0)
		if !c.Registered.IsZero() {
			registered = redis.earliestAt(c.Registered)
		}
		return []any{hostPut, member, value(member, kept.Lease, text), leaseText(kept.Lease), event, redis.latestAt(c.Record.LastCheckIn), registered}, nil
	case c.Key != registry.Key{}:
		buried, now := "1", time.Now()
		went := now
		if c.Lease == 0 || mayReturn(c.Event) {
			buried = "0"
		}
		if !c.Went.IsZero() {
			went = now.Add(-min(age(c.Went, now), cutOff))
		}
		return []any{hostRemoved, hostMember(c.Key), buried, leaseText(c.Lease), event, redis.latestAt(went), 0}, nil
	case c.Setting != nil:
		if text, err = record.EncodeSetting(c.Setting); err != nil {
			return nil, err
		}
		member := settingMember(c.SettingKey)
		return []any{settingPut, member, value(member, 0, text), leaseText(0), event, 0, 0}, nil
	}
	return []any{settingEnded, settingMember(c.SettingKey), "", leaseText(0), event, 0, 0}, nil
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
