package http1_test

import (
	"errors"
	"io"
	"net"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/weirproxy/weir/services/proxy/internal/http1"
	"github.com/weirproxy/weir/services/proxy/internal/message"
)

// fieldsOf is how many bytes Traffic counts of fields that came: names, values, and three
// for each.
func fieldsOf(pairs ...string) uint64 {
	n := 3 * len(pairs) / 2
	for _, text := range pairs {
		n += len(text)
	}
	return uint64(n)
}

func moved(wire int, headers uint64) message.Traffic {
	return message.Traffic{Wire: uint64(wire), Headers: headers, Decompressed: headers}
}

// TestWhatIsReadIsCounted reads two requests that came at once, of which the second is
// malformed.
func TestWhatIsReadIsCounted(t *testing.T) {
	chunked := crlf("POST /a HTTP/1.1\nHost:  mill \nTransfer-Encoding: chunked\nX_Y: z\n\n5;a=b\ngrain\n0\nX-End:  1\n\n")
	for name, options := range map[string]http1.Options{"": {}, "with trailers": {Trailers: true}, "without a field": {Underscores: http1.DropUnderscores}} {
		t.Run(name, func(t *testing.T) {
			const second = "{what?\r\n"
			r := http1.NewReader(strings.NewReader("\r\n"+chunked+second), http1.Limits{HeadBytes: 1000, Headers: 10})
			r.Options = options
			var m message.Request
			_, err := r.ReadRequest(&m)
			require.NoError(t, err)
			head := fieldsOf("Host", "mill", "Transfer-Encoding", "chunked", "X_Y", "z")
			require.Equal(t, moved(2+strings.Index(chunked, "5;"), head), r.Traffic())
			for err == nil {
				_, err = m.Body.Next()
			}
			require.ErrorIs(t, err, io.EOF)
			require.Equal(t, moved(2+len(chunked), head+fieldsOf("X-End", "1")), r.Traffic(), "and nothing of the next one")
			_, err = r.ReadRequest(&m)
			_, malformed := errors.AsType[*message.ProtocolError](err)
			require.True(t, malformed)
			require.Equal(t, moved(2+len(chunked)+len(second), head+fieldsOf("X-End", "1")), r.Traffic(), "whatever it was")
		})
	}
}

// TestWhatIsWrittenIsCounted writes messages of all kinds on one connection.
func TestWhatIsWrittenIsCounted(t *testing.T) {
	client, server := net.Pipe()
	text := make(chan string, 1)
	go func() { // ends with the connection
		b, _ := io.ReadAll(server)
		text <- string(b)
	}()
	w := http1.NewWriter(client)
	w.Trailers = true
	request := &message.Request{Method: []byte("POST"), Path: []byte("/a"), Authority: []byte("mill"), BodyLength: message.Unknown}
	request.Headers.Add("x-a", "b")
	trailers := &message.Headers{}
	trailers.Add("x-end", "1")
	w.WriteRequest(request)
	require.NoError(t, w.WriteChunk([]byte("grain")))
	w.Finish(trailers)
	require.NoError(t, w.Flush())
	answer := &message.Response{Status: 200, BodyLength: 5}
	answer.Headers.Add("x-c", "d")
	interim := &message.Response{Status: 103}
	interim.Headers.Add("link", "e")
	require.NoError(t, w.WriteContinue())
	require.NoError(t, w.WriteInterim(interim))
	w.WriteResponse(answer, true)
	require.NoError(t, w.WriteChunk([]byte("flour")))
	require.NoError(t, w.Flush())
	require.NoError(t, client.Close())

	const heads = "host: mill\r\nx-a: b\r\ntransfer-encoding: chunked\r\n"
	const others = "x-end: 1\r\nlink: e\r\nx-c: d\r\ncontent-length: 5\r\nconnection: close\r\n"
	written := <-text
	require.Equal(t, "POST /a HTTP/1.1\r\n"+heads+"\r\n5\r\ngrain\r\n0\r\nx-end: 1\r\n\r\nHTTP/1.1 100 Continue\r\n\r\n"+
		"HTTP/1.1 103 Early Hints\r\nlink: e\r\n\r\nHTTP/1.1 200 OK\r\nx-c: d\r\ncontent-length: 5\r\nconnection: close\r\n\r\nflour", written)
	require.Equal(t, moved(len(written), uint64(len(heads+others))), w.Traffic())
}
