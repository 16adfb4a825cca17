package http1_test

import (
	"bytes"
	"errors"
	"fmt"
	"net"
	"net/http"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/weirproxy/weir/services/proxy/internal/http1"
	"github.com/weirproxy/weir/services/proxy/internal/message"
)

// sink is a connection that keeps what is written to it, one text for each
// write.
type sink struct {
	net.Conn
	writes []string
	err    error
}

func (s *sink) Write(b []byte) (int, error) {
	if s.err != nil {
		return 0, s.err
	}
	s.writes = append(s.writes, string(b))
	return len(b), nil
}

// text is all that was written.
func (s *sink) text() string { return strings.Join(s.writes, "") }

// header makes a list of names and values by turns.
func header(fields ...string) (h message.Headers) {
	for i := 0; i < len(fields); i += 2 {
		h.Add(fields[i], fields[i+1])
	}
	return h
}

func TestRequestIsWritten(t *testing.T) {
	for _, c := range []struct {
		name   string
		m      message.Request
		chunks []string
		want   string
	}{
		{"no body", message.Request{Headers: header("x-a", "b", "x-a", "")}, nil, "POST /a host: a\nx-a: b\nx-a: \ncontent-length: 0\n\n"},
		{"no body, as a method has none", message.Request{Method: []byte("DELETE"), Headers: header("x-a", "b")}, nil, "DELETE /a host: a\nx-a: b\n\n"},
		{"a length from the client", message.Request{Headers: header("content-length", "003"), BodyLength: 3}, []string{"ab", "c"}, "POST /a host: a\ncontent-length: 003\n\nabc"},
		{"a length that no header says", message.Request{Headers: header("x-a", "b"), BodyLength: 3}, []string{"abc"}, "POST /a host: a\nx-a: b\ncontent-length: 3\n\nabc"},
		{"a length of 0 from the client", message.Request{Headers: header("content-length", "0")}, nil, "POST /a host: a\ncontent-length: 0\n\n"},
		{"no length known", message.Request{BodyLength: message.Unknown}, []string{"abc", strings.Repeat("d", 17)}, "POST /a host: a\ntransfer-encoding: chunked\n\n3\nabc\n11\nddddddddddddddddd\n0\n\n"},
		{"a length that a filter took back", message.Request{Headers: header("content-length", "3"), BodyLength: message.Unknown}, []string{"abcd"}, "POST /a host: a\ntransfer-encoding: chunked\n\n4\nabcd\n0\n\n"},
		{"no length known and no chunk", message.Request{BodyLength: message.Unknown}, nil, "POST /a host: a\ntransfer-encoding: chunked\n\n0\n\n"},
	} {
		t.Run(c.name, func(t *testing.T) {
			conn := &sink{}
			w := http1.NewWriter(conn)
			if c.m.Path, c.m.Authority = []byte("/a"), []byte("a"); c.m.Method == nil {
				c.m.Method = []byte("POST")
			}
			w.WriteRequest(&c.m)
			for _, chunk := range c.chunks {
				require.NoError(t, w.WriteChunk([]byte(chunk)))
			}
			w.Finish(nil)
			require.Empty(t, conn.writes, "nothing goes out before Flush")
			require.NoError(t, w.Flush())
			require.Equal(t, []string{crlf(strings.Replace(c.want, " host", " HTTP/1.1\nhost", 1))}, conn.writes)
			require.NoError(t, w.Flush())
			require.Len(t, conn.writes, 1, "nothing is left")
		})
	}
}

func TestResponseIsWritten(t *testing.T) {
	for _, c := range []struct {
		name   string
		m      message.Response
		closes bool
		chunk  string
		want   string
	}{
		{"no body", message.Response{Status: 200}, false, "", "HTTP/1.1 200 OK\ncontent-length: 0\n\n"},
		{"a status without a name", message.Response{Status: 299}, false, "", "HTTP/1.1 299 \ncontent-length: 0\n\n"},
		{"a length that no header says", message.Response{Status: 404, BodyLength: 3, Headers: header("x-a", "b")}, false, "abc", "HTTP/1.1 404 Not Found\nx-a: b\ncontent-length: 3\n\nabc"},
		{"no length known", message.Response{Status: 200, BodyLength: message.Unknown}, false, "abc", "HTTP/1.1 200 OK\ntransfer-encoding: chunked\n\n3\nabc\n0\n\n"},
		{"the last of a connection", message.Response{Status: 200}, true, "", "HTTP/1.1 200 OK\ncontent-length: 0\nconnection: close\n\n"},
		{"to a HEAD, with the length of what it stands for", message.Response{Status: 200, Bodiless: true, BodyLength: 3, Headers: header("content-length", "3")}, false, "", "HTTP/1.1 200 OK\ncontent-length: 3\n\n"},
		{"to a HEAD, without", message.Response{Status: 200, Bodiless: true, BodyLength: message.Unknown}, false, "", "HTTP/1.1 200 OK\n\n"},
		{"204", message.Response{Status: 204, Bodiless: true, BodyLength: message.Unknown}, false, "", "HTTP/1.1 204 No Content\n\n"},
	} {
		t.Run(c.name, func(t *testing.T) {
			conn := &sink{}
			w := http1.NewWriter(conn)
			w.WriteResponse(&c.m, c.closes)
			if c.chunk != "" {
				require.NoError(t, w.WriteChunk([]byte(c.chunk)))
			}
			w.Finish(nil)
			require.NoError(t, w.Flush())
			require.Equal(t, crlf(c.want), conn.text())
		})
	}
}

func TestReasonsAreThoseThatAreRegistered(t *testing.T) {
	// Where net/http has older names than RFC 9110, and names that are not, or
	// no longer, registered.
	newer := map[int]string{
		413: "Content Too Large", 414: "URI Too Long", 416: "Range Not Satisfiable", 422: "Unprocessable Content",
		418: "", 510: "",
	}
	for status := 100; status < 700; status++ {
		if status == 101 { // has a header too, TestUpgradeIsWrittenWithoutFraming
			continue
		}
		want, ok := newer[status]
		if !ok {
			want = http.StatusText(status)
		}
		conn := &sink{}
		w := http1.NewWriter(conn)
		w.WriteResponse(&message.Response{Status: status, Bodiless: true}, false)
		require.NoError(t, w.Flush())
		require.Equal(t, fmt.Sprintf("HTTP/1.1 %d %s\r\n\r\n", status, want), conn.text())
	}
}

func TestWriterGathersUpToALimit(t *testing.T) {
	for _, c := range []struct {
		name   string
		length int64
		frame  func(string) string
	}{
		{"by length", 60_000, func(s string) string { return s }},
		{"chunked", message.Unknown, func(s string) string { return "7530\r\n" + s + "\r\n" }},
	} {
		t.Run(c.name, func(t *testing.T) {
			conn := &sink{}
			w := http1.NewWriter(conn)
			w.WriteRequest(&message.Request{Method: []byte("PUT"), Path: []byte("/"), Authority: []byte("a"), BodyLength: c.length})
			large := bytes.Repeat([]byte("x"), 30_000)
			for range 2 {
				require.NoError(t, w.WriteChunk(large))
			}
			written := len(conn.text())
			require.GreaterOrEqual(t, written, 60_000, "large chunks go out at once")
			w.Finish(nil)
			require.NoError(t, w.Flush())
			_, body, _ := strings.Cut(conn.text(), "\r\n\r\n")
			want := c.frame(string(large)) + c.frame(string(large))
			if c.length == message.Unknown {
				want += "0\r\n\r\n"
			}
			require.Equal(t, want, body)
		})
	}
}

func TestContinueGoesOutAtOnce(t *testing.T) {
	conn := &sink{}
	require.NoError(t, http1.NewWriter(conn).WriteContinue())
	require.Equal(t, "HTTP/1.1 100 Continue\r\n\r\n", conn.text())
}

func TestWriterKeepsItsError(t *testing.T) {
	broken := errors.New("broken pipe")
	for _, size := range []int{1, 30_000} {
		conn := &sink{err: broken}
		w := http1.NewWriter(conn)
		w.WriteResponse(&message.Response{Status: 200, BodyLength: message.Unknown}, false)
		_ = w.WriteChunk(make([]byte, size)) // whether it goes out now depends on the size
		require.ErrorIs(t, w.Flush(), broken)
		conn.err = nil
		require.ErrorIs(t, w.WriteChunk(make([]byte, size)), broken)
		require.ErrorIs(t, w.WriteContinue(), broken)
		require.ErrorIs(t, w.Flush(), broken)
		require.Empty(t, conn.writes, "nothing follows what was lost")
	}
}
