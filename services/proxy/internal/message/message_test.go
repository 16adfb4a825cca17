package message_test

import (
	"io"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/weirproxy/weir/services/proxy/internal/message"
)

func TestBytesAreOneChunk(t *testing.T) {
	text := []byte("text")
	var body message.Body = message.NewBytes(text)
	require.True(t, body.Ready())
	chunk, err := body.Next()
	require.NoError(t, err)
	require.Same(t, &text[0], &chunk[0], "not copied")
	for range 2 {
		_, err = body.Next()
		require.ErrorIs(t, err, io.EOF)
		require.True(t, body.Ready())
	}
}

func TestURLScheme(t *testing.T) {
	for _, c := range []struct{ said, forwarded, want string }{
		{"", "", "http"},
		{"", "https", "https"},
		{"", "HTTPS", "https"},
		{"", "http", "http"},
		{"", "ws", "http"},
		{"http", "https", "http"},
		{"https", "http", "https"},
		{"HTTPS", "", "https"},
		{"HTTP", "https", "http"},
	} {
		r := &message.Request{Scheme: []byte(c.said)}
		if c.forwarded != "" {
			r.Headers.Add("x-forwarded-proto", c.forwarded)
		}
		require.Equal(t, c.want, string(r.URLScheme()), c)
	}
}
