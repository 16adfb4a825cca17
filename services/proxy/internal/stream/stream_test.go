package stream_test

import (
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/weirproxy/weir/internal/servicetest"
	"github.com/weirproxy/weir/services/proxy/internal/stream"
)

func TestMain(m *testing.M) { servicetest.Main(m) }

type closer struct{ closed int }

func (c *closer) Close() error {
	c.closed++
	return nil
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
