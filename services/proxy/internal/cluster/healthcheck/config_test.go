package healthcheck

import (
	"net/netip"
	"testing"
	"time"

	clusterv3 "github.com/envoyproxy/go-control-plane/envoy/config/cluster/v3"
	"github.com/stretchr/testify/require"

	"github.com/weirproxy/weir/services/proxy/internal/coreconfig"
	"github.com/weirproxy/weir/services/proxy/internal/headermutation"
	"github.com/weirproxy/weir/services/proxy/internal/matcher"
	"github.com/weirproxy/weir/services/proxy/internal/strict"
)

// parse makes a config of health_checks in YAML.
func parse(t testing.TB, checks string) (*Config, *strict.Report) {
	t.Helper()
	schema, err := strict.NewSchema(Fields(), coreconfig.Fields(), headermutation.Fields(), matcher.Fields(),
		strict.Fields{"envoy.config.cluster.v3.Cluster": {"name", "health_checks"}})
	require.NoError(t, err)
	m := &clusterv3.Cluster{}
	report := strict.Load("cluster.yaml", []byte("{name: a, health_checks: ["+checks+"]}"), m, schema)
	return Parse(m.GetHealthChecks(), "health_checks", report), report
}

func mustParse(t testing.TB, checks string) *Config {
	t.Helper()
	config, report := parse(t, checks)
	require.NoError(t, report.Err())
	return config
}

// common is what every check needs, and one in which the rest stands.
const common = "timeout: 1s, interval: 5s, unhealthy_threshold: 3, healthy_threshold: 2, "

func TestDefaults(t *testing.T) {
	c := mustParse(t, "{"+common+"tcp_health_check: {}}")
	c.check = nil
	require.Equal(t, &Config{
		Timeout: time.Second, Interval: 5 * time.Second, UnhealthyInterval: 5 * time.Second, UnhealthyEdgeInterval: 5 * time.Second,
		HealthyEdgeInterval: 5 * time.Second, NoTrafficHealthyInterval: time.Minute, NoTrafficInterval: time.Minute,
		UnhealthyThreshold: 3, HealthyThreshold: 2, ReuseConnection: true,
	}, c)
	c = mustParse(t, "{"+common+"unhealthy_interval: 2s, no_traffic_interval: 3s, tcp_health_check: {}}")
	require.Equal(t, 2*time.Second, c.UnhealthyEdgeInterval, "that of the unhealthy interval")
	require.Equal(t, 3*time.Second, c.NoTrafficHealthyInterval, "that of the no-traffic interval")
	require.Nil(t, mustParse(t, ""))
}

func TestFaultsAreTold(t *testing.T) {
	const http = "http_health_check: "
	for checks, want := range map[string]string{
		"{timeout: 1s, interval: 1s, tcp_health_check: {}}": "unhealthy_threshold",
		"{" + common + "}": "health_checks[0]",
		"{" + common + "tcp_health_check: {}}, {" + common + "tcp_health_check: {}}":                   "health_checks[1]: a cluster has one health check at most",
		"{" + common + "name: a, tcp_health_check: {}}":                                                "health_checks[0].name: not supported",
		"{" + common + "initial_jitter: -1s, tcp_health_check: {}}":                                    "health_checks[0].initial_jitter: -1s is negative",
		"{" + common + "alt_port: 70000, tcp_health_check: {}}":                                        "health_checks[0].alt_port: 70000 is no port",
		"{" + common + "event_log_path: /x, tcp_health_check: {}}":                                     "health_checks[0].event_log_path: not supported",
		"{" + common + "tcp_health_check: {send: {text: 0g}}}":                                         `health_checks[0].tcp_health_check.send.text: "0g" is no hexadecimal text`,
		"{" + common + "tcp_health_check: {receive: [{text: '00'}, {text: '0'}]}}":                     `health_checks[0].tcp_health_check.receive[1].text: "0" is no hexadecimal text`,
		"{" + common + http + "{path: ''}}":                                                            "health_checks[0].http_health_check.path",
		"{" + common + http + "{path: a}}":                                                             `health_checks[0].http_health_check.path: "a" is no path`,
		"{" + common + http + "{path: '/a b'}}":                                                        `health_checks[0].http_health_check.path: "/a b" is no path`,
		"{" + common + http + "{path: /, method: CONNECT}}":                                            "health_checks[0].http_health_check.method",
		"{" + common + http + "{path: /, send: {text: '00'}}}":                                         "health_checks[0].http_health_check.send: a GET has no body: use POST, PUT, PATCH or OPTIONS",
		"{" + common + http + "{path: /, codec_client_type: HTTP3}}":                                   "health_checks[0].http_health_check.codec_client_type: HTTP3 is not supported: use HTTP1 or HTTP2",
		"{" + common + http + "{path: /, use_alpn_protocol: true}}":                                    "health_checks[0].http_health_check.use_alpn_protocol",
		"{" + common + http + "{path: /, expected_statuses: [{start: 200, end: 200}]}}":                "health_checks[0].http_health_check.expected_statuses[0]: [200, 200) is no range of statuses",
		"{" + common + http + "{path: /, retriable_statuses: [{start: 1, end: 200}]}}":                 "health_checks[0].http_health_check.retriable_statuses[0]: [1, 200) is no range",
		"{" + common + http + "{path: /, request_headers_to_remove: [':path']}}":                       `health_checks[0].http_health_check.request_headers_to_remove[0]: ":path" is not to be changed here`,
		"{" + common + http + "{path: /, request_headers_to_add: [{header: {key: a, value: '%B%'}}]}}": `health_checks[0].http_health_check.request_headers_to_add[0].header.value`,
		"{" + common + http + "{path: /, service_name_matcher: {safe_regex: {regex: '('}}}}":           "health_checks[0].http_health_check.service_name_matcher.safe_regex.regex",
		"{" + common + "grpc_health_check: {initial_metadata: [{header: {key: ':a', value: b}}]}}":     "health_checks[0].grpc_health_check.initial_metadata[0].header.key",
		"{" + common + "custom_health_check: {name: envoy.health_checkers.redis}}":                     "health_checks[0].custom_health_check: not supported",
	} {
		_, report := parse(t, checks)
		require.ErrorContains(t, report.Err(), want, checks)
	}
}

func TestWhereAHostIsChecked(t *testing.T) {
	other := netip.MustParseAddrPort("192.0.2.2:82")
	for _, c := range []struct {
		endpoint Endpoint
		altPort  uint16
		want     string
	}{
		{Endpoint{}, 0, "192.0.2.1:80"},
		{Endpoint{}, 9000, "192.0.2.1:9000"},
		{Endpoint{Port: 81}, 9000, "192.0.2.1:81"},
		{Endpoint{Address: other}, 9000, "192.0.2.2:82"},
		{Endpoint{Address: other, Port: 83}, 0, "192.0.2.2:83"},
	} {
		config := &Config{AltPort: c.altPort}
		require.Equal(t, c.want, config.address(Target{netip.MustParseAddrPort("192.0.2.1:80"), c.endpoint}).String(), c)
	}
}
