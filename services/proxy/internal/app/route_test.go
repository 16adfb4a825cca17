package app_test

import (
	"bytes"
	"io"
	"slices"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/weirproxy/weir/services/proxy/internal/app"
)

func TestRouteCommand(t *testing.T) {
	good := func(args ...string) []string { return append([]string{"route", "-c", "testdata/good.yaml"}, args...) }
	two := text(t, "good.yaml", "  listeners:\n", `  listeners:
    - name: second
      address: {socket_address: {address: 127.0.0.1, port_value: 0}}
      filter_chains:
        - filters:
            - name: hcm
              typed_config:
                "@type": type.googleapis.com/envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager
                stat_prefix: second
                route_config: {name: routes}
                http_filters: [{name: router, typed_config: {"@type": type.googleapis.com/envoy.extensions.filters.http.router.v3.Router}}]
`)
	// What the connection manager does before it routes.
	mended := func(request string, fields ...string) []string {
		args := []string{"route", "--config-yaml", text(t, "good.yaml", "                stat_prefix: ingress\n", `                stat_prefix: ingress
                normalize_path: true
                merge_slashes: true
                path_with_escaped_slashes_action: UNESCAPE_AND_REDIRECT
                strip_any_host_port: true
                upgrade_configs: [{upgrade_type: websocket}]
`), "--request", request}
		for _, field := range fields {
			args = append(args, "-H", field)
		}
		return args
	}
	forbidden := mended("http://a/exact", "connection: upgrade", "upgrade: websocket")
	forbidden[2] = strings.Replace(forbidden[2], "timeout: 2s", "upgrade_configs: [{upgrade_type: websocket, enabled: false}]", 1)
	for name, c := range map[string]struct {
		args       []string
		out, fails string
		usage      bool // it is the command line that fails
	}{
		"--help": {[]string{"route", "--help"}, "-listener NAME", "", false},
		"explains": {good("--request", "PUT http://example.com/exact?a=1", "-H", "x-user: ann", "--client", "192.0.2.7"), `request          PUT http://example.com/exact?a=1
listener         ingress
virtual host     "all", by its domain "*"
route 1          "exact" matches: path is "/exact"
cluster          backend
rate limit       ("generic_key", "exact"), ("destination_cluster", "backend")
rate limit       ("user", "ann")
rate limit       ("remote_address", "192.0.2.7")
path             /exact?a=1
host             example.com
timeout          2s
priority         DEFAULT
`, "", false},
		"a path and Host":      {good("--request", "/other", "-H", "Host: a"), "request          GET http://a/other\n", "", false},
		"a host alone":         {good("--request", "https://a?b"), "request          GET https://a/?b\n", "", false},
		"a scheme by a header": {good("--request", "http://a", "-H", "x-forwarded-proto: https"), "request          GET https://a/\n", "", false},
		"by the listener":      {[]string{"route", "--config-yaml", two, "--request", "http://a/", "--listener", "second"}, "404: no route", "", false},
		"several listeners":    {[]string{"route", "--config-yaml", two, "--request", "http://a/"}, "", "several listeners have routes: choose one with --listener: second, ingress", false},
		"no such listener":     {good("--request", "http://a/", "--listener", "x"), "", "--listener x: no such listener with routes; those are: ingress", false},
		"no listener":          {[]string{"route", "--config-yaml", "{}", "--request", "http://a/"}, "", "no listener of the configuration has routes", false},
		"a faulty bootstrap":   {[]string{"route", "-c", "testdata/broken.yaml", "--request", "http://a/"}, "", "testdata/broken.yaml:3:50: ", false},
		"no bootstrap":         {[]string{"route", "--request", "http://a/"}, "", "no bootstrap: give one with -c FILE", true},
		"no request":           {good(), "", "no request: give one with --request", true},
		"no host":              {good("--request", "/a"), "", `--request "/a": there is no host`, true},
		"no URL":               {good("--request", "a"), "", `--request "a": neither a URL`, true},
		"another scheme":       {good("--request", "ftp://a/"), "", "the scheme is neither http nor https", true},
		"a fragment":           {good("--request", "http://a/#b"), "", "that of a request no #", true},
		"no header":            {good("--request", "http://a/", "-H", "x"), "", `-H "x": a header is a name, a colon and a value`, true},
		"no address":           {good("--request", "http://a/", "--client", "x"), "", "--client x: no IP address", true},
		"a stray argument":     {good("x"), "", `unexpected argument "x"`, true},
		"an unknown flag":      {good("--speed"), "", "proxy route --help lists the flags", true},
		"a path and a host that are normalized": {mended("http://example.com:81/a/..//exact?a=/.."), `request          GET http://example.com:81/a/..//exact?a=/..
listener         ingress
normalized path  /exact?a=/.., from /a/..//exact?a=/..
normalized host  example.com, from example.com:81
virtual host     "all", by its domain "*"
route 1          "exact" matches: path is "/exact"
`, "", false},
		"a redirect to a path":              {mended("http://a/b%2Fc"), "listener         ingress\nanswer           307, location: /b/c\n", "", false},
		"a path that is refused":            {mended("http://a/%00"), "listener         ingress\nanswer           400: a path that cannot be normalised\n", "", false},
		"a host that is refused":            {good("--request", "http://x:99999/exact"), "listener         ingress\nanswer           400: ", "", false},
		"a method that is refused":          {good("--request", "BREW http://x/exact"), "listener         ingress\nanswer           400: ", "", false},
		"too many headers":                  {good(append([]string{"--request", "http://x/exact"}, slices.Repeat([]string{"-H", "a:b"}, 30)...)...), "listener         ingress\nanswer           431: ", "", false},
		"an upgrade":                        {mended("http://a/exact", "connection: upgrade", "upgrade: websocket"), "\npriority         DEFAULT\nupgrade          websocket\n", "", false},
		"an upgrade that the route forbids": {forbidden, "\"exact\" matches: path is \"/exact\"\nanswer           403: no upgrade to websocket is configured\n", "", false},
		"a call of gRPC that is refused":    {mended("http://a/exact", "content-type: application/grpc", "connection: upgrade", "upgrade: other"), "\nanswer           200, grpc-status 7 for 403: no upgrade to other is configured\n", "", false},
		"a path of gRPC that is refused":    {mended("http://a/%00", "content-type: application/grpc"), "listener         ingress\nanswer           200, grpc-status 13 for 400: a path that cannot be normalised\n", "", false},
		"a path of gRPC that is mended":     {mended("http://a/b%2Fc", "content-type: application/grpc"), "listener         ingress\nanswer           200, grpc-status 2 for 307, location: /b/c\n", "", false},
		"a head of gRPC that is refused":    {good("--request", "BREW http://x/exact", "-H", "content-type: application/grpc"), "listener         ingress\nanswer           400: ", "", false},
		"an upgrade that is none":           {mended("http://a/exact", "connection: upgrade", "upgrade: other"), "matches: path is \"/exact\"\nanswer           403: no upgrade to other is configured\n", "", false},
		"headers that are dropped":          {good("--request", "http://a/exact", "-H", "keep-alive: 5", "-H", "x-envoy-max-retries: 3", "--client", "192.0.2.7"), "dropped headers  keep-alive, x-envoy-max-retries\n", "", false},
		"a scheme that is dropped":          {good("--request", "https://a/exact"), "scheme           http, as x-forwarded-proto of clients is not trusted\n", "", false},
		"CONNECT":                           {good("--request", "CONNECT a:80"), "virtual host     \"all\", by its domain \"*\"\nanswer           404: no route\n", "", false},
		"a line end":                        {good("--request", "http://a/", "-H", "a:b\nc:d"), "", "neither --request nor -H takes a line end", true},
		"OPTIONS of the server":             {good("--request", "OPTIONS *", "-H", "host: a"), "404: no route", "", false},
	} {
		t.Run(name, func(t *testing.T) {
			var out bytes.Buffer
			run, err := app.Command(c.args, "v1", &out, io.Discard)
			require.Equal(t, c.usage, err != nil, "a wrong command line: %v", err)
			if err == nil {
				err = run(t.Context())
			}
			require.Contains(t, out.String(), c.out)
			if c.fails == "" {
				require.NoError(t, err)
			} else {
				require.ErrorContains(t, err, c.fails)
			}
		})
	}
}
