package app_test

import (
	"bufio"
	"context"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	endpointv3 "github.com/envoyproxy/go-control-plane/envoy/config/endpoint/v3"
	discoveryv3 "github.com/envoyproxy/go-control-plane/envoy/service/discovery/v3"
	healthv3 "github.com/envoyproxy/go-control-plane/envoy/service/health/v3"
	loadstats "github.com/envoyproxy/go-control-plane/envoy/service/load_stats/v3"
	"github.com/stretchr/testify/require"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/status"

	"github.com/weirproxy/weir/internal/environtest"
	"github.com/weirproxy/weir/internal/servicetest"
	"github.com/weirproxy/weir/services/discovery/internal/app"
)

func TestMain(m *testing.M) { servicetest.Main(m) }

const (
	clusterURL  = "type.googleapis.com/envoy.config.cluster.v3.Cluster"
	endpointURL = "type.googleapis.com/envoy.config.endpoint.v3.ClusterLoadAssignment"
)

// options are the defaults, on free ports of loopback, and warm at once.
func options(t testing.TB) app.Options {
	t.Helper()
	var o app.Options
	environtest.Defaults(t, &o)
	o.HTTPAddress, o.XDSAddress, o.AdminAddress = "127.0.0.1:0", "127.0.0.1:0", "127.0.0.1:0"
	o.DrainGrace, o.WarmUp = 0, new(time.Duration(0))
	return o
}

// running is a service in this process.
type running struct {
	addrs map[string]string
	stop  func() error // waits for its end
}

// start runs the service until the test ends, or stop is called, and waits
// until it is ready.
func start(t testing.TB, o app.Options) *running {
	t.Helper()
	a, err := app.New(o, slog.New(slog.DiscardHandler))
	require.NoError(t, err)
	r := &running{a.Addrs(), servicetest.Run(t, a)}
	t.Cleanup(http.DefaultClient.CloseIdleConnections) // before the service ends
	servicetest.Eventually(t, "it is ready", func() bool {
		status, _ := r.get(t, "admin", "/ready")
		return status == 200
	})
	return r
}

func TestAStoreThatIsNoRedisEndsTheServiceAndOneThatComesToRefuseShows(t *testing.T) {
	other := httptest.NewServer(http.NotFoundHandler())
	defer other.Close()
	o := options(t)
	o.Store = "redis://" + other.Listener.Addr().String()
	a, err := app.New(o, slog.New(slog.DiscardHandler))
	require.NoError(t, err)
	err = a.Run(t.Context())
	require.ErrorContains(t, err, "load the registry: redis at "+other.Listener.Addr().String()+": the store refuses this service: ")
	require.ErrorContains(t, err, "HTTP/1.1 400 Bad Request")

	redis := servicetest.Redis(t)
	o.Store = "redis://" + redis.Address
	r := start(t, o)
	_, text := r.get(t, "admin", "/ready")
	require.Equal(t, "ready\n", text)
	redis.Command("ACL SETUSER default nocommands +ping")
	servicetest.Eventually(t, "it is told", func() bool {
		status, text := r.get(t, "admin", "/ready")
		return status == 200 && strings.Contains(text, "ready, from memory alone: redis at "+redis.Address+": the store refuses this service: NOPERM")
	})
	redis.Kill()
	servicetest.Eventually(t, "that it is away is told too", func() bool {
		status, text := r.get(t, "admin", "/ready")
		return status == 200 && strings.Contains(text, "ready, but the store does not do all that it is asked: redis at "+redis.Address)
	})
}

// Of one partition's key that somebody wrote over nobody hears by reading on, so
// /ready says that changes are not taken.
func TestThatTheChangesOfOnePartitionAreNotTakenShows(t *testing.T) {
	redis := servicetest.Redis(t)
	o := options(t)
	o.Store = "redis://" + redis.Address
	r := start(t, o)
	r.register(t, "8001", "60")
	const partition = "sd:{25}:" // that of echo
	servicetest.Eventually(t, "it is in redis", func() bool { return redis.Command("HLEN "+partition+"rec") == "1" })
	redis.Command("DEL " + partition + "tomb")
	redis.Command("SET " + partition + "tomb x")
	r.register(t, "8002", "60")
	servicetest.Eventually(t, "it is told", func() bool {
		status, text := r.get(t, "admin", "/ready")
		return status == 200 && strings.Contains(text, "ready, from memory alone: redis at "+redis.Address) &&
			strings.Contains(text, partition+"tomb: WRONGTYPE")
	})
	redis.Command("DEL " + partition + "tomb")
	servicetest.Eventually(t, "until it is mended", func() bool {
		_, text := r.get(t, "admin", "/ready")
		return text == "ready\n"
	})
}

// get asks the named HTTP listener and returns status and body.
func (r *running) get(t testing.TB, listener, path string) (int, string) {
	t.Helper()
	return servicetest.Get(t, r.addrs[listener], path)
}

// register checks in a host of "echo" at a port of 127.0.0.1.
func (r *running) register(t testing.TB, port, ttl string) {
	t.Helper()
	resp, err := http.PostForm("http://"+r.addrs["http"]+"/v1/registration/echo", url.Values{
		"ip": {"127.0.0.1"}, "port": {port}, "revision": {"r1"}, "ttl": {ttl},
		"tags": {`{"az":"a","region":"r","instance_id":"` + port + `"}`}})
	require.NoError(t, err)
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	require.NoError(t, err)
	require.Equal(t, 200, resp.StatusCode, "%s", body)
}

// watcher follows the endpoints of "echo" over ADS.
type watcher struct {
	stream discoveryv3.AggregatedDiscoveryService_StreamAggregatedResourcesClient
}

func (r *running) watch(t testing.TB) *watcher {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), servicetest.Patience)
	conn, err := grpc.NewClient(r.addrs["xds"], grpc.WithTransportCredentials(insecure.NewCredentials()))
	require.NoError(t, err)
	t.Cleanup(func() { cancel(); _ = conn.Close() })
	stream, err := discoveryv3.NewAggregatedDiscoveryServiceClient(conn).StreamAggregatedResources(ctx)
	require.NoError(t, err)
	w := &watcher{stream}
	require.NoError(t, stream.Send(&discoveryv3.DiscoveryRequest{TypeUrl: clusterURL}))
	require.NoError(t, stream.Send(&discoveryv3.DiscoveryRequest{TypeUrl: endpointURL, ResourceNames: []string{"echo"}}))
	return w
}

// await reads and acknowledges responses until the endpoints are at ports.
func (w *watcher) await(t testing.TB, ports ...uint32) {
	t.Helper()
	for {
		response, err := w.stream.Recv()
		require.NoError(t, err, "no endpoints at %v", ports)
		ack := &discoveryv3.DiscoveryRequest{TypeUrl: response.GetTypeUrl(), ResponseNonce: response.GetNonce()}
		if response.GetTypeUrl() == clusterURL {
			require.NoError(t, w.stream.Send(ack))
			continue
		}
		ack.ResourceNames = []string{"echo"}
		require.NoError(t, w.stream.Send(ack))
		var m endpointv3.ClusterLoadAssignment
		require.NoError(t, response.GetResources()[0].UnmarshalTo(&m))
		got := []uint32{}
		for _, locality := range m.GetEndpoints() {
			for _, e := range locality.GetLbEndpoints() {
				got = append(got, e.GetEndpoint().GetAddress().GetSocketAddress().GetPortValue())
			}
		}
		if len(got) == len(ports) {
			require.ElementsMatch(t, ports, got)
			return
		}
	}
}

func TestAHostThatChecksInIsSeenOverADSUntilItsTTLHasPassed(t *testing.T) {
	r := start(t, options(t))
	w := r.watch(t)
	r.register(t, "8001", "60")
	w.await(t, 8001)
	r.register(t, "8002", "5") // which is seen before on a busy machine too
	w.await(t, 8001, 8002)
	w.await(t, 8001)
	_, body := r.get(t, "http", "/v1/registration/echo")
	require.Contains(t, body, `"port":8001`)
	require.NotContains(t, body, `"port":8002`)
}

func TestAHostThatRegistersByJSONIsSeenByAllFaces(t *testing.T) {
	r := start(t, options(t))
	w := r.watch(t)
	r.put(t, "8001")
	w.await(t, 8001)
	_, body := r.get(t, "http", "/v1/registration/echo")
	require.Contains(t, body, `"instance_id":"i-1"`)
	_, body = r.get(t, "http", "/v2/services/echo/hosts")
	require.Contains(t, body, `"port":8001`)
	status, body := r.get(t, "http", "/v2")
	require.Equal(t, 404, status, body)
}

func TestACallThatWaitsIsAnsweredWhenTheServiceStops(t *testing.T) {
	o := options(t)
	o.MaxWaiters = 1
	r := start(t, o)
	const poll = "/v2/services/echo/hosts?index=0000000000000000&wait=5m"
	ended := make(chan int, 1)
	// Ends with the service; the test waits for it.
	go func() {
		status, _ := r.get(t, "http", poll)
		ended <- status
	}()
	servicetest.Eventually(t, "the call waits", func() bool {
		_, body := r.get(t, "admin", "/metrics")
		return strings.Contains(body, "discovery_rest_v2_waiters 1\n")
	})
	require.NoError(t, r.stop())
	require.Equal(t, http.StatusNotModified, <-ended)
}

// put registers host i-1 of "echo" at a port of 127.0.0.1, by JSON.
func (r *running) put(t testing.TB, port string) {
	t.Helper()
	request, err := http.NewRequest("PUT", "http://"+r.addrs["http"]+"/v2/services/echo/hosts/i-1",
		strings.NewReader(`{"address":"127.0.0.1","port":`+port+`,"ttl":"60s"}`))
	require.NoError(t, err)
	request.Header.Set("Content-Type", "application/json")
	response, err := http.DefaultClient.Do(request)
	require.NoError(t, err)
	defer response.Body.Close()
	require.Equal(t, http.StatusCreated, response.StatusCode)
}

func TestHostsComeBackAfterARestart(t *testing.T) {
	o := options(t)
	o.Store = "file://" + filepath.Join(t.TempDir(), "hosts.snapshot")
	r := start(t, o)
	r.register(t, "8001", "60")
	require.NoError(t, r.stop())
	r = start(t, o)
	r.watch(t).await(t, 8001)
	_, body := r.get(t, "http", "/v1/registration/echo")
	require.Contains(t, body, `"port":8001`)
}

func TestASecondProcessDoesNotStartOnTheSnapshotOfAnother(t *testing.T) {
	o := options(t)
	path := filepath.Join(t.TempDir(), "hosts.snapshot")
	o.Store = "file://" + path
	r := start(t, o)
	_, err := app.New(o, slog.New(slog.DiscardHandler))
	require.ErrorContains(t, err, fmt.Sprintf(`DISCOVERY_STORE: store of scheme "file": snapshot %s: %s.lock is held by process %d on `, path, path, os.Getpid()))
	require.NoError(t, r.stop())
	start(t, o)
}

func TestABrokenSnapshotDoesNotStopTheStart(t *testing.T) {
	o := options(t)
	path := filepath.Join(t.TempDir(), "hosts.snapshot")
	require.NoError(t, os.WriteFile(path, []byte("{"), 0o600))
	o.Store = "file://" + path
	r := start(t, o)
	r.register(t, "8001", "60")
	r.watch(t).await(t, 8001)
}

func TestOperatorsSeeServicesStreamsAndMetrics(t *testing.T) {
	r := start(t, options(t))
	r.register(t, "8001", "60")
	w := r.watch(t)
	w.await(t, 8001)
	for path, want := range map[string]string{
		"/healthz":  "ok",
		"/ready":    "ready",
		"/registry": `"echo": 1`,
		"/xds":      `"endpoints": {`,
		"/metrics":  "discovery_hosts 1\n",
		"/":         "/xds",
	} {
		status, body := r.get(t, "admin", path)
		require.Equal(t, 200, status, path)
		require.Contains(t, body, want, path)
	}
}

func TestTheLastHostOfAServiceIsKeptAsTheSettingsSay(t *testing.T) {
	o := options(t)
	o.GuardLastHost = -1
	r := start(t, o)
	r.register(t, "8001", "1")
	servicetest.Eventually(t, "a guard holds it", func() bool {
		_, body := r.get(t, "admin", "/metrics")
		return strings.Contains(body, `discovery_guard_held_hosts{guard="last_host"} 1`)
	})
	_, body := r.get(t, "http", "/v1/registration/echo")
	require.Contains(t, body, `"port":8001`)
}

func TestUntilTheRegistryIsLoadedNobodyIsToldOfHosts(t *testing.T) {
	o := options(t)
	path := filepath.Join(t.TempDir(), "hosts.snapshot")
	o.Store = "file://" + path
	a, err := app.New(o, slog.New(slog.DiscardHandler))
	require.NoError(t, err)
	require.NoError(t, os.Symlink(path, path)) // to itself: nobody can open that
	servicetest.Run(t, a)
	t.Cleanup(http.DefaultClient.CloseIdleConnections) // before the service ends
	const reason = "the registry is not loaded yet"
	for _, target := range []string{"/registry", "/ready"} {
		status, body := servicetest.Get(t, a.Addrs()["admin"], target)
		require.Equal(t, http.StatusServiceUnavailable, status, target)
		require.Contains(t, body, reason, target)
	}
	form := url.Values{
		"ip": {"127.0.0.1"}, "port": {"1"}, "revision": {"r1"}, "load_balancing_weight": {"1"},
		"tags": {`{"az":"a","region":"r","instance_id":"i"}`},
	}.Encode()
	for call, body := range map[string]string{
		"GET /v1/registration/echo":                                  "",
		"HEAD /v1/registration/echo":                                 "",
		"GET /v1/registration/repo/echo":                             "",
		"POST /v1/registration/echo":                                 form,
		"DELETE /v1/registration/echo/127.0.0.1":                     "",
		"POST /v1/loadbalancing/echo":                                form,
		"POST /v1/loadbalancing/echo/127.0.0.1":                      form,
		"GET /v2/prometheus/sd":                                      "",
		"GET /v2/prometheus/sd?service=echo":                         "",
		"GET /v2/services":                                           "",
		"GET /v2/services/echo/hosts":                                "",
		"GET /v2/services/echo/hosts?index=0000000000000000&wait=1s": "",
		"GET /v2/services/echo/hosts/a":                              "",
		"PUT /v2/services/echo/hosts/a":                              `{"address":"127.0.0.1","port":1}`,
		"DELETE /v2/services/echo/hosts/a":                           "",
		"POST /v2/services/echo/hosts/a/heartbeat":                   "",
		"POST /v2/heartbeats":                                        `{"leases":["0000000000000001"]}`,
		"GET /v2/services/echo/revisions":                            "",
		"GET /v2/services/echo/history":                              "",
		"GET /v2/events":                                             "",
		"GET /v2/settings":                                           "",
		"PUT /v2/settings/drain":                                     `{"scope":{"service":"echo"},"author":"ann","reason":"r"}`,
		"DELETE /v2/settings/drain?service=echo":                     "",
		"GET /v2/guard":                                              "",
		"DELETE /v2/guard/suspension?reason=r":                       "",
	} {
		method, target, _ := strings.Cut(call, " ")
		request, err := http.NewRequestWithContext(t.Context(), method, "http://"+a.Addrs()["http"]+target, strings.NewReader(body))
		require.NoError(t, err)
		if body == form {
			request.Header.Set("Content-Type", "application/x-www-form-urlencoded")
		} else if body != "" {
			request.Header.Set("Content-Type", "application/json")
		}
		response, err := http.DefaultClient.Do(request)
		require.NoError(t, err)
		answer, err := io.ReadAll(response.Body)
		response.Body.Close()
		require.NoError(t, err)
		require.Equal(t, http.StatusServiceUnavailable, response.StatusCode, "%s: %s", call, answer)
		require.Equal(t, "1", response.Header.Get("Retry-After"), call)
		require.Empty(t, response.Header.Get("ETag"), call)
		if method != "HEAD" {
			require.JSONEq(t, `{"error":"`+reason+`"}`, string(answer), call)
		}
	}
	for listener, target := range map[string]string{"admin": "/healthz", "http": "/healthcheck"} {
		status, _ := servicetest.Get(t, a.Addrs()[listener], target)
		require.Equal(t, http.StatusOK, status, "it lives, says %s", target)
	}
	require.NoError(t, os.Remove(path))
	servicetest.Eventually(t, "the registry is loaded", func() bool {
		status, body := servicetest.Get(t, a.Addrs()["admin"], "/registry")
		return status == http.StatusOK && strings.Contains(body, `"services": {}`)
	})
	status, _ := servicetest.Get(t, a.Addrs()["http"], "/v1/registration/echo")
	require.Equal(t, http.StatusOK, status)
}

func TestAtTheStopWhatIsInFlightEndsAndNothingNewIsTaken(t *testing.T) {
	r := start(t, options(t))
	body := url.Values{
		"ip": {"127.0.0.1"}, "port": {"8001"}, "revision": {"r1"}, "tags": {`{"az":"a","region":"r","instance_id":"i"}`},
	}.Encode()
	c, err := net.Dial("tcp", r.addrs["http"])
	require.NoError(t, err)
	defer c.Close()
	require.NoError(t, c.SetDeadline(time.Now().Add(servicetest.Patience)))
	_, err = fmt.Fprintf(c, "POST /v1/registration/echo HTTP/1.1\r\nHost: a\r\nExpect: 100-continue\r\nContent-Length: %d\r\n\r\n", len(body))
	require.NoError(t, err)
	answers := bufio.NewReader(c)
	line, err := answers.ReadString('\n') // sent when the body is asked for
	require.NoError(t, err)
	require.Contains(t, line, "100 Continue")
	_, err = answers.ReadString('\n') // and the empty line after it
	require.NoError(t, err)

	stopped := make(chan error, 1)
	// Ends when the service has; received below.
	go func() { stopped <- r.stop() }()
	servicetest.Eventually(t, "no connection is taken any more", func() bool {
		another, err := net.Dial("tcp", r.addrs["http"])
		if err == nil {
			another.Close()
		}
		return err != nil
	})
	status, text := r.get(t, "admin", "/ready")
	require.Equal(t, http.StatusServiceUnavailable, status)
	require.Contains(t, text, "stopping")
	status, _ = r.get(t, "admin", "/healthz")
	require.Equal(t, http.StatusOK, status)

	_, err = io.WriteString(c, body)
	require.NoError(t, err)
	response, err := http.ReadResponse(answers, nil)
	require.NoError(t, err)
	response.Body.Close()
	require.Equal(t, http.StatusOK, response.StatusCode)
	require.NoError(t, <-stopped)
}

func TestEveryFaceOfRESTIsServed(t *testing.T) {
	r := start(t, options(t))
	r.register(t, "8001", "60")
	for path, want := range map[string]string{
		"/healthcheck":                       "OK",
		"/v1/registration/echo":              `"port":8001`,
		"/v2/prometheus/sd":                  `"targets":["127.0.0.1:8001"]`,
		"/v2/prometheus/sd?service=somebody": "[]",
		"/v2/status":                         `"state":"ready"`,
		"/":                                  "<title>discovery</title>",
		"/page.js":                           "v2/",
	} {
		status, body := r.get(t, "http", path)
		require.Equal(t, 200, status, path)
		require.Contains(t, body, want, path)
	}
	for path, want := range map[string]string{
		"/": "GET, HEAD", "/page": "GET, HEAD", "/page.js": "GET, HEAD", "/healthcheck": "GET, HEAD", "/v2/heartbeats": "POST",
	} {
		response, _ := r.call(t, "PATCH", path, "", nil)
		require.Equal(t, 405, response.StatusCode, path)
		require.Equal(t, want, response.Header.Get("Allow"), path)
	}
	response, body := r.call(t, "GET", "/page.html", "", nil)
	require.Equal(t, 404, response.StatusCode)
	require.JSONEq(t, `{"error":"nothing is at /page.html"}`, body)
}

func TestTheAdminListenerLeadsToThePage(t *testing.T) {
	o := options(t)
	o.HTTPAddress = "0.0.0.0:0"
	r := start(t, o)
	_, index := r.get(t, "admin", "/")
	require.Contains(t, index, `href="/page"`)
	// The listener is at any address: the page is looked for at that of the admin listener.
	status, body := r.get(t, "admin", "/page")
	require.Equal(t, 200, status)
	require.Contains(t, body, "<title>discovery</title>")
}

func TestHostsAreCheckedOnlyWhereAFileSaysHow(t *testing.T) {
	rules := filepath.Join(t.TempDir(), "hds.yaml")
	require.NoError(t, os.WriteFile(rules, []byte("{services: [{service: echo, health_checks: ["+
		"{timeout: 1s, interval: 2s, unhealthy_threshold: 1, healthy_threshold: 1, tcp_health_check: {}}]}]}"), 0o600))
	for file, want := range map[string]codes.Code{"": codes.Unimplemented, rules: codes.OK} {
		o := options(t)
		o.HDSFile = file
		r := start(t, o)
		conn, err := grpc.NewClient(r.addrs["xds"], grpc.WithTransportCredentials(insecure.NewCredentials()))
		require.NoError(t, err)
		defer conn.Close()
		stream, err := healthv3.NewHealthDiscoveryServiceClient(conn).StreamHealthCheck(t.Context())
		require.NoError(t, err)
		err = stream.Send(&healthv3.HealthCheckRequestOrEndpointHealthResponse{
			RequestType: &healthv3.HealthCheckRequestOrEndpointHealthResponse_HealthCheckRequest{
				HealthCheckRequest: &healthv3.HealthCheckRequest{Node: &corev3.Node{Id: "a"}}},
		})
		if !errors.Is(err, io.EOF) { // where none is served, the stream may have ended already; Recv tells why
			require.NoError(t, err)
		}
		_, err = stream.Recv()
		require.Equal(t, want, status.Code(err), "%v", err)

		reports, err := loadstats.NewLoadReportingServiceClient(conn).StreamLoadStats(t.Context())
		require.NoError(t, err)
		require.NoError(t, reports.Send(&loadstats.LoadStatsRequest{}))
		_, err = reports.Recv()
		require.NoError(t, err, "load reports are always taken")
		require.NoError(t, r.stop(), "open streams do not hold up the end")
	}
}

func TestAStatsdServerIsToldOfRegistrations(t *testing.T) {
	server, err := net.ListenPacket("udp", "127.0.0.1:0")
	require.NoError(t, err)
	defer server.Close()
	o := options(t)
	o.StatsdHost, o.StatsdPort = "127.0.0.1", server.LocalAddr().(*net.UDPAddr).Port
	r := start(t, o)
	r.register(t, "8001", "60")
	require.NoError(t, r.stop())
	require.NoError(t, server.SetReadDeadline(time.Now().Add(servicetest.Patience)))
	datagram := make([]byte, 2000)
	n, _, err := server.ReadFrom(datagram)
	require.NoError(t, err)
	require.Equal(t, "registration.echo.success:1|c", string(datagram[:n]))
}

func TestMetricsAreThoseOfTheGoldenFile(t *testing.T) {
	heads := regexp.MustCompile(`(?m)^# (HELP|TYPE) discovery_.*\n`)
	o, _, _ := filed(t)
	o.TLSCert, o.TLSKey = servicetest.NewAuthority(t).IssueFiles(x509.Certificate{IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)}})
	_, body := start(t, o).get(t, "admin", "/metrics")
	servicetest.Golden(t, "testdata/metrics.txt", []byte(strings.Join(heads.FindAllString(body, -1), "")))
}

func TestUntilItIsWarmNobodyIsToldThatAServiceHasNoHosts(t *testing.T) {
	o := options(t)
	o.WarmUp = new(time.Hour)
	r := start(t, o)
	lists := []string{
		"/v1/registration/echo", "/v1/registration/repo/echo", "/v2/services/echo/hosts", "/v2/services/echo/hosts?index=00000000000000aa",
		"/v2/services/echo/hosts?index=0000000000000000&wait=1ms", "/v2/services/echo/revisions", "/v2/services", "/v2/prometheus/sd", "/v2/prometheus/sd?service=echo",
	}
	for _, target := range lists {
		response, err := http.Get("http://" + r.addrs["http"] + target)
		require.NoError(t, err)
		body, err := io.ReadAll(response.Body)
		response.Body.Close()
		require.NoError(t, err)
		require.Equal(t, 503, response.StatusCode, target)
		require.Equal(t, "1", response.Header.Get("Retry-After"), target)
		require.Empty(t, response.Header.Get("ETag"), target)
		require.JSONEq(t, `{"error":"the registry began a moment ago and may not know all hosts: those that live may only be about to check in"}`, string(body))
	}
	r.register(t, "8001", "60")
	for _, target := range []string{"/v1/registration/echo", "/v2/services/echo/hosts", "/v2/prometheus/sd"} {
		status, body := r.get(t, "http", target)
		require.Equal(t, 200, status, target)
		require.Contains(t, body, "8001")
	}
}
