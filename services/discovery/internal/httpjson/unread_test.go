package httpjson_test

import (
	"bufio"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/weirproxy/weir/services/discovery/internal/httpjson"
)

func TestWhatIsNoRequestIsAnsweredInJSON(t *testing.T) {
	server := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		_, _ = io.Copy(w, r.Body)
	}))
	server.Listener = httpjson.Unread(server.Listener)
	server.Config.MaxHeaderBytes = 1000
	server.Start()
	defer server.Close()
	const host, head = " HTTP/1.1\r\nHost: a\r\n", "HTTP/1.1 400 Bad Request\r\nContent-Type: text/plain; charset=utf-8\r\nConnection: close\r\n\r\n"
	for name, test := range map[string]struct {
		sent   string
		status int
		want   string
	}{
		"a broken escape":        {"GET /%zz" + host + "\r\n", 400, `{"error":"this is no request that can be read: 400 Bad Request"}`},
		"no words of HTTP":       {"hello\r\n\r\n", 400, `{"error":"this is no request that can be read: 400 Bad Request"}`},
		"no host":                {"GET / HTTP/1.1\r\n\r\n", 400, `{"error":"this is no request that can be read: 400 Bad Request: missing required Host header"}`},
		"a head that is too big": {"GET /" + host + "a: " + strings.Repeat("x", 20_000) + "\r\n\r\n", 431, `{"error":"this is no request that can be read: 431 Request Header Fields Too Large"}`},
		"another coding":         {"POST /" + host + "Transfer-Encoding: gzip\r\n\r\n", 501, `{"error":"this is no request that can be read: Unsupported transfer encoding"}`},
		"a version of its own":   {"GET / HTTP/9.9\r\nHost: a\r\n\r\n", 505, `{"error":"this is no request that can be read: 505 HTTP Version Not Supported: unsupported protocol version"}`},
		"a body that reads so":   {"POST /" + host + "Content-Length: 88\r\nConnection: close\r\n\r\n" + head, 200, head},
	} {
		t.Run(name, func(t *testing.T) {
			conn, err := net.Dial("tcp", server.Listener.Addr().String())
			require.NoError(t, err)
			defer conn.Close()
			_, err = io.WriteString(conn, test.sent)
			require.NoError(t, err)
			response, err := http.ReadResponse(bufio.NewReader(conn), nil)
			require.NoError(t, err)
			defer response.Body.Close()
			body, err := io.ReadAll(response.Body)
			require.NoError(t, err)
			require.Equal(t, test.status, response.StatusCode)
			require.Equal(t, strings.TrimSpace(test.want), strings.TrimSpace(string(body)))
			if test.status != 200 {
				require.Equal(t, "application/json", response.Header.Get("Content-Type"))
				require.EqualValues(t, len(body), response.ContentLength)
			}
		})
	}
}
