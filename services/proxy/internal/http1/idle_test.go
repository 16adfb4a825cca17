package http1

import (
	"io"
	"net"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/weirproxy/weir/services/proxy/internal/message"
)

// TestAConnectionThatWaitsHoldsNoBuffers has heads of all lengths arrive after a
// wait: within what is read first, beyond it, and beyond a buffer.
func TestAConnectionThatWaitsHoldsNoBuffers(t *testing.T) {
	client, server := net.Pipe()
	defer client.Close()
	limits := Limits{HeadBytes: 64 << 10, Headers: 100}
	r, w := NewReader(server, limits), NewWriter(server)
	var m message.Request
	for _, length := range []int{0, waitSize - 40, waitSize, 5000, bufferSize, 40_000, 10} {
		value := strings.Repeat("a", length)
		sent := make(chan error, 1)
		// Ends with the write; received below.
		go func() {
			_, err := io.WriteString(client, "GET / HTTP/1.1\r\nHost: mill\r\nX-A: "+value+"\r\n\r\n")
			sent <- err
		}()
		require.NoError(t, r.Wait())
		m.Headers.Reset()
		_, err := r.ReadRequest(&m)
		require.NoError(t, err)
		require.NoError(t, <-sent)
		got, _ := m.Headers.Get("x-a")
		require.Equal(t, value, string(got))

		w.WriteResponse(&message.Response{Status: 204, Bodiless: true}, true)
		require.NotNil(t, w.buf)
		w.Release()
		require.NotNil(t, w.buf, "what was not flushed stays")
		// Ends with the read; the pipe has no room.
		go func() { _, _ = client.Read(make([]byte, 1024)) }()
		require.NoError(t, w.Flush())
		w.Release()
		require.Nil(t, w.buf)
	}
	require.NoError(t, server.SetReadDeadline(time.Unix(1, 0)))
	require.Error(t, r.Wait())
	require.Nil(t, r.buf)
}
