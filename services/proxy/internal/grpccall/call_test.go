package grpccall_test

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	clusterv3 "github.com/envoyproxy/go-control-plane/envoy/config/cluster/v3"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"google.golang.org/grpc/codes"
	"google.golang.org/protobuf/encoding/protojson"

	"github.com/weirproxy/weir/internal/http2"
	"github.com/weirproxy/weir/internal/http2/http2test"
	"github.com/weirproxy/weir/internal/servicetest"
	"github.com/weirproxy/weir/services/proxy/internal/cluster"
	"github.com/weirproxy/weir/services/proxy/internal/cluster/lb"
	"github.com/weirproxy/weir/services/proxy/internal/coreconfig"
	"github.com/weirproxy/weir/services/proxy/internal/grpccall"
	"github.com/weirproxy/weir/services/proxy/internal/hold"
	"github.com/weirproxy/weir/services/proxy/internal/layeredruntime/runtimetest"
	"github.com/weirproxy/weir/services/proxy/internal/message"
	"github.com/weirproxy/weir/services/proxy/internal/stats"
	"github.com/weirproxy/weir/services/proxy/internal/strict"
)

func TestMain(m *testing.M) { servicetest.Main(m) }

// newCluster makes the cluster "rls" of hosts, with further fields; its connections
// close before the hosts do. Each host may have a weight behind it: "127.0.0.1:80*3".
func newCluster(t testing.TB, fields string, hosts ...string) *cluster.Cluster {
	t.Helper()
	var endpoints []string
	for _, h := range hosts {
		address, weight, ok := strings.Cut(h, "*")
		if !ok {
			weight = "1"
		}
		ip, port, err := net.SplitHostPort(address)
		require.NoError(t, err)
		endpoints = append(endpoints, fmt.Sprintf(`{"load_balancing_weight": %s, "endpoint": {"address": {"socket_address": {"address": %q, "port_value": %s}}}}`, weight, ip, port))
	}
	if !strings.Contains(fields, "http2_protocol_options") {
		fields = `"http2_protocol_options": {}, ` + fields
	}
	return clusterOf(t, fmt.Sprintf(`{"name": "rls", %s "load_assignment": {"cluster_name": "rls",
		"endpoints": [{"lb_endpoints": [%s]}]}}`, fields, strings.Join(endpoints, ",")))
}

// clusterOf makes the cluster "rls" of its configuration.
func clusterOf(t testing.TB, text string) *cluster.Cluster {
	t.Helper()
	config := &clusterv3.Cluster{}
	require.NoError(t, protojson.Unmarshal([]byte(text), config))
	policies, report := []cluster.Policy{lb.RoundRobin()}, &strict.Report{}
	parsed := cluster.Parse(config, "", policies, report)
	require.NoError(t, report.Err())
	m := cluster.NewManager(cluster.ManagerOptions{
		Policies: policies, Stats: stats.NewRegistry(), Log: slog.New(slog.DiscardHandler), SetServices: func(coreconfig.Source, []string) {},
	}, false)
	m.AddStatic([]*cluster.Config{parsed})
	<-m.Started()
	t.Cleanup(func() {
		ctx, cancel := context.WithCancel(context.Background())
		cancel()
		require.NoError(t, m.Run(ctx))
	})
	return m.Get("rls")
}

// count is a counter or a gauge of the cluster.
func count(c *cluster.Cluster, name string) int64 {
	if gauge := c.Stats.Scope.Gauge; strings.HasSuffix(name, "_active") || strings.HasSuffix(name, "_open") {
		return gauge(name).Value()
	}
	return int64(c.Stats.Scope.Counter(name).Value())
}

// requireCounts wants counters of the cluster.
func requireCounts(t *testing.T, c *cluster.Cluster, want map[string]int64) {
	t.Helper()
	got := map[string]int64{}
	for name := range want {
		got[name] = count(c, name)
	}
	require.Equal(t, want, got)
}

// awaitCounts waits for counters of the cluster that another goroutine may still count.
func awaitCounts(t *testing.T, c *cluster.Cluster, want map[string]int64) {
	t.Helper()
	servicetest.Eventually(t, fmt.Sprintf("the counters are %v", want), func() bool {
		for name, n := range want {
			if count(c, name) != n {
				return false
			}
		}
		return true
	})
}

// text is a message.
type text string

func (m *text) AppendTo(b []byte) []byte { return append(b, *m...) }

func (m *text) Decode(b []byte) error {
	if string(b) == "garbage" {
		return errors.New("decode garbage")
	}
	*m = text(b)
	return nil
}

// patient has a timeout that no test should meet.
var patient = grpccall.Options{Path: "/a.B/C", Timeout: servicetest.Patience}

func methodOf(t testing.TB, c *cluster.Cluster, o grpccall.Options) *grpccall.Method {
	t.Helper()
	m, err := grpccall.NewMethod(c, o)
	require.NoError(t, err)
	return m
}

// do makes a call and returns what it answers.
func do(m *grpccall.Method) (string, error) {
	question, answer := text("ping"), text("")
	err := (&grpccall.Call{}).Do(context.Background(), &hold.Holder{}, m, &question, &answer)
	return string(answer), err
}

// fields are those of a head or of trailers: "name: value", in pairs of lines.
func fields(lines string) *message.Headers {
	h := &message.Headers{}
	for line := range strings.Lines(lines) {
		if name, value, ok := strings.Cut(strings.TrimSpace(line), ": "); ok {
			h.Add(name, value)
		}
	}
	return h
}

// frame is a message of gRPC.
func frame(m string) string {
	return string(binary.BigEndian.AppendUint32([]byte{0}, uint32(len(m)))) + m
}

// drained reads a stream's request to its end.
func drained(s *http2.Stream) (body string) {
	for {
		chunk, err := s.Next()
		if err != nil {
			return body
		}
		body += string(chunk)
	}
}

// answering is a handler whose answer is a head, a body, and trailers unless they are
// empty.
func answering(status int, head, body, trailers string) func(*http2.Stream) {
	return func(s *http2.Stream) {
		drained(s)
		_ = s.WriteHead(status, fields(head), body == "" && trailers == "")
		if body != "" {
			_ = s.WriteData([]byte(body), trailers == "")
		}
		if trailers != "" {
			_ = s.WriteTrailers(fields(trailers))
		}
	}
}

const contentType = "content-type: application/grpc"

// pong is the answer of a host that is well.
var pong = answering(200, contentType, frame("pong"), "grpc-status: 0")

func TestAHostIsAsked(t *testing.T) {
	for _, c := range []struct {
		name    string
		options grpccall.Options
		want    string
	}{
		{"by default", grpccall.Options{Path: "/a.B/C"},
			"POST http rls /a.B/C; te: trailers; content-type: application/grpc; user-agent: weir; x-envoy-internal: true"},
		{"with a timeout", grpccall.Options{Path: "/a.B/C", Timeout: 100 * time.Second, SkipEnvoyHeaders: true},
			"POST http rls /a.B/C; te: trailers; content-type: application/grpc; user-agent: weir; grpc-timeout: 100000m; x-envoy-expected-rq-timeout-ms: 100000"},
		{"by another name", grpccall.Options{Path: "/a.B/C", Authority: "b.example", SkipEnvoyHeaders: true},
			"POST http b.example /a.B/C; te: trailers; content-type: application/grpc; user-agent: weir"},
	} {
		t.Run(c.name, func(t *testing.T) {
			seen, bodies := make(chan string, 10), make(chan string, 10)
			h := http2test.NewHost(t, http2.Options{}, func(s *http2.Stream) {
				var head http2.Head
				_ = s.ReadHead(&head)
				got := fmt.Sprintf("%s %s %s %s", head.Method, head.Scheme, head.Authority, head.Path)
				for i := range head.Fields.Len() {
					name, value := head.Fields.At(i)
					got += fmt.Sprintf("; %s: %s", name, value)
				}
				seen <- got
				bodies <- drained(s)
				_ = s.WriteHead(200, fields(contentType), false)
				_ = s.WriteData([]byte(frame("pong")), false)
				_ = s.WriteTrailers(fields("grpc-status: 0"))
			})
			up := newCluster(t, "", h.Address)
			m := methodOf(t, up, c.options)
			for range 3 {
				got, err := do(m)
				require.NoError(t, err)
				require.Equal(t, "pong", got)
				require.Equal(t, c.want, <-seen)
				require.Equal(t, frame("ping"), <-bodies)
			}
			origin := "internal"
			if c.options.SkipEnvoyHeaders {
				origin = "external"
			}
			requireCounts(t, up, map[string]int64{
				"upstream_rq_total": 3, "upstream_rq_200": 3, origin + ".upstream_rq_200": 3, "upstream_rq_completed": 3, "upstream_rq_active": 0,
				"upstream_rq_pending_total": 1, "upstream_rq_pending_active": 0, "upstream_cx_total": 1, "upstream_cx_active": 1, "upstream_cx_http2_total": 1,
				"upstream_rq_tx_reset": 0, "circuit_breakers.default.rq_open": 0,
			})
			stats := &up.Hosts().Members[0].Host.Stats
			require.EqualValues(t, 3, stats.RequestsSucceeded.Load())
			require.EqualValues(t, 0, stats.RequestsActive.Load())
			require.EqualValues(t, 3, up.Stats.RequestTime.Distribution().Count)
		})
	}
}

func TestAnswers(t *testing.T) {
	long := strings.Repeat("x", 100_000)
	for _, c := range []struct {
		name   string
		serve  func(*http2.Stream)
		most   uint32
		want   string // the answer, or the error
		errors uint64 // of the host
	}{
		{name: "an empty message", serve: answering(200, contentType, frame(""), "grpc-status: 0")},
		{name: "a long one", serve: answering(200, contentType, frame(long), "grpc-status: 0"), want: long},
		{name: "behind an interim head", serve: func(s *http2.Stream) {
			_ = s.WriteHead(103, fields("x-hint: 1"), false)
			pong(s)
		}, want: "pong"},
		{"a status", answering(200, contentType, "", "grpc-status: 3\ngrpc-message: 50%25 of it"), 0,
			"it answered with the status InvalidArgument: 50% of it", 0},
		{"a status of the server's fault", answering(200, contentType, "", "grpc-status: 13"), 0, "it answered with the status Internal", 1},
		{"a status in the head", answering(200, contentType+"\ngrpc-status: 14\ngrpc-message: later", "", ""), 0,
			"it answered with the status Unavailable: later", 1},
		{"a status behind a message", answering(200, contentType, frame("pong"), "grpc-status: 8"), 0, "it answered with the status ResourceExhausted", 0},
		{"a status of HTTP", answering(503, "content-type: text/html", "<p>later</p>", ""), 0,
			"it answered with the status Unavailable: HTTP status 503 without a grpc-status", 1},
		{"a status of HTTP that is all", answering(404, "", "", ""), 0, "it answered with the status Unimplemented: HTTP status 404 without a grpc-status", 1},
		{"a status of each", answering(503, contentType+"\ngrpc-status: 7", "", ""), 0, "it answered with the status PermissionDenied", 0},
		{"no status", answering(200, contentType, frame("pong"), "x-end: 1"), 0, "it answered with the status Unknown: HTTP status 200 without a grpc-status", 1},
		{"a status that is none", answering(200, contentType, frame("pong"), "grpc-status: ok"), 0,
			"it answered with the status Unknown: HTTP status 200 without a grpc-status", 1},
		{"no message", answering(200, contentType, "", "grpc-status: 0"), 0, "its answer has no message", 0},
		{"a part of a message", answering(200, contentType, frame("pong")[:7], "grpc-status: 0"), 0, "its answer ends within a message", 0},
		{"a part of its prefix", answering(200, contentType, frame("pong")[:3], "grpc-status: 0"), 0, "its answer ends within a message", 0},
		{"several messages", answering(200, contentType, frame("pong")+frame("pong"), "grpc-status: 0"), 0, "its answer has more than one message", 0},
		{"a compressed message", answering(200, contentType+"\ngrpc-encoding: gzip", "\x01"+frame("pong")[1:], "grpc-status: 0"), 0,
			"its answer is compressed, which it was not told to be", 0},
		{"a message that is too long", answering(200, contentType, frame(long), "grpc-status: 0"), 1000,
			"its answer has a message of 100000 bytes, more than the 1000 of max_receive_message_length", 1},
		{"one that the caller can't read", answering(200, contentType, frame("garbage"), "grpc-status: 0"), 0, "decode garbage", 0},
	} {
		t.Run(c.name, func(t *testing.T) {
			up := newCluster(t, "", http2test.NewHost(t, http2.Options{}, c.serve).Address)
			m := methodOf(t, up, grpccall.Options{Path: "/a.B/C", Timeout: servicetest.Patience, MaxMessage: c.most})
			for n := range 2 { // on one connection
				got, err := do(m)
				if err != nil {
					got = err.Error()
				}
				require.Equal(t, c.want, got)
				require.EqualValues(t, n+1, count(up, "upstream_rq_completed"))
			}
			require.EqualValues(t, 0, count(up, "upstream_rq_active"))
			require.EqualValues(t, 1, count(up, "upstream_cx_total"))
			stats := &up.Hosts().Members[0].Host.Stats
			require.Equal(t, 2*c.errors, stats.RequestErrors.Load())
			require.Equal(t, 2-2*c.errors, stats.RequestsSucceeded.Load())
		})
	}
}

func TestAnAnswerBeforeTheEndOfTheQuestionCounts(t *testing.T) {
	h := http2test.NewHost(t, http2.Options{}, func(s *http2.Stream) { // the return resets the rest
		_ = s.WriteHead(200, fields(contentType+"\ngrpc-status: 8\ngrpc-message: too long"), true)
	})
	up := newCluster(t, "", h.Address)
	question, answer := text(strings.Repeat("?", 17<<20)), text("") // longer than the host's window
	err := (&grpccall.Call{}).Do(context.Background(), &hold.Holder{}, methodOf(t, up, patient), &question, &answer)
	require.EqualError(t, err, "it answered with the status ResourceExhausted: too long")
	requireCounts(t, up, map[string]int64{"upstream_rq_200": 1, "upstream_rq_completed": 1, "upstream_rq_resend": 0, "upstream_cx_active": 1})
}

func TestStatusIsForThoseWhoWantIt(t *testing.T) {
	up := newCluster(t, "", http2test.NewHost(t, http2.Options{}, answering(200, contentType, "", "grpc-status: 5")).Address)
	_, err := do(methodOf(t, up, patient))
	status, ok := errors.AsType[*grpccall.StatusError](err)
	require.True(t, ok)
	require.Equal(t, codes.NotFound, status.Code)
}

// silent reads a request and never answers.
func silent(s *http2.Stream) { drained(s); _, _ = s.Next(); hang(s) }

// hang waits for the stream's end.
func hang(s *http2.Stream) {
	over := make(chan struct{})
	s.OnReset(func(error) { close(over) })
	<-over
}

func TestFailures(t *testing.T) {
	for _, c := range []struct {
		name   string
		serve  func(*http2.Stream) // nil: nobody is there
		fields string
		want   string
		counts map[string]int64
		errors uint64
	}{
		{"a host that is away", nil, "", "connection refused", map[string]int64{
			"upstream_rq_503": 1, "upstream_rq_completed": 1, "upstream_rq_pending_total": 1, "upstream_rq_pending_failure_eject": 1, "upstream_cx_connect_fail": 1, "upstream_rq_total": 0,
		}, 1},
		{"a reset", func(s *http2.Stream) { drained(s); s.Reset(http2.InternalError) }, "", "peer reset it with INTERNAL_ERROR", map[string]int64{
			"upstream_rq_503": 1, "upstream_rq_completed": 1, "upstream_rq_total": 1, "upstream_rq_rx_reset": 1, "upstream_rq_pending_failure_eject": 0,
		}, 1},
		{"a reset within the answer", func(s *http2.Stream) {
			drained(s)
			_ = s.WriteHead(200, fields(contentType), false)
			_ = s.WriteData([]byte(frame("pong")[:3]), false)
			_ = s.Flush()
			s.Reset(http2.InternalError)
		}, "", "peer reset it with INTERNAL_ERROR", map[string]int64{"upstream_rq_completed": 1, "upstream_rq_total": 1, "upstream_rq_rx_reset": 1}, 1},
		{"an end of the connection", func(s *http2.Stream) { drained(s); _ = s.Conn().Close() }, "", "host 127.0.0.1", map[string]int64{
			"upstream_rq_503": 1, "upstream_rq_completed": 1, "upstream_rq_total": 1, "upstream_cx_destroy_remote_with_active_rq": 1,
		}, 1},
		{"an answer that is no HTTP", answering(200, "content-length: 1", "no", ""), "", "content-length", map[string]int64{"upstream_cx_protocol_error": 1, "upstream_rq_completed": 1}, 1},
		{"max_stream_duration", silent, `"typed_extension_protocol_options": {"envoy.extensions.upstreams.http.v3.HttpProtocolOptions": {
			"@type": "type.googleapis.com/envoy.extensions.upstreams.http.v3.HttpProtocolOptions", "common_http_protocol_options": {"max_stream_duration": "0.05s"},
			"explicit_http_config": {"http2_protocol_options": {}}}},`, "the max_stream_duration of the cluster passed", map[string]int64{
			"upstream_rq_completed": 0, "upstream_rq_total": 1, "upstream_rq_max_duration_reached": 1, "upstream_rq_tx_reset": 1,
		}, 0},
		{"a host that vanished", silent, `"http2_protocol_options": {"connection_keepalive": {"interval": "0.05s", "timeout": "0.05s"}},`, "host 127.0.0.1", map[string]int64{
			"upstream_rq_503": 1, "http2.keepalive_timeout": 1, "upstream_rq_completed": 1,
		}, 1},
	} {
		t.Run(c.name, func(t *testing.T) {
			address := servicetest.FreeAddress(t)
			if c.name == "a host that vanished" {
				address = mute(t)
			} else if c.serve != nil {
				address = http2test.NewHost(t, http2.Options{}, c.serve).Address
			}
			up := newCluster(t, c.fields, address)
			_, err := do(methodOf(t, up, grpccall.Options{Path: "/a.B/C"}))
			require.ErrorContains(t, err, c.want)
			awaitCounts(t, up, c.counts)
			require.EqualValues(t, 0, count(up, "upstream_rq_active"))
			stats := &up.Hosts().Members[0].Host.Stats
			require.Equal(t, c.errors, stats.RequestErrors.Load())
			require.EqualValues(t, 0, stats.RequestsSucceeded.Load())
			require.EqualValues(t, 0, stats.RequestsActive.Load())
		})
	}
}

func TestDeadlines(t *testing.T) {
	for name, serve := range map[string]func(*http2.Stream){
		"of a host that is silent": silent,
		"within the answer": func(s *http2.Stream) {
			drained(s)
			_ = s.WriteHead(200, fields(contentType), false)
			_ = s.Flush()
			hang(s)
		},
	} {
		t.Run(name, func(t *testing.T) {
			var later atomic.Bool
			up := newCluster(t, "", http2test.NewHost(t, http2.Options{}, func(s *http2.Stream) {
				if later.Swap(true) {
					serve(s)
				} else {
					pong(s)
				}
			}).Address)
			_, err := do(methodOf(t, up, patient)) // so that the connection is there
			require.NoError(t, err)
			_, err = do(methodOf(t, up, grpccall.Options{Path: "/a.B/C", Timeout: 100 * time.Millisecond}))
			require.ErrorContains(t, err, "the timeout passed")
			requireCounts(t, up, map[string]int64{
				"upstream_rq_completed": 2, "upstream_rq_total": 2, "upstream_rq_timeout": 1, "upstream_rq_tx_reset": 1, "upstream_rq_active": 0,
			})
			if name == "of a host that is silent" { // else the head may have been late too
				requireCounts(t, up, map[string]int64{"upstream_rq_504": 1, "internal.upstream_rq_504": 1})
			}
			require.EqualValues(t, 1, up.Hosts().Members[0].Host.Stats.RequestErrors.Load())
		})
	}
}

func TestDeadlineHoldsForTheConnectionToo(t *testing.T) {
	up := newCluster(t, "", mute(t))
	_, err := do(methodOf(t, up, grpccall.Options{Path: "/a.B/C", Timeout: 50 * time.Millisecond}))
	require.ErrorContains(t, err, "the timeout passed")
	requireCounts(t, up, map[string]int64{"upstream_rq_504": 1, "upstream_rq_timeout": 1, "upstream_rq_completed": 1, "upstream_rq_active": 0})
}

// mute is the address of a host that begins HTTP/2 and says nothing more, even to PINGs.
func mute(t *testing.T) string {
	t.Helper()
	return servicetest.Accept(t, func(conn net.Conn) {
		_, _ = conn.Write([]byte("\x00\x00\x00\x04\x00\x00\x00\x00\x00")) // SETTINGS
		_, _ = io.Copy(io.Discard, conn)                                  // up to its end, which is the cluster's
	})
}

func TestACallIsKeptFromItsCluster(t *testing.T) {
	const of = `{"name": "rls", "http2_protocol_options": {}, "load_assignment": {"cluster_name": "rls", %s}}`
	const hosts = `"endpoints": [{"lb_endpoints": [{"endpoint": {"address": {"socket_address": {"address": "127.0.0.1", "port_value": 1}}}}]}]`
	for _, c := range []struct{ name, assignment, runtime, want, counter string }{
		{"that has no hosts", `"endpoints": []`, "{}", "the cluster has no hosts", "upstream_cx_none_healthy"},
		{"that is maintained", hosts, "{upstream.maintenance_mode.rls: 100}", "the cluster is in maintenance mode", "upstream_rq_maintenance_mode"},
		{"that drops all", hosts + `, "policy": {"drop_overloads": [{"category": "all", "drop_percentage": {"numerator": 100}}]}`, "{}",
			"the drop_overloads of the cluster's assignment stopped the call", "upstream_rq_drop_overload"},
	} {
		t.Run(c.name, func(t *testing.T) {
			up := clusterOf(t, fmt.Sprintf(of, c.assignment))
			_, err := do(methodOf(t, up, grpccall.Options{Path: "/a.B/C", Runtime: runtimetest.New(t, c.runtime)}))
			require.EqualError(t, err, c.want)
			requireCounts(t, up, map[string]int64{c.counter: 1, "upstream_rq_503": 1, "internal.upstream_rq_503": 1, "upstream_rq_total": 0, "upstream_cx_total": 0})
		})
	}
}

func TestClusterWithoutHTTP2HasNoMethods(t *testing.T) {
	_, err := grpccall.NewMethod(clusterOf(t, `{"name": "rls", "load_assignment": {"cluster_name": "rls"}}`), patient)
	require.EqualError(t, err, "the cluster has no http2_protocol_options, which gRPC needs")
}

func TestCallThatIsGivenUpSaysNothingOfItsHost(t *testing.T) {
	arrived := make(chan struct{}, 1)
	h := http2test.NewHost(t, http2.Options{}, func(s *http2.Stream) {
		arrived <- struct{}{}
		silent(s)
	})
	up := newCluster(t, outliers, h.Address)
	m := methodOf(t, up, patient)
	for n := range 4 {
		gone, done := &hold.Holder{}, make(chan error, 1)
		question, answer := text("ping"), text("")
		go func() { done <- (&grpccall.Call{}).Do(t.Context(), gone, m, &question, &answer) }() // awaited below
		<-arrived
		gone.Cut()
		require.ErrorIs(t, <-done, grpccall.ErrGivenUp)
		require.EqualValues(t, n+1, count(up, "upstream_rq_total"))
		require.EqualValues(t, n+1, count(up, "upstream_rq_tx_reset"))
	}
	requireCounts(t, up, map[string]int64{"upstream_rq_completed": 0, "upstream_rq_active": 0, "upstream_cx_total": 1, "outlier_detection.ejections_active": 0})
	require.EqualValues(t, 0, up.Hosts().Members[0].Host.Stats.RequestErrors.Load())

	gone := &hold.Holder{}
	gone.Cut()
	question, answer := text("ping"), text("")
	require.ErrorIs(t, (&grpccall.Call{}).Do(t.Context(), gone, m, &question, &answer), grpccall.ErrGivenUp)
}

const outliers = `"common_lb_config": {"update_merge_window": "0s"}, "outlier_detection": {"consecutive_5xx": 3, "always_eject_one_host": true},`

func TestHostsThatFailAreEjected(t *testing.T) {
	for _, c := range []struct {
		name    string
		serve   func(*http2.Stream)
		timeout time.Duration
		want    int64
	}{
		{"a status of the server's fault", answering(200, contentType+"\ngrpc-status: 14", "", ""), 0, 1},
		{"a status of the caller's fault", answering(200, contentType+"\ngrpc-status: 3", "", ""), 0, 0},
		{"a status of HTTP", answering(502, "", "", ""), 0, 1},
		{"a reset", func(s *http2.Stream) { drained(s); s.Reset(http2.InternalError) }, 0, 1},
		{"silence", silent, 300 * time.Millisecond, 1},
		{"an answer", pong, 0, 0},
	} {
		t.Run(c.name, func(t *testing.T) {
			failing, well := http2test.NewHost(t, http2.Options{}, c.serve), http2test.NewHost(t, http2.Options{}, pong)
			up := newCluster(t, outliers, failing.Address, well.Address)
			m := methodOf(t, up, grpccall.Options{Path: "/a.B/C", Timeout: c.timeout})
			for range 6 { // in turns
				_, _ = do(m)
			}
			require.Equal(t, c.want, count(up, "outlier_detection.ejections_active"))
			if c.want == 0 {
				return
			}
			m = methodOf(t, up, patient)
			for range 4 {
				_, err := do(m)
				require.NoError(t, err, "the other host alone is asked")
			}
		})
	}
}

func TestHostsTakeTurnsByTheirWeights(t *testing.T) {
	for _, c := range []struct {
		name    string
		weights [2]string
		want    [2]uint64
	}{
		{"equal", [2]string{"", ""}, [2]uint64{6, 6}},
		{"one twice the other", [2]string{"*2", "*1"}, [2]uint64{8, 4}},
	} {
		t.Run(c.name, func(t *testing.T) {
			up := newCluster(t, "", http2test.NewHost(t, http2.Options{}, pong).Address+c.weights[0], http2test.NewHost(t, http2.Options{}, pong).Address+c.weights[1])
			m := methodOf(t, up, patient)
			for range 12 {
				_, err := do(m)
				require.NoError(t, err)
			}
			for i, member := range up.Hosts().Members {
				require.Equal(t, c.want[i], member.Host.Stats.RequestsTotal.Load())
			}
		})
	}
}

func TestCircuitBreakersHold(t *testing.T) {
	const thresholds = `"circuit_breakers": {"thresholds": [{%s}]},`
	t.Run("max_requests", func(t *testing.T) {
		arrived, release := make(chan struct{}), make(chan struct{})
		h := http2test.NewHost(t, http2.Options{}, func(s *http2.Stream) {
			arrived <- struct{}{}
			<-release
			pong(s)
		})
		up := newCluster(t, fmt.Sprintf(thresholds, `"max_requests": 1`), h.Address)
		m, done := methodOf(t, up, patient), make(chan error, 1)
		go func() { // awaited below
			_, err := do(m)
			done <- err
		}()
		<-arrived
		_, err := do(m)
		require.ErrorContains(t, err, "too many requests are under way")
		requireCounts(t, up, map[string]int64{
			"upstream_rq_active_overflow": 1, "upstream_rq_503": 1, "upstream_rq_total": 1, "upstream_rq_active": 1, "circuit_breakers.default.rq_open": 1,
		})
		close(release)
		require.NoError(t, <-done)
		requireCounts(t, up, map[string]int64{"upstream_rq_200": 1, "upstream_rq_active": 0, "circuit_breakers.default.rq_open": 0})
	})
	t.Run("max_pending_requests", func(t *testing.T) {
		up := newCluster(t, fmt.Sprintf(thresholds, `"max_pending_requests": 0`), http2test.NewHost(t, http2.Options{}, pong).Address)
		_, err := do(methodOf(t, up, patient))
		require.ErrorContains(t, err, "too many requests wait for a connection")
		requireCounts(t, up, map[string]int64{
			"upstream_rq_pending_overflow": 1, "upstream_rq_503": 1, "upstream_rq_total": 0, "upstream_cx_total": 0, "circuit_breakers.default.rq_pending_open": 1,
		})
	})
}

func TestWhatAHostHasNotProcessedIsSentOnceMore(t *testing.T) {
	t.Run("a refused stream", func(t *testing.T) {
		var again atomic.Bool
		h := http2test.NewHost(t, http2.Options{}, func(s *http2.Stream) {
			if again.Swap(true) {
				pong(s)
			} else {
				s.Reset(http2.RefusedStream)
			}
		})
		up := newCluster(t, "", h.Address)
		got, err := do(methodOf(t, up, patient))
		require.NoError(t, err)
		require.Equal(t, "pong", got)
		requireCounts(t, up, map[string]int64{"upstream_rq_resend": 1, "upstream_rq_total": 1, "upstream_rq_200": 1, "upstream_rq_completed": 1, "upstream_rq_active": 0})
	})
	t.Run("but no more than once", func(t *testing.T) {
		up := newCluster(t, "", http2test.NewHost(t, http2.Options{}, func(s *http2.Stream) { s.Reset(http2.RefusedStream) }).Address)
		_, err := do(methodOf(t, up, patient))
		require.ErrorContains(t, err, "REFUSED_STREAM")
		requireCounts(t, up, map[string]int64{"upstream_rq_resend": 1, "upstream_rq_total": 1, "upstream_rq_503": 1, "upstream_rq_completed": 1, "upstream_rq_active": 0})
	})
	t.Run("what is behind a GOAWAY", func(t *testing.T) {
		up := newCluster(t, "", leaving(t))
		got, err := do(methodOf(t, up, patient))
		require.NoError(t, err)
		require.Equal(t, "pong", got)
		requireCounts(t, up, map[string]int64{"upstream_rq_resend": 1, "upstream_rq_total": 1, "upstream_rq_200": 1, "upstream_cx_total": 2, "upstream_cx_close_notify": 1})
	})
}

// leaving is the address of a host whose first connection answers the first request by
// a GOAWAY that it is behind, and whose others answer pong.
func leaving(t *testing.T) string {
	t.Helper()
	server := http2.NewServer(http2.Options{})
	t.Cleanup(server.Close) // behind its connections
	var later atomic.Bool
	return servicetest.Accept(t, func(conn net.Conn) {
		if later.Swap(true) {
			_ = server.Conn(conn, handler(pong)).Serve(nil) // ends with the cluster
			return
		}
		// SETTINGS; then, once the request may be here, GOAWAY of NO_ERROR behind stream 0.
		_, _ = conn.Write([]byte("\x00\x00\x00\x04\x00\x00\x00\x00\x00"))
		buffer := make([]byte, 4096)
		for got := ""; !strings.Contains(got, frame("ping")); {
			n, err := conn.Read(buffer)
			if err != nil {
				break
			}
			got += string(buffer[:n])
		}
		_, _ = conn.Write([]byte("\x00\x00\x08\x07\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00"))
		_, _ = io.Copy(io.Discard, conn) // up to its end, which is the cluster's
	})
}

// handler serves streams by a function.
type handler func(*http2.Stream)

func (h handler) ServeStream(s *http2.Stream) { h(s) }

func TestConnectionThatItsHostLeavesIsReplaced(t *testing.T) {
	h := http2test.NewHost(t, http2.Options{}, pong)
	up := newCluster(t, "", h.Address)
	m := methodOf(t, up, patient)
	for n := range 3 {
		_, err := do(m)
		require.NoError(t, err)
		(<-h.Conns).Shutdown()
		awaitCounts(t, up, map[string]int64{"upstream_cx_active": 0, "upstream_cx_total": int64(n + 1), "upstream_cx_destroy": int64(n + 1)})
	}
	requireCounts(t, up, map[string]int64{"upstream_rq_200": 3, "upstream_rq_resend": 0})
}

func TestConnectionsEndAsTheClusterSays(t *testing.T) {
	const common = `"typed_extension_protocol_options": {"envoy.extensions.upstreams.http.v3.HttpProtocolOptions": {
		"@type": "type.googleapis.com/envoy.extensions.upstreams.http.v3.HttpProtocolOptions", "common_http_protocol_options": {%s},
		"explicit_http_config": {"http2_protocol_options": {}}}},`
	t.Run("idle_timeout", func(t *testing.T) {
		up := newCluster(t, fmt.Sprintf(common, `"idle_timeout": "0.05s"`), http2test.NewHost(t, http2.Options{}, pong).Address)
		_, err := do(methodOf(t, up, patient))
		require.NoError(t, err)
		awaitCounts(t, up, map[string]int64{"upstream_cx_active": 0, "upstream_cx_idle_timeout": 1, "upstream_cx_destroy_local": 1})
	})
	t.Run("max_requests_per_connection", func(t *testing.T) {
		up := newCluster(t, fmt.Sprintf(common, `"max_requests_per_connection": 2`), http2test.NewHost(t, http2.Options{}, pong).Address)
		m := methodOf(t, up, patient)
		for range 5 {
			_, err := do(m)
			require.NoError(t, err)
		}
		require.EqualValues(t, 3, count(up, "upstream_cx_total"))
	})
}

func TestManyCallsShareAConnection(t *testing.T) {
	up := newCluster(t, "", http2test.NewHost(t, http2.Options{}, pong).Address)
	m := methodOf(t, up, patient)
	var callers sync.WaitGroup
	for range 20 {
		callers.Go(func() { // awaited below
			for range 20 {
				if got, err := do(m); assert.NoError(t, err) {
					assert.Equal(t, "pong", got)
				}
			}
		})
	}
	callers.Wait()
	requireCounts(t, up, map[string]int64{"upstream_rq_200": 400, "upstream_rq_active": 0, "upstream_cx_total": 1})
}

// lean is a handler that answers pong and costs nothing.
func lean() func(*http2.Stream) {
	head, trailers, body := fields(contentType), fields("grpc-status: 0"), []byte(frame("pong"))
	return func(s *http2.Stream) {
		for {
			if _, err := s.Next(); err != nil {
				break
			}
		}
		_ = s.WriteHead(200, head, false)
		_ = s.WriteData(body, false)
		_ = s.WriteTrailers(trailers)
	}
}

// step makes a function that makes one call.
func step(t testing.TB) func() {
	m := methodOf(t, newCluster(t, "", http2test.NewHost(t, http2.Options{}, lean()).Address), patient)
	call, who, question, answer := &grpccall.Call{}, &hold.Holder{}, pings{}, pings{}
	return func() {
		if err := call.Do(t.Context(), who, m, question, answer); err != nil {
			t.Fatal(err)
		}
	}
}

// pings is a message that costs nothing.
type pings struct{}

func (pings) AppendTo(b []byte) []byte { return append(b, "ping"...) }

func (pings) Decode([]byte) error { return nil }

func TestCallAllocatesNothing(t *testing.T) { servicetest.Allocations(t, 0, step(t)) }

func BenchmarkCall(b *testing.B) {
	call := step(b)
	b.ReportAllocs()
	for b.Loop() {
		call()
	}
}
