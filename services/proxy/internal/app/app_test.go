package app_test

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"

	"github.com/weirproxy/weir/internal/servicetest"
	"github.com/weirproxy/weir/services/proxy/internal/app"
)

func TestMain(m *testing.M) {
	servicetest.Main(m, goleak.IgnoreTopFunction("net/http.(*persistConn).readLoop"), goleak.IgnoreTopFunction("net/http.(*persistConn).writeLoop"))
}

// text reads a file of testdata and replaces parts of it.
func text(t *testing.T, name string, replace ...string) string {
	t.Helper()
	b, err := os.ReadFile(filepath.Join("testdata", name))
	require.NoError(t, err)
	return strings.NewReplacer(replace...).Replace(string(b))
}

// run starts a proxy with a configuration, waits until it is live, and stops
// it with the test.
func run(t *testing.T, config string) *app.App {
	t.Helper()
	ready := filepath.Join(t.TempDir(), "ready")
	proxy, err := app.New(app.Options{ConfigYAML: config, LogLevel: "debug", Log: t.Output(), ReadyFile: ready, DrainTime: 10 * time.Second, Version: "test"})
	require.NoError(t, err)
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- proxy.Run(ctx) }() // ends with ctx; the cleanup waits for it
	t.Cleanup(func() {
		cancel()
		require.NoError(t, <-done)
	})
	servicetest.Eventually(t, "the ready file is there", func() bool { _, err := os.Stat(ready); return err == nil })
	return proxy
}

// backend is an upstream that says its name.
func backend(t *testing.T, name string) (port string) {
	t.Helper()
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		fmt.Fprintf(w, "%s %s %s", name, r.Method, r.URL.Path)
	}))
	t.Cleanup(server.Close)
	_, port, err := net.SplitHostPort(server.Listener.Addr().String())
	require.NoError(t, err)
	return port
}

// upstreamAt is good.yaml with its backend at a port of loopback.
func upstreamAt(t *testing.T, port string) string {
	t.Helper()
	const cluster = "cluster_name: backend\n        endpoints:\n          - lb_endpoints:\n              - endpoint: {address: {socket_address: {address: 127.0.0.1, port_value: %s}}}"
	return text(t, "good.yaml", fmt.Sprintf(cluster, "1"), fmt.Sprintf(cluster, port))
}

func get(t *testing.T, address, path string) (status int, body string) {
	t.Helper()
	response, err := http.Get("http://" + address + path)
	require.NoError(t, err)
	defer response.Body.Close()
	b, err := io.ReadAll(response.Body)
	require.NoError(t, err)
	return response.StatusCode, string(b)
}

func TestProxyServesAStaticClusterThoughItsRateLimitServiceIsAway(t *testing.T) {
	proxy := run(t, upstreamAt(t, backend(t, "one")))
	status, body := get(t, proxy.Addr("ingress"), "/exact")
	require.Equal(t, 200, status)
	require.Equal(t, "one GET /exact", body)

	admin := proxy.Addr("admin")
	status, body = get(t, admin, "/ready")
	require.Equal(t, 200, status)
	require.Equal(t, "LIVE\n", body)
	_, body = get(t, admin, "/metrics")
	require.Contains(t, body, `envoy_cluster_upstream_rq_xx{envoy_cluster_name="backend",envoy_response_code_class="2"} 1`)
	require.Contains(t, body, `envoy_cluster_ratelimit_failure_mode_allowed{envoy_cluster_name="backend"} 1`)
	servicetest.Eventually(t, "the request is counted once it is over", func() bool {
		_, body = get(t, admin, "/stats")
		return strings.Contains(body, "http.ingress.downstream_rq_2xx: 1\n")
	})
	require.Contains(t, body, "cluster.backend.upstream_rq_200: 1\n")
	http.DefaultClient.CloseIdleConnections()
	for _, histogram := range []string{
		`envoy_cluster_upstream_rq_time_count{envoy_cluster_name="backend"} 1`,
		`envoy_cluster_upstream_cx_connect_ms_count{envoy_cluster_name="backend"} 1`,
		`envoy_http_downstream_rq_time_count{envoy_http_conn_manager_prefix="ingress"} 1`,
		`envoy_http_downstream_cx_length_ms_count{envoy_http_conn_manager_prefix="ingress"} 1`,
		`envoy_listener_downstream_cx_length_ms_count{envoy_listener_address="127.0.0.1:0"} 1`,
	} {
		servicetest.Eventually(t, histogram, func() bool {
			_, body = get(t, admin, "/stats/prometheus")
			return strings.Contains(body, histogram)
		})
	}
	_, body = get(t, admin, "/clusters")
	require.Contains(t, body, "backend::")
	_, body = get(t, admin, "/server_info")
	info := map[string]any{}
	require.NoError(t, json.Unmarshal([]byte(body), &info))
	require.Equal(t, "LIVE", info["state"])
	require.EqualValues(t, runtime.GOMAXPROCS(0), info["command_line_options"].(map[string]any)["concurrency"])
	_, body = get(t, admin, "/config_dump")
	require.Contains(t, body, `"stat_prefix"`)
}

func TestEveryFaultOfAConfigurationIsToldAtOnceWithItsPlace(t *testing.T) {
	err := app.Validate(app.Options{ConfigPath: "testdata/broken.yaml", LogLevel: "info"})
	require.Error(t, err)
	servicetest.Golden(t, "testdata/broken.txt", []byte(err.Error()+"\n"))
}

func TestDeprecatedFieldsAreWarnedOfOnceEach(t *testing.T) {
	var log bytes.Buffer
	require.NoError(t, app.Validate(app.Options{LogLevel: "info", Log: &log, ConfigYAML: `
static_resources:
  clusters:
  - {name: a, type: STATIC, load_assignment: {cluster_name: a}, http2_protocol_options: {}}
  - {name: b, type: STATIC, load_assignment: {cluster_name: b}}
`}))
	require.Equal(t, 1, strings.Count(log.String(), "deprecated"), log.String())
	require.Contains(t, log.String(), "--config-yaml:4:65: static_resources.clusters[0].http2_protocol_options: deprecated: use http2_protocol_options of ")
}

// TestWhatFollowsFromAFaultIsNoFault has one fault in each configuration, for
// which others miss something.
func TestWhatFollowsFromAFaultIsNoFault(t *testing.T) {
	const static = "type: STATIC, load_assignment: {cluster_name: plane}"
	const options = `typed_extension_protocol_options: {envoy.extensions.upstreams.http.v3.HttpProtocolOptions: {"@type": type.googleapis.com/envoy.extensions.upstreams.http.v3.HttpProtocolOptions, explicit_http_config: {http2_protocol_options: {%s}}}}`
	const cluster = `{name: plane, ` + static + `, ` + options + `}`
	const ads = `
node: {id: a, cluster: b}
dynamic_resources: {ads_config: {api_type: GRPC, transport_api_version: V3, grpc_services: [{envoy_grpc: {cluster_name: plane}}]}}
`
	good := fmt.Sprintf(cluster, "")
	for name, c := range map[string]struct{ config, want string }{
		"none":                    {"static_resources: {clusters: [" + good + "]}", ""},
		"a cluster twice":         {"static_resources: {clusters: [" + good + ", {name: plane, " + static + "}]}", `static_resources.clusters[1].name: cluster "plane" is there twice`},
		"the options are refused": {"static_resources: {clusters: [" + fmt.Sprintf(cluster, "x: 1") + "]}", "unknown field"},
		"a key twice":             {"static_resources: {}\nstatic_resources: {clusters: [" + good + "]}", `duplicate key "static_resources"`},
		"no list of clusters":     {"static_resources: {clusters: x}", `static_resources.clusters: want a list, got "x"`},
		"no cluster":              {"static_resources: {clusters: [x]}", "static_resources.clusters[0]: want the fields"},
		"the name is no text":     {"static_resources: {clusters: [{name: {}, " + static + "}]}", "static_resources.clusters[0].name: want"},
	} {
		t.Run(name, func(t *testing.T) {
			err := app.Validate(app.Options{ConfigYAML: ads + c.config, LogLevel: "info"})
			if c.want == "" {
				require.NoError(t, err)
				return
			}
			require.ErrorContains(t, err, c.want)
			require.NotContains(t, err.Error(), "\n")
		})
	}
}

func TestGoodConfigurationIsValid(t *testing.T) {
	require.NoError(t, app.Validate(app.Options{ConfigPath: "testdata/good.yaml", LogLevel: "info"}))
}

func TestPortInUseIsNamedWithItsField(t *testing.T) {
	taken, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	defer taken.Close()
	port := fmt.Sprint(taken.Addr().(*net.TCPAddr).Port)
	_, err = app.New(app.Options{ConfigYAML: text(t, "good.yaml", "admin:\n  address: {socket_address: {address: 127.0.0.1, port_value: 0}}",
		"admin:\n  address: {socket_address: {address: 127.0.0.1, port_value: "+port+"}}"), LogLevel: "info", Log: io.Discard})
	require.EqualError(t, err, "listen on 127.0.0.1:"+port+": the port is in use; admin.address moves it")
}

func TestCommandLine(t *testing.T) {
	for name, c := range map[string]struct {
		args       []string
		out, fails string
		usage      bool // it is the command line that fails
	}{
		"--version":          {[]string{"--version"}, "proxy v1", "", false},
		"--help":             {[]string{"--help"}, "--mode validate", "", false},
		"validates":          {[]string{"-c", "testdata/good.yaml", "--mode", "validate"}, "configuration OK", "", false},
		"finds faults":       {[]string{"-c", "testdata/broken.yaml", "--mode", "validate"}, "", "testdata/broken.yaml:3:50: ", false},
		"no such file":       {[]string{"-c", "testdata/none.yaml"}, "", "read the bootstrap: open testdata/none.yaml: no such file or directory", false},
		"no file":            {nil, "", "no bootstrap: give one with -c FILE", true},
		"an unknown flag":    {[]string{"--speed", "9"}, "", "flag provided but not defined: -speed; --help lists the flags", true},
		"an unknown mode":    {[]string{"-c", "x", "--mode", "try"}, "", "--mode try: not one of serve, validate, lint, init_only", true},
		"less than none":     {[]string{"-c", "x", "--concurrency", "-1"}, "", "--concurrency -1: it cannot be negative", true},
		"an unknown drain":   {[]string{"-c", "x", "--drain-strategy", "slow"}, "", "--drain-strategy slow: not one of immediate, gradual", true},
		"drains gradually":   {[]string{"-c", "testdata/good.yaml", "--mode", "validate", "--drain-strategy", "gradual"}, "configuration OK", "", false},
		"only initializes":   {[]string{"-c", "testdata/good.yaml", "--mode", "init_only"}, "initialized", "", false},
		"faults at the init": {[]string{"-c", "testdata/broken.yaml", "--mode", "init_only"}, "", "testdata/broken.yaml:3:50: ", false},
		"Envoy's log level":  {[]string{"-c", "testdata/good.yaml", "--mode", "validate", "-l", "warning", "--log-format", "json"}, "configuration OK", "", false},
		"a log without":      {[]string{"-c", "testdata/good.yaml", "--mode", "validate", "--log-level", "off"}, "configuration OK", "", false},
		"a log format":       {[]string{"-c", "testdata/good.yaml", "--mode", "validate", "--log-format", "xml"}, "", `log format "xml": not one of text, json`, false},
		"a log pattern":      {[]string{"-c", "x", "--log-format", "[%t] %v"}, "", "--log-format [%t] %v: lines have no pattern here", true},
		"one logger":         {[]string{"-c", "x", "--component-log-level", "upstream:debug"}, "", "--component-log-level upstream:debug: there is one logger: use -l", true},
		"no hot restart":     {[]string{"-c", "testdata/good.yaml", "--mode", "validate", "--disable-hot-restart", "--parent-shutdown-time-s", "900"}, "configuration OK", "", false},
		"a parent":           {[]string{"-c", "x", "--parent-shutdown-time-s", "900"}, "", "--parent-shutdown-time-s 900: there is no hot restart", true},
		"a stray argument":   {[]string{"serve"}, "", `unexpected argument "serve"`, true},
		"a wrong log level":  {[]string{"-c", "testdata/good.yaml", "-l", "loud"}, "", `log level "loud"`, false},
		"health of no proxy": {[]string{"healthcheck", "--admin-address", "127.0.0.1:1"}, "", "connection refused", false},
	} {
		t.Run(name, func(t *testing.T) {
			var out bytes.Buffer
			run, err := app.Command(c.args, "v1", &out, io.Discard)
			require.Equal(t, c.usage, err != nil, "a wrong command line")
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

func TestTheAddressOfTheAdminListenerIsWritten(t *testing.T) {
	path := filepath.Join(t.TempDir(), "address")
	proxy, err := app.New(app.Options{ConfigPath: "testdata/good.yaml", LogLevel: "info", Log: t.Output(), AdminAddressPath: path, DrainTime: time.Second})
	require.NoError(t, err)
	written, err := os.ReadFile(path)
	require.NoError(t, err)
	require.Equal(t, proxy.Addr("admin"), string(written))
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	require.NoError(t, proxy.Run(ctx))

	_, err = app.New(app.Options{ConfigPath: "testdata/good.yaml", LogLevel: "info", Log: t.Output(), AdminAddressPath: path + "/x"})
	require.ErrorContains(t, err, "write the admin listener's address: open ")
}

func TestConcurrencyBoundsTheProcessors(t *testing.T) {
	before := runtime.GOMAXPROCS(0)
	defer runtime.GOMAXPROCS(before)
	run, err := app.Command([]string{"-c", "testdata/broken.yaml", "--concurrency", strconv.Itoa(before + 1)}, "v1", io.Discard, io.Discard)
	require.NoError(t, err)
	require.Error(t, run(t.Context()), "it ends at its faults")
	require.Equal(t, before+1, runtime.GOMAXPROCS(0))
}

func TestTheEndNeedNotWaitForABootstrapThatDoesNotCome(t *testing.T) {
	for name, args := range map[string][]string{"serve": nil, "validate": {"--mode", "validate"}, "healthcheck": {"healthcheck"}} {
		t.Run(name, func(t *testing.T) {
			pipe := filepath.Join(t.TempDir(), "pipe")
			require.NoError(t, syscall.Mkfifo(pipe, 0o600))
			run, err := app.Command(append(args, "-c", pipe), "v1", io.Discard, io.Discard)
			require.NoError(t, err)
			ctx, end := context.WithCancel(t.Context())
			end()
			require.EqualError(t, run(ctx), "told to end before the bootstrap was read")
			writer, err := os.OpenFile(pipe, os.O_WRONLY, 0) // which lets the reader go
			require.NoError(t, err)
			require.NoError(t, writer.Close())
		})
	}
}

func TestStopIsBoundedThoughAnUpstreamHangs(t *testing.T) {
	asked, hang := make(chan struct{}), make(chan struct{})
	server := httptest.NewServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) {
		close(asked)
		<-hang
	}))
	defer server.Close()
	defer close(hang)
	_, port, err := net.SplitHostPort(server.Listener.Addr().String())
	require.NoError(t, err)
	config := strings.Replace(upstreamAt(t, port), "route: {cluster: backend}", "route: {cluster: backend, timeout: 3600s}", 1)
	proxy, err := app.New(app.Options{ConfigYAML: config, LogLevel: "error", Log: t.Output(), DrainTime: 50 * time.Millisecond})
	require.NoError(t, err)
	ctx, stop := context.WithCancel(t.Context())
	done := make(chan error)
	go func() { done <- proxy.Run(ctx) }() // ends with ctx
	go func() {                            // ends with the proxy
		response, err := http.Get("http://" + proxy.Addr("ingress"))
		if err == nil {
			response.Body.Close()
		}
	}()
	<-asked
	begin := time.Now()
	stop()
	require.NoError(t, <-done)
	require.Less(t, time.Since(begin), servicetest.Patience, "the route's timeout is an hour")
}

func TestHealthcheckAsksTheAdminListenerOfTheBootstrap(t *testing.T) {
	proxy := run(t, text(t, "good.yaml"))
	run, err := app.Command([]string{"healthcheck", "--admin-address", proxy.Addr("admin")}, "v1", io.Discard, io.Discard)
	require.NoError(t, err)
	require.NoError(t, run(t.Context()))
}

func TestFaultsAreToldOnce(t *testing.T) {
	config := text(t, "good.yaml", "                max_request_headers_kb: 8\n", `                max_request_headers_kb: 9000
                http2_protocol_options: {initial_stream_window_size: 5, initial_connection_window_size: 6}
`)
	config = strings.Replace(config, "route_config:\n", `route_config:
                  request_headers_to_add: [{header: {key: a, value: "b\nc"}}]
`, 1)
	err := app.Validate(app.Options{ConfigYAML: config, LogLevel: "info"})
	require.Error(t, err)
	for _, field := range []string{"max_request_headers_kb", "initial_stream_window_size", "initial_connection_window_size", "request_headers_to_add[0].header.value"} {
		require.Equal(t, 1, strings.Count(err.Error(), field+": "), err)
	}
}
