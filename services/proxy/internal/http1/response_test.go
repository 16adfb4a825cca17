package http1_test

import (
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

func TestResponseIsRead(t *testing.T) {
	for _, c := range []struct{ name, method, text, want string }{
		{"a length", "GET", "HTTP/1.1 200 OK\nContent-Length: 3\n\nabc", "200 content-length=3 | 3:abc\nend"},
		{"chunks", "GET", "HTTP/1.1 200 OK\nTransfer-Encoding: chunked\n\n3\nabc\n0\n\n", "200 | chunked:abc\nend"},
		{"until the close", "GET", "HTTP/1.1 200 OK\n\nabc", "close: 200 | chunked:abc\nend"},
		{"until the close, nothing", "GET", "HTTP/1.1 200 OK\n\n", "close: 200 | chunked:\nend"},
		{"no body", "GET", "HTTP/1.1 200 OK\nContent-Length: 0\n\n", "200 content-length=0\nend"},
		{"no reason", "GET", "HTTP/1.1 299 \nContent-Length: 0\n\n", "299 content-length=0\nend"},
		{"no reason and no space before it", "GET", "HTTP/1.1 299\nContent-Length: 0\n\n", "299 content-length=0\nend"},
		{"a reason beyond ASCII", "GET", "HTTP/1.1 200 schön\nContent-Length: 0\n\n", "200 content-length=0\nend"},
		{"one behind the other", "GET", "HTTP/1.1 200 OK\nContent-Length: 1\n\naHTTP/1.1 404 No\nTransfer-Encoding: chunked\n\n1\nb\n0\n\n", "200 content-length=1 | 1:a\n404 | chunked:b\nend"},
		{"connection: close", "GET", "HTTP/1.1 200 OK\nConnection: close\nContent-Length: 0\n\n", "close: 200 connection=close content-length=0\nend"},
		{"HTTP/1.0 closes", "GET", "HTTP/1.0 200 OK\nContent-Length: 1\n\na", "close: 200 content-length=1 | 1:a\nend"},
		{"HTTP/1.0 with keep-alive stays", "GET", "HTTP/1.0 200 OK\nConnection: Keep-Alive\nContent-Length: 1\n\na", "200 connection=Keep-Alive content-length=1 | 1:a\nend"},
		{"a HEAD's length announces nothing", "HEAD", "HTTP/1.1 200 OK\nContent-Length: 3\n\nHTTP/1.1 200 OK\nContent-Length: 4\n\n", "200 content-length=3 (bodiless)\n200 content-length=4 (bodiless)\nend"},
		{"a HEAD's chunks neither", "HEAD", "HTTP/1.1 200 OK\nTransfer-Encoding: chunked\n\n", "200 (bodiless)\nend"},
		{"a HEAD without any framing", "HEAD", "HTTP/1.1 200 OK\n\n", "200 (bodiless)\nend"},
		{"304 keeps the length of what it stands for", "GET", "HTTP/1.1 304 Not Modified\nContent-Length: 3\n\n", "304 content-length=3 (bodiless)\nend"},
		{"204 has no length", "GET", "HTTP/1.1 204 No Content\nContent-Length: 3\nX-A: b\n\n", "204 x-a=b (bodiless)\nend"},
		{"204 stays open", "GET", "HTTP/1.1 204 No Content\n\nHTTP/1.1 204 No Content\n\n", "204 (bodiless)\n204 (bodiless)\nend"},
		{"interim responses are passed over", "GET", "HTTP/1.1 100 Continue\n\nHTTP/1.1 103 Early Hints\nLink: a\n\nHTTP/1.1 200 OK\nContent-Length: 0\n\n", "200 content-length=0\nend"},
		{"as many interim responses as there may be", "GET", strings.Repeat("HTTP/1.1 102 Processing\n\n", 5) + "HTTP/1.1 200 OK\nContent-Length: 0\n\n", "200 content-length=0\nend"},
	} {
		t.Run(c.name, func(t *testing.T) {
			require.Equal(t, c.want, responses(t, crlf(c.text), c.method))
		})
	}
}

func TestResponseIsRefused(t *testing.T) {
	for _, c := range []struct{ name, text, want string }{
		{"LF alone", "HTTP/1.1 200 OK|\n\n", "400 a line that ends in LF without CR"},
		{"a folded field", "HTTP/1.1 200 OK\nX-A: b\n c\n\n", "400 a header field folded over two lines"},
		{"space before the colon", "HTTP/1.1 200 OK\nContent-Length : 3\n\nabc", `400 space between the field name "content-length" and its colon`},
		{"two content-lengths", "HTTP/1.1 200 OK\nContent-Length: 3\nContent-Length: 3\n\nabc", "400 two content-length fields"},
		{"both content-length and transfer-encoding", "HTTP/1.1 200 OK\nContent-Length: 3\nTransfer-Encoding: chunked\n\n0\n\n", "400 both content-length and transfer-encoding"},
		{"another coding", "HTTP/1.1 200 OK\nTransfer-Encoding: gzip\n\n", "501 a transfer-encoding other than one chunked"},
		{"chunked in HTTP/1.0", "HTTP/1.0 200 OK\nTransfer-Encoding: chunked\n\n0\n\n", "400 transfer-encoding in HTTP/1.0"},
		{"a 101 that nobody asked for", "HTTP/1.1 101 Switching Protocols\nUpgrade: x\n\n", "400 a 101 that was not asked for"},
		{"interim responses without end", strings.Repeat("HTTP/1.1 100 Continue\n\n", 6) + "HTTP/1.1 200 OK\n\n", "400 more than 5 interim responses"},
		{"a head that is too long", "HTTP/1.1 200 OK\nX-A: " + strings.Repeat("a", 60<<10), "431 the head is longer than the limit"},
		{"too many fields", "HTTP/1.1 200 OK\n" + strings.Repeat("X: a\n", 101) + "\n", "431 more header fields than the limit"},
	} {
		t.Run(c.name, func(t *testing.T) {
			text := strings.ReplaceAll(crlf(c.text), "|\r\n", "\n")
			require.Equal(t, c.want, responses(t, text, "GET"))
		})
	}
}

func TestResponseIsCutOff(t *testing.T) {
	const whole = "HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\nabc"
	const interim = len("HTTP/1.1 100 Continue\r\n\r\n")
	for n := 1; n < len(whole); n++ {
		want := "the connection ended within the head"
		switch {
		case n == interim:
			want = "end"
		case n >= strings.Index(whole, "abc"):
			want = "cut off"
		}
		require.Contains(t, responses(t, whole[:n], "GET"), want, "after %q", whole[:n])
	}
}
