package app_test

import (
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	discoveryv3 "github.com/envoyproxy/go-control-plane/envoy/service/discovery/v3"
	"github.com/stretchr/testify/require"
	"google.golang.org/grpc"
	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/types/known/anypb"

	"github.com/weirproxy/weir/internal/servicetest"
	"github.com/weirproxy/weir/services/proxy/internal/app"
)

// Resources of a listener whose routes come by RDS, and of clusters, in JSON.
const (
	typePrefix = "type.googleapis.com/envoy.config."

	dynamicListener = `{"@type": "` + typePrefix + `listener.v3.Listener", "name": "dynamic",
		"address": {"socket_address": {"address": "127.0.0.1", "port_value": 0}},
		"filter_chains": [{"filters": [{"name": "hcm", "typed_config": {
			"@type": "type.googleapis.com/envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager",
			"stat_prefix": "dynamic", "server_name": "%s",
			"rds": {"route_config_name": "routes", "config_source": %s},
			"http_filters": [{"name": "router", "typed_config": {"@type": "type.googleapis.com/envoy.extensions.filters.http.router.v3.Router"}}]}}]}]}`

	dynamicRoutes = `{"@type": "` + typePrefix + `route.v3.RouteConfiguration", "name": "routes",
		"virtual_hosts": [{"name": "all", "domains": ["*"], "routes": [{"match": {"prefix": "/"}, "route": {"cluster": "%s"}}]}]}`

	dynamicCluster = `{"@type": "` + typePrefix + `cluster.v3.Cluster", "name": "%[1]s", "type": "EDS", "connect_timeout": "%[2]s",
		"eds_cluster_config": {"eds_config": %[3]s}}`

	dynamicAssignment = `{"@type": "` + typePrefix + `endpoint.v3.ClusterLoadAssignment", "cluster_name": "%s",
		"endpoints": [{"lb_endpoints": [{"endpoint": {"address": {"socket_address": {"address": "127.0.0.1", "port_value": %s}}}}]}]}`
)

// files are resources in files.
type files struct {
	t         *testing.T
	directory string
}

// source is a ConfigSource for a file, in JSON.
func (f files) source(name string) string {
	return fmt.Sprintf(`{"path_config_source": {"path": %q}, "resource_api_version": "V3"}`, filepath.Join(f.directory, name))
}

// put moves a file with resources into place.
func (f files) put(name string, resources ...string) {
	f.t.Helper()
	path := filepath.Join(f.directory, name)
	require.NoError(f.t, os.WriteFile(path+".next", []byte(`{"resources": [`+strings.Join(resources, ",")+`]}`), 0o600))
	require.NoError(f.t, os.Rename(path+".next", path))
}

// load asks for / without end, over connections that are kept, until it is
// stopped; it then says how often it was answered.
func load(t *testing.T, url string) (stop func() (answered int64)) {
	var count atomic.Int64
	var workers sync.WaitGroup
	ctx, cancel := context.WithCancel(context.Background())
	for range 4 {
		// Ends with ctx; stop waits for it.
		workers.Go(func() {
			client := &http.Client{Transport: &http.Transport{}}
			defer client.CloseIdleConnections()
			for ctx.Err() == nil {
				response, err := client.Get(url)
				if err != nil {
					t.Errorf("a request failed: %v", err)
					return
				}
				_ = response.Body.Close()
				if response.StatusCode != http.StatusOK {
					t.Errorf("a request got %d", response.StatusCode)
					return
				}
				count.Add(1)
			}
		})
	}
	return func() int64 {
		cancel()
		workers.Wait()
		return count.Load()
	}
}

func TestNoRequestFailsWhileListenersRoutesAndClustersChange(t *testing.T) {
	f := files{t, t.TempDir()}
	one, two := backend(t, "one"), backend(t, "two")
	f.put("eds.json", fmt.Sprintf(dynamicAssignment, "a", one), fmt.Sprintf(dynamicAssignment, "b", two))
	clusters := func(timeout string) {
		f.put("cds.json", fmt.Sprintf(dynamicCluster, "a", timeout, f.source("eds.json")), fmt.Sprintf(dynamicCluster, "b", timeout, f.source("eds.json")))
	}
	listeners := func(server string) { f.put("lds.json", fmt.Sprintf(dynamicListener, server, f.source("rds.json"))) }
	clusters("1s")
	listeners("v0")
	f.put("rds.json", fmt.Sprintf(dynamicRoutes, "a"))
	proxy := run(t, fmt.Sprintf(`{"admin": {"address": {"socket_address": {"address": "127.0.0.1", "port_value": 0}}},
		"dynamic_resources": {"cds_config": %s, "lds_config": %s}}`, f.source("cds.json"), f.source("lds.json")))
	address := proxy.Addr("dynamic")
	status, body := get(t, address, "/")
	require.Equal(t, 200, status)
	require.Equal(t, "one GET /", body)

	stop := load(t, "http://"+address)
	for i := range 4 {
		name, cluster := "one", "a"
		if i%2 == 0 {
			name, cluster = "two", "b"
		}
		f.put("rds.json", fmt.Sprintf(dynamicRoutes, cluster))
		servicetest.Eventually(t, "the new routes hold", func() bool {
			_, body := get(t, address, "/")
			return strings.HasPrefix(body, name)
		})
		listeners(fmt.Sprint("v", i+1))
		servicetest.Eventually(t, "the new listener serves", func() bool { return serverOf(t, address) == fmt.Sprint("v", i+1) })
		clusters(fmt.Sprint(i+2, "s"))
		servicetest.Eventually(t, "the new clusters are there", func() bool {
			_, dump := get(t, proxy.Addr("admin"), "/config_dump")
			return strings.Count(strings.ReplaceAll(dump, " ", ""), fmt.Sprintf(`"connect_timeout":"%ds"`, i+2)) == 2
		})
	}
	require.Greater(t, stop(), int64(100))

	_, listed := get(t, proxy.Addr("admin"), "/listeners")
	require.Equal(t, "dynamic::"+address+"\n", listed)
	_, dump := get(t, proxy.Addr("admin"), "/config_dump")
	require.Contains(t, dump, "dynamic_route_configs")
	f.put("lds.json")
	servicetest.Eventually(t, "the listener is gone", func() bool {
		conn, err := net.Dial("tcp", address)
		if err == nil {
			_ = conn.Close()
		}
		return err != nil
	})
}

func serverOf(t *testing.T, address string) string {
	client := &http.Client{Transport: &http.Transport{DisableKeepAlives: true}}
	response, err := client.Get("http://" + address)
	require.NoError(t, err)
	require.NoError(t, response.Body.Close())
	return response.Header.Get("Server")
}

// plane is a control plane that says what it is told to.
type plane struct {
	t         *testing.T
	requests  chan *discoveryv3.DiscoveryRequest
	responses chan *discoveryv3.DiscoveryResponse
	port      string
}

func newPlane(t *testing.T) *plane {
	p := &plane{t: t, requests: make(chan *discoveryv3.DiscoveryRequest, 100), responses: make(chan *discoveryv3.DiscoveryResponse)}
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	_, p.port, err = net.SplitHostPort(listener.Addr().String())
	require.NoError(t, err)
	server := grpc.NewServer(grpc.UnknownServiceHandler(p.serve))
	var serving sync.WaitGroup
	serving.Go(func() { _ = server.Serve(listener) }) // ends with Stop
	t.Cleanup(func() { server.Stop(); serving.Wait() })
	return p
}

func (p *plane) serve(_ any, stream grpc.ServerStream) error {
	var reader sync.WaitGroup
	defer reader.Wait()
	// Ends with the stream.
	reader.Go(func() {
		for {
			r := &discoveryv3.DiscoveryRequest{}
			if stream.RecvMsg(r) != nil {
				return
			}
			p.requests <- r
		}
	})
	for {
		select {
		case r := <-p.responses:
			if err := stream.SendMsg(r); err != nil {
				return err
			}
		case <-stream.Context().Done():
			return nil
		}
	}
}

// want is the next request, which must be of a type: "cluster".
func (p *plane) want(kind string) *discoveryv3.DiscoveryRequest {
	p.t.Helper()
	select {
	case r := <-p.requests:
		require.Contains(p.t, r.GetTypeUrl(), typePrefix+kind)
		return r
	case <-time.After(servicetest.Patience):
		require.Fail(p.t, "no request of "+kind)
		return nil
	}
}

// send sends resources, all of the type of the first, and returns the answer.
func (p *plane) send(kind, version string, resources ...string) *discoveryv3.DiscoveryRequest {
	p.t.Helper()
	r := &discoveryv3.DiscoveryResponse{VersionInfo: version, Nonce: version}
	for _, text := range resources {
		packed := &anypb.Any{}
		require.NoError(p.t, protojson.Unmarshal([]byte(text), packed))
		r.TypeUrl = packed.GetTypeUrl()
		r.Resources = append(r.Resources, packed)
	}
	p.responses <- r
	return p.want(kind)
}

func TestAListenerOfADSWaitsForItsRoutes(t *testing.T) {
	const ads = `{"ads": {}, "resource_api_version": "V3"}`
	p := newPlane(t)
	config := fmt.Sprintf(`{"node": {"id": "a", "cluster": "b"},
		"admin": {"address": {"socket_address": {"address": "127.0.0.1", "port_value": 0}}},
		"dynamic_resources": {"ads_config": {"api_type": "GRPC", "transport_api_version": "V3", "grpc_services": [{"envoy_grpc": {"cluster_name": "plane"}}]},
			"cds_config": %[2]s, "lds_config": %[2]s},
		"static_resources": {"clusters": [{"name": "plane", "type": "STATIC",
			"typed_extension_protocol_options": {"envoy.extensions.upstreams.http.v3.HttpProtocolOptions": {
				"@type": "type.googleapis.com/envoy.extensions.upstreams.http.v3.HttpProtocolOptions", "explicit_http_config": {"http2_protocol_options": {}}}},
			"load_assignment": {"cluster_name": "plane", "endpoints": [{"lb_endpoints": [{"endpoint": {"address": {"socket_address": {"address": "127.0.0.1", "port_value": %[1]s}}}}]}]}}]}}`,
		p.port, ads)
	// What the start waits for is told from here.
	served, port := make(chan struct{}), backend(t, "one")
	go func() { // ends with the last answer
		defer close(served)
		p.want("cluster")
		p.send("cluster", "c1", fmt.Sprintf(dynamicCluster, "a", "1s", ads))
		p.want("endpoint")
		p.send("endpoint", "e1", fmt.Sprintf(dynamicAssignment, "a", port))
		p.want("listener")
		answer := p.send("listener", "l1", fmt.Sprintf(dynamicListener, "s", ads), strings.Replace(fmt.Sprintf(dynamicListener, "s", ads), `"dynamic",
		"address"`, `"bad", "freebind": true, "address"`, 1))
		if text := answer.GetErrorDetail().GetMessage(); text != `listener "bad": freebind: not supported` || answer.GetErrorDetail().GetCode() != 3 {
			t.Errorf("refused with %v", answer.GetErrorDetail())
		}
		if names := p.want("route").GetResourceNames(); len(names) != 1 || names[0] != "routes" {
			t.Errorf("asked for routes %q", names)
		}
		p.send("route", "r1", fmt.Sprintf(dynamicRoutes, "a"))
	}()
	proxy := run(t, config)
	<-served
	_, body := get(t, proxy.Addr("dynamic"), "/x")
	require.Equal(t, "one GET /x", body)

	// A table with a route to a cluster that is not there is none of RDS's faults.
	require.Nil(t, p.send("route", "r2", fmt.Sprintf(dynamicRoutes, "nowhere")).GetErrorDetail())
	servicetest.Eventually(t, "the new table holds", func() bool {
		status, _ := get(t, proxy.Addr("dynamic"), "/")
		return status == 503
	})
	_, dump := get(t, proxy.Addr("admin"), "/config_dump")
	require.Contains(t, dump, "r2")
	_, stats := get(t, proxy.Addr("admin"), "/stats")
	require.Contains(t, stats, "http.dynamic.rds.routes.config_reload: 2\n")
	require.Contains(t, stats, "listener_manager.lds.update_rejected: 1\n")

	// A listener whose routes do not come in time serves, and knows no route.
	late := strings.Replace(fmt.Sprintf(dynamicListener, "s", `{"ads": {}, "resource_api_version": "V3", "initial_fetch_timeout": "0.05s"}`), `"routes"`, `"never"`, 1)
	p.send("listener", "l2", late)
	p.want("route") // without the old name, or with both, and then again
	servicetest.Eventually(t, "it serves without routes", func() bool {
		status, _ := get(t, proxy.Addr("dynamic"), "/")
		return status == 404
	})
}

func TestAListenerThatIsRefusedLeavesNoMetrics(t *testing.T) {
	f := files{t, t.TempDir()}
	f.put("rds.json", fmt.Sprintf(dynamicRoutes, "nowhere"))
	good := strings.Replace(fmt.Sprintf(dynamicListener, "s", f.source("rds.json")), `"http_filters": [`, `"http_filters": [
		{"name": "limit", "typed_config": {"@type": "type.googleapis.com/envoy.extensions.filters.http.local_ratelimit.v3.LocalRateLimit", "stat_prefix": "dynamic_limit"}}, `, 1)
	refused := strings.NewReplacer(`"name": "dynamic",`, `"name": "bad", "tcp_backlog_size": 0,`, `"dynamic`, `"unwanted`, `"routes"`, `"unwanted_routes"`).Replace(good)
	f.put("lds.json", good, refused)
	proxy := run(t, `{"admin": {"address": {"socket_address": {"address": "127.0.0.1", "port_value": 0}}}, "dynamic_resources": {"lds_config": `+f.source("lds.json")+`}}`)
	_, stats := get(t, proxy.Addr("admin"), "/stats")
	require.Contains(t, stats, "listener_manager.listener_create_failure: 1\n")
	for _, name := range []string{"http.dynamic.downstream_rq_total", "http.dynamic.rq_total", "http.dynamic.rds.routes.config_reload", "dynamic_limit.http_local_rate_limit.ok"} {
		require.Contains(t, stats, name+": ")
	}
	require.NotContains(t, stats, "unwanted")
}

func TestWhatABootstrapSaysOfSourcesIsChecked(t *testing.T) {
	f := files{t, t.TempDir()}
	f.put("cds.json")
	limited := `"static_resources": {"listeners": [` + strings.NewReplacer(
		`"rds": {"route_config_name": "routes", "config_source": %s}`, `"route_config": {}`,
		`"http_filters": [`, `"http_filters": [{"name": "limit", "typed_config": {
			"@type": "type.googleapis.com/envoy.extensions.filters.http.ratelimit.v3.RateLimit", "domain": "d",
			"rate_limit_service": {"transport_api_version": "V3", "grpc_service": {"envoy_grpc": {"cluster_name": "later"}}}}}, `,
		`"@type": "`+typePrefix+`listener.v3.Listener", `, "",
	).Replace(dynamicListener) + `]}`
	for name, c := range map[string]struct{ dynamic, want string }{
		"a good file":  {`{"cds_config": ` + f.source("cds.json") + `}`, ""},
		"no such file": {`{"lds_config": ` + f.source("none.json") + `}`, "dynamic_resources.lds_config.path_config_source.path: stat " + f.directory + "/none.json: no such file or directory"},
		"self":         {`{"lds_config": {"self": {}, "resource_api_version": "V3"}}`, "dynamic_resources.lds_config.self: a bootstrap is in no source of its own"},
		"no ADS":       {`{"lds_config": {"ads": {}, "resource_api_version": "V3"}}`, "dynamic_resources.lds_config.ads: needs dynamic_resources.ads_config"},
		"a stream of no cluster": {`{"cds_config": {"api_config_source": {"api_type": "DELTA_GRPC", "transport_api_version": "V3",
			"grpc_services": [{"envoy_grpc": {"cluster_name": "plane"}}]}, "resource_api_version": "V3"}}`, `unknown cluster "plane"`},
		"a limiter's cluster by CDS":    {`{"cds_config": ` + f.source("cds.json") + `}, ` + limited, ""},
		"a limiter's cluster by nobody": {`{}, ` + limited, `unknown cluster "later": it is not in the bootstrap, and there is no cds_config`},
		"no watched directory": {`{"cds_config": {"path_config_source": {"path": "` + f.directory + `/cds.json", "watched_directory": {"path": "/none"}}, "resource_api_version": "V3"}}`,
			"dynamic_resources.cds_config.path_config_source.watched_directory.path: open /none: no such file or directory"},
	} {
		t.Run(name, func(t *testing.T) {
			err := app.Validate(app.Options{ConfigYAML: `{"dynamic_resources": ` + c.dynamic + `}`, LogLevel: "info"})
			if c.want == "" {
				require.NoError(t, err)
				return
			}
			require.ErrorContains(t, err, c.want)
		})
	}
}

func TestAnOptionalFilterThatNobodyKnowsIsLeftOut(t *testing.T) {
	const optional = "                http_filters:\n                  - {name: lua, is_optional: %s, typed_config: {\"@type\": type.googleapis.com/envoy.extensions.filters.http.lua.v3.Lua, x: y}}\n"
	config := func(value string) string {
		return strings.Replace(upstreamAt(t, backend(t, "one")), "                http_filters:\n", fmt.Sprintf(optional, value), 1)
	}
	proxy := run(t, config("true"))
	status, _ := get(t, proxy.Addr("ingress"), "/")
	require.Equal(t, 200, status)
	_, stats := get(t, proxy.Addr("admin"), "/stats")
	require.Contains(t, stats, "http.optional_filter_left_out: 1\n")
	err := app.Validate(app.Options{ConfigYAML: config("false"), LogLevel: "info"})
	require.ErrorContains(t, err, `http_filters[0].typed_config: unknown type "envoy.extensions.filters.http.lua.v3.Lua"`)
}

func TestAStaticListenerMayHaveItsRoutesByRDS(t *testing.T) {
	f := files{t, t.TempDir()}
	f.put("rds.json", fmt.Sprintf(dynamicRoutes, "backend"))
	config := upstreamAt(t, backend(t, "one"))
	i, j := strings.Index(config, "                route_config:"), strings.Index(config, "                http_filters:")
	config = config[:i] + "                rds: {route_config_name: routes, config_source: " + f.source("rds.json") + "}\n" + config[j:]
	proxy := run(t, config)
	_, body := get(t, proxy.Addr("ingress"), "/a")
	require.Equal(t, "one GET /a", body)
	f.put("rds.json", strings.Replace(fmt.Sprintf(dynamicRoutes, "backend"), `"/"`, `"/b"`, 1))
	servicetest.Eventually(t, "the new routes hold", func() bool {
		status, _ := get(t, proxy.Addr("ingress"), "/a")
		return status == 404
	})
}

// TestARequestInFlightOutlivesTheListenerThatItCameBy begins a request, changes
// its routes, then its listener, and takes that away, before it is answered.
func TestARequestInFlightOutlivesTheListenerThatItCameBy(t *testing.T) {
	asked, answer := make(chan struct{}, 1), make(chan struct{})
	upstream := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/slow" {
			asked <- struct{}{}
			<-answer
		}
		_, _ = io.WriteString(w, "answered")
	}))
	defer upstream.Close()
	_, port, err := net.SplitHostPort(upstream.Listener.Addr().String())
	require.NoError(t, err)
	f := files{t, t.TempDir()}
	f.put("eds.json", fmt.Sprintf(dynamicAssignment, "a", port))
	f.put("cds.json", fmt.Sprintf(dynamicCluster, "a", "1s", f.source("eds.json")))
	f.put("rds.json", fmt.Sprintf(dynamicRoutes, "a"))
	f.put("lds.json", fmt.Sprintf(dynamicListener, "v0", f.source("rds.json")))
	proxy := run(t, fmt.Sprintf(`{"dynamic_resources": {"cds_config": %s, "lds_config": %s}}`, f.source("cds.json"), f.source("lds.json")))
	address := proxy.Addr("dynamic")

	type result struct {
		status int
		server string
		err    error
	}
	results := make(chan result, 1)
	go func() { // ends with the answer
		response, err := http.Get("http://" + address + "/slow")
		if err != nil {
			results <- result{err: err}
			return
		}
		_ = response.Body.Close()
		results <- result{response.StatusCode, response.Header.Get("Server"), nil}
	}()
	<-asked
	f.put("rds.json", strings.Replace(fmt.Sprintf(dynamicRoutes, "a"), `"/"`, `"/none"`, 1))
	servicetest.Eventually(t, "the new routes hold", func() bool {
		status, _ := get(t, address, "/")
		return status == 404
	})
	f.put("lds.json", fmt.Sprintf(dynamicListener, "v1", f.source("rds.json")))
	servicetest.Eventually(t, "the new listener serves", func() bool { return serverOf(t, address) == "v1" })
	f.put("lds.json")
	servicetest.Eventually(t, "the listener is gone", func() bool { return proxy.Addr("dynamic") == "" })
	close(answer)
	require.Equal(t, result{200, "v0", nil}, <-results)
}

func TestTheFileOfALogThatNoListenerHasAnyMoreIsClosed(t *testing.T) {
	const open = "/proc/self/fd"
	if _, err := os.Stat(open); err != nil {
		t.Skip("the system does not tell which files are open: ", err)
	}
	f := files{t, t.TempDir()}
	log := filepath.Join(f.directory, "log")
	listener := func(server, path string) {
		f.put("lds.json", strings.Replace(fmt.Sprintf(dynamicListener, server, f.source("rds.json")), `"stat_prefix"`,
			fmt.Sprintf(`"access_log": [{"name": "l", "typed_config": {"@type": "type.googleapis.com/envoy.extensions.access_loggers.file.v3.FileAccessLog", "path": %q}}], "stat_prefix"`, path), 1))
	}
	f.put("rds.json", strings.Replace(fmt.Sprintf(dynamicRoutes, "none"), `"route": {"cluster": "none"}`, `"direct_response": {"status": 200}`, 1))
	listener("v0", log)
	proxy := run(t, `{"dynamic_resources": {"lds_config": `+f.source("lds.json")+`}}`)
	status, _ := get(t, proxy.Addr("dynamic"), "/")
	require.Equal(t, 200, status)
	isOpen := func() bool {
		runtime.GC()
		entries, err := os.ReadDir(open)
		require.NoError(t, err)
		return slices.ContainsFunc(entries, func(e os.DirEntry) bool {
			target, _ := os.Readlink(filepath.Join(open, e.Name())) // some have gone since
			return target == log
		})
	}
	servicetest.Eventually(t, "the log is written", isOpen)
	http.DefaultClient.CloseIdleConnections() // one that is idle keeps the old listener
	listener("v1", log+".other")
	servicetest.Eventually(t, "the file is closed", func() bool { return !isOpen() })
	text, err := os.ReadFile(log)
	require.NoError(t, err)
	require.Equal(t, 1, strings.Count(string(text), "\n"))
}
