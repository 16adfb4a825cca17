package coreconfig_test

import (
	"bytes"
	"log/slog"
	"strings"
	"testing"
	"time"

	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	"github.com/stretchr/testify/require"
	"google.golang.org/protobuf/encoding/protojson"

	"github.com/weirproxy/weir/internal/servicetest"
	"github.com/weirproxy/weir/services/proxy/internal/coreconfig"
	"github.com/weirproxy/weir/services/proxy/internal/strict"
)

func TestMain(m *testing.M) { servicetest.Main(m) }

// faults is what a report says, "" without any.
func faults(r *strict.Report) string {
	if r.Err() == nil {
		return ""
	}
	return r.Err().Error()
}

func TestAddress(t *testing.T) {
	schema, err := strict.NewSchema(coreconfig.Fields())
	require.NoError(t, err)
	for _, c := range []struct {
		name, text string
		want       string // the address, "" for none to be used
		faults     string
	}{
		{"IPv4", `socket_address: {address: 10.0.0.1, port_value: 80}`, "10.0.0.1:80", ""},
		{"IPv6", `socket_address: {address: "::1", port_value: 80}`, "[::1]:80", ""},
		{"IPv4 within IPv6", `socket_address: {address: "::ffff:10.0.0.1", port_value: 80}`, "10.0.0.1:80", ""},
		{"port 0", `socket_address: {address: 10.0.0.1, port_value: 0}`, "10.0.0.1:0", ""},
		{"a name", `socket_address: {address: localhost, port_value: 80}`, "",
			`f:1:18: socket_address.address: "localhost" is not an IP address, and names are not resolved`},
		{"UDP", `socket_address: {protocol: UDP, address: 10.0.0.1, port_value: 80}`, "",
			"f:1:18: socket_address.protocol: UDP is not supported: use TCP"},
		{"a port that is none", `socket_address: {address: 10.0.0.1, port_value: 65536}`, "",
			"f:1:37: socket_address.port_value: value must be less than or equal to 65535"},
		{"no address in it", `socket_address: {port_value: 80}`, "",
			"f:1:1: socket_address.address: value length must be at least 1 runes"},
		{"a pipe", `pipe: {path: /tmp/x}`, "", "f:1:1: pipe: not supported"},
		{"nothing in it", `{}`, "", "f:1:1: address: socket_address is required"},
	} {
		t.Run(c.name, func(t *testing.T) {
			message := &corev3.Address{}
			report := strict.Load("f", []byte(c.text), message, schema)
			address, ok := coreconfig.Address(message, "", report)
			require.Equal(t, c.faults, faults(report))
			require.Equal(t, c.want != "", ok)
			if ok {
				require.Equal(t, c.want, address.String())
			}
		})
	}
	t.Run("none", func(t *testing.T) {
		report := &strict.Report{}
		_, ok := coreconfig.Address(nil, "admin.address", report)
		require.False(t, ok)
		require.Equal(t, "admin.address: a socket_address is needed", faults(report))
	})
}

func TestNamedAddress(t *testing.T) {
	for _, c := range []struct {
		name, address string
		port          uint32
		ok            bool
	}{
		{"a name", "one.example", 80, true},
		{"an address", "10.0.0.1", 80, true},
		{"port 0, which is the caller's", "one.example", 0, true},
		{"no name", "", 80, false},
		{"a port that is none", "one.example", 65536, false},
	} {
		t.Run(c.name, func(t *testing.T) {
			report := &strict.Report{}
			host, port, ok := coreconfig.NamedAddress(&corev3.Address{Address: &corev3.Address_SocketAddress{SocketAddress: &corev3.SocketAddress{
				Address: c.address, PortSpecifier: &corev3.SocketAddress_PortValue{PortValue: c.port},
			}}}, "", report)
			require.Equal(t, c.ok, ok)
			require.Equal(t, c.address, host)
			if ok {
				require.EqualValues(t, c.port, port)
			}
			require.Empty(t, faults(report), "the message's own rules tell the rest")
		})
	}
}

func TestConfigSource(t *testing.T) {
	grpcService := `"grpc_services": [{"envoy_grpc": {"cluster_name": "c"}}]`
	plane := func(fields string) string {
		return `{"api_config_source": {"api_type": "GRPC", "transport_api_version": "V3", "grpc_services": [{"envoy_grpc": {"cluster_name": "c", ` + fields + `}}]}, "resource_api_version": "V3"}`
	}
	for _, c := range []struct {
		name   string
		source string // "" for none
		want   coreconfig.Source
		time   time.Duration
		faults string
	}{
		{"ADS", `{"ads": {}, "resource_api_version": "V3"}`, coreconfig.Source{}, 15 * time.Second, ""},
		{"its own time", `{"ads": {}, "resource_api_version": "V3", "initial_fetch_timeout": "0s"}`, coreconfig.Source{}, 0, ""},
		{"a negative time", `{"ads": {}, "resource_api_version": "V3", "initial_fetch_timeout": "-1s"}`, coreconfig.Source{}, -time.Second,
			"at.initial_fetch_timeout: -1s is negative"},
		{"no version", `{"ads": {}}`, coreconfig.Source{}, 15 * time.Second, "at.resource_api_version: AUTO is not supported: use V3"},
		{"none", "", coreconfig.Source{}, 15 * time.Second, ""},
		{"self", `{"self": {}, "resource_api_version": "V3"}`, coreconfig.Source{Self: true}, 15 * time.Second, ""},
		{"self in V2", `{"self": {"transport_api_version": "V2"}, "resource_api_version": "V3"}`, coreconfig.Source{Self: true}, 15 * time.Second,
			"at.self.transport_api_version: V2 is not supported: use V3"},
		{"a file", `{"path_config_source": {"path": "/a/b", "watched_directory": {"path": "/a"}}, "resource_api_version": "V3"}`,
			coreconfig.Source{Path: "/a/b", WatchedDirectory: "/a"}, 15 * time.Second, ""},
		{"a delta stream", `{"api_config_source": {"api_type": "DELTA_GRPC", "transport_api_version": "V3", ` + grpcService + `}, "resource_api_version": "V3"}`,
			coreconfig.Source{GRPC: coreconfig.GRPC{Cluster: "c", Delta: true}}, 15 * time.Second, ""},
		{"a stream with one node", `{"api_config_source": {"api_type": "GRPC", "transport_api_version": "V3", "set_node_on_first_message_only": true, ` + grpcService + `}, "resource_api_version": "V3"}`,
			coreconfig.Source{GRPC: coreconfig.GRPC{Cluster: "c", NodeOnFirstMessageOnly: true}}, 15 * time.Second, ""},
		{"a stream with settings of its own", plane(`"authority": "a", "max_receive_message_length": 9, "skip_envoy_headers": true, "retry_policy": {"retry_back_off": {"base_interval": "1s", "max_interval": "5s"}}`),
			coreconfig.Source{GRPC: coreconfig.GRPC{Cluster: "c", Authority: "a", MaxMessage: 9, BackOff: coreconfig.BackOff{First: time.Second, Most: 5 * time.Second}}}, 15 * time.Second, ""},
		{"a stream with header fields", `{"api_config_source": {"api_type": "GRPC", "transport_api_version": "V3", "grpc_services": [
			{"envoy_grpc": {"cluster_name": "c"}, "initial_metadata": [{"key": "x", "value": "y"}, {"key": "grpc-x"}]}]}, "resource_api_version": "V3"}`,
			coreconfig.Source{GRPC: coreconfig.GRPC{Cluster: "c", Metadata: "x\ny\ngrpc-x\n\n"}}, 15 * time.Second,
			`at.api_config_source.grpc_services[0].initial_metadata[1].key: "grpc-x" is for gRPC to set`},
		{"a back-off up to ten times as long", plane(`"retry_policy": {"retry_back_off": {"base_interval": "1s"}}`),
			coreconfig.Source{GRPC: coreconfig.GRPC{Cluster: "c", BackOff: coreconfig.BackOff{First: time.Second, Most: 10 * time.Second}}}, 15 * time.Second, ""},
		{"the default back-off", plane(`"retry_policy": {}`), coreconfig.Source{GRPC: coreconfig.GRPC{Cluster: "c"}}, 15 * time.Second, ""},
		{"a back-off that shrinks", plane(`"retry_policy": {"retry_back_off": {"base_interval": "1s", "max_interval": "0.5s"}}`),
			coreconfig.Source{GRPC: coreconfig.GRPC{Cluster: "c", BackOff: coreconfig.BackOff{First: time.Second, Most: 10 * time.Second}}}, 15 * time.Second,
			"at.api_config_source.grpc_services[0].envoy_grpc.retry_policy.retry_back_off.max_interval: 500ms is less than the base_interval of 1s"},
		{"a back-off of days", plane(`"retry_policy": {"retry_back_off": {"base_interval": "100000s"}}`),
			coreconfig.Source{GRPC: coreconfig.GRPC{Cluster: "c"}}, 15 * time.Second,
			"at.api_config_source.grpc_services[0].envoy_grpc.retry_policy.retry_back_off.base_interval: 27h46m40s is more than a day"},
		{"a back-off up to days", plane(`"retry_policy": {"retry_back_off": {"base_interval": "1s", "max_interval": "100000s"}}`),
			coreconfig.Source{GRPC: coreconfig.GRPC{Cluster: "c", BackOff: coreconfig.BackOff{First: time.Second, Most: 10 * time.Second}}}, 15 * time.Second,
			"at.api_config_source.grpc_services[0].envoy_grpc.retry_policy.retry_back_off.max_interval: 27h46m40s is more than a day"},
		{"REST, in V2, by nobody", `{"api_config_source": {"api_type": "REST", "transport_api_version": "V2"}, "resource_api_version": "V3"}`,
			coreconfig.Source{}, 15 * time.Second,
			"at.api_config_source.api_type: REST is not supported: use GRPC or DELTA_GRPC\n" +
				"at.api_config_source.grpc_services: want one service, got 0\n" +
				"at.api_config_source.transport_api_version: V2 is not supported: use V3"},
	} {
		t.Run(c.name, func(t *testing.T) {
			var message *corev3.ConfigSource
			if c.source != "" {
				message = &corev3.ConfigSource{}
				require.NoError(t, protojson.Unmarshal([]byte(c.source), message))
			}
			report := &strict.Report{}
			source, wait := coreconfig.ConfigSource(message, "at", report)
			require.Equal(t, c.want, source)
			require.Equal(t, c.want.IsADS(), source.IsADS())
			require.Equal(t, c.time, wait)
			require.Equal(t, c.faults, faults(report))
		})
	}
}

func TestInitialMetadata(t *testing.T) {
	for _, c := range []struct {
		key, value, want, faults string
	}{
		{"X-Token", "50%% a=b", "x-token: 50% a=b", ""},
		{"x_y.z", "", "x_y.z: ", ""},
		{"x", "%HOSTNAME%", "", `at[0].value: "%HOSTNAME%" has an operator: only fixed values are supported here, with %% for a %`},
		{"x", "ä", "", `at[0].value: "ä" is no value in gRPC, which has printable ASCII`},
		{"x", "a\nb", "", `at[0].value: "a\nb" is no value in gRPC, which has printable ASCII`},
		{"grpc-timeout", "1S", "", `at[0].key: "grpc-timeout" is for gRPC to set`},
		{"User-Agent", "x", "", `at[0].key: "user-agent" is for gRPC to set`},
		{"key-bin", "AA==", "", `at[0].key: "key-bin" would have a binary value, which is not supported`},
		{":authority", "x", "", `at[0].key: ":authority" is no name in gRPC, which has letters, digits, '-', '_' and '.'`},
		{"host", "x", "", `at[0].key: "host" can't be added or removed`},
		{"connection", "x", "", `at[0].key: "connection" is part of a message's framing and can't be added or removed`},
	} {
		t.Run(c.key+" "+c.value, func(t *testing.T) {
			report := &strict.Report{}
			got := coreconfig.InitialMetadata([]*corev3.HeaderValue{{Key: c.key, Value: c.value}}, "at", report)
			require.Equal(t, c.faults, faults(report))
			if c.faults == "" {
				require.Equal(t, c.want, strings.Join(got.Pairs(), ": "))
			}
		})
	}
	require.Empty(t, coreconfig.InitialMetadata(nil, "at", &strict.Report{}).Pairs())
}

func TestSelfIsTheSourceOfTheResourceThatNamesIt(t *testing.T) {
	file := coreconfig.Source{Path: "/a"}
	require.Equal(t, file, coreconfig.Source{Self: true}.Of(file))
	require.Equal(t, coreconfig.Source{}, coreconfig.Source{}.Of(file))
	for want, source := range map[string]coreconfig.Source{
		"ADS": {}, "self": {Self: true}, "/a": file, "cluster c": {GRPC: coreconfig.GRPC{Cluster: "c"}},
	} {
		require.Equal(t, want, source.String())
		var line bytes.Buffer
		slog.New(slog.NewJSONHandler(&line, nil)).Info("text", "source", source)
		require.Contains(t, line.String(), `"source":"`+want+`"`)
	}
}
