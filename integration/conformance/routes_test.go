package conformance

import (
	"fmt"
	"io"
	"maps"
	"net"
	"net/http"
	"os"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/weirproxy/weir/integration/harness"
)

// routed are requests to the routes of testdata/routes.yaml: host, path and
// header fields.
var routed = [][]string{
	// Virtual hosts.
	{"x.mill.example", "/"}, {"x-old.mill.example", "/"}, {"A.Mill.Example", "/"}, {"a.mill.example:80", "/"}, {".mill.example", "/whole"},
	{"mill.net", "/"}, {"mill.", "/whole"}, {"unknown", "/whole"},
	{"tls.example", "/a?b"}, {"tls.example", "/a", "X-Forwarded-Proto: https"}, {"external.example", "/a?b"}, {"external.example", "/", "X-Envoy-Internal: true"},

	// Paths.
	{"granary", "/whole"}, {"granary", "/whole?a"}, {"granary", "/whole/"}, {"granary", "/Whole"}, {"granary", "/wHOLE/aNY?a"},
	{"granary", "/segments"}, {"granary", "/segments/a?b"}, {"granary", "/segmentsa"}, {"granary", "/segments?a"},
	{"granary", "/regex/12?a"}, {"granary", "/regex/a"}, {"granary", "/regex/12/"}, {"granary", "/prefixed"}, {"granary", "/none"},

	// Headers.
	{"granary", "/header/exact"}, {"granary", "/header/exact", "X-A: b"}, {"granary", "/header/exact", "x-a: c", "X-A: b"}, {"granary", "/header/exact", "X-A: c,b"},
	{"granary", "/header/inverted"}, {"granary", "/header/inverted", "X-A: c"}, {"granary", "/header/inverted", "X-A: c", "X-A: b"},
	{"granary", "/header/empty"}, {"granary", "/header/empty", "X-A: b"},
	{"granary", "/header/range"}, {"granary", "/header/range", "X-A: -10"}, {"granary", "/header/range", "X-A: 20"}, {"granary", "/header/range", "X-A: +7"},
	{"granary", "/header/range", "X-A: 1.5"}, {"granary", "/header/range", "X-A:"}, {"granary", "/header/range", "X-A: 99999999999999999999"},
	{"granary", "/header/present"}, {"granary", "/header/present", "X-A:"}, {"granary", "/header/absent"}, {"granary", "/header/absent", "X-A: b"},
	{"granary", "/header/neither"}, {"granary", "/header/neither", "X-A: b"}, {"granary", "/header/pseudo"}, {"mill", "/header/pseudo"},

	// Query parameters, and the rest.
	{"granary", "/query/text?a=1"}, {"granary", "/query/text?b&a=1"}, {"granary", "/query/text?a=2&a=1"}, {"granary", "/query/text?a=%31"}, {"granary", "/query/text"},
	{"granary", "/query/there?a"}, {"granary", "/query/there?b"}, {"granary", "/query/missing?a"}, {"granary", "/query/missing"},
	{"granary", "/grpc", "Content-Type: application/grpc-web"}, {"granary", "/grpc", "Content-Type: application/grpc+proto"}, {"granary", "/grpc", "Content-Type: application/grpc;a=b"}, {"granary", "/grpc"}, {"granary", "/never"}, {"granary", "/always"},

	// Redirects and direct responses.
	{"granary", "/to/https/a?b"}, {"granary:80", "/to/https"}, {"granary:81", "/to/https"}, {"[::1]:80", "/to/https"}, {"[::1]", "/to/https"},
	{"granary:443", "/to/https", "X-Forwarded-Proto: https"},
	{"granary", "/to/port"}, {"granary:80", "/to/port"}, {"granary", "/to/standard/port"}, {"granary", "/to/host/a?b"}, {"granary", "/to/host", "X-Forwarded-Proto: https"},
	{"granary", "/to/path?a"}, {"granary", "/to/query?bar=1"}, {"granary", "/to/prefix/a?b"}, {"granary", "/to/regex/to/regex?/to/regex"},
	{"granary", "/direct/created?a"}, {"granary", "/direct/moved"}, {"granary", "/direct/unmodified"}, {"granary", "/direct/teapot"},
	{"granary", "/direct/text?a"}, {"granary", "/direct/html?a", "X-A: b"}, {"granary", "/direct/json"},

	// What the backend gets.
	{"granary", "/up/prefix/a?headers&b"}, {"granary", "/up/prefixed?headers"}, {"granary", "/up/segments?headers"}, {"granary", "/up/segments/a?headers"},
	{"granary", "/up/Folded/a?headers"}, {"granary", "/up/regex/a?headers"}, {"granary", "/up/parts/a?headers"}, {"granary", "/up/parts?headers"},
	{"granary", "/up/same?headers"}, {"granary", "/up/nothing?headers"}, {"granary", "/up/prefix?headers", "X-Envoy-Original-Path: /theirs"},
	{"granary", "/up/host/literal?headers"}, {"granary", "/up/host/literal?headers", "X-Forwarded-Host: a"}, {"granary", "/up/host/literal?headers", "X-Forwarded-Host: a,granary"},
	{"granary", "/up/host/literal?headers", "X-Forwarded-Host: a", "X-Forwarded-Host: b"},
	{"granary", "/up/host/header?headers"}, {"granary", "/up/host/header?headers", "X-Host: new"}, {"granary", "/up/host/header?headers", "X-Host:"},
	{"granary", "/up/host/path/new/a?headers"}, {"granary", "/up/host/path/new:81/a?headers"},
	{"granary", "/up/host/format?headers", "X-Host: new"}, {"granary", "/up/host/format?headers"}, {"granary", "/up/host/auto?headers"}, {"granary", "/up/host/nameless?headers"},
	{"granary", "/up/format?headers", "X-A: a"}, {"granary", "/up/format?headers"},
	{"granary", "/to/format?a", "X-A: b"}, {"granary", "/to/format?a"}, {"granary", "/to/format/query?a", "X-A: b"},
	{"granary", "/up/weighted/host?headers"}, {"granary", "/up/weighted/both?headers"},
	{"granary", "/up/weighted/header?headers", "X-Number: 9"}, {"granary", "/up/weighted/header?headers", "X-Number: 10"},
	{"granary", "/up/weighted/header?headers", "X-Number: 30", "X-Cluster: up"}, {"granary", "/up/weighted/header?headers", "X-Number: 30", "X-Cluster: none"},
	{"granary", "/up/header?headers"}, {"granary", "/up/header?headers", "X-Cluster: none"}, {"granary", "/up/header?headers", "X-Cluster: up", "X-Cluster: none"},
	{"granary", "/up/headers?headers", "X-Secret: 1"},
}

func TestOurProxyAndARealEnvoyRouteAlike(t *testing.T) {
	text, err := os.ReadFile("testdata/routes.yaml")
	require.NoError(t, err)
	envoy, ours := bothBefore(t, func(host string) string {
		_, port, err := net.SplitHostPort(host)
		require.NoError(t, err)
		return strings.ReplaceAll(string(text), "port_value: PORT", "port_value: "+port)
	})
	for _, r := range routed {
		t.Run(strings.Join(r, " "), func(t *testing.T) {
			request := "GET " + r[1] + " HTTP/1.1\r\nHost: " + r[0] + "\r\n"
			for _, field := range r[2:] {
				request += field + "\r\n"
			}
			request += "\r\n"
			want := show(harness.SendRaw(t, envoy.Addr("ingress"), request))
			require.Equal(t, want, show(harness.SendRaw(t, ours.Addr("ingress"), request)))
		})
	}
}

// TestOurProxyAndARealEnvoyRouteHTTP2Alike is the same over HTTP/2 on both sides.
func TestOurProxyAndARealEnvoyRouteHTTP2Alike(t *testing.T) {
	text, err := os.ReadFile("testdata/routes.yaml")
	require.NoError(t, err)
	envoy, ours := bothBefore(t, func(host string) string {
		_, port, err := net.SplitHostPort(host)
		require.NoError(t, err)
		return strings.NewReplacer("port_value: PORT", "port_value: "+port, "    type: STATIC\n", "    type: STATIC\n    "+overHTTP2+"\n").Replace(string(text))
	})
	transport := &http.Transport{Protocols: new(http.Protocols), DisableCompression: true}
	transport.Protocols.SetUnencryptedHTTP2(true)
	defer transport.CloseIdleConnections()
	ask := func(p *harness.Process, method string, r []string) string {
		request, err := http.NewRequestWithContext(t.Context(), method, "http://"+p.Addr("ingress")+r[1], nil)
		require.NoError(t, err)
		request.Host = r[0]
		request.Header.Set("User-Agent", "mill")
		for _, field := range r[2:] {
			name, value, _ := strings.Cut(field, ":")
			request.Header.Add(name, strings.TrimSpace(value))
		}
		response, err := transport.RoundTrip(request)
		require.NoError(t, err)
		defer response.Body.Close()
		require.Equal(t, 2, response.ProtoMajor)
		body, err := io.ReadAll(response.Body)
		require.NoError(t, err)
		return show(harness.Answer{Status: response.StatusCode, Header: response.Header, Body: string(body)}, false)
	}
	for _, r := range routed {
		for _, method := range []string{"GET", "HEAD"} {
			t.Run(method+" "+strings.Join(r, " "), func(t *testing.T) {
				require.Equal(t, ask(envoy, method, r), ask(ours, method, r))
			})
		}
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
