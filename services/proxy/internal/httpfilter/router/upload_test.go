package router_test

import (
	"io"
	"slices"
	"testing"

	"github.com/stretchr/testify/require"
)

// slowEnd is a body of some chunks whose reader learns of the end only once the
// response is over, as happens to a goroutine that comes to its turn late.
type slowEnd struct {
	chunks [][]byte
	over   chan struct{} // closed once the response was read
}

func newSlowEnd(chunks ...[]byte) *slowEnd { return &slowEnd{chunks, make(chan struct{})} }

func (b *slowEnd) Next() ([]byte, error) {
	if len(b.chunks) == 0 {
		<-b.over
		return nil, io.EOF
	}
	chunk := b.chunks[0]
	b.chunks = b.chunks[1:]
	return chunk, nil
}

// Ready makes the body one that is still coming when its head goes out.
func (b *slowEnd) Ready() bool { return false }

// length counts the bytes of the chunks.
func (b *slowEnd) length() (n int64) {
	for _, chunk := range b.chunks {
		n += int64(len(chunk))
	}
	return n
}

func TestConnectionIsUsedAgainWhoseResponseOvertookTheEndOfItsRequest(t *testing.T) {
	u := newScripted(t, fine)
	up, registry := clusterOf(t, `"connect_timeout": "5s"`, u.address)
	for range 3 {
		s := send(t, up, routeOf(t, "", ""), newSlowEnd([]byte("hello")))
		require.Equal(t, "200 -", s.summary())
		require.Equal(t, "fine", s.body)
	}
	require.Equal(t, []string{"POST hello", "POST hello", "POST hello"}, u.seen())
	require.EqualValues(t, 1, counted(registry, "upstream_cx_total"))
}

func TestRequestThatTheUpstreamDoesNotReadIsNotWaitedForBehindItsResponse(t *testing.T) {
	u := newScripted(t, deaf, fine)
	up, registry := clusterOf(t, `"connect_timeout": "5s"`, u.address)
	more := slices.Repeat([][]byte{make([]byte, 64<<10)}, 1000) // than sockets hold
	require.Equal(t, "200 -", send(t, up, routeOf(t, "", ""), newSlowEnd(more...)).summary())
	require.Equal(t, "200 -", send(t, up, routeOf(t, "", ""), nil).summary())
	require.EqualValues(t, 2, counted(registry, "upstream_cx_total"))
	close(u.gate)
}
