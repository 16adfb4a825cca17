package router_test

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	routev3 "github.com/envoyproxy/go-control-plane/envoy/config/route/v3"
	routerv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/http/router/v3"
	"github.com/stretchr/testify/require"
	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/types/known/wrapperspb"

	"github.com/weirproxy/weir/internal/servicetest"
	"github.com/weirproxy/weir/services/proxy/internal/cluster"
	"github.com/weirproxy/weir/services/proxy/internal/httpfilter"
	"github.com/weirproxy/weir/services/proxy/internal/httpfilter/filtertest"
	"github.com/weirproxy/weir/services/proxy/internal/httpfilter/router"
	"github.com/weirproxy/weir/services/proxy/internal/layeredruntime"
	"github.com/weirproxy/weir/services/proxy/internal/layeredruntime/runtimetest"
	"github.com/weirproxy/weir/services/proxy/internal/message"
	"github.com/weirproxy/weir/services/proxy/internal/route"
	"github.com/weirproxy/weir/services/proxy/internal/stats"
	"github.com/weirproxy/weir/services/proxy/internal/stream"
	"github.com/weirproxy/weir/services/proxy/internal/strict"
)

// scripted is a server that does with each request what its script says: an
// answer as it stands, or
//
//   - hang: nothing, until the other side closes;
//   - gated: fine, once the gate is open;
//   - close: it reads the request and closes;
//   - gated close: close, once the gate is open;
//   - early: it answers 503 as it has read the head, and leaves the body;
//   - deaf: it answers 200 as it has read the head, and reads no more;
//   - aborted: it answers with 3 of 4 bytes, and resets the connection;
//   - trickling: fine, whose body takes longer than three seconds and a half.
type scripted struct {
	address string
	gate    chan struct{} // open once it is closed

	mu       sync.Mutex
	script   []string // the last stays
	requests []string // with their bodies
	headers  []http.Header
	asked    []string // the hosts that were asked for
	conns    []net.Conn
}

const (
	hang  = "hang"
	gated = "gated"
	shut  = "close"
	early = "early"
	deaf  = "deaf"

	aborted   = "aborted"
	trickling = "trickling"
	gatedShut = "gated close"

	fine        = "HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nfine"
	unavailable = "HTTP/1.1 503 Service Unavailable\r\nContent-Length: 2\r\n\r\nno"
)

func newScripted(t testing.TB, script ...string) *scripted {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	u := &scripted{address: l.Addr().String(), script: script, gate: make(chan struct{})}
	var all sync.WaitGroup
	all.Go(func() { // ends with the listener
		for {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			u.mu.Lock()
			u.conns = append(u.conns, conn)
			u.mu.Unlock()
			all.Go(func() { u.serve(conn) }) // ends with the connection
		}
	})
	t.Cleanup(func() {
		require.NoError(t, l.Close())
		u.mu.Lock()
		for _, conn := range u.conns {
			_ = conn.Close()
		}
		u.mu.Unlock()
		all.Wait()
	})
	return u
}

func (u *scripted) serve(conn net.Conn) {
	defer conn.Close()
	for r := bufio.NewReader(conn); ; {
		request, err := http.ReadRequest(r)
		if err != nil {
			return
		}
		u.mu.Lock()
		next := u.script[0]
		if len(u.script) > 1 {
			u.script = u.script[1:]
		}
		u.headers = append(u.headers, request.Header)
		u.asked = append(u.asked, request.Host)
		u.mu.Unlock()
		if next == early {
			u.note(request.Method)
			_, _ = io.WriteString(conn, unavailable)
			return
		}
		if next == deaf {
			_, _ = io.WriteString(conn, fine)
			<-u.gate
			return
		}
		body, err := io.ReadAll(request.Body)
		if err != nil {
			return
		}
		u.note(request.Method + " " + string(body))
		switch next {
		case shut:
			return
		case gatedShut:
			<-u.gate
			return
		case hang:
			_, _ = io.Copy(io.Discard, r)
			return
		case gated:
			<-u.gate
			next = fine
		case aborted:
			_, _ = io.WriteString(conn, fine[:len(fine)-1])
			_ = conn.(*net.TCPConn).SetLinger(0)
			return
		case trickling:
			head, body := fine[:len(fine)-4], fine[len(fine)-4:]
			_, _ = io.WriteString(conn, head)
			for _, c := range body {
				time.Sleep(900 * time.Millisecond)
				_, _ = io.WriteString(conn, string(c))
			}
			continue
		}
		if _, err := io.WriteString(conn, next); err != nil {
			return
		}
	}
}

func (u *scripted) note(request string) {
	u.mu.Lock()
	defer u.mu.Unlock()
	u.requests = append(u.requests, request)
}

// seen are the requests so far.
func (u *scripted) seen() []string {
	u.mu.Lock()
	defer u.mu.Unlock()
	return append([]string{}, u.requests...)
}

// hosts are those of the requests so far.
func (u *scripted) hosts() []string {
	u.mu.Lock()
	defer u.mu.Unlock()
	return slices.Clone(u.asked)
}

// header is a field of request i, from 0 on.
func (u *scripted) header(i int, name string) string {
	u.mu.Lock()
	defer u.mu.Unlock()
	return u.headers[i].Get(name)
}

// routeOf is the one route of a virtual host, with fields of both: each of the
// host's is followed by a comma, each of the action's after one.
func routeOf(t testing.TB, host, action string) *route.Route {
	t.Helper()
	config := &routev3.RouteConfiguration{}
	require.NoError(t, protojson.Unmarshal([]byte(`{"virtual_hosts": [{"name": "all", "domains": ["*"], `+host+`
		"routes": [{"match": {"prefix": "/"}, "route": {"cluster": "up"`+action+`}}]}]}`), config))
	report := &strict.Report{}
	table := route.Parse(config, "", report)
	require.NoError(t, report.Err())
	r := table.Match(route.Input{Request: &message.Request{Authority: []byte("up"), Path: []byte("/")}})
	require.NotNil(t, r)
	return r
}

// sent is a request and what came of it.
type sent struct {
	stream.Stream
	run  httpfilter.Run
	body string // of the response
	// broken is how that broke off; nil if it did not.
	broken error
}

// send sends a request through a router. Fields are the request's, name and
// value in turn.
func send(t testing.TB, up *cluster.Cluster, r *route.Route, body message.Body, fields ...string) *sent {
	return sendBy(t, &routerv3.Router{}, up, r, body, fields...)
}

// chainOf is a chain of a router alone.
func chainOf(config *routerv3.Router) *httpfilter.Chain {
	return httpfilter.NewChain([]httpfilter.Config{parse(config)})
}

// parse makes a router's configuration, whose metrics nobody sees.
func parse(config *routerv3.Router) httpfilter.Config {
	parsed := router.Factory{}.Parse(config, "", &strict.Report{})
	filtertest.Measure(parsed)
	return parsed
}

// newFilter is a router by itself.
func newFilter() httpfilter.Filter {
	config := router.Factory{}.Parse(nil, "", nil)
	filtertest.Measure(config)
	return config.NewFilter()
}

func sendBy(t testing.TB, config *routerv3.Router, up *cluster.Cluster, r *route.Route, body message.Body, fields ...string) *sent {
	t.Helper()
	return sendUnder(t, nil, config, up, r, body, fields...)
}

// sendUnder is sendBy with values of the runtime.
func sendUnder(t testing.TB, values *layeredruntime.Snapshot, config *routerv3.Router, up *cluster.Cluster, r *route.Route, body message.Body, fields ...string) *sent {
	t.Helper()
	return sendThrough(t, parse(config), values, up, r, body, fields...)
}

// sendThrough is sendUnder with a router's configuration that was made before.
func sendThrough(t testing.TB, config httpfilter.Config, values *layeredruntime.Snapshot, up *cluster.Cluster, r *route.Route, body message.Body, fields ...string) *sent {
	t.Helper()
	s := &sent{Stream: stream.Stream{Route: r, Cluster: up, Context: t.Context(), Start: time.Now(), Runtime: values, BodyBufferLimit: 1 << 20}}
	if r.BodyBufferLimit >= 0 {
		s.BodyBufferLimit = uint64(r.BodyBufferLimit)
	}
	s.Request.Method, s.Request.Path, s.Request.Authority = []byte("GET"), []byte("/"), []byte("up")
	if body != nil {
		s.Request.Method, s.Request.Body, s.Request.BodyLength = []byte("POST"), body, message.Unknown
	}
	end, slow := body.(*slowEnd)
	if slow {
		s.Request.BodyLength = end.length()
	}
	for i := 0; i < len(fields); i += 2 {
		s.Request.Headers.Add(fields[i], fields[i+1])
	}
	if protocol, ok := s.Request.Headers.Get("upgrade"); ok {
		s.Request.Method, s.Request.Upgrade = []byte("GET"), protocol
	}
	s.MaxDuration, _ = r.MaxStreamDuration(&s.Request)
	s.Facts.Reset(&s.Request, &s.Response, nil)
	s.Facts.Start = s.Start
	s.run.Begin(httpfilter.NewChain([]httpfilter.Config{config}))
	s.run.Exchange(&s.Stream)
	for s.Response.Body != nil {
		chunk, err := s.Response.Body.Next()
		if err != nil {
			if !errors.Is(err, io.EOF) {
				s.broken = err
			}
			break
		}
		s.body += string(chunk)
	}
	if slow {
		close(end.over)
	}
	s.run.End(&s.Stream)
	return s
}

// summary is the status with the response flags, and how the body broke off.
func (s *sent) summary() string {
	text := fmt.Sprint(s.Response.Status, " ", s.Facts.Flags)
	if s.broken != nil {
		text += ": " + s.broken.Error()
	}
	return text
}

const quick = `"retry_back_off": {"base_interval": "0.001s"}`

func TestRequestsAreRetried(t *testing.T) {
	for _, c := range []struct {
		name, policy string
		fields       []string // of the request
		script       []string
		want         string // status and flags
		attempts     int
		counters     string // of the cluster, those that are not 0 of the ones below
	}{
		{"a good answer is taken", `"retry_on": "5xx"`, nil, []string{fine}, "200 -", 1, ""},
		{"a bad one is not", `"retry_on": "5xx"`, nil, []string{unavailable, fine}, "200 -", 2, "retry=1 success=1 exponential=1 retry.503=1"},
		{"as often as is allowed", `"retry_on": "5xx", "num_retries": 3`, nil, []string{shut, unavailable, unavailable, fine}, "200 -", 4, "retry=3 success=1 exponential=3 retry.503=2"},
		{"the last one stands", `"retry_on": "5xx"`, nil, []string{unavailable}, "503 URX", 2, "retry=1 limit=1 exponential=1 retry.503=1"},
		{"without a retry", `"retry_on": "5xx", "num_retries": 0`, nil, []string{unavailable}, "503 URX", 1, "limit=1"},
		{"what is no condition", `"retry_on": "retriable-4xx"`, nil, []string{unavailable}, "503 -", 1, ""},
		{"a connection that ends", `"retry_on": "reset"`, nil, []string{shut, fine}, "200 -", 2, "retry=1 success=1 exponential=1"},
		{"one that ends again", `"retry_on": "reset"`, nil, []string{shut}, "503 URX,UC", 2, "retry=1 limit=1 exponential=1"},
		{"before the request was sent", `"retry_on": "reset-before-request"`, nil, []string{shut}, "503 UC", 1, ""},
		{"by the client's headers", ``, []string{"x-envoy-retry-on", "5xx", "x-envoy-max-retries", "2"}, []string{unavailable, unavailable, fine}, "200 -", 3, "retry=2 success=1 exponential=2 retry.503=2"},
		{"an answer that tells when", `"retry_on": "5xx", "rate_limited_retry_back_off": {"reset_headers": [{"name": "retry-after"}], "max_interval": "0.5s"}`, nil, []string{unavailable, fine}, "200 -", 2, "retry=1 success=1 exponential=1 retry.503=1"},
		{"gRPC", `"retry_on": "unavailable"`, nil, []string{"HTTP/1.1 200 OK\r\nGrpc-Status: 14\r\nContent-Length: 0\r\n\r\n", fine}, "200 -", 2, "retry=1 success=1 exponential=1 retry.200=1"},
		{"a try that takes too long", `"retry_on": "5xx", "per_try_timeout": "2s"`, nil, []string{hang, fine}, "200 -", 2, "retry=1 success=1 exponential=1 pertry=1"},
		{"all tries", `"retry_on": "5xx", "per_try_timeout": "2s"`, nil, []string{hang}, "504 URX,UT", 2, "retry=1 limit=1 exponential=1 pertry=2"},
		{"a try that takes too long, without retries", `"per_try_timeout": "2s"`, nil, []string{hang}, "504 UT", 1, "pertry=1"},
		{"a try by the header", ``, []string{"x-envoy-upstream-rq-per-try-timeout-ms", "2000"}, []string{hang}, "504 UT", 1, "pertry=1"},
		{"a try that stands still", `"retry_on": "reset", "per_try_idle_timeout": "2s"`, nil, []string{hang, fine}, "200 -", 2, "retry=1 success=1 exponential=1 peridle=1"},
		{"the whole takes too long", `"retry_on": "5xx", "num_retries": 5`, []string{"x-envoy-upstream-rq-timeout-ms", "2000"}, []string{unavailable, hang}, "504 UT", 2, "retry=1 exponential=1 timeout=1 retry.503=1"},
		{"the whole counts for tries that are longer", `"retry_on": "5xx", "per_try_timeout": "20s"`, []string{"x-envoy-upstream-rq-timeout-ms", "2000"}, []string{hang}, "504 UT", 1, "timeout=1"},
		{"the whole ends a pause", `"retry_on": "5xx", "rate_limited_retry_back_off": {"reset_headers": [{"name": "retry-after"}]}`, []string{"x-envoy-upstream-rq-timeout-ms", "2000"}, []string{"HTTP/1.1 503 No\r\nRetry-After: 20\r\nContent-Length: 0\r\n\r\n"}, "504 UT", 1, "retry=1 ratelimited=1 timeout=1 retry.503=1"},
		{"the client's own answer to lateness", ``, []string{"x-envoy-upstream-rq-timeout-ms", "2000", "x-envoy-upstream-rq-timeout-alt-response", "1"}, []string{hang}, "204 UT", 1, "timeout=1"},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel() // since many wait
			u := newScripted(t, c.script...)
			up, registry := clusterOf(t, `"connect_timeout": "5s"`, u.address)
			action := ""
			if c.policy != "" {
				action = `, "retry_policy": {` + quick + `, ` + c.policy + `}`
			}
			s := send(t, up, routeOf(t, `"include_attempt_count_in_response": true, "include_request_attempt_count": true,`, action), nil, c.fields...)
			require.Equal(t, c.want, s.summary())
			require.Equal(t, c.attempts, s.Facts.Attempts)
			told, _ := s.Response.Headers.Get("x-envoy-attempt-count")
			require.Equal(t, fmt.Sprint(c.attempts), string(told))
			for i := range c.attempts {
				require.Equal(t, fmt.Sprint(i+1), u.header(i, "x-envoy-attempt-count"))
				for _, name := range c.fields[:len(c.fields)/2] {
					require.Empty(t, u.header(i, name), "it goes no further")
				}
			}
			var counters []string
			for _, pair := range []string{
				"retry=upstream_rq_retry", "success=upstream_rq_retry_success", "limit=upstream_rq_retry_limit_exceeded", "overflow=upstream_rq_retry_overflow",
				"exponential=upstream_rq_retry_backoff_exponential", "ratelimited=upstream_rq_retry_backoff_ratelimited",
				"pertry=upstream_rq_per_try_timeout", "peridle=upstream_rq_per_try_idle_timeout", "timeout=upstream_rq_timeout",
				"retry.503=retry.upstream_rq_503", "retry.200=retry.upstream_rq_200",
			} {
				name, metric, _ := strings.Cut(pair, "=")
				if n := counted(registry, metric); n > 0 {
					counters = append(counters, fmt.Sprint(name, "=", n))
				}
			}
			require.Equal(t, c.counters, strings.Join(counters, " "))
			require.EqualValues(t, len(u.seen()), counted(registry, "upstream_rq_total"))
			require.EqualValues(t, 1, counted(registry, "upstream_rq_completed"))
			require.Zero(t, counted(registry, "upstream_rq_active"))
			require.Zero(t, up.Breakers(0).Retries.Used())
		})
	}
}

func TestRequestIsRetriedThatFoundNoConnection(t *testing.T) {
	u := newScripted(t, fine)
	up, registry := clusterOf(t, `"connect_timeout": "5s"`, servicetest.FreeAddress(t), u.address)
	r := routeOf(t, "", `, "retry_policy": {`+quick+`, "retry_on": "connect-failure"}`)
	for range 4 {
		require.Equal(t, "200 -", send(t, up, r, nil).summary())
	}
	require.Positive(t, counted(registry, "upstream_cx_connect_fail"))
	require.Equal(t, counted(registry, "upstream_cx_connect_fail"), counted(registry, "upstream_rq_retry_success"))
}

func TestTextOfAFailureTellsOfRetries(t *testing.T) {
	up, _ := clusterOf(t, `"connect_timeout": "5s"`, servicetest.FreeAddress(t))
	s := send(t, up, routeOf(t, "", `, "retry_policy": {`+quick+`, "retry_on": "5xx"}`), nil)
	require.Equal(t, "503 URX,UF", s.summary())
	require.Equal(t, "upstream connect error or disconnect/reset before headers. retried and the latest reset reason: remote connection failure", s.body)
	require.Equal(t, "upstream_reset_before_response_started{remote_connection_failure|delayed_connect_error:_Connection_refused}", s.Facts.Details)
}

func TestRetryGoesToAnotherHost(t *testing.T) {
	bad, good := newScripted(t, unavailable), newScripted(t, fine)
	up, _ := clusterOf(t, `"connect_timeout": "5s"`, bad.address, bad.address, good.address)
	r := routeOf(t, "", `, "retry_policy": {`+quick+`, "retry_on": "5xx", "host_selection_retry_max_attempts": 10, "retry_host_predicate": [{"name": "p",
		"typed_config": {"@type": "type.googleapis.com/envoy.extensions.retry.host.previous_hosts.v3.PreviousHostsPredicate"}}]}`)
	for range 10 {
		require.Equal(t, "200 -", send(t, up, r, nil).summary())
	}
	require.NotEmpty(t, bad.seen())
}

func TestRetriesHaveALimit(t *testing.T) {
	u := newScripted(t, unavailable)
	up, registry := clusterOf(t, `"connect_timeout": "5s", "circuit_breakers": {"thresholds": [{"max_retries": 0}]}`, u.address)
	s := send(t, up, routeOf(t, "", `, "retry_policy": {"retry_on": "5xx"}`), nil)
	require.Equal(t, "503 UO", s.summary())
	require.Equal(t, "no", s.body, "the upstream's own answer")
	require.False(t, s.Response.Headers.Has("x-envoy-overloaded"))
	require.EqualValues(t, 1, counted(registry, "upstream_rq_retry_overflow"))
	require.Len(t, u.seen(), 1)
}

func TestOverflowIsNotRetried(t *testing.T) {
	up, registry := clusterOf(t, `"connect_timeout": "5s", "circuit_breakers": {"thresholds": [{"max_requests": 0}]}`, newScripted(t, fine).address)
	s := send(t, up, routeOf(t, "", `, "retry_policy": {"retry_on": "5xx,reset,connect-failure"}`), nil)
	require.Equal(t, "503 UO", s.summary())
	require.True(t, s.Response.Headers.Has("x-envoy-overloaded"))
	require.Equal(t, "upstream_reset_before_response_started{overflow}", s.Facts.Details)
	require.Zero(t, counted(registry, "upstream_rq_retry"))
}

func TestRequestThatFindsNoConnectionWaits(t *testing.T) {
	u := newScripted(t, gated, fine)
	up, registry := clusterOf(t, `"connect_timeout": "5s", "circuit_breakers": {"thresholds": [{"max_connections": 1, "max_pending_requests": 1}]}`, u.address)
	first := make(chan *sent)
	r := routeOf(t, "", "")
	go func() { first <- send(t, up, r, nil) }() // ends once the gate is open
	servicetest.Eventually(t, "the first request has the connection", func() bool { return len(u.seen()) == 1 })
	second := make(chan *sent)
	go func() { second <- send(t, up, r, nil) }() // ends once the first one did
	servicetest.Eventually(t, "the second request waits", func() bool { return counted(registry, "upstream_rq_pending_active") == 1 })
	third := send(t, up, r, nil)
	require.Equal(t, "503 UO", third.summary())
	require.True(t, third.Response.Headers.Has("x-envoy-overloaded"))
	close(u.gate)
	require.Equal(t, "200 -", (<-first).summary())
	require.Equal(t, "200 -", (<-second).summary())
	require.EqualValues(t, 1, counted(registry, "upstream_cx_total"))
	require.EqualValues(t, 1, counted(registry, "upstream_cx_overflow"))
	require.EqualValues(t, 1, counted(registry, "upstream_rq_pending_overflow"))
	require.EqualValues(t, 2, counted(registry, "upstream_rq_pending_total"))
	require.Zero(t, counted(registry, "upstream_rq_pending_active"))
}

func TestRequestThatFindsTooManyPoolsFindsNoHost(t *testing.T) {
	u := newScripted(t, fine)
	up, registry := clusterOf(t, `"connect_timeout": "5s", "circuit_breakers": {"thresholds": [{"max_connection_pools": 0}]}`, u.address)
	s := send(t, up, routeOf(t, "", `, "retry_policy": {"retry_on": "5xx,connect-failure"}`), nil)
	require.Equal(t, "503 UH", s.summary())
	require.Equal(t, "no_healthy_upstream", s.Facts.Details)
	require.EqualValues(t, 1, counted(registry, "upstream_cx_pool_overflow"))
	require.Zero(t, counted(registry, "upstream_rq_pending_total"))
	require.Zero(t, counted(registry, "upstream_rq_retry"))
	require.Empty(t, u.seen())
}

func TestRequestWaitsForAConnectionUntilItsTimeout(t *testing.T) {
	u := newScripted(t, gated)
	up, registry := clusterOf(t, `"connect_timeout": "5s", "circuit_breakers": {"thresholds": [{"max_connections": 1}]}`, u.address)
	first, r := make(chan *sent), routeOf(t, "", "")
	go func() { first <- send(t, up, r, nil) }() // ends once the gate is open
	servicetest.Eventually(t, "the first request has the connection", func() bool { return len(u.seen()) == 1 })
	require.Equal(t, "504 UT", send(t, up, routeOf(t, "", `, "timeout": "0.05s"`), nil).summary())
	require.EqualValues(t, 1, counted(registry, "upstream_rq_timeout"))
	require.EqualValues(t, 1, counted(registry, "upstream_rq_cancelled"))
	close(u.gate)
	require.Equal(t, "200 -", (<-first).summary())
}

func TestConnectionOfARetriedAnswerIsKept(t *testing.T) {
	u := newScripted(t, unavailable, fine)
	up, registry := clusterOf(t, `"connect_timeout": "5s"`, u.address)
	require.Equal(t, "200 -", send(t, up, routeOf(t, "", `, "retry_policy": {`+quick+`, "retry_on": "5xx"}`), nil).summary())
	require.EqualValues(t, 1, counted(registry, "upstream_cx_total"))
}

func TestVirtualHostsPolicyHoldsForRoutesWithoutOne(t *testing.T) {
	u := newScripted(t, unavailable)
	up, _ := clusterOf(t, `"connect_timeout": "5s"`, u.address)
	const host = `"retry_policy": {` + quick + `, "retry_on": "5xx", "num_retries": 2},`
	require.Equal(t, 3, send(t, up, routeOf(t, host, ""), nil).Facts.Attempts)
	require.Equal(t, 1, send(t, up, routeOf(t, host, `, "retry_policy": {"retry_on": "retriable-4xx"}`), nil).Facts.Attempts)
}

func TestRetryTellsWhetherItIsForATimeout(t *testing.T) {
	t.Parallel() // it waits
	u := newScripted(t, unavailable, hang, fine)
	up, _ := clusterOf(t, `"connect_timeout": "5s"`, u.address)
	r := routeOf(t, `"include_is_timeout_retry_header": true,`, `, "retry_policy": {`+quick+`, "retry_on": "5xx", "num_retries": 2, "per_try_timeout": "2s"}`)
	require.Equal(t, "200 -", send(t, up, r, nil).summary())
	require.Equal(t, []string{"", "false", "true"}, []string{
		u.header(0, "x-envoy-is-timeout-retry"), u.header(1, "x-envoy-is-timeout-retry"), u.header(2, "x-envoy-is-timeout-retry"),
	})
	require.Equal(t, "2000", u.header(0, "x-envoy-expected-rq-timeout-ms"))
}

// chunks is a body of chunks, each of which waits until it is let go.
type chunks struct {
	list []string
	wait chan struct{} // receives before each chunk after the first; nil waits for nothing
	at   int
	last error
}

// Next implements message.Body.
func (c *chunks) Next() ([]byte, error) {
	if c.at > 0 && c.wait != nil {
		<-c.wait
	}
	if c.at == len(c.list) {
		if c.last != nil {
			return nil, c.last
		}
		return nil, io.EOF
	}
	c.at++
	return []byte(c.list[c.at-1]), nil
}

// Ready implements message.Body.
func (c *chunks) Ready() bool { return c.at == 0 || c.wait == nil }

func TestBodyIsSentAgain(t *testing.T) {
	u := newScripted(t, unavailable, shut, fine)
	up, registry := clusterOf(t, `"connect_timeout": "5s"`, u.address)
	r := routeOf(t, "", `, "retry_policy": {`+quick+`, "retry_on": "5xx", "num_retries": 2}`)
	s := send(t, up, r, &chunks{list: []string{"one ", "two ", "three"}})
	require.Equal(t, "200 -", s.summary())
	require.Equal(t, []string{"POST one two three", "POST one two three", "POST one two three"}, u.seen())
	require.Zero(t, counted(registry, "retry_or_shadow_abandoned"))
}

func TestBodyThatStillComesIsSentAgain(t *testing.T) {
	u := newScripted(t, early, early, fine)
	up, _ := clusterOf(t, `"connect_timeout": "5s"`, u.address)
	r := routeOf(t, "", `, "retry_policy": {`+quick+`, "retry_on": "5xx", "num_retries": 2}`)
	body := &chunks{list: []string{"one ", "two ", "three"}, wait: make(chan struct{})}
	go func() { // ends once two attempts are there, of which none gets more than one chunk
		servicetest.Eventually(t, "there is a second attempt", func() bool { return len(u.seen()) == 2 })
		close(body.wait)
	}()
	s := send(t, up, r, body)
	require.Equal(t, "200 -", s.summary())
	require.Equal(t, []string{"POST", "POST", "POST one two three"}, u.seen())
}

func TestLongBodyIsNotSentAgain(t *testing.T) {
	u := newScripted(t, unavailable)
	up, registry := clusterOf(t, `"connect_timeout": "5s"`, u.address)
	r := routeOf(t, `"request_body_buffer_limit": 5,`, `, "retry_policy": {`+quick+`, "retry_on": "5xx"}`)
	s := send(t, up, r, &chunks{list: []string{"one ", "two ", "three"}})
	require.Equal(t, "503 -", s.summary())
	require.Equal(t, []string{"POST one two three"}, u.seen())
	require.EqualValues(t, 1, counted(registry, "retry_or_shadow_abandoned"))
	require.Equal(t, "503 URX", send(t, up, r, &chunks{list: []string{"short"}}).summary())
}

func TestBodyThatBreaksOffIsNotSentAgain(t *testing.T) {
	u := newScripted(t, fine)
	up, _ := clusterOf(t, `"connect_timeout": "5s"`, u.address)
	r := routeOf(t, "", `, "retry_policy": {`+quick+`, "retry_on": "5xx"}`)
	s := send(t, up, r, &chunks{list: []string{"one "}, last: errors.New("the client left")})
	require.Equal(t, "400 DC", s.summary())
	require.Equal(t, 1, s.Facts.Attempts)
}

func TestStreamThatExpiresEndsThePause(t *testing.T) {
	u := newScripted(t, "HTTP/1.1 503 No\r\nRetry-After: 30\r\nContent-Length: 0\r\n\r\n")
	up, registry := clusterOf(t, `"connect_timeout": "5s"`, u.address)
	r := routeOf(t, "", `, "timeout": "0s", "retry_policy": {"retry_on": "5xx", "rate_limited_retry_back_off": {"reset_headers": [{"name": "retry-after"}]}}`)
	s := &stream.Stream{Route: r, Cluster: up, Context: t.Context()}
	s.Request.Method, s.Request.Path, s.Request.Authority = []byte("GET"), []byte("/"), []byte("up")
	go func() { // ends once the pause began
		servicetest.Eventually(t, "a retry waits", func() bool { return counted(registry, "upstream_rq_retry_backoff_ratelimited") == 1 })
		s.Expire(&stream.Expiry{Status: 408, Text: "stream timeout"})
	}()
	filter := newFilter()
	reply := filter.(httpfilter.Terminal).Forward(s)
	filter.(httpfilter.Done).Done(s)
	require.Equal(t, &httpfilter.Reply{Status: 408, Body: "stream timeout"}, reply)
	require.Zero(t, up.Breakers(0).Retries.Used())
}

func TestStreamThatExpiredBeforeTakesNoConnection(t *testing.T) {
	u := newScripted(t, fine)
	up, registry := clusterOf(t, `"connect_timeout": "5s"`, u.address)
	r := routeOf(t, "", "")
	require.Equal(t, "200 -", send(t, up, r, nil).summary())
	s := &stream.Stream{Route: r, Cluster: up, Context: t.Context()}
	s.Request.Method, s.Request.Path, s.Request.Authority = []byte("GET"), []byte("/"), []byte("up")
	s.Expire(&stream.Expiry{Status: 504, Text: "stream timeout"}) // while a filter before the router waited
	filter := newFilter()
	reply := filter.(httpfilter.Terminal).Forward(s)
	filter.(httpfilter.Done).Done(s)
	require.Equal(t, &httpfilter.Reply{Status: 504, Body: "stream timeout"}, reply)
	require.Zero(t, s.Facts.Attempts)
	for name, want := range map[string]int64{"upstream_rq_total": 1, "upstream_cx_total": 1, "upstream_cx_active": 1} {
		require.Equal(t, want, counted(registry, name), name)
	}
}

func TestRequestIsNotRetriedWhoseClientHeardOfIt(t *testing.T) {
	u := newScripted(t, "HTTP/1.1 103 Early Hints\r\n\r\n"+unavailable)
	up, _ := clusterOf(t, `"connect_timeout": "5s"`, u.address)
	r := routeOf(t, "", `, "retry_policy": {`+quick+`, "retry_on": "5xx"}`)
	require.Equal(t, 2, send(t, up, r, nil).Facts.Attempts, "it went no further than here")
	s := &stream.Stream{Route: r, Cluster: up, Context: t.Context(), Interim: func(*message.Response) error { return nil }}
	s.Request.Method, s.Request.Path, s.Request.Authority = []byte("GET"), []byte("/"), []byte("up")
	filter := newFilter()
	require.Nil(t, filter.(httpfilter.Terminal).Forward(s))
	require.Equal(t, 503, s.Response.Status)
	filter.(httpfilter.Done).Done(s)
	require.Len(t, u.seen(), 3)
}

func TestUpstreamIsToldWhatIsLeftOfAGRPCTimeout(t *testing.T) {
	u := newScripted(t, fine)
	up, _ := clusterOf(t, `"connect_timeout": "5s"`, u.address)
	r := routeOf(t, "", `, "max_stream_duration": {"grpc_timeout_header_max": "2s"}`)
	send(t, up, r, nil, "grpc-timeout", "1M", "content-type", "application/grpc+proto")
	send(t, up, r, nil, "grpc-timeout", "1M", "content-type", "text/plain")
	require.Equal(t, "2000m", u.header(0, "grpc-timeout"))
	require.Empty(t, u.header(0, "x-envoy-expected-rq-timeout-ms"))
	require.Equal(t, "1M", u.header(1, "grpc-timeout"))

	r = routeOf(t, "", `, "max_stream_duration": {"max_stream_duration": "7s"}`)
	send(t, up, r, nil, "content-type", "application/grpc")
	send(t, up, r, nil, "grpc-timeout", "1S", "content-type", "application/grpc")
	require.Equal(t, "7000m", u.header(2, "grpc-timeout"), "without a grpc-timeout too")
	require.Equal(t, "7000m", u.header(3, "grpc-timeout"))

	r = routeOf(t, "", `, "max_stream_duration": {"max_stream_duration": "0s"}`)
	send(t, up, r, nil, "grpc-timeout", "1S", "content-type", "application/grpc")
	require.Empty(t, u.header(4, "grpc-timeout"), "it may take as long as it will")

	r = routeOf(t, "", `, "max_stream_duration": {"grpc_timeout_header_max": "0s"}`)
	send(t, up, r, nil, "grpc-timeout", "what", "content-type", "application/grpc")
	require.Equal(t, "what", u.header(5, "grpc-timeout"), "no limit is known")
}

func TestHeadersAreChecked(t *testing.T) {
	u := newScripted(t, fine)
	up, _ := clusterOf(t, `"connect_timeout": "5s"`, u.address)
	config := &routerv3.Router{StrictCheckHeaders: []string{"x-envoy-max-retries", "x-envoy-retry-on", "x-envoy-retry-grpc-on", "x-envoy-upstream-rq-timeout-ms"}}
	for _, c := range []struct{ name, value, want string }{
		{"x-envoy-max-retries", "3", "200 -"},
		{"x-envoy-max-retries", "many", "400 IH"},
		{"x-envoy-retry-on", "5xx, reset", "200 -"},
		{"x-envoy-retry-on", "5xx,never", "400 IH"},
		{"x-envoy-retry-grpc-on", "5xx", "400 IH"},
		{"x-envoy-upstream-rq-timeout-ms", "1s", "400 IH"},
		{"x-envoy-upstream-rq-per-try-timeout-ms", "1s", "200 -"}, // which is not checked
	} {
		s := sendBy(t, config, up, routeOf(t, "", ""), nil, c.name, c.value)
		require.Equal(t, c.want, s.summary(), c)
		if s.Response.Status == 400 {
			require.Equal(t, fmt.Sprintf("invalid header '%s' with value '%s'", c.name, c.value), s.body)
			require.Equal(t, "request_headers_failed_strict_check{"+c.name+"}", s.Facts.Details)
		}
	}
}

// late is a body whose text is not there when the request begins.
type late struct{ text string }

func (*late) Ready() bool { return false }

func (b *late) Next() ([]byte, error) {
	if b.text == "" {
		return nil, io.EOF
	}
	text := b.text
	b.text = ""
	return []byte(text), nil
}

// An upstream that has the whole request may answer before the proxy is told that
// it went out.
func TestTheTimeOfTheServiceIsToldWhenItHadTheWholeRequest(t *testing.T) {
	u := newScripted(t, fine)
	up, _ := clusterOf(t, `"connect_timeout": "60s"`, u.address)
	for range 500 {
		s := send(t, up, routeOf(t, "", ""), &late{"grain"})
		require.True(t, s.Response.Headers.Has("x-envoy-upstream-service-time"))
	}
}

func TestHeadersOfOurOwnCanBeLeftOut(t *testing.T) {
	u := newScripted(t, fine)
	up, _ := clusterOf(t, `"connect_timeout": "5s"`, u.address)
	s := sendBy(t, &routerv3.Router{SuppressEnvoyHeaders: true}, up, routeOf(t, "", `, "prefix_rewrite": "/new", "host_rewrite_literal": "new"`), nil)
	require.Empty(t, u.header(0, "x-envoy-original-path")+u.header(0, "x-envoy-original-host"))
	require.False(t, s.Response.Headers.Has("x-envoy-upstream-service-time"))
	require.Empty(t, u.header(0, "x-envoy-expected-rq-timeout-ms"))
}

func TestTheTimeThatAProxyBeforeUsToldCountsIfItIsToldTo(t *testing.T) {
	const expected, header = "x-envoy-expected-rq-timeout-ms", "x-envoy-upstream-rq-timeout-ms"
	for _, c := range []struct {
		respect bool
		fields  []string
		want    string // what the upstream is told
	}{
		{false, []string{expected, "2000"}, "15000"},
		{true, nil, "15000"},
		{true, []string{expected, "2000"}, "2000"},
		{true, []string{expected, "2000", header, "3000"}, "2000"},
		{true, []string{header, "3000"}, "3000"},
		{true, []string{expected, "soon", header, "3000"}, "15000"},
	} {
		u := newScripted(t, fine)
		up, _ := clusterOf(t, `"connect_timeout": "5s"`, u.address)
		sendBy(t, &routerv3.Router{RespectExpectedRqTimeout: c.respect}, up, routeOf(t, "", ""), nil, c.fields...)
		require.Equal(t, c.want, u.header(0, expected), "%v", c)
	}
}

func TestResponsesNeedNotBeCounted(t *testing.T) {
	u := newScripted(t, unavailable, fine)
	up, registry := clusterOf(t, `"connect_timeout": "5s"`, u.address)
	s := sendBy(t, &routerv3.Router{DynamicStats: wrapperspb.Bool(false)}, up, routeOf(t, "", `, "retry_policy": {"retry_on": "5xx"}`), nil)
	require.Equal(t, 200, s.Response.Status)
	require.EqualValues(t, 2, counted(registry, "upstream_rq_total"))
	for _, name := range []string{"upstream_rq_completed", "upstream_rq_200", "upstream_rq_2xx", "retry.upstream_rq_503"} {
		require.Zero(t, counted(registry, name), name)
	}
}

// TestEachAttemptHasTheNameOfItsHost has auto_host_rewrite.
func TestEachAttemptHasTheNameOfItsHost(t *testing.T) {
	one, two := newScripted(t, unavailable), newScripted(t, unavailable)
	up, _ := clusterOf(t, `"connect_timeout": "5s"`, "one.example@"+one.address, two.address)
	r := routeOf(t, "", `, "auto_host_rewrite": true, "append_x_forwarded_host": true, "retry_policy": {"retry_on": "5xx", "num_retries": 3}`)
	require.Equal(t, 503, send(t, up, r, nil).Response.Status)
	require.Equal(t, []string{"one.example", "one.example"}, one.hosts())
	require.Equal(t, []string{"up", "up"}, two.hosts(), "which has no name")
	require.Equal(t, "up", one.header(0, "x-envoy-original-host"))
	for i := range 2 {
		require.Equal(t, "up", one.header(i, "x-forwarded-host"))
	}
}

// counted is a metric of the cluster.
func counted(registry *stats.Registry, name string) int64 { return count(registry, "cluster.up."+name) }

// TestTimeoutsOfAHost has each time that a host does not answer in count as its.
func TestTimeoutsOfAHost(t *testing.T) {
	for _, action := range []string{
		`"timeout": "0.05s"`, `"timeout": "0s", "retry_policy": {"per_try_timeout": "0.05s"}`, `"timeout": "0s", "retry_policy": {"per_try_idle_timeout": "0.05s"}`,
	} {
		up, _ := clusterOf(t, `"connect_timeout": "5s"`, newScripted(t, hang).address)
		s := send(t, up, routeOf(t, "", ", "+action), nil)
		require.Equal(t, "504 UT", s.summary())
		require.EqualValues(t, 1, up.Hosts().Members[0].Host.Stats.RequestTimeouts.Load(), action)
	}
}

// TestWaitForSettingsIsBounded has requests for an upgrade wait for the SETTINGS of a
// server of HTTP/2 that says nothing, or goes.
func TestWaitForSettingsIsBounded(t *testing.T) {
	const http2 = `"typed_extension_protocol_options": {"envoy.extensions.upstreams.http.v3.HttpProtocolOptions": {
		"@type": "type.googleapis.com/envoy.extensions.upstreams.http.v3.HttpProtocolOptions", "explicit_http_config": {"http2_protocol_options": {}}}}`
	for _, c := range []struct {
		name, action, script string
		want, counter        string
	}{
		{"by the route", `"timeout": "0.1s"`, hang, "504 UT", "upstream_rq_timeout"},
		{"by the try", `"timeout": "0s", "retry_policy": {"per_try_timeout": "0.1s"}`, hang, "504 UT", "upstream_rq_per_try_timeout"},
		{"by its standing still", `"timeout": "0s", "retry_policy": {"per_try_idle_timeout": "0.1s"}`, hang, "504 UT", "upstream_rq_per_try_idle_timeout"},
		{"by the connection", `"timeout": "0s"`, gatedShut, "503 UR", "upstream_rq_503"},
	} {
		t.Run(c.name, func(t *testing.T) {
			u := newScripted(t, c.script)
			up, registry := clusterOf(t, http2, u.address)
			// Ends with the request's begin, or the test; until then a connection that
			// goes would be none.
			go func() {
				for counted(registry, "upstream_rq_total") == 0 && t.Context().Err() == nil {
					time.Sleep(time.Millisecond)
				}
				close(u.gate)
			}()
			s := send(t, up, routeOf(t, "", ", "+c.action), message.NewBytes(nil), "upgrade", "websocket")
			require.Equal(t, c.want, s.summary())
			require.EqualValues(t, 1, counted(registry, c.counter))
		})
	}
}

func TestTheRuntimeStopsRetriesAndWholeClusters(t *testing.T) {
	for _, c := range []struct {
		values string
		want   string // status and flags
		body   string
		seen   int
	}{
		{"{}", "200 -", "", 2},
		{"{upstream.use_retry: 0}", "503 -", "", 1},
		{"{upstream.use_retry: 100, upstream.maintenance_mode.other: 100}", "200 -", "", 2},
		{"{upstream.maintenance_mode.up: 100}", "503 UO", "maintenance mode", 0},
	} {
		u := newScripted(t, unavailable, fine)
		up, registry := clusterOf(t, `"connect_timeout": "5s"`, u.address)
		r := routeOf(t, "", `, "retry_policy": {`+quick+`, "retry_on": "5xx"}`)
		s := sendUnder(t, runtimetest.Values(t, c.values), &routerv3.Router{}, up, r, nil)
		require.Equal(t, c.want, s.summary(), c.values)
		require.Len(t, u.seen(), c.seen, c.values)
		maintained := c.seen == 0
		require.Equal(t, maintained, counted(registry, "upstream_rq_maintenance_mode") == 1, c.values)
		require.Equal(t, maintained, s.Response.Headers.Has("x-envoy-overloaded"), c.values)
		require.Equal(t, maintained, s.Facts.Details == "maintenance_mode", c.values)
		if maintained {
			require.Equal(t, c.body, s.body)
			quiet := sendUnder(t, runtimetest.Values(t, c.values), &routerv3.Router{SuppressEnvoyHeaders: true}, up, r, nil)
			require.False(t, quiet.Response.Headers.Has("x-envoy-overloaded"))
		}
	}
}

// TestTheRuntimeDrawsWhoIsRetried has requests with one random number for what else is
// drawn of them.
func TestTheRuntimeDrawsWhoIsRetried(t *testing.T) {
	u := newScripted(t, unavailable)
	up, _ := clusterOf(t, `"connect_timeout": "5s"`, u.address)
	values := runtimetest.Values(t, "{upstream.use_retry: 50}")
	r := routeOf(t, "", `, "retry_policy": {`+quick+`, "retry_on": "5xx"}`)
	attempts := map[int]bool{}
	for n := 0; n < 200 && len(attempts) < 2; n++ {
		attempts[sendUnder(t, values, &routerv3.Router{}, up, r, nil).Facts.Attempts] = true
	}
	require.Equal(t, map[int]bool{1: true, 2: true}, attempts)
}
