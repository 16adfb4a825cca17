package hcm_test

import (
	"strings"
	"testing"

	hcmv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/network/http_connection_manager/v3"
	"github.com/stretchr/testify/require"

	"github.com/weirproxy/weir/services/proxy/internal/cluster"
	"github.com/weirproxy/weir/services/proxy/internal/coreconfig"
	"github.com/weirproxy/weir/services/proxy/internal/httpfilter"
	"github.com/weirproxy/weir/services/proxy/internal/httpfilter/buffer"
	"github.com/weirproxy/weir/services/proxy/internal/httpfilter/router"
	"github.com/weirproxy/weir/services/proxy/internal/networkfilter/hcm"
	"github.com/weirproxy/weir/services/proxy/internal/route"
	"github.com/weirproxy/weir/services/proxy/internal/stats"
	"github.com/weirproxy/weir/services/proxy/internal/strict"
)

const routerFilter = `{"name": "router", "typed_config": {"@type": "type.googleapis.com/envoy.extensions.filters.http.router.v3.Router"}}`

// faults are those of an http_connection_manager with these fields, of which
// there are good route_config and http_filters unless they are among them.
func faults(t *testing.T, fields string) string {
	t.Helper()
	factory := &hcm.Factory{Filters: []httpfilter.Factory{router.Factory{}, buffer.Factory{}}, StaticCluster: func(string) *cluster.Config { return nil }, Stats: stats.NewRegistry()}
	schema, err := strict.NewSchema(factory.Fields(), router.Factory{}.Fields(), buffer.Factory{}.Fields(), coreconfig.Fields(), route.Fields(), route.FilterFields())
	require.NoError(t, err)
	text := `{"stat_prefix": "s"`
	if !strings.Contains(fields, "route_config") {
		text += `, "route_config": {}`
	}
	if !strings.Contains(fields, "http_filters") {
		text += `, "http_filters": [` + routerFilter + `]`
	}
	config := &hcmv3.HttpConnectionManager{}
	report := strict.Load("f", []byte(text+", "+fields+"}"), config, schema)
	if report.Err() == nil {
		factory.Parse(config, "", report)
	}
	if report.Err() == nil {
		return ""
	}
	return report.Err().Error()
}

const (
	bufferFilter = `{"name": "hold", "typed_config": {"@type": "type.googleapis.com/envoy.extensions.filters.http.buffer.v3.Buffer", "max_request_bytes": 1}}`
	bufferOff    = `{"@type": "type.googleapis.com/envoy.extensions.filters.http.buffer.v3.BufferPerRoute", "disabled": true}`
)

// configured is a route that configures a filter, and the filters beside it.
func configured(name, config string, filters ...string) string {
	return `"http_filters": [` + strings.Join(append(filters, routerFilter), ", ") + `], "route_config": {"virtual_hosts": [{"name": "a", "domains": ["*"], "routes": [` +
		`{"match": {"prefix": "/"}, "direct_response": {"status": 200}, "typed_per_filter_config": {"` + name + `": ` + config + `}}]}]}`
}

func TestFaultsOfTheConfiguration(t *testing.T) {
	for _, c := range []struct{ name, fields, want string }{
		{"an upgrade to what is no other protocol", `"upgrade_configs": [{"upgrade_type": "CONNECT"}]`, `upgrade_configs[0].upgrade_type: "CONNECT" is not supported`},
		{"an upgrade that is there twice", `"upgrade_configs": [{"upgrade_type": "websocket"}, {"upgrade_type": "WebSocket"}]`, `upgrade_configs[1].upgrade_type: "WebSocket" is there twice`},
		{"filters of an upgrade", `"upgrade_configs": [{"upgrade_type": "websocket", "filters": [` + routerFilter + `, ` + routerFilter + `]}]`, `upgrade_configs[0].filters[0]: filter "router" answers every request, so that no filter can stand behind it`},
		{"a router that is disabled", `"http_filters": [` + strings.Replace(routerFilter, "{", `{"disabled": true, `, 1) + `]`, `http_filters[0].disabled: filter "router" answers every request, and cannot be disabled`},
		{"sockets of Unix and lines before the end", `"internal_address_config": {"unix_sockets": true}, "access_log_options": {"flush_access_log_on_new_request": true}`, ""},
		{"lines in between", `"access_log_options": {"access_log_flush_interval": "1s"}`, ""},
		{"lines all the time", `"access_log_options": {"access_log_flush_interval": "0.0009s"}`, `access_log_options.access_log_flush_interval: value must be greater than or equal to 1ms`},
		{"a flush in no time", `"stream_flush_timeout": "-1s"`, `stream_flush_timeout: -1s is negative`},
		{"an internal address that is none", `"internal_address_config": {"cidr_ranges": [{"address_prefix": "home"}]}`, `internal_address_config.cidr_ranges[0].address_prefix: "home" is not an IP address`},
		{"an internal range that is none", `"internal_address_config": {"cidr_ranges": [{"address_prefix": "1.2.3.4", "prefix_len": 33}]}`, `internal_address_config.cidr_ranges[0].prefix_len: 33 is longer than the address`},
		{"both lengths", `"http_protocol_options": {"allow_chunked_length": true}`, "http_protocol_options.allow_chunked_length: not supported"},
		{"a field that may be longer than its head", `"http2_protocol_options": {"max_header_field_size_kb": 64}`, "http2_protocol_options.max_header_field_size_kb: 64 is more than the 60 of max_request_headers_kb"},
		{"a field that may be as long as its head", `"max_request_headers_kb": 96, "http2_protocol_options": {"max_header_field_size_kb": 96, "disallow_obs_text": true}`, ""},
		{"pings by chance", `"http2_protocol_options": {"connection_keepalive": {"interval": "1s", "timeout": "1s", "interval_jitter": {"value": 20}}}`, ""},
		{"chance without a duration", `"common_http_protocol_options": {"max_connection_duration_jitter": {"value": 20}}`, "common_http_protocol_options.max_connection_duration_jitter: has no meaning without max_connection_duration"},
		{"two ways to strip a port", `"strip_any_host_port": true, "strip_matching_host_port": true`, "strip_matching_host_port: cannot be set beside strip_any_host_port"},
		{"a limit of responses", `"common_http_protocol_options": {"max_response_headers_kb": 60}`, "common_http_protocol_options.max_response_headers_kb: has no meaning for a connection manager: it is for clusters"},
		{"a negative timeout", `"request_timeout": "-1s"`, "request_timeout: -1s is negative"},
		{"a filter that a route configures", configured("hold", bufferOff, bufferFilter), ""},
		{"two filters of one name, which a route configures", configured("hold", bufferOff, bufferFilter, bufferFilter), ""},
		{"a filter that a route configures, but is not there", configured("help", bufferOff, bufferFilter),
			`route_config.virtual_hosts[0].routes[0].typed_per_filter_config["help"]: no HTTP filter is named "help", as the key must be`},
		{"a filter that need not be there", configured("help", `{"@type": "type.googleapis.com/envoy.config.route.v3.FilterConfig", "is_optional": true, "disabled": true}`), ""},
		{"a filter of another kind", configured("router", bufferOff, bufferFilter),
			`typed_per_filter_config["router"]: envoy.extensions.filters.http.buffer.v3.BufferPerRoute does not configure the HTTP filter that is named "router"`},
		{"what configures no filter of a route", configured("router", `{"@type": "type.googleapis.com/envoy.extensions.filters.http.router.v3.Router"}`),
			`typed_per_filter_config["router"]: envoy.extensions.filters.http.router.v3.Router configures no filter of a route`},
		{"another formatter", `"http_protocol_options": {"header_key_format": {"stateful_formatter": {"name": "x", "typed_config": {"@type": "type.googleapis.com/envoy.extensions.request_id.uuid.v3.UuidRequestIdConfig"}}}}`,
			"http_protocol_options.header_key_format.stateful_formatter.typed_config: envoy.extensions.request_id.uuid.v3.UuidRequestIdConfig is no formatter known here"},
		{"another request id", `"request_id_extension": {"typed_config": {"@type": "type.googleapis.com/envoy.extensions.filters.http.router.v3.Router"}}`,
			"request_id_extension.typed_config: envoy.extensions.filters.http.router.v3.Router is no extension known here"},
		{"UUIDs by name", `"request_id_extension": {"typed_config": {"@type": "type.googleapis.com/envoy.extensions.request_id.uuid.v3.UuidRequestIdConfig", "pack_trace_reason": false}}`, ""},
		{"all modes of client certificates", `"forward_client_cert_details": "APPEND_FORWARD"`, ""},
	} {
		t.Run(c.name, func(t *testing.T) {
			got := faults(t, c.fields)
			if c.want == "" {
				require.Empty(t, got)
			} else {
				require.Contains(t, got, c.want)
			}
		})
	}
}
