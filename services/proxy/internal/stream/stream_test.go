package stream_test

import (
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/weirproxy/weir/internal/servicetest"
	"github.com/weirproxy/weir/services/proxy/internal/message"
	"github.com/weirproxy/weir/services/proxy/internal/stream"
)

func TestMain(m *testing.M) { servicetest.Main(m) }

type closer struct{ closed int }

func (c *closer) Close() error {
	c.closed++
	return nil
}

// connection is an upstream on which so much has moved.
type connection struct {
	closer
	wire uint64
}

func (c *connection) Traffic() (received, sent message.Traffic) {
	return message.Traffic{Wire: c.wire}, message.Traffic{}
}

func TestTrafficIsTheStreamsUntilItIsUsedAgain(t *testing.T) {
	var s stream.Stream
	s.Reset()
	s.HoldUpstream(&connection{wire: 10})
	received, _ := s.Facts.Upstream.Traffic()
	require.Equal(t, message.Traffic{Wire: 10}, received)
	s.Reset()
	received, _ = s.Facts.Upstream.Traffic()
	require.Zero(t, received)
}

func TestExpiredStreamHoldsNothingUntilItIsUsedAgain(t *testing.T) {
	var s stream.Stream
	first, second, third := &closer{}, &closer{}, &closer{}
	s.Hold(first)
	require.Nil(t, s.Expired())
	why := &stream.Expiry{Status: 504, Text: "late"}
	s.Expire(why)
	s.Expire(&stream.Expiry{Status: 408})
	require.Same(t, why, s.Expired(), "the first reason")
	require.Positive(t, first.closed)
	s.Hold(second)
	require.Equal(t, 1, second.closed, "at once")

	s.Hold(nil)
	s.Reset()
	require.Nil(t, s.Expired())
	s.Hold(third)
	require.Zero(t, third.closed)
	s.Cut()
	require.Equal(t, 1, third.closed)
}

func TestWhoeverExpiresAStreamIsHeardOfBeforeItsResponseOrToldOfIt(t *testing.T) {
	why := &stream.Expiry{Status: 504}
	for _, c := range []struct {
		name    string
		expire  func(*stream.Stream) bool
		ignored bool // within the response
	}{
		{"by Expire", func(s *stream.Stream) bool { return s.Expire(why) }, false},
		{"by ExpireUnanswered", func(s *stream.Stream) bool { s.ExpireUnanswered(why); return false }, true},
	} {
		t.Run(c.name, func(t *testing.T) {
			var s stream.Stream
			held := &closer{}
			s.Hold(held)
			require.False(t, c.expire(&s), "there is no response yet")
			require.Same(t, why, s.BeginResponse())
			require.Equal(t, 1, held.closed)

			s.Reset()
			held = &closer{}
			s.Hold(held)
			require.Nil(t, s.BeginResponse())
			responding := c.expire(&s)
			if c.ignored {
				require.Nil(t, s.Expired())
				require.Zero(t, held.closed)
				return
			}
			require.True(t, responding)
			require.Same(t, why, s.Expired())
			require.Equal(t, 1, held.closed)
		})
	}
}
