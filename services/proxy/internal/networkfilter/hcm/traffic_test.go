package hcm_test

import (
	"fmt"
	"io"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/weirproxy/weir/internal/http2"
)

// traffic is a format of what goes over the wire.
const traffic = "%DOWNSTREAM_WIRE_BYTES_RECEIVED% %DOWNSTREAM_HEADER_BYTES_RECEIVED% %DOWNSTREAM_WIRE_BYTES_SENT% " +
	"%UPSTREAM_WIRE_BYTES_SENT% %UPSTREAM_HEADER_BYTES_RECEIVED% %UPSTREAM_WIRE_BYTES_RECEIVED%\n"

// TestAccessLogTellsOfTheTrafficOfEachRequest has two requests come at once, of which the
// first is sent to the host twice.
func TestAccessLogTellsOfTheTrafficOfEachRequest(t *testing.T) {
	l, up := newAccessLog(t, traffic), newUpstream(t)
	p := start(t, up.address(), config{fields: l.field, logs: l.files, route: `, "retry_policy": {"retry_on": "5xx"}`})
	client := p.dial()
	const post = "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\ngrain"
	const again = "HTTP/1.1 503 Later\r\nConnection: close\r\nContent-Length: 0\r\n\r\n"
	const ok = "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"
	client.send(post + get)
	server := up.accept()
	sent := len(server.head() + "grain")
	server.read("grain")
	server.send(again)
	server = up.accept()
	sent += len(server.head() + "grain")
	server.read("grain")
	server.send(ok)
	answer := len(client.head() + "ok")
	client.read("ok")
	const postFields, okFields = len("Host:a\r\nContent-Length:5\r\n"), len("Content-Length:2\r\n")
	const againFields = len("Connection:close\r\nContent-Length:0\r\n")
	require.Equal(t, fmt.Sprint(len(post), postFields, answer, sent, againFields+okFields, len(again+ok)), l.lines(1)[0])

	sent = len(server.head())
	server.send(ok)
	answer = len(client.head() + "ok")
	client.read("ok")
	require.Equal(t, fmt.Sprint(len(get), len("Host:a\r\n"), answer, sent, okFields, len(ok)), l.lines(2)[1], "on the same connections")

	client.send("{what?\r\n")
	answer = len(client.head())
	rest, err := io.ReadAll(client.r)
	require.NoError(t, err)
	require.Equal(t, fmt.Sprint(len("{what?\r\n"), 0, answer+len(rest), 0, 0, 0), l.lines(3)[2])
}

func TestAccessLogTellsOfTheTrafficOfAStream(t *testing.T) {
	l, up := newAccessLog(t, traffic), newUpstream(t)
	p := start(t, up.address(), config{fields: l.field, logs: l.files})
	s := open(t, p.dialHTTP2(), "POST /", false, "x-a: b")
	require.NoError(t, s.WriteData([]byte("grain"), true))
	server := up.accept()
	sent := len(server.head() + "5\r\ngrain\r\n0\r\n\r\n")
	server.read("5\r\ngrain\r\n0\r\n\r\n")
	const ok = "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"
	server.send(ok)
	require.NoError(t, s.ReadHead(&http2.Head{}))
	for err := error(nil); err == nil; {
		_, err = s.Next()
	}
	received, ours := s.Traffic()
	require.Equal(t, fmt.Sprint(ours.Wire, ours.Headers, received.Wire, sent, len("Content-Length:2\r\n"), len(ok)), l.lines(1)[0])
}
