package conformance

import (
	"fmt"
	"maps"
	"net/http"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/weirproxy/weir/integration/harness"
)

// requests are sent as they stand to our proxy and to a real Envoy.
var requests = []struct{ name, text string }{
	{"a_GET", "GET /a?b=c HTTP/1.1\r\nHost: mill\r\n\r\n"},
	{"the_head_that_the_backend_gets", "GET /?headers HTTP/1.1\r\nHost: mill\r\nX-User: vip\r\nAccept: */*\r\n\r\n"},
	{"headers_of_the_hop_are_the_proxy's", "GET /?headers HTTP/1.1\r\nHost: mill\r\nConnection: keep-alive, x-hop\r\nX-Hop: 1\r\nKeep-Alive: timeout=5\r\nProxy-Connection: close\r\nTE: gzip\r\n\r\n"},
	{"headers_that_only_a_proxy_may_set", "GET /?headers HTTP/1.1\r\nHost: mill\r\nX-Forwarded-For: 10.0.0.9\r\nX-Envoy-Internal: true\r\nX-Forwarded-Proto: https\r\n\r\n"},
	{"header_values_stay_as_they_are", "GET /?headers HTTP/1.1\r\nHost: mill\r\nX-A:  one\t two  \r\nX-B:\r\nx-a: three\r\n\r\n"},
	{"HEAD", "HEAD /a HTTP/1.1\r\nHost: mill\r\n\r\n"},
	{"a_POST_with_a_length", "POST / HTTP/1.1\r\nHost: mill\r\nContent-Length: 5\r\nContent-Type: text/x-grain\r\n\r\ngrain"},
	{"a_POST_in_chunks", "POST / HTTP/1.1\r\nHost: mill\r\nTransfer-Encoding: chunked\r\n\r\n3\r\ngra\r\n2;x=y\r\nin\r\n0\r\n\r\n"},
	{"a_POST_of_nothing", "POST /a HTTP/1.1\r\nHost: mill\r\nContent-Length: 0\r\n\r\n"},
	{"an_answer_of_204", "GET /?status=204 HTTP/1.1\r\nHost: mill\r\n\r\n"},
	{"an_answer_of_304", "GET /?status=304 HTTP/1.1\r\nHost: mill\r\n\r\n"},
	{"an_answer_of_500", "GET /?status=500 HTTP/1.1\r\nHost: mill\r\n\r\n"},
	{"an_answer_of_nothing", "GET /?bytes=0 HTTP/1.1\r\nHost: mill\r\n\r\n"},
	{"a_long_answer", "GET /?bytes=200000 HTTP/1.1\r\nHost: mill\r\n\r\n"},
	{"a_client_that_closes", "GET /a HTTP/1.1\r\nHost: mill\r\nConnection: close\r\n\r\n"},
	{"a_client_that_waits_to_send", "POST / HTTP/1.1\r\nHost: mill\r\nContent-Length: 5\r\nExpect: 100-continue\r\n\r\ngrain"},
	{"an_absolute_target", "GET http://granary/a HTTP/1.1\r\nHost: mill\r\n\r\n"},
	{"OPTIONS_of_the_server", "OPTIONS * HTTP/1.1\r\nHost: mill\r\n\r\n"},
	{"an_empty_line_before_the_request", "\r\nGET /a HTTP/1.1\r\nHost: mill\r\n\r\n"},
	{"an_escaped_path", "GET /a%2Fb/../c//d HTTP/1.1\r\nHost: mill\r\n\r\n"},
}

// refused are malformed; of their answers only the status is the same, and that
// the connection ends.
var refused = []struct{ name, text string }{
	{"no_version", "GET /\r\n\r\n"},
	{"HTTP_1.0", "GET / HTTP/1.0\r\nHost: a\r\n\r\n"},
	{"a_version_that_is_none", "GET / HTTP/1.x\r\nHost: a\r\n\r\n"},
	{"no_host", "GET / HTTP/1.1\r\n\r\n"},
	{"a_method_that_is_none", "G@T / HTTP/1.1\r\nHost: a\r\n\r\n"},
	{"a_header_without_a_colon", "GET / HTTP/1.1\r\nHost: a\r\nnonsense\r\n\r\n"},
	{"a_header_with_space_in_its_name", "GET / HTTP/1.1\r\nHost: a\r\nx y: z\r\n\r\n"},
	{"a_header_without_a_name", "GET / HTTP/1.1\r\nHost: a\r\n: z\r\n\r\n"},
	{"a_zero_byte_in_a_value", "GET / HTTP/1.1\r\nHost: a\r\nx: \x00\r\n\r\n"},
	{"a_length_that_is_none", "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 1x\r\n\r\n"},
	{"two_lengths", "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\nab"},
	{"a_length_and_chunks", "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n"},
	{"a_head_that_is_too_long", "GET / HTTP/1.1\r\nHost: a\r\nx: " + strings.Repeat("y", 80<<10) + "\r\n\r\n"},
}

func TestOurProxyAndARealEnvoyGiveTheSameAnswers(t *testing.T) {
	envoy := harness.NewStack(t, harness.Options{Envoy: true})
	ours := harness.NewStack(t, harness.Options{})
	for _, s := range []*harness.Stack{envoy, ours} {
		s.AddHost("echo-1")
	}
	for _, r := range requests {
		t.Run(r.name, func(t *testing.T) {
			want := show(harness.SendRaw(t, envoy.Ingress(), r.text))
			require.Equal(t, want, show(harness.SendRaw(t, ours.Ingress(), r.text)))
		})
	}
	for _, r := range refused {
		t.Run(r.name, func(t *testing.T) {
			want, wantClosed := harness.SendRaw(t, envoy.Ingress(), r.text)
			got, closed := harness.SendRaw(t, ours.Ingress(), r.text)
			require.Equal(t, want.Status, got.Status)
			require.True(t, wantClosed && closed, "both close the connection")
		})
	}
}

// show writes an answer as text, without what differs from one to the next and
// without what is meant to differ: the server's name.
func show(a harness.Answer, closed bool) string {
	var b strings.Builder
	fmt.Fprintf(&b, "%d closed=%v\n", a.Status, closed)
	for _, name := range slices.Sorted(maps.Keys(a.Header)) {
		for _, value := range a.Header.Values(name) {
			switch name {
			case "Server":
				continue
			case "Date", "X-Envoy-Upstream-Service-Time":
				value = "*"
			}
			fmt.Fprintf(&b, "%s: %s\n", http.CanonicalHeaderKey(name), value)
		}
	}
	fmt.Fprintf(&b, "\n%s", requestID.ReplaceAllString(a.Body, "x-request-id: *"))
	return b.String()
}

// requestID is the header as the backend shows it.
var requestID = regexp.MustCompile(`x-request-id: [0-9a-f]{8}-[0-9a-f]{4}-4[0-9a-f]{3}-[0-9a-f]{4}-[0-9a-f]{12}`)
