package cluster_test

import (
	"fmt"
	"io"
	"net"
	"strings"
	"testing"

	clusterv3 "github.com/envoyproxy/go-control-plane/envoy/config/cluster/v3"
	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	"github.com/stretchr/testify/require"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/anypb"

	"github.com/weirproxy/weir/internal/http2"
	"github.com/weirproxy/weir/internal/servicetest"
	"github.com/weirproxy/weir/services/proxy/internal/cluster"
	"github.com/weirproxy/weir/services/proxy/internal/connpool"
	"github.com/weirproxy/weir/services/proxy/internal/message"
)

// static is a STATIC cluster of one host with further fields.
func static(fields string) string {
	return fmt.Sprintf(`{"name": "a", "load_assignment": {"cluster_name": "a", "endpoints": [{"lb_endpoints": [%s]}]}, %s}`, endpoint("10.0.0.1", 80, ""), fields)
}

// policyList is a LoadBalancingPolicy of typed configs, each a type and its
// fields.
func policyList(configs ...string) string {
	text := ""
	for i, c := range configs {
		if i > 0 {
			text += ","
		}
		text += fmt.Sprintf(`{"typed_extension_config": {"name": "x", "typed_config": {"@type": "type.googleapis.com/envoy.extensions.%s}}}`, c)
	}
	return fmt.Sprintf(`{"policies": [%s]}`, text)
}

// policy is a cluster's load_balancing_policy of such.
func policy(configs ...string) string { return `"load_balancing_policy": ` + policyList(configs...) }

func TestPoliciesAndTheirConfigs(t *testing.T) {
	for _, c := range []struct{ fields, fault string }{
		{`"lb_policy": "LEAST_REQUEST", "least_request_lb_config": {"choice_count": 3, "active_request_bias": {"default_value": 0.5, "runtime_key": "x"}}`, ""},
		{`"lb_policy": "RING_HASH", "ring_hash_lb_config": {"minimum_ring_size": 10, "maximum_ring_size": 20, "hash_function": "MURMUR_HASH_2"}`, ""},
		{`"lb_policy": "MAGLEV", "maglev_lb_config": {"table_size": 65537}, "common_lb_config": {"consistent_hashing_lb_config": {"use_hostname_for_hashing": true}}`, ""},
		{`"lb_policy": "RANDOM", "common_lb_config": {"locality_weighted_lb_config": {}}`, ""},
		{`"lb_policy": "ROUND_ROBIN", "round_robin_lb_config": {}`, ""},
		{policy(`load_balancing_policies.round_robin.v3.RoundRobin"`), ""},
		{policy(`load_balancing_policies.least_request.v3.LeastRequest", "choice_count": 5`), ""},
		{policy(`load_balancing_policies.random.v3.Random"`), ""},
		{policy(`load_balancing_policies.ring_hash.v3.RingHash", "hash_function": "MURMUR_HASH_2", "locality_weighted_lb_config": {}`), ""},
		{policy(`load_balancing_policies.maglev.v3.Maglev", "table_size": 7`) + `, "lb_policy": "LOAD_BALANCING_POLICY_CONFIG"`, ""},
		{policy(`load_balancing_policies.common.v3.SlowStartConfig"`, `clusters.dns.v3.DnsCluster"`, `load_balancing_policies.random.v3.Random"`), ""},
		{policy(`load_balancing_policies.wrr_locality.v3.WrrLocality", "endpoint_picking_policy": ` + policyList(`load_balancing_policies.random.v3.Random"`)), ""},

		{`"lb_policy": "CLUSTER_PROVIDED"`, "lb_policy: CLUSTER_PROVIDED is not supported"},
		{`"lb_policy": "LOAD_BALANCING_POLICY_CONFIG"`, "lb_policy: LOAD_BALANCING_POLICY_CONFIG needs load_balancing_policy"},
		{`"lb_policy": "MAGLEV", "ring_hash_lb_config": {}`, "ring_hash_lb_config: is for another policy than MAGLEV, which is the cluster's lb_policy"},
		{`"common_lb_config": {"consistent_hashing_lb_config": {}}`, "common_lb_config.consistent_hashing_lb_config: is for policies that hash, which ROUND_ROBIN does not"},
		{`"lb_policy": "RING_HASH", "ring_hash_lb_config": {"minimum_ring_size": 20, "maximum_ring_size": 10}`, "ring_hash_lb_config.minimum_ring_size: 20 is more than maximum_ring_size, 10"},
		{`"lb_policy": "RING_HASH", "ring_hash_lb_config": {"maximum_ring_size": 10}`, "ring_hash_lb_config.minimum_ring_size: 1024 is more than maximum_ring_size, 10"},
		{`"lb_policy": "RING_HASH", "ring_hash_lb_config": {"minimum_ring_size": 8388609}`, "ring_hash_lb_config.minimum_ring_size: value must be less than or equal to 8388608"},
		{`"lb_policy": "MAGLEV", "maglev_lb_config": {"table_size": 100}`, "maglev_lb_config.table_size: 100 is not prime"},
		{`"lb_policy": "MAGLEV", "maglev_lb_config": {"table_size": 5000081}`, "maglev_lb_config.table_size: value must be less than or equal to 5000011"},
		{`"lb_policy": "LEAST_REQUEST", "least_request_lb_config": {"choice_count": 1}`, "least_request_lb_config.choice_count: value must be greater than or equal to 2"},
		{`"lb_policy": "LEAST_REQUEST", "least_request_lb_config": {"active_request_bias": {"default_value": -1, "runtime_key": "x"}}`,
			"least_request_lb_config.active_request_bias.default_value: -1 is not 0 or more"},
		{`"lb_policy": "LEAST_REQUEST", "least_request_lb_config": {"slow_start_config": {}}`, "least_request_lb_config.slow_start_config: not supported"},
		{policy(), "load_balancing_policy: none of its policies is supported"},
		{policy(`load_balancing_policies.maglev.v3.Maglev", "table_size": 6`),
			"load_balancing_policy.policies[0].typed_extension_config.typed_config.table_size: 6 is not prime"},
		{policy(`load_balancing_policies.random.v3.Random"`) + `, "common_lb_config": {"locality_weighted_lb_config": {}, "consistent_hashing_lb_config": {}}`,
			"common_lb_config.consistent_hashing_lb_config: stands in the policy's typed_config where there is a load_balancing_policy"},
		{`"common_lb_config": {"zone_aware_lb_config": {}}`, "common_lb_config.zone_aware_lb_config: not supported"},
		{`"common_lb_config": {"healthy_panic_threshold": {"value": 101}}`, "common_lb_config.healthy_panic_threshold.value: value must be inside range [0, 100]"},
		{`"common_lb_config": {"update_merge_window": "-1s"}`, "common_lb_config.update_merge_window: -1s is negative"},
	} {
		t.Run(c.fields, func(t *testing.T) {
			m := newManager(t, false)
			err := m.ApplyClusters(clusters(t, static(c.fields)))
			if c.fault != "" {
				require.ErrorContains(t, err, c.fault)
				return
			}
			require.NoError(t, err)
			require.NotNil(t, m.Get("a").Pick(&cluster.PickContext{}))
		})
	}
}

func TestPolicyOfATypeThatNobodyKnowsIsPassedOver(t *testing.T) {
	config := clusters(t, static(policy(`load_balancing_policies.random.v3.Random"`, `load_balancing_policies.random.v3.Random"`)))
	list := config[0].Message.(*clusterv3.Cluster).GetLoadBalancingPolicy().GetPolicies()
	list[0].TypedExtensionConfig.TypedConfig = &anypb.Any{TypeUrl: "type.googleapis.com/example.Policy", Value: []byte{0xff}}
	m := newManager(t, false)
	require.NoError(t, m.ApplyClusters(config))
	list[1].TypedExtensionConfig.TypedConfig = list[0].TypedExtensionConfig.TypedConfig
	config[0].Message = proto.CloneOf(config[0].Message.(*clusterv3.Cluster))
	config[0].Message.(*clusterv3.Cluster).Name = "b"
	require.EqualError(t, m.ApplyClusters(config), `cluster "a": load_balancing_policy: none of its policies is supported`)
}

func TestBreakersAreThoseOfTheirPriority(t *testing.T) {
	m := newManager(t, false)
	require.NoError(t, m.ApplyClusters(clusters(t, static(`"circuit_breakers": {"thresholds": [{"max_requests": 1}]}`))))
	low, high := m.Get("a").Breakers(corev3.RoutingPriority_DEFAULT), m.Get("a").Breakers(corev3.RoutingPriority_HIGH)
	require.True(t, low.Requests.Acquire())
	require.False(t, low.Requests.Acquire())
	require.EqualValues(t, 1, m.stat("cluster.a.circuit_breakers.default.rq_open"))
	require.True(t, high.Requests.Acquire())
	require.True(t, high.Requests.Acquire())
	require.Zero(t, m.stat("cluster.a.circuit_breakers.high.rq_open"))
}

// httpOptions is a cluster's HttpProtocolOptions with this common part.
func httpOptions(common string) string {
	return `"typed_extension_protocol_options": {"envoy.extensions.upstreams.http.v3.HttpProtocolOptions": {
		"@type": "type.googleapis.com/envoy.extensions.upstreams.http.v3.HttpProtocolOptions",
		"explicit_http_config": {"http_protocol_options": {}}, "common_http_protocol_options": {` + common + `}}}`
}

func TestCommonHTTPOptions(t *testing.T) {
	for _, c := range []struct{ common, fault string }{
		{`"idle_timeout": "0s"`, ""},
		{`"idle_timeout": "-1s"`, "idle_timeout: -1s is negative"},
		{`"max_connection_duration": "0s"`, ""},
		{`"max_connection_duration": "-1s"`, "max_connection_duration: -1s is negative"},
		{`"max_stream_duration": "0s"`, ""},
		{`"max_stream_duration": "-1s"`, "max_stream_duration: -1s is negative"},
		{`"max_requests_per_connection": 0`, ""},
		{`"max_requests_per_connection": 3`, ""},
		{`"max_headers_count": 1, "max_response_headers_kb": 8192`, ""},
		{`"max_headers_count": 0`, "max_headers_count: value must be greater than or equal to 1"},
		{`"max_response_headers_kb": 0`, "max_response_headers_kb: value must be inside range (0, 8192]"},
		{`"headers_with_underscores_action": "ALLOW"`, ""},
		{`"headers_with_underscores_action": "DROP_HEADER"`, "headers_with_underscores_action: has no meaning for a cluster: it is for the connection manager"},
	} {
		t.Run(c.common, func(t *testing.T) {
			m := newManager(t, false)
			err := m.ApplyClusters(clusters(t, static(httpOptions(c.common))))
			if c.fault != "" {
				require.ErrorContains(t, err, `typed_extension_protocol_options["envoy.extensions.upstreams.http.v3.HttpProtocolOptions"].common_http_protocol_options.`+c.fault)
				return
			}
			require.NoError(t, err)
		})
	}
}

// http2Options is a cluster's HttpProtocolOptions with these http2_protocol_options.
func http2Options(options string) string {
	return `"typed_extension_protocol_options": {"envoy.extensions.upstreams.http.v3.HttpProtocolOptions": {
		"@type": "type.googleapis.com/envoy.extensions.upstreams.http.v3.HttpProtocolOptions",
		"explicit_http_config": {"http2_protocol_options": {` + options + `}}}}`
}

func TestHealthChecksOfGRPCNeedHTTP2(t *testing.T) {
	const check = `"health_checks": [{"timeout": "1s", "interval": "60s", "unhealthy_threshold": 1, "healthy_threshold": 1, "grpc_health_check": {}}]`
	const fault = `health_checks[0].grpc_health_check: the cluster has no http2_protocol_options, which gRPC needs`
	for protocol, want := range map[string]string{
		"":                               fault,
		", " + httpOptions(""):           fault,
		", " + http2Options(""):          "",
		`, "http2_protocol_options": {}`: "",
		strings.ReplaceAll(", "+http2Options(""), "explicit_http_config", "use_downstream_protocol_config"): "",
	} {
		m := newManager(t, false)
		err := m.ApplyClusters(clusters(t, static(check+protocol)))
		m.stop()
		if want == "" {
			require.NoError(t, err, protocol)
		} else {
			require.ErrorContains(t, err, want, protocol)
		}
	}
}

func TestHTTP2Options(t *testing.T) {
	for _, c := range []struct{ options, fault string }{
		{`"allow_connect": true`, ""},
		{`"override_stream_error_on_invalid_http_message": true`, ""},
		{`"stream_reset_burst": "1"`, "stream_reset_burst: has no meaning for a cluster: it is for the connection manager"},
		{`"stream_reset_rate": "1"`, "stream_reset_rate: has no meaning for a cluster: it is for the connection manager"},
		{`"allow_metadata": true`, "allow_metadata: not supported"},
	} {
		t.Run(c.options, func(t *testing.T) {
			m := newManager(t, false)
			err := m.ApplyClusters(clusters(t, static(http2Options(c.options))))
			if c.fault != "" {
				require.ErrorContains(t, err, `typed_extension_protocol_options["envoy.extensions.upstreams.http.v3.HttpProtocolOptions"].explicit_http_config.http2_protocol_options.`+c.fault)
				return
			}
			require.NoError(t, err)
		})
	}
}

// malforming is a server of HTTP/2 that answers /malformed with more than it said, and
// other requests once it is released.
type malforming struct{ release chan struct{} }

func (m malforming) ServeStream(s *http2.Stream) {
	var head http2.Head
	if err := s.ReadHead(&head); err != nil {
		return
	}
	if string(head.Path) == "/malformed" {
		var fields message.Headers
		fields.Add("content-length", "1")
		_ = s.WriteHead(200, &fields, false)
		_ = s.WriteData([]byte("ab"), true)
		return
	}
	<-m.release
	_ = s.WriteHead(204, nil, true)
}

func TestAMalformedResponseOfHTTP2EndsItsStreamOrItsConnection(t *testing.T) {
	for options, others := range map[string]string{
		``: "go on",
		`"override_stream_error_on_invalid_http_message": true`:  "go on",
		`"override_stream_error_on_invalid_http_message": false`: "end with it",
	} {
		t.Run(options, func(t *testing.T) {
			l, err := net.Listen("tcp", "127.0.0.1:0")
			require.NoError(t, err)
			defer l.Close()
			server, handler := http2.NewServer(http2.Options{}), malforming{make(chan struct{})}
			served := make(chan struct{})
			go func() { // ends with the connection, which the pool closes
				defer close(served)
				if conn, err := l.Accept(); err == nil {
					_ = server.Conn(conn, handler).Serve(nil)
				}
			}()
			m := newManager(t, false)
			at := endpoint("127.0.0.1", l.Addr().(*net.TCPAddr).Port, "")
			require.NoError(t, m.ApplyClusters(clusters(t, fmt.Sprintf(
				`{"name": "a", "load_assignment": {"cluster_name": "a", "endpoints": [{"lb_endpoints": [%s]}]}, %s}`, at, http2Options(options)))))
			pool := m.Get("a").Pick(&cluster.PickContext{}).Connections
			ask := func(path string) *connpool.Conn {
				conn, err := pool.Get(t.Context(), nil)
				require.NoError(t, err)
				conn.Writer.WriteRequest(&message.Request{Method: []byte("GET"), Path: []byte(path), Authority: []byte("a")})
				require.NoError(t, conn.Writer.Flush())
				return conn
			}
			other, malformed := ask("/"), ask("/malformed")
			var response message.Response
			_, err = malformed.Reader.ReadHead(&response, []byte("GET"))
			for err == nil { // what was whole may come first
				_, err = response.Body.Next()
			}
			var protocol *message.ProtocolError
			require.ErrorAs(t, err, &protocol)
			malformed.Discard()
			if others == "go on" {
				require.EqualValues(t, 1, m.stat("cluster.a.http2.streams_active"))
				require.EqualValues(t, 1, m.stat("cluster.a.http2.tx_reset"))
				require.EqualValues(t, 1, m.stat("cluster.a.upstream_rq_tx_reset"))
				require.EqualValues(t, 1, m.stat("cluster.a.http2.rx_messaging_error"))
			}
			close(handler.release)
			_, err = other.Reader.ReadHead(&response, []byte("GET"))
			other.Discard()
			if others == "go on" {
				require.NoError(t, err)
			} else {
				require.ErrorAs(t, err, &protocol)
			}
			require.Zero(t, m.stat("cluster.a.http2.streams_active"))
			pool.Close()
			<-served
			server.Close()
			servicetest.Eventually(t, "the end is counted", func() bool { return m.stat("cluster.a.upstream_cx_destroy_local") == 1 })
			broken := map[string]int64{"end with it": 1}[others] // connections, and the other request
			require.Equal(t, broken, m.stat("cluster.a.upstream_cx_destroy_local_with_active_rq"))
			require.Equal(t, 1-broken, m.stat("cluster.a.http2.goaway_sent"))
		})
	}
}

func TestOldFieldsSayWhichHTTPIsSpoken(t *testing.T) {
	for _, c := range []struct {
		fields string
		http2  bool
		fault  string
	}{
		{`"http2_protocol_options": {}`, true, ""},
		{`"http2_protocol_options": {"max_concurrent_streams": 7}, "http_protocol_options": {"enable_trailers": true}`, true, ""},
		{`"http_protocol_options": {"enable_trailers": true}`, false, ""},
		{`"http_protocol_options": {"accept_http_10": true}`, false, `http_protocol_options.accept_http_10: has no meaning for a cluster: it is for the connection manager`},
		{`"http2_protocol_options": {}, ` + httpOptions(""), false, `http2_protocol_options: typed_extension_protocol_options say how HTTP is spoken already`},
		{`"http_protocol_options": {}, ` + httpOptions(""), false, `http_protocol_options: typed_extension_protocol_options say how HTTP is spoken already`},
	} {
		t.Run(c.fields, func(t *testing.T) {
			m := newManager(t, false)
			err := m.ApplyClusters(clusters(t, static(c.fields)))
			if c.fault != "" {
				require.ErrorContains(t, err, c.fault)
				return
			}
			require.NoError(t, err)
			require.Equal(t, c.http2, m.Get("a").Config.HTTP2)
		})
	}
}

func TestMetricsMayHaveAnotherName(t *testing.T) {
	m := newManager(t, false)
	named := func(name string) string {
		return fmt.Sprintf(`{"name": %q, "alt_stat_name": "both", "load_assignment": {"cluster_name": %[1]q, "endpoints": []}}`, name)
	}
	require.NoError(t, m.ApplyClusters(clusters(t, named("a"), named("b"))))
	m.Get("a").Stats.RequestsTotal.Inc()
	m.Get("b").Stats.RequestsTotal.Inc()
	require.EqualValues(t, 2, m.stat("cluster.both.upstream_rq_total"))
	require.NoError(t, m.ApplyClusters(clusters(t, named("b"))))
	require.EqualValues(t, 2, m.stat("cluster.both.upstream_rq_total"), "which is still the other's")
}

func TestMetricsGoWithTheLastClusterThatHasThem(t *testing.T) {
	const alone = `{"name": "a", "alt_stat_name": "both", "load_assignment": {"cluster_name": "a", "endpoints": []}}`
	named := func(name, metrics, service string) string {
		return fmt.Sprintf(`{"name": %q, "alt_stat_name": %q, "type": "EDS", "eds_cluster_config": {"service_name": %q,
			"eds_config": {"ads": {}, "resource_api_version": "V3"}}}`, name, metrics, service)
	}
	start := func(t *testing.T) *manager {
		m := newManager(t, false)
		require.NoError(t, m.ApplyClusters(clusters(t, alone, named("b", "both", "s"))))
		require.NotNil(t, m.Get("a"))
		require.Nil(t, m.Get("b"), "it warms")
		m.Get("a").Stats.RequestsTotal.Inc()
		return m
	}
	const total = "cluster.both.upstream_rq_total"
	t.Run("one that warms goes", func(t *testing.T) {
		m := start(t)
		require.NoError(t, m.ApplyClusters(clusters(t, alone)))
		require.EqualValues(t, 1, m.stat(total))
	})
	t.Run("one that warms changes", func(t *testing.T) {
		m := start(t)
		require.NoError(t, m.ApplyClusters(clusters(t, alone, named("b", "both", "other"))))
		require.EqualValues(t, 1, m.stat(total))
	})
	t.Run("the active one goes", func(t *testing.T) {
		m := start(t)
		require.NoError(t, m.ApplyClusters(clusters(t, named("b", "both", "s"))))
		require.NoError(t, m.ApplyAssignments(assignment(t, "s", endpoint("10.0.0.1", 80, ""))))
		m.Get("b").Stats.RequestsTotal.Inc()
		require.EqualValues(t, 2, m.stat(total))
		require.NoError(t, m.ApplyClusters(nil))
		require.False(t, m.has(total))
	})
	t.Run("the name of the metrics changes", func(t *testing.T) {
		m := start(t)
		require.NoError(t, m.ApplyAssignments(assignment(t, "s", endpoint("10.0.0.1", 80, ""))))
		require.NoError(t, m.ApplyClusters(clusters(t, alone, named("b", "new", "s"))))
		require.EqualValues(t, 1, m.stat(total), "which the other still has")
		require.Zero(t, m.stat("cluster.new.upstream_rq_total"))
		require.NoError(t, m.ApplyClusters(clusters(t, alone, named("b", "newer", "s"))))
		require.False(t, m.has("cluster.new.upstream_rq_total"))
		require.Zero(t, m.stat("cluster.newer.upstream_rq_total"))
	})
}

func TestIdleConnectionsExpire(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0") // whose backlog takes the connection
	require.NoError(t, err)
	defer l.Close()
	for options, counter := range map[string]string{
		`"idle_timeout": "0.02s"`:                                  "upstream_cx_idle_timeout",
		`"idle_timeout": "0s", "max_connection_duration": "0.02s"`: "upstream_cx_max_duration_reached",
	} {
		t.Run(counter, func(t *testing.T) {
			m := newManager(t, false)
			at := endpoint("127.0.0.1", l.Addr().(*net.TCPAddr).Port, "")
			require.NoError(t, m.ApplyClusters(clusters(t, fmt.Sprintf(
				`{"name": "a", "load_assignment": {"cluster_name": "a", "endpoints": [{"lb_endpoints": [%s]}]}, %s}`, at, httpOptions(options)))))
			conn, err := m.Get("a").Pick(&cluster.PickContext{}).Connections.Get(t.Context(), nil)
			require.NoError(t, err)
			conn.Release()
			servicetest.Eventually(t, "it is closed", func() bool {
				return m.stat("cluster.a."+counter) == 1 && m.stat("cluster.a.upstream_cx_active") == 0
			})
		})
	}
}

func TestConnectsThatTakeTooLongAreCounted(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	defer l.Close()
	for name, options := range map[string]string{"HTTP/1": httpOptions(""), "HTTP/2": http2Options("")} {
		t.Run(name, func(t *testing.T) {
			m := newManager(t, false)
			at := endpoint("127.0.0.1", l.Addr().(*net.TCPAddr).Port, "")
			require.NoError(t, m.ApplyClusters(clusters(t, fmt.Sprintf(`{"name": "a", "connect_timeout": "0.000000001s",
				"load_assignment": {"cluster_name": "a", "endpoints": [{"lb_endpoints": [%s]}]}, %s}`, at, options))))
			_, err := m.Get("a").Pick(&cluster.PickContext{}).Connections.Get(t.Context(), nil)
			require.ErrorContains(t, err, "timeout")
			require.EqualValues(t, 1, m.stat("cluster.a.upstream_cx_connect_timeout"))
			require.EqualValues(t, 1, m.stat("cluster.a.upstream_cx_connect_fail"))
			require.EqualValues(t, 1, m.stat("cluster.a.upstream_cx_total"))
			require.EqualValues(t, 1, m.stat("cluster.a.upstream_cx_destroy_local"))
			require.Zero(t, m.stat("cluster.a.upstream_cx_active"))
		})
	}
}

func TestHeadsOfResponsesAreBounded(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	served := make(chan struct{})
	go func() { // ends with the listener; the clean-up waits for it
		defer close(served)
		for {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			_, _ = io.WriteString(conn, "HTTP/1.1 204 No Content\r\nx-a: "+strings.Repeat("b", 1500)+"\r\nx-c: d\r\n\r\n")
			_ = conn.Close()
		}
	}()
	t.Cleanup(func() {
		_ = l.Close()
		<-served
	})
	for _, c := range []struct {
		common string
		ok     bool
	}{
		{"", true},
		{`"max_headers_count": 2, "max_response_headers_kb": 2`, true},
		{`"max_headers_count": 1`, false},
		{`"max_response_headers_kb": 1`, false},
	} {
		t.Run(c.common, func(t *testing.T) {
			m := newManager(t, false)
			at := endpoint("127.0.0.1", l.Addr().(*net.TCPAddr).Port, "")
			require.NoError(t, m.ApplyClusters(clusters(t, fmt.Sprintf(
				`{"name": "a", "load_assignment": {"cluster_name": "a", "endpoints": [{"lb_endpoints": [%s]}]}, %s}`, at, httpOptions(c.common)))))
			conn, err := m.Get("a").Pick(&cluster.PickContext{}).Connections.Get(t.Context(), nil)
			require.NoError(t, err)
			defer conn.Discard()
			_, err = conn.Reader.ReadHead(&message.Response{}, []byte("GET"))
			if c.ok {
				require.NoError(t, err)
				return
			}
			var protocol *message.ProtocolError
			require.ErrorAs(t, err, &protocol)
		})
	}
}
