package router_test

import (
	"io"
	"slices"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/weirproxy/weir/services/proxy/internal/httpfilter"
	"github.com/weirproxy/weir/services/proxy/internal/stats"
	"github.com/weirproxy/weir/services/proxy/internal/stream"
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

// TestResponseHasOneEnd reads on behind it, where the connection may be another
// stream's, or wait for the end of the upload.
func TestResponseHasOneEnd(t *testing.T) {
	u := newScripted(t, fine)
	up, registry := clusterOf(t, `"connect_timeout": "5s"`, u.address)
	for _, body := range []*slowEnd{nil, newSlowEnd([]byte("hello"))} {
		s := &stream.Stream{Route: routeOf(t, "", ""), Cluster: up, Context: t.Context()}
		s.Request.Method, s.Request.Path, s.Request.Authority = []byte("PUT"), []byte("/"), []byte("up")
		if body != nil {
			s.Request.BodyLength, s.Request.Body = body.length(), body
		}
		filter := newFilter()
		require.Nil(t, filter.(httpfilter.Terminal).Forward(s))
		var read string
		for range 10 {
			chunk, err := s.Response.Body.Next()
			read += string(chunk)
			if len(chunk) == 0 {
				require.Equal(t, io.EOF, err)
				require.True(t, s.Response.Body.Ready())
			}
		}
		require.Equal(t, "fine", read)
		if body != nil {
			close(body.over)
		}
		filter.(httpfilter.Done).Done(s)
	}
	ends := uint64(0)
	registry.Each(func(m stats.Metric) {
		if m.Name == "cluster.up.upstream_rq_time" {
			ends = m.Distribution.Count
		}
	})
	require.EqualValues(t, 1, ends, "the time of the other one is not known: its request was not whole")
	require.EqualValues(t, 1, counted(registry, "upstream_cx_total"))
}
