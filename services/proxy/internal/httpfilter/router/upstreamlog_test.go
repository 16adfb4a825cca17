package router_test

import (
	"context"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"

	routerv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/http/router/v3"
	"github.com/stretchr/testify/require"
	"google.golang.org/protobuf/encoding/protojson"

	"github.com/weirproxy/weir/internal/servicetest"
	"github.com/weirproxy/weir/services/proxy/internal/accesslog"
	"github.com/weirproxy/weir/services/proxy/internal/httpfilter"
	"github.com/weirproxy/weir/services/proxy/internal/httpfilter/filtertest"
	"github.com/weirproxy/weir/services/proxy/internal/httpfilter/router"
	"github.com/weirproxy/weir/services/proxy/internal/message"
	"github.com/weirproxy/weir/services/proxy/internal/stats"
	"github.com/weirproxy/weir/services/proxy/internal/strict"

	_ "github.com/envoyproxy/go-control-plane/envoy/extensions/access_loggers/file/v3" // which is named in a configuration
)

// logging is a router that logs attempts, with further fields, and the lines so far,
// which stop ends.
func logging(t testing.TB, fields string) (config httpfilter.Config, stop func() []string) {
	t.Helper()
	path := filepath.Join(t.TempDir(), "log")
	m, report := &routerv3.Router{}, &strict.Report{}
	require.NoError(t, protojson.Unmarshal(fmt.Appendf(nil, `{"upstream_log": [{"name": "log", "typed_config": {
		"@type": "type.googleapis.com/envoy.extensions.access_loggers.file.v3.FileAccessLog", "path": %q,
		"log_format": {"text_format_source": {"inline_string":
			"%%ACCESS_LOG_TYPE%% %%UPSTREAM_HOST%% %%RESPONSE_CODE%% %%RESPONSE_FLAGS%% %%PROTOCOL%% %%BYTES_SENT%%/%%BYTES_RECEIVED%% %%UPSTREAM_REQUEST_ATTEMPT_COUNT%% %%REQ(X-ENVOY-ATTEMPT-COUNT)%% %%RESP(CONTENT-LENGTH)%% %%RESPONSE_CODE_DETAILS%%\n"}}}}]%s}`, path, fields), m))
	files := accesslog.NewFiles(stats.NewRegistry(), slog.New(slog.DiscardHandler))
	config = router.Factory{AccessLogs: files}.Parse(m, "", report)
	filtertest.Measure(config)
	require.NoError(t, report.Err())
	require.NoError(t, files.Open())
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- files.Run(ctx) }() // ends with stop
	stopped := false
	stop = func() []string {
		if !stopped {
			stopped = true
			cancel()
			require.NoError(t, <-done)
		}
		text, err := os.ReadFile(path)
		require.NoError(t, err)
		return strings.Split(strings.TrimSuffix(string(text), "\n"), "\n")
	}
	t.Cleanup(func() { stop() })
	return config, stop
}

func TestEachAttemptIsLogged(t *testing.T) {
	const retried = `, "retry_policy": {` + quick + `, "retry_on": "5xx", "num_retries": 2}`
	for name, c := range map[string]struct {
		fields, action string
		script         []string
		body           message.Body
		want           string // the host is H
	}{
		"one":         {"", "", []string{fine}, nil, "UpstreamEnd H 200 - HTTP/1.1 0/4 1 1 4 -"},
		"with a body": {"", "", []string{fine}, message.NewBytes([]byte("text")), "UpstreamEnd H 200 - HTTP/1.1 4/4 1 1 4 -"},
		"each by itself": {"", retried, []string{unavailable, shut, fine}, message.NewBytes([]byte("text")), `UpstreamEnd H 503 - HTTP/1.1 4/0 1 1 2 -
UpstreamEnd H 0 UC HTTP/1.1 4/0 2 2 - -
UpstreamEnd H 200 - HTTP/1.1 4/4 3 3 4 -`},
		"as it begins": {`, "upstream_log_options": {"flush_upstream_log_on_upstream_stream": true}`, "", []string{fine}, nil, `UpstreamPoolReady H 0 - HTTP/1.1 0/0 1 1 - -
UpstreamEnd H 200 - HTTP/1.1 0/4 1 1 4 -`},
		"a try that takes too long": {"", `, "retry_policy": {"per_try_timeout": "1s"}`, []string{hang}, nil, "UpstreamEnd H 0 UT HTTP/1.1 0/0 1 1 - -"},
		"a timeout":                 {"", `, "timeout": "1s"`, []string{hang}, nil, "UpstreamEnd H 0 - HTTP/1.1 0/0 1 1 - -"},
		"a malformed answer":        {"", "", []string{"HTTP/1.1 abc\r\n\r\n"}, nil, "UpstreamEnd H 0 UPE HTTP/1.1 0/0 1 1 - -"},
		"one that is malformed within its body": {"", "", []string{"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n4\r\nfine\r\nxyz\r\n"}, nil,
			"UpstreamEnd H 200 UPE HTTP/1.1 0/4 1 1 - -"},
	} {
		t.Run(name, func(t *testing.T) {
			u := newScripted(t, c.script...)
			up, _ := clusterOf(t, `"connect_timeout": "5s"`, u.address)
			config, stop := logging(t, c.fields)
			sendThrough(t, config, nil, up, routeOf(t, `"include_request_attempt_count": true,`, c.action), c.body)
			require.Equal(t, c.want, strings.ReplaceAll(strings.Join(stop(), "\n"), u.address, "H"))
		})
	}
}

func TestAnAttemptIsLoggedThatFindsNoConnection(t *testing.T) {
	address := servicetest.FreeAddress(t)
	up, _ := clusterOf(t, `"connect_timeout": "5s"`, address)
	config, stop := logging(t, "")
	sendThrough(t, config, nil, up, routeOf(t, "", ""), nil)
	require.Equal(t, []string{"UpstreamEnd " + address + " 0 UF - 0/0 1 - - -"}, stop())
}

func TestWhatGoesToNoHostIsNotLogged(t *testing.T) {
	up, _ := clusterOf(t, `"connect_timeout": "5s"`)
	config, stop := logging(t, "")
	require.Equal(t, "503 UH", sendThrough(t, config, nil, up, routeOf(t, "", ""), nil).summary())
	require.Equal(t, []string{""}, stop())
}
