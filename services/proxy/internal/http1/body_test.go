package http1_test

import (
	"io"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/weirproxy/weir/services/proxy/internal/http1"
	"github.com/weirproxy/weir/services/proxy/internal/message"
)

const chunkedHead = "POST / HTTP/1.1\nHost: a\nTransfer-Encoding: chunked\n\n"

func TestChunkedBodyIsRead(t *testing.T) {
	for _, c := range []struct{ name, body, want string }{
		{"no chunk", "0\n\n", ""},
		{"several chunks", "1\na\n2\nbc\n0\n\n", "abc"},
		{"sizes in hexadecimal, large and small", "A\n0123456789\nb\n0123456789a\n0\n\n", "01234567890123456789a"},
		{"sizes with leading zeros", "0003\nabc\n000\n\n", "abc"},
		{"the most digits", "0000000000000003\nabc\n0\n\n", "abc"},
		{"line ends within a chunk", "4\n\n\n\n0\n\n", "\r\n\r\n"},
		{"extensions", "3;a\nabc\n0;b=\"c d\"\n\n", "abc"},
		{"as many extensions as there may be", "3;" + strings.Repeat("a", 4095) + "\nabc\n0\n\n", "abc"},
		{"trailers, which are dropped", "3\nabc\n0\nX-A: b\nContent-Length: 10\n\n", "abc"},
		{"the greatest number of trailers", "0\n" + strings.Repeat("X: a\n", 100) + "\n", ""},
	} {
		t.Run(c.name, func(t *testing.T) {
			text := crlf(chunkedHead + c.body + "GET /next HTTP/1.1\nHost: a\n\n")
			require.Equal(t, "POST / host=a | chunked:"+c.want+"\nGET /next host=a\nend", requests(t, text, limits))
		})
	}
}

// TestChunkedBodyIsRefused has one offence in each body; a | at the end of a
// line is a bare LF.
func TestChunkedBodyIsRefused(t *testing.T) {
	for _, c := range []struct{ name, body, want string }{
		{"no size", "\nabc\n0\n\n", ` | 400 chunk size ""`},
		{"a size that is no number", "x\nabc\n0\n\n", ` | 400 chunk size "x"`},
		{"a size with 0x", "0x3\nabc\n0\n\n", ` | 400 chunk size "0x3"`},
		{"a negative size", "-1\nabc\n0\n\n", ` | 400 chunk size "-1"`},
		{"a size with a sign", "+3\nabc\n0\n\n", ` | 400 chunk size "+3"`},
		{"space before a size", " 3\nabc\n0\n\n", ` | 400 chunk size " 3"`},
		{"space behind a size", "3 \nabc\n0\n\n", ` | 400 chunk size "3 "`},
		{"space before an extension", "3 ;a\nabc\n0\n\n", ` | 400 chunk size "3 ;a"`},
		{"space within a size", "5 5\nabcde\n0\n\n", ` | 400 chunk size "5 5"`},
		{"a size with an underscore", "1_0\nabc\n0\n\n", ` | 400 chunk size "1_0"`},
		{"a size with a NUL", "3\x00\nabc\n0\n\n", ` | 400 chunk size "3\x00"`},
		{"a size of 2⁶³", "8000000000000000\nabc\n0\n\n", ` | 400 chunk size "8000000000000000" is too large`},
		{"a size of 2⁶⁴", "10000000000000000\nabc\n0\n\n", ` | 400 chunk size "10000000000000000" has more than 16 digits`},
		{"a size of more digits than a number has", "00000000000000003\nabc\n0\n\n", ` | 400 chunk size "00000000000000003" has more than 16 digits`},
		{"LF alone behind a size", "3|\nabc\n0\n\n", " | 400 a line that ends in LF without CR"},
		{"LF alone behind an extension", "3;a|\nabc\n0\n\n", " | 400 a line that ends in LF without CR"},
		{"CR within an extension", "3;a\rb\nabc\n0\n\n", " | 400 CR within a line of a chunked body"},
		{"LF alone behind the data", "3\nabc|\n0\n\n", "abc | 400 bytes between a chunk's data and its CRLF"},
		{"LF alone as the end", "3\nabc\n0\n|\n", "abc | 400 a line that ends in LF without CR"},
		{"data longer than its size", "3\nabcd\n0\n\n", "abc | 400 bytes between a chunk's data and its CRLF"},
		{"data much longer than its size", "3\nabc" + strings.Repeat("d", 100) + "\n0\n\n", "abc | 400 bytes between a chunk's data and its CRLF"},
		{"data shorter than its size", "5\nabc\n0\n\n", "abc\r\n | 400 bytes between a chunk's data and its CRLF"},
		{"an extension with a NUL", "3;a\x00\nabc\n0\n\n", " | 400 control character 0x00 in a chunk extension"},
		{"an extension that is too long", "3;" + strings.Repeat("a", 4096) + "\nabc\n0\n\n", " | 400 more than 4096 bytes of chunk extensions"},
		{"extensions that are too long together", strings.Repeat("1;"+strings.Repeat("a", 999)+"\nx\n", 5) + "0\n\n", "xxxx | 400 more than 4096 bytes of chunk extensions"},
		{"an extension without end", "3;" + strings.Repeat("a", 20_000), " | 400 a line of a chunked body is over the limit"},
		{"a trailer without a colon", "0\nX-A\n\n", " | 400 a trailer field without a colon"},
		{"a trailer without a name", "0\n: a\n\n", " | 400 a header field without a name"},
		{"space before a trailer's colon", "0\nX-A : b\n\n", ` | 400 space between the field name "x-a" and its colon`},
		{"a folded trailer", "0\nX-A: b\n c: d\n\n", " | 400 a header field folded over two lines"},
		{"a trailer with a control", "0\nX-A: \x01\n\n", ` | 400 control character 0x01 in the trailer "x-a"`},
		{"LF alone behind a trailer", "0\nX-A: b|\n\n", " | 400 a line that ends in LF without CR"},
		{"trailers of more bytes than a head has", "0\n" + strings.Repeat("X: "+strings.Repeat("a", 1000)+"\n", 70) + "\n", " | 431 the trailers are longer than the limit"},
		{"a trailer of more bytes than a head has", "0\nX: " + strings.Repeat("a", 70_000), " | 431 the trailers are longer than the limit"},
	} {
		t.Run(c.name, func(t *testing.T) {
			text := strings.ReplaceAll(crlf(chunkedHead+c.body), "|\r\n", "\n")
			want := "POST / host=a | chunked:" + strings.Replace(c.want, " | ", "\n", 1)
			require.Equal(t, want, requests(t, text, limits))
		})
	}
}

func TestBodyIsCutOff(t *testing.T) {
	for _, c := range []struct{ name, head, body string }{
		{"by its length", "Content-Length: 5", "abcde"},
		{"of the greatest length", "Content-Length: 9223372036854775807", "abcdex"},
		{"chunked", "Transfer-Encoding: chunked", "5\r\nabcde\r\n0\r\nX-A: b\r\n\r\n"},
		{"in a chunk of the greatest size", "Transfer-Encoding: chunked", "7fffffffffffffff\r\nabcdex"},
	} {
		t.Run(c.name, func(t *testing.T) {
			head := "POST / HTTP/1.1\r\nHost: a\r\n" + c.head + "\r\n\r\n"
			for n := range len(c.body) {
				require.Contains(t, requests(t, head+c.body[:n], limits), "\ncut off", "after %q", c.body[:n])
			}
		})
	}
}

func TestBodyStaysAtItsEnd(t *testing.T) {
	r := http1.NewReader(strings.NewReader("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 1\r\n\r\nbGET / HTTP/1.1\r\n"), limits)
	var m message.Request
	_, err := r.ReadRequest(&m)
	require.NoError(t, err)
	chunk, err := m.Body.Next()
	require.NoError(t, err)
	require.Equal(t, "b", string(chunk))
	for range 3 {
		_, err = m.Body.Next()
		require.ErrorIs(t, err, io.EOF)
	}
	require.True(t, r.Buffered(), "the next request is left alone")
}

// TestReadyMeansThatNextWaitsForNothing receives a body in two parts. When the
// first part is there, Next is called for as long as the body is ready.
func TestReadyMeansThatNextWaitsForNothing(t *testing.T) {
	for _, c := range []struct {
		name, head, first, rest string
		got                     string // after the first part
	}{
		{"nothing of a length", "Content-Length: 3", "", "abc", ""},
		{"a part of a length", "Content-Length: 3", "ab", "c", "ab"},
		{"the whole of a length", "Content-Length: 3", "abc", "", "abc, end"},
		{"nothing of a chunk", "Transfer-Encoding: chunked", "", "1\r\na\r\n0\r\n\r\n", ""},
		{"a size without its line end", "Transfer-Encoding: chunked", "1", "\r\na\r\n0\r\n\r\n", ""},
		{"a size line alone", "Transfer-Encoding: chunked", "1\r\n", "a\r\n0\r\n\r\n", ""},
		{"a chunk in parts", "Transfer-Encoding: chunked", "3\r\nab", "c\r\n0\r\n\r\n", "ab"},
		{"a chunk", "Transfer-Encoding: chunked", "1\r\na", "\r\n0\r\n\r\n", "a"},
		{"a chunk and its line end", "Transfer-Encoding: chunked", "1\r\na\r\n", "0\r\n\r\n", "a"},
		{"a chunk and the next one's size", "Transfer-Encoding: chunked", "1\r\na\r\n2", "\r\nbc\r\n0\r\n\r\n", "a"},
		{"a chunk and the next one's size line", "Transfer-Encoding: chunked", "1\r\na\r\n2\r\n", "bc\r\n0\r\n\r\n", "a"},
		{"two chunks", "Transfer-Encoding: chunked", "1\r\na\r\n2\r\nbc", "\r\n0\r\n\r\n", "a, bc"},
		{"the last size without the end", "Transfer-Encoding: chunked", "1\r\na\r\n0\r\n", "\r\n", "a"},
		{"the last size with leading zeros", "Transfer-Encoding: chunked", "1\r\na\r\n000\r\n", "\r\n", "a"},
		{"a trailer without the end", "Transfer-Encoding: chunked", "0\r\nX-A: b\r\n", "\r\n", ""},
		{"the end", "Transfer-Encoding: chunked", "1\r\na\r\n0\r\n\r\n", "", "a, end"},
		{"the end behind trailers", "Transfer-Encoding: chunked", "0\r\nX-A: b\r\nX-C: d\r\n\r\n", "", "end"},
	} {
		t.Run(c.name, func(t *testing.T) {
			source := &parts{texts: []string{"POST / HTTP/1.1\r\nHost: a\r\n" + c.head + "\r\n\r\n" + c.first, c.rest}}
			r := http1.NewReader(source, limits)
			var m message.Request
			_, err := r.ReadRequest(&m)
			require.NoError(t, err)
			source.waits = true
			var got []string
			for m.Body.Ready() {
				chunk, err := m.Body.Next()
				if err != nil {
					require.ErrorIs(t, err, io.EOF)
					got = append(got, "end")
					break
				}
				got = append(got, string(chunk))
			}
			require.False(t, source.waited, "Next waited though the body was ready, after %q", got)
			require.Equal(t, c.got, strings.Join(got, ", "))
		})
	}
}

// parts gives one text with each Read. Once waits is set it notes that a Read
// would have waited.
type parts struct {
	texts         []string
	waits, waited bool
}

func (p *parts) Read(to []byte) (int, error) {
	p.waited = p.waits
	if len(p.texts) == 0 {
		return 0, io.EOF
	}
	n := copy(to, p.texts[0])
	p.texts = p.texts[1:]
	return n, nil
}
