package http1_test

import (
	"errors"
	"io"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/weirproxy/weir/services/proxy/internal/http1"
	"github.com/weirproxy/weir/services/proxy/internal/message"
)

// readOne reads the first request of a text, with its body to the end.
func readOne(text string, options http1.Options) (m *message.Request, keepAlive bool, err error) {
	m = &message.Request{}
	r := http1.NewReader(strings.NewReader(crlf(text)), limits)
	r.Options = options
	if keepAlive, err = r.ReadRequest(m); err == nil {
		_, err = readAll(m.Body)
	}
	return m, keepAlive, err
}

func TestHTTP10IsReadWhereItIsAccepted(t *testing.T) {
	for _, c := range []struct {
		name, text string
		keepAlive  bool
		want       string // authority and fields, or the refusal
	}{
		{"it closes", "GET / HTTP/1.0\nHost: a\n\n", false, "a"},
		{"unless the client wants to go on", "GET / HTTP/1.0\nHost: a\nConnection: Keep-Alive\n\n", true, "a connection=Keep-Alive"},
		{"the default host", "GET / HTTP/1.0\n\n", false, "fallback"},
		{"no expectation", "PUT / HTTP/1.0\nHost: a\nExpect: 100-continue\nContent-Length: 1\n\nb", false, "a content-length=1"},
		{"HTTP/1.1 goes on as ever", "GET / HTTP/1.1\nHost: a\n\n", true, "a"},
		{"HTTP/1.1 has no default host", "GET / HTTP/1.1\n\n", true, ""},
		{"chunked", "PUT / HTTP/1.0\nHost: a\nTransfer-Encoding: chunked\n\n0\n\n", false, "400 transfer-encoding in HTTP/1.0"},
		{"HTTP/0.9", "GET /\n\n", false, "426 no version"},
		{"HTTP/1.2", "GET / HTTP/1.2\nHost: a\n\n", false, "426 version HTTP/1.2"},
	} {
		t.Run(c.name, func(t *testing.T) {
			m, keepAlive, err := readOne(c.text, http1.Options{AcceptHTTP10: true, DefaultHost: "fallback"})
			if err != nil {
				require.Equal(t, c.want, ending(err))
				return
			}
			require.Equal(t, c.keepAlive, keepAlive)
			require.Equal(t, c.want, string(m.Authority)+fields(&m.Headers))
			require.False(t, m.ExpectContinue)
		})
	}
	m, _, err := readOne("GET / HTTP/1.0\n\n", http1.Options{AcceptHTTP10: true})
	require.NoError(t, err)
	require.Empty(t, m.Authority)
}

func TestAbsoluteTargetIsRefusedWhereThatIsWanted(t *testing.T) {
	_, _, err := readOne("GET http://b/c HTTP/1.1\nHost: a\n\n", http1.Options{RefuseAbsolute: true})
	require.ErrorIs(t, err, http1.ErrAbsoluteTarget)
	_, _, err = readOne("GET /c HTTP/1.1\nHost: a\n\n", http1.Options{RefuseAbsolute: true})
	require.NoError(t, err)
}

func TestUnderscoresAreDealtWithAsIsWanted(t *testing.T) {
	const text = "POST / HTTP/1.1\nHost: a\nX_A: 1\nX-B: 2\nTransfer-Encoding: chunked\n\n0\nX_T: 3\nX-U: 4\n\n"
	dropped := 0
	options := http1.Options{Trailers: true, Dropped: func() { dropped++ }}
	m, _, err := readOne(text, options)
	require.NoError(t, err)
	require.Equal(t, " x_a=1 x-b=2 x_t=3 x-u=4", fields(&m.Headers)+fields(&m.Trailers))

	options.Underscores = http1.DropUnderscores
	m, _, err = readOne(text, options)
	require.NoError(t, err)
	require.Equal(t, " x-b=2 x-u=4", fields(&m.Headers)+fields(&m.Trailers))
	require.Equal(t, 2, dropped)

	options.Underscores = http1.RejectUnderscores
	_, _, err = readOne(text, options)
	require.ErrorIs(t, err, http1.ErrUnderscore)
}

func TestTrailersAreKeptWhereTheyAreWanted(t *testing.T) {
	const text = "POST / HTTP/1.1\nHost: a\nTransfer-Encoding: chunked\n\n1\nx\n0\nX-A:  b \nX-Empty:\nContent-Length: 9\nHost: b\nConnection: x\nTrailer: x\nX-A: c\n\n"
	m, _, err := readOne(text, http1.Options{Trailers: true})
	require.NoError(t, err)
	require.Equal(t, " x-a=b x-empty= x-a=c", fields(&m.Trailers), "but for those that frame and route")
	m, _, err = readOne(text, http1.Options{})
	require.NoError(t, err)
	require.Zero(t, m.Trailers.Len())
}

func TestTrailersThatAreKeptAreCounted(t *testing.T) {
	text := "POST / HTTP/1.1\nHost: a\nTransfer-Encoding: chunked\n\n1\nx\n0\n" + strings.Repeat("X: a\n", limits.Headers+1) + "\n"
	_, _, err := readOne(text, http1.Options{Trailers: true})
	refused, ok := errors.AsType[*message.ProtocolError](err)
	require.True(t, ok, "%v", err)
	require.Equal(t, 431, refused.Status)
	require.Equal(t, "http1.too_many_headers", refused.ResponseCodeDetails)
	_, _, err = readOne(text, http1.Options{})
	require.NoError(t, err)
}

func TestTrailersAreWrittenBehindChunks(t *testing.T) {
	trailers := header("x-a", "b", "x-a", "c")
	for _, c := range []struct {
		name   string
		on     bool
		length int64
		want   string
	}{
		{"on", true, message.Unknown, "transfer-encoding: chunked\n\n1\nx\n0\nx-a: b\nx-a: c\n\n"},
		{"off", false, message.Unknown, "transfer-encoding: chunked\n\n1\nx\n0\n\n"},
		{"of a length, where there is no place for them", true, 1, "content-length: 1\n\nx"},
	} {
		t.Run(c.name, func(t *testing.T) {
			conn := &sink{}
			w := http1.NewWriter(conn)
			w.Trailers = c.on
			w.WriteResponse(&message.Response{Status: 200, BodyLength: c.length}, false)
			require.NoError(t, w.WriteChunk([]byte("x")))
			w.Finish(&trailers)
			require.NoError(t, w.Flush())
			require.Equal(t, crlf("HTTP/1.1 200 OK\n"+c.want), conn.text())
			require.EqualValues(t, len(conn.text()), w.Sent())
		})
	}
}

func TestSpellingIsKept(t *testing.T) {
	m, _, err := readOne("PUT / HTTP/1.1\nHOST: a\nX-My-ID: 1\nContent-LENGTH: 1\nx-low: 2\n\nb", http1.Options{KeepSpelling: true})
	require.NoError(t, err)
	m.Headers.Add("x-ours", "3")
	m.Headers.Set("x-my-id", "4")
	conn := &sink{}
	w := http1.NewWriter(conn)
	w.ProperCase = true // what the message remembers comes first
	w.WriteRequest(m)
	require.NoError(t, w.Flush())
	require.Equal(t, crlf("PUT / HTTP/1.1\nHOST: a\nX-My-ID: 4\nContent-LENGTH: 1\nx-low: 2\nx-ours: 3\n\n"), conn.text())

	m, _, err = readOne("PUT / HTTP/1.1\nhOst: a\nTRANSFER-encoding: chunked\n\n0\n\n", http1.Options{KeepSpelling: true})
	require.NoError(t, err)
	conn = &sink{}
	w = http1.NewWriter(conn)
	w.WriteRequest(m)
	require.NoError(t, w.Flush())
	require.Equal(t, crlf("PUT / HTTP/1.1\nhOst: a\nTRANSFER-encoding: chunked\n\n"), conn.text())
}

func TestProperCaseWords(t *testing.T) {
	conn := &sink{}
	w := http1.NewWriter(conn)
	w.ProperCase = true
	w.WriteResponse(&message.Response{Status: 200, Headers: header("content-type", "a-b", "foo$b#$are", "", "x9y-z", "1", "etag", "2")}, true)
	require.NoError(t, w.Flush())
	require.Equal(t, crlf("HTTP/1.1 200 OK\nContent-Type: a-b\nFoo$B#$Are: \nX9y-Z: 1\nEtag: 2\nContent-Length: 0\nConnection: close\n\n"), conn.text())
}

func TestResponsesToHTTP10HaveNoChunks(t *testing.T) {
	for _, c := range []struct {
		name   string
		m      message.Response
		closes bool
		want   string
	}{
		{"that goes on", message.Response{Status: 200, BodyLength: 1}, false, "HTTP/1.0 200 OK\ncontent-length: 1\nconnection: keep-alive\n\nx"},
		{"of no known length", message.Response{Status: 200, BodyLength: message.Unknown}, true, "HTTP/1.0 200 OK\nconnection: close\n\nx"},
	} {
		t.Run(c.name, func(t *testing.T) {
			conn := &sink{}
			w := http1.NewWriter(conn)
			w.HTTP10 = true
			w.WriteResponse(&c.m, c.closes)
			require.NoError(t, w.WriteChunk([]byte("x")))
			w.Finish(nil)
			require.NoError(t, w.Flush())
			require.Equal(t, crlf(c.want), conn.text())
		})
	}
}

func TestUpgradeIsWrittenWithoutFraming(t *testing.T) {
	conn := &sink{}
	w := http1.NewWriter(conn)
	w.WriteRequest(&message.Request{Method: []byte("GET"), Path: []byte("/"), Authority: []byte("a"), Upgrade: []byte("websocket"), BodyLength: message.Unknown})
	require.NoError(t, w.WriteChunk([]byte("raw")))
	w.Finish(nil)
	require.NoError(t, w.Flush())
	require.Equal(t, crlf("GET / HTTP/1.1\nhost: a\nconnection: Upgrade\nupgrade: websocket\n\nraw"), conn.text())

	conn = &sink{}
	w = http1.NewWriter(conn)
	w.WriteResponse(&message.Response{Status: 101, Headers: header("upgrade", "websocket"), BodyLength: message.Unknown}, true)
	require.NoError(t, w.WriteChunk([]byte("raw")))
	w.Finish(nil)
	require.NoError(t, w.Flush())
	require.Equal(t, crlf("HTTP/1.1 101 Switching Protocols\nupgrade: websocket\nconnection: Upgrade\n\nraw"), conn.text())
}

func TestInterimResponsesAreReadOneByOne(t *testing.T) {
	r := http1.NewReader(strings.NewReader(crlf("HTTP/1.1 103 Early Hints\nLink: a\n\nHTTP/1.1 101 Switching Protocols\nUpgrade: x\nContent-Length: 3\n\nraw")), limits)
	var m message.Response
	_, err := r.ReadHead(&m, []byte("GET"))
	require.NoError(t, err)
	require.Equal(t, 103, m.Status)
	require.Equal(t, " link=a", fields(&m.Headers))
	conn := &sink{}
	require.NoError(t, http1.NewWriter(conn).WriteInterim(&m))
	require.Equal(t, crlf("HTTP/1.1 103 Early Hints\nlink: a\n\n"), conn.text())

	_, err = r.ReadHead(&m, []byte("GET"))
	require.NoError(t, err)
	require.Equal(t, 101, m.Status)
	require.Equal(t, " upgrade=x", fields(&m.Headers), "no length, as it has no body")
	tunnel := r.Tunnel()
	require.True(t, tunnel.Ready(), "what came with the head")
	chunk, err := tunnel.Next()
	require.NoError(t, err)
	require.Equal(t, "raw", string(chunk))
	_, err = tunnel.Next()
	require.ErrorIs(t, err, io.EOF)
	require.EqualValues(t, len(crlf("HTTP/1.1 103 Early Hints\nLink: a\n\nHTTP/1.1 101 Switching Protocols\nUpgrade: x\nContent-Length: 3\n\nraw")), r.Received())
}
