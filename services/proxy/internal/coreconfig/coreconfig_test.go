package coreconfig_test

import (
	"testing"
	"time"

	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	"github.com/stretchr/testify/require"
	"google.golang.org/protobuf/types/known/durationpb"

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

func TestConfigSource(t *testing.T) {
	for _, c := range []struct {
		name   string
		source *corev3.ConfigSource
		want   time.Duration
		faults string
	}{
		{"V3", &corev3.ConfigSource{ResourceApiVersion: corev3.ApiVersion_V3}, 15 * time.Second, ""},
		{"its own time", &corev3.ConfigSource{ResourceApiVersion: corev3.ApiVersion_V3, InitialFetchTimeout: durationpb.New(0)}, 0, ""},
		{"a negative time", &corev3.ConfigSource{ResourceApiVersion: corev3.ApiVersion_V3, InitialFetchTimeout: durationpb.New(-time.Second)},
			-time.Second, "at.initial_fetch_timeout: -1s is negative"},
		{"no version", &corev3.ConfigSource{}, 15 * time.Second, "at.resource_api_version: AUTO is not supported: use V3"},
		{"none", nil, 15 * time.Second, ""},
	} {
		t.Run(c.name, func(t *testing.T) {
			report := &strict.Report{}
			require.Equal(t, c.want, coreconfig.ConfigSource(c.source, "at", report))
			require.Equal(t, c.faults, faults(report))
		})
	}
}
