package strict_test

import (
	"testing"

	clusterv3 "github.com/envoyproxy/go-control-plane/envoy/config/cluster/v3"
	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	listenerv3 "github.com/envoyproxy/go-control-plane/envoy/config/listener/v3"
	routev3 "github.com/envoyproxy/go-control-plane/envoy/config/route/v3"
	hcmv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/network/http_connection_manager/v3"
	"github.com/stretchr/testify/require"
	"google.golang.org/protobuf/encoding/protowire"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/anypb"
	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/wrapperspb"

	"github.com/weirproxy/weir/services/proxy/internal/strict"
)

func address() *corev3.Address {
	return &corev3.Address{Address: &corev3.Address_SocketAddress{SocketAddress: &corev3.SocketAddress{
		Address: "::1", PortSpecifier: &corev3.SocketAddress_PortValue{PortValue: 80},
	}}}
}

func listener(config *anypb.Any) *listenerv3.Listener {
	return &listenerv3.Listener{Name: "x", Address: address(), FilterChains: []*listenerv3.FilterChain{{
		Filters: []*listenerv3.Filter{{Name: "hcm", ConfigType: &listenerv3.Filter_TypedConfig{TypedConfig: config}}},
	}}}
}

func pack(t testing.TB, m proto.Message) *anypb.Any {
	packed, err := anypb.New(m)
	require.NoError(t, err)
	return packed
}

// TestAFilterConfigMayHaveAnEmptyConfig, which turns a filter on; no other Any
// may be empty.
func TestAFilterConfigMayHaveAnEmptyConfig(t *testing.T) {
	schema, err := strict.NewSchema(strict.Fields{
		"envoy.config.route.v3.VirtualHost":  {"name", "domains", "typed_per_filter_config"},
		"envoy.config.route.v3.FilterConfig": {"config"},
	})
	require.NoError(t, err)
	for _, c := range []struct {
		value *anypb.Any
		yaml  string
		good  bool
	}{
		{pack(t, &routev3.FilterConfig{Config: &anypb.Any{}}), `{"@type": type.googleapis.com/envoy.config.route.v3.FilterConfig, config: {}}`, true},
		{pack(t, &routev3.FilterConfig{Config: &anypb.Any{Value: []byte{1}}}), `{"@type": type.googleapis.com/envoy.config.route.v3.FilterConfig, config: {a: 1}}`, false},
		{&anypb.Any{}, `{}`, false},
	} {
		host := &routev3.VirtualHost{Name: "a", Domains: []string{"*"}, TypedPerFilterConfig: map[string]*anypb.Any{"a": c.value}}
		report := &strict.Report{}
		strict.Check(host, "x", schema, report)
		require.Equal(t, c.good, report.Err() == nil, "%v: %v", c.value, report.Err())
		report = strict.Load("f", []byte("{name: a, domains: ['*'], typed_per_filter_config: {a: "+c.yaml+"}}"), &routev3.VirtualHost{}, schema)
		require.Equal(t, c.good, report.Err() == nil, "%s: %v", c.yaml, report.Err())
	}
}

func TestCheck(t *testing.T) {
	unknown := func(m proto.Message, fields ...protowire.Number) proto.Message {
		var raw []byte
		for _, field := range fields {
			raw = protowire.AppendVarint(protowire.AppendTag(raw, field, protowire.VarintType), 1)
		}
		m.ProtoReflect().SetUnknown(raw)
		return m
	}
	for _, c := range []struct {
		name    string
		message proto.Message
		want    string // "" for none
	}{
		{"a good one", &clusterv3.Cluster{Name: "a", LbPolicy: clusterv3.Cluster_MAGLEV}, ""},
		{
			"a field that is not supported",
			&clusterv3.Cluster{Name: "a", PerConnectionBufferLimitBytes: wrapperspb.UInt32(1)},
			"x.per_connection_buffer_limit_bytes: not supported",
		},
		{
			"all at once, and validators too",
			&clusterv3.Cluster{AltStatName: "b", ConnectTimeout: durationpb.New(-1), LbPolicy: 77},
			"x.alt_stat_name: not supported\n" +
				"x.connect_timeout: value must be greater than 0s\n" +
				"x.lb_policy: 77 is not a envoy.config.cluster.v3.Cluster.LbPolicy\n" +
				"x.name: value length must be at least 1 runes",
		},
		{
			"unknown numbers, each once",
			unknown(&clusterv3.Cluster{Name: "a"}, 9000, 9000, 9001),
			"x: unknown field number 9000\nx: unknown field number 9001",
		},
		{
			"unknown bytes that are no fields",
			func() proto.Message {
				m := &clusterv3.Cluster{Name: "a"}
				m.ProtoReflect().SetUnknown([]byte{0xff})
				return m
			}(),
			"x: malformed unknown fields",
		},
		{
			"inside an Any",
			listener(pack(t, unknown(&hcmv3.HttpConnectionManager{
				RouteSpecifier: &hcmv3.HttpConnectionManager_RouteConfig{RouteConfig: &routev3.RouteConfiguration{
					InternalOnlyHeaders: []string{"x"},
				}},
			}, 9000))),
			"x.filter_chains[0].filters[0].typed_config: unknown field number 9000\n" +
				"x.filter_chains[0].filters[0].typed_config.route_config.internal_only_headers: not supported\n" +
				"x.filter_chains[0].filters[0].typed_config.stat_prefix: value length must be at least 1 runes",
		},
		{
			"an Any of a type that is not supported",
			listener(pack(t, address())),
			"x.filter_chains[0].filters[0].typed_config: type envoy.config.core.v3.Address is not supported; supported are: ",
		},
		{
			"an Any with bytes that are not its type's",
			listener(&anypb.Any{TypeUrl: "type.googleapis.com/envoy.extensions.filters.http.router.v3.Router", Value: []byte{0x0a, 0xff}}),
			"x.filter_chains[0].filters[0].typed_config: unpack envoy.extensions.filters.http.router.v3.Router: ",
		},
		{
			"an optional Any of a type that is not supported, beside one that is not optional",
			listener(pack(t, &hcmv3.HttpConnectionManager{
				StatPrefix:     "x",
				RouteSpecifier: &hcmv3.HttpConnectionManager_RouteConfig{RouteConfig: &routev3.RouteConfiguration{}},
				HttpFilters: []*hcmv3.HttpFilter{
					{Name: "a", IsOptional: true, ConfigType: &hcmv3.HttpFilter_TypedConfig{TypedConfig: &anypb.Any{TypeUrl: "nothing"}}},
					{Name: "b", ConfigType: &hcmv3.HttpFilter_TypedConfig{TypedConfig: &anypb.Any{TypeUrl: "nothing"}}},
				},
			})),
			`x.filter_chains[0].filters[0].typed_config.http_filters[1].typed_config: type URL "nothing" does not begin with type.googleapis.com/; supported are: `,
		},
		{
			"an Any in a map",
			&clusterv3.Cluster{Name: "a", TypedExtensionProtocolOptions: map[string]*anypb.Any{"k": {TypeUrl: "nothing"}}},
			`x.typed_extension_protocol_options["k"]: type URL "nothing" does not begin with type.googleapis.com/; supported are: `,
		},
	} {
		t.Run(c.name, func(t *testing.T) {
			var report strict.Report
			strict.Check(c.message, "x", newSchema(t), &report)
			switch {
			case c.want == "":
				require.NoError(t, report.Err())
			case c.want[len(c.want)-1] == ' ':
				require.ErrorContains(t, report.Err(), c.want)
			default:
				require.EqualError(t, report.Err(), c.want)
			}
		})
	}
}

func TestFirstKnownPassesOverEntriesOfOtherTypes(t *testing.T) {
	message := func(configs ...*anypb.Any) proto.Message {
		m := listener(nil)
		m.FilterChains[0].Filters = nil
		for _, c := range configs {
			m.FilterChains[0].Filters = append(m.FilterChains[0].Filters, &listenerv3.Filter{Name: "x", ConfigType: &listenerv3.Filter_TypedConfig{TypedConfig: c}})
		}
		return m
	}
	schema := newSchema(t).FirstKnown("envoy.config.listener.v3.FilterChain.filters")
	nobodys := &anypb.Any{TypeUrl: "type.googleapis.com/example.Filter", Value: []byte{0xff}}
	var report strict.Report
	strict.Check(message(nobodys, pack(t, address())), "x", schema, &report)
	require.NoError(t, report.Err())
	strict.Check(message(nobodys, pack(t, &hcmv3.HttpConnectionManager{})), "x", schema, &report)
	require.ErrorContains(t, report.Err(), "x.filter_chains[0].filters[1].typed_config.", "those that are known are held to the rules")
	report = strict.Report{}
	strict.Check(message(nobodys), "x", newSchema(t), &report)
	require.Error(t, report.Err())
}

func TestUnpack(t *testing.T) {
	got, err := strict.Unpack(pack(t, address()))
	require.NoError(t, err)
	require.True(t, proto.Equal(address(), got))

	for want, packed := range map[string]*anypb.Any{
		"unpack: there is no Any":                                      nil,
		`unpack: type URL "" does not begin with type.googleapis.com/`: {},
		`unpack: unknown type "x.Y"`:                                   {TypeUrl: "type.googleapis.com/x.Y"},
		"unpack envoy.config.core.v3.Address: ": {
			TypeUrl: "type.googleapis.com/envoy.config.core.v3.Address", Value: []byte{0xff},
		},
	} {
		_, err := strict.Unpack(packed)
		require.ErrorContains(t, err, want)
	}
}
