package fault_test

import (
	"context"
	"errors"
	"io"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/weirproxy/weir/internal/servicetest"
	"github.com/weirproxy/weir/services/proxy/internal/cluster"
	"github.com/weirproxy/weir/services/proxy/internal/httpfilter"
	"github.com/weirproxy/weir/services/proxy/internal/httpfilter/fault"
	"github.com/weirproxy/weir/services/proxy/internal/httpfilter/filtertest"
	"github.com/weirproxy/weir/services/proxy/internal/layeredruntime/runtimetest"
	"github.com/weirproxy/weir/services/proxy/internal/message"
	"github.com/weirproxy/weir/services/proxy/internal/route"
	"github.com/weirproxy/weir/services/proxy/internal/stream"
)

func TestMain(m *testing.M) { servicetest.Main(m) }

func TestReadme(t *testing.T) { filtertest.Readme(t, fault.Factory{}) }

// always has every chance come to the number n.
func always(n uint64) fault.Factory { return fault.Factory{Random: func() uint64 { return n }} }

// toEcho makes the request one to the cluster echo.
func toEcho(s *stream.Stream) {
	s.Route, s.Cluster = &route.Route{Cluster: "echo"}, &cluster.Cluster{Config: &cluster.Config{Name: "echo"}}
}

func TestARouteHasFaultsOfItsOwn(t *testing.T) {
	const own = `{"@type": type.googleapis.com/envoy.extensions.filters.http.fault.v3.HTTPFault, `
	config := filtertest.MustParse(t, always(0), "abort: {http_status: 503, percentage: {numerator: 100}}")
	counts := filtertest.Measure(config)
	routes := filtertest.MustParseRoutes(t, always(0), `
virtual_hosts:
- name: all
  domains: ["*"]
  routes:
  - {match: {path: /other}, direct_response: {status: 200}, typed_per_filter_config: {test: `+own+`abort: {http_status: 418, percentage: {numerator: 100}}}}}
  - {match: {path: /none}, direct_response: {status: 200}, typed_per_filter_config: {test: `+own+`max_active_faults: 1}}}
  - {match: {prefix: /}, direct_response: {status: 200}}
`)
	for path, want := range map[string]string{"/": aborted, "/other": strings.Replace(aborted, "503", "418", 1), "/none": "200"} {
		require.Equal(t, want, filtertest.Run(t, config, filtertest.Exchange{Request: "GET " + path, Routes: routes}).Response)
	}
	require.Equal(t, map[string]int{"fault.aborts_injected": 2}, counts(), "the filter counts those of its routes")
}

const aborted = "503\ncontent-type: text/plain\n\nfault filter abort"

// refusedBy is the answer of gRPC with a status.
func refusedBy(status string) string {
	return "200\ncontent-type: application/grpc\ngrpc-status: " + status + "\ngrpc-message: fault filter abort"
}

func TestAbort(t *testing.T) {
	const half, grpc = "percentage: {numerator: 50}", "\ncontent-type: application/grpc+proto"
	for _, c := range []struct {
		name    string
		config  string
		random  uint64
		headers string
		want    string // of the response; empty is that of the upstream
	}{
		{"a share is aborted", "abort: {http_status: 503, " + half + "}", 49, "", aborted},
		{"the rest is not", "abort: {http_status: 503, " + half + "}", 50, "", ""},
		{"a share may be small", "abort: {http_status: 503, percentage: {numerator: 1, denominator: MILLION}}", 1, "", ""},
		{"no share is none", "abort: {http_status: 503}", 0, "", ""},
		{"a status of gRPC", "abort: {grpc_status: 5, " + half + "}", 0, grpc, refusedBy("5")},
		{"a status of gRPC to a request of HTTP", "abort: {grpc_status: 5, " + half + "}", 0, "", "200\ncontent-type: text/plain\n\nfault filter abort"},
		{"a status of HTTP to a request of gRPC", "abort: {http_status: 503, " + half + "}", 0, grpc, refusedBy("14")},
		{"by a header", "abort: {header_abort: {}, " + half + "}", 49, "\nx-envoy-fault-abort-request: 503", aborted},
		{"by a header of gRPC", "abort: {header_abort: {}, " + half + "}", 0, grpc + "\nx-envoy-fault-abort-grpc-request: 14", refusedBy("14")},
		{"by a header of gRPC, with a status that it does not know", "abort: {header_abort: {}, " + half + "}", 0, grpc + "\nx-envoy-fault-abort-grpc-request: 99", refusedBy("99")},
		{"the same to a request of HTTP", "abort: {header_abort: {}, " + half + "}", 0, "\nx-envoy-fault-abort-grpc-request: 17", "200\ncontent-type: text/plain\n\nfault filter abort"},
		{"a header that asks for no status of HTTP, beside one of gRPC", "abort: {header_abort: {}, " + half + "}", 0, grpc + "\nx-envoy-fault-abort-request: 99\nx-envoy-fault-abort-grpc-request: 9", refusedBy("9")},
		{"a header of gRPC that is no number", "abort: {header_abort: {}, " + half + "}", 0, grpc + "\nx-envoy-fault-abort-grpc-request: -1", ""},
		{"a header that asks for no status", "abort: {header_abort: {}, " + half + "}", 0, "\nx-envoy-fault-abort-request: 600", ""},
		{"a header that is no number", "abort: {header_abort: {}, " + half + "}", 0, "\nx-envoy-fault-abort-request: five", ""},
		{"no header", "abort: {header_abort: {}, " + half + "}", 0, "", ""},
		{"a header can lower the share", "abort: {header_abort: {}, " + half + "}", 10, "\nx-envoy-fault-abort-request: 503\nx-envoy-fault-abort-request-percentage: 10", ""},
		{"and not raise it", "abort: {header_abort: {}, " + half + "}", 50, "\nx-envoy-fault-abort-request: 503\nx-envoy-fault-abort-request-percentage: 100", ""},
		{"a share in a header says nothing to a fixed abort", "abort: {http_status: 503, " + half + "}", 49, "\nx-envoy-fault-abort-request-percentage: 0", aborted},
		{"headers must match", "{abort: {http_status: 503, " + half + "}, headers: [{name: x-a, string_match: {exact: b}}]}", 0, "", ""},
		{"headers match", "{abort: {http_status: 503, " + half + "}, headers: [{name: x-a, string_match: {exact: b}}]}", 0, "\nx-a: b", aborted},
		{"the node must be one of these", "{abort: {http_status: 503, " + half + "}, downstream_nodes: [n1, n2]}", 0, "\nx-envoy-downstream-service-node: n3", ""},
		{"the node is one of these", "{abort: {http_status: 503, " + half + "}, downstream_nodes: [n1, n2]}", 0, "\nx-envoy-downstream-service-node: n2", aborted},
		{"the cluster must be this", "{abort: {http_status: 503, " + half + "}, upstream_cluster: other}", 0, "", ""},
		{"the cluster is this", "{abort: {http_status: 503, " + half + "}, upstream_cluster: echo}", 0, "", aborted},
	} {
		t.Run(c.name, func(t *testing.T) {
			config := filtertest.MustParse(t, always(c.random), c.config)
			filtertest.Measure(config)
			got := filtertest.Run(t, config, filtertest.Exchange{Request: "GET /" + c.headers, Prepare: toEcho})
			if c.want == "" {
				require.NotEmpty(t, got.Forwarded)
				c.want = "200"
			} else {
				require.Empty(t, got.Forwarded)
			}
			require.Equal(t, c.want, got.Response)
		})
	}
}

func TestAccessLogsTellOfFaults(t *testing.T) {
	const all = "percentage: {numerator: 100}}"
	for config, want := range map[string]string{
		"{delay: {fixed_delay: 0.001s, " + all + ", abort: {http_status: 503, " + all + "}": "DI,FI fault_filter_abort",
		"abort: {grpc_status: 5, " + all:      "FI fault_filter_abort",
		"delay: {fixed_delay: 0.001s, " + all: "DI ",
		"abort: {http_status: 503}":           "- ",
	} {
		config := filtertest.MustParse(t, always(0), config)
		filtertest.Measure(config)
		var s *stream.Stream
		filtertest.Run(t, config, filtertest.Exchange{Request: "GET /", Prepare: func(given *stream.Stream) { s = given }})
		require.Equal(t, want, s.Facts.Flags.String()+" "+s.Facts.Details)
	}
}

func TestTheRuntimeSaysWhatIsAborted(t *testing.T) {
	const half, grpc = "percentage: {numerator: 50}", "\ncontent-type: application/grpc"
	for _, c := range []struct {
		config, values, headers, want string
	}{
		{"abort: {http_status: 503, " + half + "}", "{fault.http.abort.abort_percent: 10}", "", "200"},
		{"abort: {http_status: 503, percentage: {}}", "{fault.http.abort.abort_percent: 11}", "", aborted},
		{"abort: {http_status: 503, percentage: {}}", "{fault.http.abort.abort_percent: {numerator: 999999, denominator: MILLION}}", "", aborted},
		{"{abort: {http_status: 503, " + half + "}, abort_percent_runtime: a.b}", "{a.b: 10, fault.http.abort.abort_percent: 100}", "", "200"},
		{"abort: {http_status: 503, " + half + "}", "{fault.http.abort.http_status: 418}", "", strings.Replace(aborted, "503", "418", 1)},
		{"{abort: {http_status: 503, " + half + "}, abort_http_status_runtime: s}", "{s: 418}", "", strings.Replace(aborted, "503", "418", 1)},
		{"abort: {http_status: 503, " + half + "}", "{fault.http.abort.http_status: 99, fault.http.abort.grpc_status: 5}", "", aborted},
		{"abort: {header_abort: {}, " + half + "}", "{fault.http.abort.http_status: 418}", "\nx-envoy-fault-abort-request: 503", strings.Replace(aborted, "503", "418", 1)},
		{"abort: {header_abort: {}, percentage: {numerator: 100}}", "{fault.http.abort.abort_percent: 100}",
			"\nx-envoy-fault-abort-request: 503\nx-envoy-fault-abort-request-percentage: 0", aborted},
		{"abort: {grpc_status: 5, " + half + "}", "{fault.http.abort.grpc_status: 9, fault.http.abort.http_status: 418}", grpc, refusedBy("9")},
		{"{abort: {grpc_status: 5, " + half + "}, abort_grpc_status_runtime: s}", "{s: 17}", grpc, refusedBy("5")},
		{"max_active_faults: 5\nabort: {http_status: 503, " + half + "}", "{fault.http.max_active_faults: 0}", "", "200"},
		{"{max_active_faults: 0, max_active_faults_runtime: m, abort: {http_status: 503, " + half + "}}", "{m: 1}", "", aborted},
	} {
		config := filtertest.MustParse(t, always(10), c.config)
		filtertest.Measure(config)
		got := filtertest.Run(t, config, filtertest.Exchange{Request: "GET /" + c.headers, Prepare: toEcho, Runtime: runtimetest.Values(t, c.values)})
		require.Equal(t, c.want, got.Response, "%+v", c)
	}
}

func TestTheRuntimeSaysWhatIsDelayed(t *testing.T) {
	for _, c := range []struct {
		config, values string
		want           time.Duration
	}{
		{"delay: {fixed_delay: 3s, percentage: {numerator: 100}}", "{fault.http.delay.fixed_delay_percent: 0}", 0},
		{"delay: {fixed_delay: 3s, percentage: {}}", "{fault.http.delay.fixed_delay_percent: 100}", 3 * time.Second},
		{"delay: {fixed_delay: 3s, percentage: {numerator: 100}}", "{fault.http.delay.fixed_duration_ms: 250}", 250 * time.Millisecond},
		{"delay: {fixed_delay: 3s, percentage: {numerator: 100}}", "{fault.http.delay.fixed_duration_ms: 0}", 0},
		{"delay: {fixed_delay: 3s, percentage: {numerator: 100}}", "{fault.http.delay.fixed_duration_ms: 99999999999999}", 24 * time.Hour},
		{"delay: {header_delay: {}, percentage: {numerator: 100}}", "{fault.http.delay.fixed_duration_ms: 250}", 0},
		{"{delay: {fixed_delay: 3s, percentage: {}}, delay_percent_runtime: p, delay_duration_runtime: d}", "{p: 100, d: 20}", 20 * time.Millisecond},
	} {
		synctest.Test(t, func(t *testing.T) {
			config := filtertest.MustParse(t, always(30), c.config)
			filtertest.Measure(config)
			begin := time.Now()
			filtertest.Run(t, config, filtertest.Exchange{Request: "GET /", Runtime: runtimetest.Values(t, c.values)})
			require.Equal(t, c.want, time.Since(begin), "%+v", c)
		})
	}
}

func TestTheRuntimeSaysWhichResponsesAreSlow(t *testing.T) {
	for values, want := range map[string]int{"{}": 0, "{fault.http.rate_limit.response_percent: 100}": 1} {
		synctest.Test(t, func(t *testing.T) {
			config := filtertest.MustParse(t, always(30), "response_rate_limit: {fixed_limit: {limit_kbps: 1}, percentage: {}}")
			counts := filtertest.Measure(config)
			filtertest.Run(t, config, filtertest.Exchange{Request: "GET /", ResponseBody: []string{"a"}, Runtime: runtimetest.Values(t, values)})
			require.Equal(t, want, counts()["fault.response_rl_injected"], values)
		})
	}
}

func TestDelay(t *testing.T) {
	for _, c := range []struct {
		name    string
		config  string
		headers string
		want    time.Duration
	}{
		{"fixed", "{fixed_delay: 3s, percentage: {numerator: 100}}", "", 3 * time.Second},
		{"of a share", "{fixed_delay: 3s, percentage: {numerator: 20}}", "", 0},
		{"by a header, in milliseconds", "{header_delay: {}, percentage: {numerator: 100}}", "\nx-envoy-fault-delay-request: 1500", 1500 * time.Millisecond},
		{"by a header, of a share that another lowers", "{header_delay: {}, percentage: {numerator: 100}}",
			"\nx-envoy-fault-delay-request: 1500\nx-envoy-fault-delay-request-percentage: 20", 0},
		{"by no header", "{header_delay: {}, percentage: {numerator: 100}}", "", 0},
		{"by a header that asks for years", "{header_delay: {}, percentage: {numerator: 100}}", "\nx-envoy-fault-delay-request: 4294967295", 0},
	} {
		t.Run(c.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				config := filtertest.MustParse(t, always(30), "delay: "+c.config)
				counts := filtertest.Measure(config)
				begin := time.Now()
				got := filtertest.Run(t, config, filtertest.Exchange{Request: "GET /" + c.headers})
				require.Equal(t, "200", got.Response)
				require.Equal(t, c.want, time.Since(begin))
				require.Equal(t, c.want > 0, counts()["fault.delays_injected"] == 1)
			})
		})
	}
}

func TestADelayedRequestCanBeAborted(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		config := filtertest.MustParse(t, always(0), `{delay: {fixed_delay: 3s, percentage: {numerator: 100}}, abort: {http_status: 503, percentage: {numerator: 100}}}`)
		counts := filtertest.Measure(config)
		begin := time.Now()
		got := filtertest.Run(t, config, filtertest.Exchange{Request: "GET /\nx-envoy-downstream-service-cluster: a.b"})
		require.Equal(t, aborted, got.Response)
		require.Equal(t, 3*time.Second, time.Since(begin))
		require.Equal(t, map[string]int{
			"fault.delays_injected": 1, "fault.aborts_injected": 1, "fault.a.b.delays_injected": 1, "fault.a.b.aborts_injected": 1,
		}, counts())
	})
}

func TestTheClustersOfClientsNeedNotBeCounted(t *testing.T) {
	config := filtertest.MustParse(t, always(0), `{abort: {http_status: 503, percentage: {numerator: 100}}, disable_downstream_cluster_stats: true}`)
	counts := filtertest.Measure(config)
	filtertest.Run(t, config, filtertest.Exchange{Request: "GET /\nx-envoy-downstream-service-cluster: a"})
	require.Equal(t, map[string]int{"fault.aborts_injected": 1}, counts())
}

func TestTheClustersOfClientsAreSoManyAtMost(t *testing.T) {
	config := filtertest.MustParse(t, always(0), `abort: {http_status: 503, percentage: {numerator: 100}}`)
	counts := filtertest.Measure(config)
	for i := range 1000 {
		filtertest.Run(t, config, filtertest.Exchange{Request: "GET /\nx-envoy-downstream-service-cluster: c" + strings.Repeat("x", i)})
	}
	require.Len(t, counts(), 1+128)
	require.Equal(t, 1000, counts()["fault.aborts_injected"])
}

// begin has a request delayed for long, in a goroutine; it returns the stream,
// and a function that waits for the request to be done.
func begin(t *testing.T, config httpfilter.Config) (s *stream.Stream, cancel func(), wait func()) {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	s = &stream.Stream{Context: ctx}
	done := make(chan struct{})
	go func() { // the test waits for it
		defer close(done)
		f := config.NewFilter()
		f.(httpfilter.RequestHead).RequestHead(s)
		f.(httpfilter.Done).Done(s)
	}()
	synctest.Wait()
	return s, cancel, func() { <-done }
}

func TestFaultsAreSoManyAtMost(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		config := filtertest.MustParse(t, always(0), "{delay: {fixed_delay: 3600s, percentage: {numerator: 100}}, max_active_faults: 1}")
		counts := filtertest.Measure(config)
		_, cancel, wait := begin(t, config)
		require.Equal(t, 1, counts()["fault.active_faults"])
		now := time.Now()
		filtertest.Run(t, config, filtertest.Exchange{Request: "GET /"})
		require.Zero(t, time.Since(now), "a second delay")
		require.Equal(t, map[string]int{"fault.active_faults": 1, "fault.delays_injected": 1, "fault.faults_overflow": 1}, counts())
		cancel()
		wait()
		require.Zero(t, counts()["fault.active_faults"])
	})
	config := filtertest.MustParse(t, always(0), "{abort: {http_status: 503, percentage: {numerator: 100}}, max_active_faults: 0}")
	filtertest.Measure(config)
	require.Equal(t, "200", filtertest.Run(t, config, filtertest.Exchange{Request: "GET /"}).Response, "no faults at all")
}

func TestADelayEndsWithItsStream(t *testing.T) {
	for name, end := range map[string]func(s *stream.Stream, cancel func()){
		"the process gives up": func(_ *stream.Stream, cancel func()) { cancel() },
		"it is cut":            func(s *stream.Stream, _ func()) { s.Cut() },
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				config := filtertest.MustParse(t, always(0), "delay: {fixed_delay: 3600s, percentage: {numerator: 100}}")
				filtertest.Measure(config)
				now := time.Now()
				s, cancel, wait := begin(t, config)
				defer cancel()
				end(s, cancel)
				wait()
				require.Zero(t, time.Since(now))
			})
		})
	}
}

func TestResponsesAreSlowedDown(t *testing.T) {
	for _, c := range []struct {
		name    string
		config  string
		headers string
		bytes   int
		want    time.Duration
	}{
		{"by a fixed limit", "{fixed_limit: {limit_kbps: 1}, percentage: {numerator: 100}}", "", 3 << 10, 3 * time.Second},
		{"of a share", "{fixed_limit: {limit_kbps: 1}, percentage: {numerator: 20}}", "", 3 << 10, 0},
		{"by a header", "{header_limit: {}, percentage: {numerator: 100}}", "\nx-envoy-fault-throughput-response: 2", 6 << 10, 3 * time.Second},
		{"by a header, of a share that another lowers", "{header_limit: {}, percentage: {numerator: 100}}",
			"\nx-envoy-fault-throughput-response: 2\nx-envoy-fault-throughput-response-percentage: 20", 6 << 10, 0},
		{"by no header", "{header_limit: {}, percentage: {numerator: 100}}", "", 6 << 10, 0},
	} {
		t.Run(c.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				config := filtertest.MustParse(t, always(30), "response_rate_limit: "+c.config)
				counts := filtertest.Measure(config)
				body := strings.Repeat("x", c.bytes)
				now := time.Now()
				got := filtertest.Run(t, config, filtertest.Exchange{Request: "GET /" + c.headers, ResponseBody: []string{body[:100], body[100:]}})
				require.Equal(t, "200\n\n"+body, got.Response)
				// The last slice need not be waited for.
				require.InDelta(t, c.want, time.Since(now), float64(time.Second/8))
				require.Equal(t, c.want > 0, counts()["fault.response_rl_injected"] == 1)
				require.Zero(t, counts()["fault.active_faults"])
			})
		})
	}
}

func TestASlowResponseEndsWithItsStream(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		config := filtertest.MustParse(t, always(0), "response_rate_limit: {fixed_limit: {limit_kbps: 1}, percentage: {numerator: 100}}")
		filtertest.Measure(config)
		ctx, cancel := context.WithCancel(t.Context())
		s := &stream.Stream{Context: ctx}
		f := config.NewFilter()
		f.(httpfilter.RequestHead).RequestHead(s)
		s.Response.Body = message.NewBytes(make([]byte, 1<<20))
		f.(httpfilter.ResponseHead).ResponseHead(s)
		require.True(t, s.Response.Body.Ready())
		_, err := s.Response.Body.Next()
		require.NoError(t, err)
		require.False(t, s.Response.Body.Ready())
		cancel()
		_, err = s.Response.Body.Next()
		require.True(t, errors.Is(err, context.Canceled) && !errors.Is(err, io.EOF))
		f.(httpfilter.Done).Done(s)
	})
}

func TestFaultsOfTheConfigAreTold(t *testing.T) {
	for config, want := range map[string]string{
		"abort: {http_status: 199}":                                      "abort.http_status",
		"abort: {grpc_status: 17}":                                       "abort.grpc_status: 17 is no gRPC status",
		"abort: {percentage: {numerator: 1}}":                            "abort",
		"delay: {percentage: {numerator: 1}}":                            "delay",
		"delay: {fixed_delay: 0s}":                                       "delay.fixed_delay",
		"response_rate_limit: {fixed_limit: {limit_kbps: 0}}":            "response_rate_limit.fixed_limit.limit_kbps",
		"headers: [{name: a, string_match: {safe_regex: {regex: '('}}}]": "headers[0].string_match.safe_regex.regex",
		"filter_metadata: {a: b}":                                        "filter_metadata: not supported",
	} {
		_, report := filtertest.Parse(t, fault.Factory{}, config)
		require.ErrorContains(t, report.Err(), want, config)
	}
}

func TestARequestWithoutAFaultAllocatesNothing(t *testing.T) {
	config := filtertest.MustParse(t, always(99), "{abort: {http_status: 503, percentage: {numerator: 50}}, delay: {header_delay: {}, percentage: {numerator: 100}}}")
	filtertest.Measure(config)
	s := &stream.Stream{Context: t.Context()}
	servicetest.Allocations(t, 0, func() {
		f := config.NewFilter()
		f.(httpfilter.RequestHead).RequestHead(s)
		f.(httpfilter.ResponseHead).ResponseHead(s)
		f.(httpfilter.Done).Done(s)
	})
}
