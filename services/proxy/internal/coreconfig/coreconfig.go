// Package coreconfig reads what many of Envoy's messages share: addresses, API
// versions, sources of configuration (envoy.config.core.v3) and durations. The
// packages that parse a part of the configuration call it, so that the same
// fault has the same words everywhere. It reports nothing that the messages'
// own rules refuse already, and decides nothing about what it reads.
package coreconfig

import (
	"maps"
	"net/netip"
	"time"

	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	"google.golang.org/protobuf/types/known/durationpb"

	"github.com/weirproxy/weir/services/proxy/internal/strict"
)

// Fields are the supported fields of the messages that several others have.
func Fields() strict.Fields {
	fields := strict.Fields{
		"envoy.config.core.v3.Address":                {"socket_address"},
		"envoy.config.core.v3.SocketAddress":          {"protocol", "address", "port_value"},
		"envoy.config.core.v3.Locality":               {"region", "zone", "sub_zone"},
		"envoy.config.core.v3.ConfigSource":           {"ads", "resource_api_version", "initial_fetch_timeout"},
		"envoy.config.core.v3.AggregatedConfigSource": {},
		"envoy.config.core.v3.GrpcService":            {"envoy_grpc"},
		"envoy.config.core.v3.DataSource":             {"filename", "inline_bytes", "inline_string", "environment_variable"},
		"envoy.config.core.v3.GrpcService.EnvoyGrpc":  {"cluster_name"},
	}
	maps.Copy(fields, http1Fields)
	return fields
}

// Address reads an address that must be there, at the path at. Port 0 is left
// to the caller. It says whether the result is for use.
func Address(a *corev3.Address, at strict.Path, report *strict.Report) (netip.AddrPort, bool) {
	if a == nil {
		report.Add(at, "a socket_address is needed")
		return netip.AddrPort{}, false
	}
	socket := a.GetSocketAddress()
	at = at.Field("socket_address")
	tcp := socket.GetProtocol() == corev3.SocketAddress_TCP
	if !tcp {
		report.Add(at.Field("protocol"), "%s is not supported: use TCP", socket.GetProtocol())
	}
	ip, err := netip.ParseAddr(socket.GetAddress())
	if err != nil && socket.GetAddress() != "" {
		report.Add(at.Field("address"), "%q is not an IP address, and names are not resolved", socket.GetAddress())
	}
	port := socket.GetPortValue()
	return netip.AddrPortFrom(ip.Unmap(), uint16(port)), tcp && err == nil && port <= 65535
}

// WantV3 holds a version to the only one that is supported.
func WantV3(version corev3.ApiVersion, at strict.Path, report *strict.Report) {
	if version != corev3.ApiVersion_V3 {
		report.Add(at, "%s is not supported: use V3", version)
	}
}

// defaultInitialFetchTimeout is Envoy's of ConfigSource.initial_fetch_timeout.
const defaultInitialFetchTimeout = 15 * time.Second

// ConfigSource reads a source of configuration, which may be nil, at the path
// at. It returns how long the first answer is waited for; 0 is without end.
func ConfigSource(source *corev3.ConfigSource, at strict.Path, report *strict.Report) (initialFetchTimeout time.Duration) {
	if source != nil {
		WantV3(source.GetResourceApiVersion(), at.Field("resource_api_version"), report)
	}
	return Duration(source.GetInitialFetchTimeout(), defaultInitialFetchTimeout, at.Field("initial_fetch_timeout"), report)
}

// Duration reads a duration of 0 or more, at the path at; it is fallback where
// it is left out.
func Duration(d *durationpb.Duration, fallback time.Duration, at strict.Path, report *strict.Report) time.Duration {
	if d == nil {
		return fallback
	}
	if d.AsDuration() < 0 {
		report.Add(at, "%v is negative", d.AsDuration())
	}
	return d.AsDuration()
}
