package http1_test

import (
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/weirproxy/weir/services/proxy/internal/http1"
	"github.com/weirproxy/weir/services/proxy/internal/message"
)

// TestRequestLineIsRefused has one offence in each line. A backslash-r is a bare CR, a |
// at the end of a line a bare LF.
func TestRequestLineIsRefused(t *testing.T) {
	const rest = " HTTP/1.1\nHost: a\n\n"
	for _, c := range []struct{ name, text, want string }{
		{"a word alone", "GET\n\n", "400 a request line that is not method, target and version"},
		{"no method", " / HTTP/1.1\n\n", "400 character 0x20 at the start of a message"},
		{"no target", "GET HTTP/1.1\nHost: a\n\n", "400 a request line that is not method, target and version"},
		{"two spaces before the target", "GET  /" + rest, "400 character 0x20 in the request target"},
		{"two spaces behind the target", "GET / " + rest, "400 character 0x20 in the request target"},
		{"a space within the target", "GET /a b" + rest, "400 character 0x20 in the request target"},
		{"a tab for a space", "GET\t/" + rest, "400 a request line that is not method, target and version"},
		{"a space at the end of the line", "GET / HTTP/1.1 \nHost: a\n\n", `400 version ""`},
		{"a NUL in the target", "GET /\x00" + rest, "400 character 0x00 in the request target"},
		{"a DEL in the target", "GET /\x7f" + rest, "400 character 0x7f in the request target"},
		{"a byte beyond ASCII in the target", "GET /ä" + rest, "400 character 0xc3 in the request target"},
		{"a fragment behind a host", "GET http://a#b" + rest, `400 host "a#b"`},
		{"a fragment alone", "GET #b" + rest, `400 request target "#b"`},
		{"a path without a slash", "GET a" + rest, `400 request target "a"`},
		{"* with another method than OPTIONS", "GET *" + rest, `400 request target "*"`},
		{"another scheme", "GET ftp://a/" + rest, `400 request target "ftp://a/"`},
		{"a scheme without a host", "GET http:///a" + rest, `400 host ""`},
		{"userinfo in the target", "GET http://u:p@a/" + rest, `400 host "u:p@a"`},
		{"a method in small letters", "get /" + rest, `400 unknown method "get"`},
		{"a method that nobody knows", "FETCH /" + rest, `400 unknown method "FETCH"`},
		{"the preface of HTTP/2", "PRI * HTTP/2.0\n\nSM\n\n", `400 unknown method "PRI"`},
		{"two empty lines before", "\n\nGET /" + rest, "400 empty lines before the start line"},
		{"CR within the line", "GET /\rX" + rest, "400 CR within the request line"},
		{"CR behind the version", "GET / HTTP/1.1\r\nHost: a\n\n", "400 CR within the request line"},
		{"another protocol, without the head's end", "EHLO a\n", "400 a request line that is not method, target and version"},
		{"another version, without the head's end", "GET / HTTP/1.2\n", "426 version HTTP/1.2"},
		{"a bad line before another fault", "hello\nX: a|\n\n", "400 a request line that is not method, target and version"},
		{"a TLS handshake, without a line's end", "\x16\x03\x01\x00", "400 character 0x16 at the start of a message"},

		// The version.
		{"HTTP/0.9", "GET /\n\n", "426 no version"},
		{"HTTP/1.0", "GET / HTTP/1.0\nHost: a\n\n", "426 version HTTP/1.0"},
		{"HTTP/1.2", "GET / HTTP/1.2\nHost: a\n\n", "426 version HTTP/1.2"},
		{"HTTP/2.0", "GET / HTTP/2.0\nHost: a\n\n", "426 version HTTP/2.0"},
		{"HTTP/9.9", "GET / HTTP/9.9\nHost: a\n\n", "426 version HTTP/9.9"},
		{"a version of two digits", "GET / HTTP/1.10\nHost: a\n\n", `400 version "HTTP/1.10"`},
		{"a version in small letters", "GET / http/1.1\nHost: a\n\n", `400 version "http/1.1"`},
		{"another protocol", "GET / ICY/1.1\nHost: a\n\n", `400 version "ICY/1.1"`},
	} {
		t.Run(c.name, func(t *testing.T) {
			text := strings.ReplaceAll(crlf(c.text), "|\r\n", "\n")
			require.Equal(t, c.want, requests(t, text, limits))
		})
	}
}

func TestStatusLineIsRefused(t *testing.T) {
	for _, c := range []struct{ name, text, want string }{
		{"another protocol", "ICY 200 OK\n\n", "400 a response that does not begin with HTTP/1."},
		{"HTTP/2", "HTTP/2.0 200 OK\n\n", "400 a response that does not begin with HTTP/1."},
		{"a request", "GET / HTTP/1.1\nHost: a\n\n", "400 a response that does not begin with HTTP/1."},
		{"HTTP/0.9, without a line's end", "hello", "400 a response that does not begin with HTTP/1."},
		{"a bad status, without the head's end", "HTTP/1.1 2xx OK\n", `400 status line "HTTP/1.1 2xx OK"`},
		{"no status", "HTTP/1.1\n\n", `400 status line "HTTP/1.1"`},
		{"a status of two digits", "HTTP/1.1 20 OK\n\n", `400 status line "HTTP/1.1 20 OK"`},
		{"a status of four digits", "HTTP/1.1 2000 OK\n\n", `400 status line "HTTP/1.1 2000 OK"`},
		{"a status with letters", "HTTP/1.1 2xx OK\n\n", `400 status line "HTTP/1.1 2xx OK"`},
		{"two spaces before the status", "HTTP/1.1  200 OK\n\n", `400 status line "HTTP/1.1  200 OK"`},
		{"status 099", "HTTP/1.1 099 OK\n\n", "400 status 99"},
		{"an empty line before", "\nHTTP/1.1 200 OK\n\n", "400 empty lines before the start line"},
		{"status 600", "HTTP/1.1 600 OK\n\n", "400 status 600"},
		{"a control in the reason", "HTTP/1.1 200 \x07\n\n", "400 control character 0x07 in the reason"},
		{"CR in the reason", "HTTP/1.1 200 O\rK\n\n", "400 CR within the status line"},
	} {
		t.Run(c.name, func(t *testing.T) {
			require.Equal(t, c.want, responses(t, crlf(c.text), "GET"))
		})
	}
}

// TestVersionIsOfTheRequestReadLast reads a request of HTTP/1.0 first, whose version must
// not be taken for that of what follows.
func TestVersionIsOfTheRequestReadLast(t *testing.T) {
	const first = "GET / HTTP/1.0\nHost: a\nConnection: keep-alive\n\n"
	for _, c := range []struct {
		name, text string
		http10     bool
		want       string // the refusal
	}{
		{"HTTP/1.0", "GET / HTTP/1.0\nHost: a\n\n", true, ""},
		{"HTTP/1.0 with a field that is refused", "GET / HTTP/1.0\nHost: a\nHost: a\n\n", true, "400 2 host fields"},
		{"HTTP/1.1", "GET / HTTP/1.1\nHost: a\n\n", false, ""},
		{"a version that is refused", "GET / HTTP/1.2\n\n", false, "426 version HTTP/1.2"},
		{"HTTP/1.0 with a target that is refused", "GET /\x7f HTTP/1.0\n\n", false, "400 character 0x7f in the request target"},
		{"HTTP/1.0 and a line that is refused", "GET / HTTP/1.0\nHost: a|\n\n", false, "400 a line that ends in LF without CR"},
		{"HTTP/1.0, cut off", "GET / HTTP/1.0\nHost: a\n", false, "cut off"},
	} {
		t.Run(c.name, func(t *testing.T) {
			text := strings.ReplaceAll(crlf(first+c.text), "|\r\n", "\n")
			r := http1.NewReader(strings.NewReader(text), limits)
			r.Options.AcceptHTTP10 = true
			var m message.Request
			_, err := r.ReadRequest(&m)
			require.NoError(t, err)
			require.True(t, r.HTTP10())
			_, err = r.ReadRequest(&m)
			if c.want == "" {
				require.NoError(t, err)
			} else {
				require.Equal(t, c.want, ending(err))
			}
			require.Equal(t, c.http10, r.HTTP10())
		})
	}
}
