package redis

import (
	"context"
	"errors"

	goredis "github.com/redis/go-redis/v9"
)

// The states of all data, as they stand in Redis. None, as in new data and in that
// which was flushed, is as statePartial.
const (
	stateComplete = "complete"
	statePartial  = "partial"
	stateLost     = "lost"
)

// statePartition is whose slot of a Cluster has the state.
const statePartition = 0

// Complete notes that all hosts are in Redis.
func (s *Store) Complete(ctx context.Context) error {
	s.exchange.Lock() // what was lost is told as a whole
	defer s.exchange.Unlock()
	err := s.setState(ctx, stateComplete)
	if err == nil {
		s.unsaid = false
	}
	return err
}

// sayPartial notes that hosts may be missing. The server of the state may be away, and
// not that of the partitions that lack some: then it is noted later.
func (s *Store) sayPartial(ctx context.Context) error {
	err := s.setState(ctx, statePartial)
	s.unsaid = err != nil
	return err
}

// state is the state that all data is in; "" if nobody said.
func (s *Store) state(ctx context.Context) (string, error) {
	c := &call{partition: statePartition, args: []any{"get", s.keys(statePartition, "state")[0]}}
	if err := s.run(ctx, []*call{c}); errors.Is(err, goredis.Nil) {
		return "", nil
	} else if err != nil {
		return "", err
	}
	text, err := c.answer.Text()
	if err != nil {
		return "", s.fault(err)
	}
	return text, nil
}

// setState says in which state all data is.
func (s *Store) setState(ctx context.Context, state string) error {
	return s.run(ctx, []*call{{partition: statePartition, args: []any{"set", s.keys(statePartition, "state")[0], state}}})
}
