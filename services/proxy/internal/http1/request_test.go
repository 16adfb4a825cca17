package http1_test

import (
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/weirproxy/weir/services/proxy/internal/http1"
)

func TestRequestIsRead(t *testing.T) {
	for _, c := range []struct{ name, text, want string }{
		{"the least", "GET / HTTP/1.1\nHost: a\n\n", "GET / host=a\n"},
		{"a query", "GET /a?b=/c?d HTTP/1.1\nHost: a\n\n", "GET /a?b=/c?d host=a\n"},
		{"names in lower case and values as they are", "GET / HTTP/1.1\nHOST: A.Example:80\nX-User: Ann\n\n", "GET / host=A.Example:80 x-user=Ann\n"},
		{"space around a value", "GET / HTTP/1.1\nHost:\ta \nX-A:  \t b c\t \nX-B:d\n\n", "GET / host=a x-a=b c x-b=d\n"},
		{"an empty value", "GET / HTTP/1.1\nHost: a\nX-A:\nX-B: \n\n", "GET / host=a x-a= x-b=\n"},
		{"a repeated field", "GET / HTTP/1.1\nX-A: 1\nHost: a\nX-A: 2\n\n", "GET / host=a x-a=1 x-a=2\n"},
		{"every character of a token in a name", "GET / HTTP/1.1\nHost: a\n!#$%&'*+-.^_`|~9: v\n\n", "GET / host=a !#$%&'*+-.^_`|~9=v\n"},
		{"bytes beyond ASCII in a value", "GET / HTTP/1.1\nHost: a\nX-A: \xff\xc3\xa4\n\n", "GET / host=a x-a=\xff\xc3\xa4\n"},
		{"one empty line before", "\nGET / HTTP/1.1\nHost: a\n\n", "GET / host=a\n"},
		{"OPTIONS *", "OPTIONS * HTTP/1.1\nHost: a\n\n", "OPTIONS * host=a\n"},
		{"the absolute form, whose host counts", "GET http://b:81/c?d HTTP/1.1\nHost: a\n\n", "GET /c?d host=b:81\n"},
		{"the absolute form in capitals", "GET HTTPS://b/c HTTP/1.1\nHost: a\n\n", "GET /c host=b\n"},
		{"the absolute form without a path", "GET http://b HTTP/1.1\nHost: a\n\n", "GET / host=b\n"},
		{"the absolute form with a query alone", "GET http://b?c HTTP/1.1\nHost: a\n\n", "GET /?c host=b\n"},
		{"the authority form", "CONNECT b:443 HTTP/1.1\nHost: a\n\n", "close: CONNECT  host=b:443\n"},
		{"an IPv6 host", "GET / HTTP/1.1\nHost: [::1]:80\n\n", "GET / host=[::1]:80\n"},
		{"a port left empty", "GET / HTTP/1.1\nHost: a:\n\n", "GET / host=a:\n"},
		{"the last port", "GET / HTTP/1.1\nHost: a:65535\n\n", "GET / host=a:65535\n"},
		{"connection: close", "GET / HTTP/1.1\nHost: a\nConnection: X-A , Close\n\n", "close: GET / host=a connection=X-A , Close\n"},
		{"connection: close in the second of two", "GET / HTTP/1.1\nHost: a\nConnection: keep-alive\nConnection: close\n\n", "close: GET / host=a connection=keep-alive connection=close\n"},
		{"proxy-connection: close", "GET / HTTP/1.1\nHost: a\nProxy-Connection: close\n\n", "close: GET / host=a proxy-connection=close\n"},
		{"a token that only begins with close", "GET / HTTP/1.1\nHost: a\nConnection: closed\n\n", "GET / host=a connection=closed\n"},
		{"expect: 100-continue", "PUT / HTTP/1.1\nHost: a\nExpect: 100-Continue\nContent-Length: 1\n\nb", "PUT / host=a content-length=1 (expects 100) | 1:b\n"},
		{"expect: 100-continue beside another expectation", "PUT / HTTP/1.1\nHost: a\nExpect: 100-continue\nExpect: tea\nContent-Length: 1\n\nb", "PUT / host=a expect=tea content-length=1 (expects 100) | 1:b\n"},
		{"a method of WebDAV", "MKCALENDAR / HTTP/1.1\nHost: a\n\n", "MKCALENDAR / host=a\n"},
		{"a content-length of 0", "POST / HTTP/1.1\nHost: a\nContent-Length: 0\n\n", "POST / host=a content-length=0\n"},
		{"a content-length with leading zeros", "POST / HTTP/1.1\nHost: a\nContent-Length: 003\n\nabc", "POST / host=a content-length=003 | 3:abc\n"},
		{"a body of a GET", "GET / HTTP/1.1\nHost: a\nContent-Length: 3\n\nabc", "GET / host=a content-length=3 | 3:abc\n"},
		{"a chunked body", "POST / HTTP/1.1\nHost: a\nTransfer-Encoding: Chunked\n\n3\nabc\n0\n\n", "POST / host=a | chunked:abc\n"},
		{"requests one behind the other", "POST /1 HTTP/1.1\nHost: a\nContent-Length: 3\n\nabcGET /2 HTTP/1.1\nHost: a\n\nPOST /3 HTTP/1.1\nHost: a\nTransfer-Encoding: chunked\n\n1\nx\n0\n\nGET /4 HTTP/1.1\nHost: a\n\n",
			"POST /1 host=a content-length=3 | 3:abc\nGET /2 host=a\nPOST /3 host=a | chunked:x\nGET /4 host=a\n"},
	} {
		t.Run(c.name, func(t *testing.T) {
			require.Equal(t, c.want+"end", requests(t, crlf(c.text), limits))
		})
	}
}

// TestRequestIsRefused has one offence in each message. A backslash-r is a
// bare CR, a | at the end of a line a bare LF.
func TestRequestIsRefused(t *testing.T) {
	for _, c := range []struct{ name, text, want string }{
		// Line ends.
		{"LF alone behind the request line", "GET / HTTP/1.1|\nHost: a\n\n", "400 a line that ends in LF without CR"},
		{"LF alone behind a field", "GET / HTTP/1.1\nHost: a|\n\n", "400 a line that ends in LF without CR"},
		{"LF alone as the empty line", "GET / HTTP/1.1\nHost: a\n|\n", "400 a line that ends in LF without CR"},
		{"LF alone before the request", "|\nGET / HTTP/1.1\nHost: a\n\n", "400 a line that ends in LF without CR"},
		{"CR within a value", "GET / HTTP/1.1\nHost: a\nX-A: b\rTransfer-Encoding: chunked\n\n", `400 control character 0x0d in the value of "x-a"`},
		{"CR at the end of a value", "GET / HTTP/1.1\nHost: a\nX-A: b\r\n\n", `400 control character 0x0d in the value of "x-a"`},
		{"CR within a name", "GET / HTTP/1.1\nHost: a\nX\r-A: b\n\n", `400 character 0x0d in the field name after "x"`},
		{"CR before a name", "GET / HTTP/1.1\nHost: a\n\rX-A: b\n\n", "400 a line that begins with CR"},
		{"CR alone on a line", "GET / HTTP/1.1\nHost: a\n\r\nContent-Length: 5\n\nhello", "400 a line that begins with CR"},

		// Names and values of fields.
		{"a folded field", "GET / HTTP/1.1\nHost: a\nX-A: b\n c\n\n", "400 a header field folded over two lines"},
		{"a field folded by a tab", "GET / HTTP/1.1\nHost: a\n\tc\n\n", "400 a header field folded over two lines"},
		{"space before the first field", "GET / HTTP/1.1\n Host: a\n\n", "400 a header field folded over two lines"},
		{"space before the colon", "GET / HTTP/1.1\nHost: a\nTransfer-Encoding : chunked\n\n", `400 space between the field name "transfer-encoding" and its colon`},
		{"a tab before the colon", "GET / HTTP/1.1\nHost: a\nX-A\t: b\n\n", `400 space between the field name "x-a" and its colon`},
		{"space within a name", "GET / HTTP/1.1\nHost: a\nX A: b\n\n", `400 space between the field name "x" and its colon`},
		{"no name", "GET / HTTP/1.1\nHost: a\n: b\n\n", "400 a header field without a name"},
		{"no colon", "GET / HTTP/1.1\nHost: a\nX-A\n\n", `400 character 0x0d in the field name after "x-a"`},
		{"a NUL in a name", "GET / HTTP/1.1\nHost: a\nX\x00: b\n\n", `400 character 0x00 in the field name after "x"`},
		{"a pseudo header", "GET / HTTP/1.1\nHost: a\n:path: /b\n\n", "400 a header field without a name"},
		{"a character beyond ASCII in a name", "GET / HTTP/1.1\nHost: a\nX-Ä: b\n\n", `400 character 0xc3 in the field name after "x-"`},
		{"a NUL in a value", "GET / HTTP/1.1\nHost: a\nX-A: b\x00\n\n", `400 control character 0x00 in the value of "x-a"`},
		{"an ESC in a value", "GET / HTTP/1.1\nHost: a\nX-A: \x1b[2J\n\n", `400 control character 0x1b in the value of "x-a"`},
		{"a DEL in a value", "GET / HTTP/1.1\nHost: a\nX-A: \x7f\n\n", `400 control character 0x7f in the value of "x-a"`},

		// Host.
		{"two hosts", "GET / HTTP/1.1\nHost: a\nHost: b\n\n", "400 2 host fields"},
		{"the same host twice", "GET / HTTP/1.1\nHost: a\nHost: a\n\n", "400 2 host fields"},
		{"an empty host", "GET / HTTP/1.1\nHost:\n\n", `400 host ""`},
		{"a port without a host", "GET / HTTP/1.1\nHost: :80\n\n", `400 host ":80"`},
		{"userinfo in the host", "GET / HTTP/1.1\nHost: u@a\n\n", `400 host "u@a"`},
		{"a path in the host", "GET / HTTP/1.1\nHost: a/b\n\n", `400 host "a/b"`},
		{"space in the host", "GET / HTTP/1.1\nHost: a b\n\n", `400 host "a b"`},
		{"letters for a port", "GET / HTTP/1.1\nHost: a:ab\n\n", `400 host "a:ab"`},
		{"a port that is too large", "GET / HTTP/1.1\nHost: a:65536\n\n", `400 host "a:65536"`},
		{"a port that would overflow", "GET / HTTP/1.1\nHost: a:18446744073709551696\n\n", `400 host "a:18446744073709551696"`},
		{"a bracket that stays open", "GET / HTTP/1.1\nHost: [::1\n\n", `400 host "[::1"`},
		{"nothing in brackets", "GET / HTTP/1.1\nHost: []\n\n", `400 host "[]"`},
		{"no address in brackets", "GET / HTTP/1.1\nHost: [a.b]\n\n", `400 host "[a.b]"`},
		{"an IPv4 address in brackets", "GET / HTTP/1.1\nHost: [127.0.0.1]\n\n", `400 host "[127.0.0.1]"`},
		{"an address with a zone", "GET / HTTP/1.1\nHost: [fe80::1%25eth0]\n\n", `400 host "[fe80::1%25eth0]"`},
		{"letters behind the bracket", "GET / HTTP/1.1\nHost: [::1]a\n\n", `400 host "[::1]a"`},
		{"an IPv6 address without brackets", "GET / HTTP/1.1\nHost: ::1\n\n", `400 host "::1"`},
		{"a CONNECT without a port's digits", "CONNECT a:b HTTP/1.1\nHost: a\n\n", `400 host "a:b"`},

		// Framing.
		{"two content-lengths", "POST / HTTP/1.1\nHost: a\nContent-Length: 3\nContent-Length: 4\n\nabcd", "400 two content-length fields"},
		{"two equal content-lengths", "POST / HTTP/1.1\nHost: a\nContent-Length: 3\nContent-Length: 3\n\nabc", "400 two content-length fields"},
		{"a list of content-lengths", "POST / HTTP/1.1\nHost: a\nContent-Length: 3, 3\n\nabc", `400 content-length "3, 3" is not a number`},
		{"an empty content-length", "POST / HTTP/1.1\nHost: a\nContent-Length:\n\n", "400 an empty content-length"},
		{"a content-length with a sign", "POST / HTTP/1.1\nHost: a\nContent-Length: +3\n\nabc", `400 content-length "+3" is not a number`},
		{"a negative content-length", "POST / HTTP/1.1\nHost: a\nContent-Length: -1\n\n", `400 content-length "-1" is not a number`},
		{"a hexadecimal content-length", "POST / HTTP/1.1\nHost: a\nContent-Length: 0x3\n\nabc", `400 content-length "0x3" is not a number`},
		{"a content-length in other digits", "POST / HTTP/1.1\nHost: a\nContent-Length: ３\n\nabc", `400 content-length "３" is not a number`},
		{"a content-length of 2⁶³", "POST / HTTP/1.1\nHost: a\nContent-Length: 9223372036854775808\n\n", `400 content-length "9223372036854775808" is too large`},
		{"content-length before transfer-encoding", "POST / HTTP/1.1\nHost: a\nContent-Length: 3\nTransfer-Encoding: chunked\n\n0\n\n", "400 both content-length and transfer-encoding"},
		{"transfer-encoding before content-length", "POST / HTTP/1.1\nHost: a\nTransfer-Encoding: chunked\nContent-Length: 3\n\n0\n\n", "400 both content-length and transfer-encoding"},
		{"another coding", "POST / HTTP/1.1\nHost: a\nTransfer-Encoding: gzip\n\n", "501 a transfer-encoding other than one chunked"},
		{"identity", "POST / HTTP/1.1\nHost: a\nTransfer-Encoding: identity\n\n", "501 a transfer-encoding other than one chunked"},
		{"an empty transfer-encoding", "POST / HTTP/1.1\nHost: a\nTransfer-Encoding:\n\n", "501 a transfer-encoding other than one chunked"},
		{"chunked behind another coding", "POST / HTTP/1.1\nHost: a\nTransfer-Encoding: gzip, chunked\n\n0\n\n", "501 a transfer-encoding other than one chunked"},
		{"chunked before another coding", "POST / HTTP/1.1\nHost: a\nTransfer-Encoding: chunked, identity\n\n0\n\n", "501 a transfer-encoding other than one chunked"},
		{"chunked twice", "POST / HTTP/1.1\nHost: a\nTransfer-Encoding: chunked, chunked\n\n0\n\n", "501 a transfer-encoding other than one chunked"},
		{"chunked in two fields", "POST / HTTP/1.1\nHost: a\nTransfer-Encoding: chunked\nTransfer-Encoding: chunked\n\n0\n\n", "501 a transfer-encoding other than one chunked"},
		{"chunked and an empty field", "POST / HTTP/1.1\nHost: a\nTransfer-Encoding: chunked\nTransfer-Encoding:\n\n0\n\n", "501 a transfer-encoding other than one chunked"},
		{"an empty field and chunked", "POST / HTTP/1.1\nHost: a\nTransfer-Encoding:\nTransfer-Encoding: chunked\n\n0\n\n", "501 a transfer-encoding other than one chunked"},
		{"chunked with a parameter", "POST / HTTP/1.1\nHost: a\nTransfer-Encoding: chunked;q=1\n\n0\n\n", "501 a transfer-encoding other than one chunked"},
		{"a control before chunked", "POST / HTTP/1.1\nHost: a\nTransfer-Encoding: \x0bchunked\n\n0\n\n", `400 control character 0x0b in the value of "transfer-encoding"`},
	} {
		t.Run(c.name, func(t *testing.T) {
			text := strings.ReplaceAll(crlf(c.text), "|\r\n", "\n")
			require.Equal(t, c.want, requests(t, text, limits))
		})
	}
}

func TestRequestIsCutOff(t *testing.T) {
	const whole = "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\n\r\nabc"
	require.Equal(t, "end", requests(t, "", limits))
	for n := 1; n < len(whole); n++ {
		require.Contains(t, requests(t, whole[:n], limits), "cut off", "after %q", whole[:n])
	}
}

func TestHeadLimits(t *testing.T) {
	small := http1.Limits{HeadBytes: 100, Headers: 3}
	// head is a request of size bytes, the empty line at its end left out, and
	// what is read of it.
	head := func(size int) (text, want string) {
		const start = "GET / HTTP/1.1\r\nHost: a\r\nX: "
		value := strings.Repeat("x", size-len(start)-2)
		return start + value + "\r\n\r\n", "GET / host=a x=" + value + "\nend"
	}
	greatest, greatestWant := head(100)
	grown, grownWant := head(50 << 10)
	longer, _ := head(101)
	longest, _ := head(60<<10 + 1)
	for _, c := range []struct {
		name, text string
		limits     http1.Limits
		want       string
	}{
		{"a head of the greatest size", greatest, small, greatestWant},
		{"a head of a byte more", longer, small, "431 the head is longer than the limit"},
		{"a line without end", strings.Repeat("x", 102), small, "431 the head is longer than the limit"},
		{"a head larger than the buffer at first", grown, limits, grownWant},
		{"a head beyond the default", longest, limits, "431 the head is longer than the limit"},
		{"the greatest number of fields, host among them", crlf("GET / HTTP/1.1\nA: 1\nB: 2\nHost: a\n\n"), small, "GET / host=a a=1 b=2\nend"},
		{"one field more", crlf("GET / HTTP/1.1\nA: 1\nB: 2\nHost: a\nC: 3\n\n"), small, "431 more header fields than the limit"},
	} {
		t.Run(c.name, func(t *testing.T) {
			require.Equal(t, c.want, requests(t, c.text, c.limits))
		})
	}
}

func TestWaitSeesTheNextRequestOrTheEnd(t *testing.T) {
	r := http1.NewReader(strings.NewReader("G"), limits)
	require.False(t, r.Buffered())
	require.NoError(t, r.Wait())
	require.True(t, r.Buffered())
	require.NoError(t, r.Wait(), "the byte is still there")
	require.Error(t, http1.NewReader(strings.NewReader(""), limits).Wait())
}
