// Package coreconfig reads what many of Envoy's messages share: addresses, API
// versions, sources of configuration (envoy.config.core.v3) and durations. The
// packages that parse a part of the configuration call it, so that the same
// fault has the same words everywhere. It reports nothing that the messages'
// own rules refuse already, and decides nothing about what it reads.
package coreconfig

import (
	"maps"
	"math"
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
		"envoy.config.core.v3.SocketAddress":          {"protocol", "address", "port_value", "ipv4_compat"},
		"envoy.config.core.v3.Locality":               {"region", "zone", "sub_zone"},
		"envoy.config.core.v3.ConfigSource":           {"ads", "self", "api_config_source", "path_config_source", "resource_api_version", "initial_fetch_timeout"},
		"envoy.config.core.v3.AggregatedConfigSource": {},
		"envoy.config.core.v3.SelfConfigSource":       {"transport_api_version"},
		"envoy.config.core.v3.PathConfigSource":       {"path", "watched_directory"},
		"envoy.config.core.v3.WatchedDirectory":       {"path"},
		"envoy.config.core.v3.ApiConfigSource":        {"api_type", "transport_api_version", "grpc_services", "set_node_on_first_message_only"},
		"envoy.config.core.v3.GrpcService":            {"envoy_grpc", "initial_metadata"},
		"envoy.config.core.v3.HeaderValue":            {"key", "value"},
		"envoy.config.core.v3.DataSource":             {"filename", "inline_bytes", "inline_string", "environment_variable"},
		// Streams of xDS have none of the headers that skip_envoy_headers leaves out.
		"envoy.config.core.v3.GrpcService.EnvoyGrpc": {"cluster_name", "authority", "retry_policy", "max_receive_message_length", "skip_envoy_headers"},
		"envoy.config.core.v3.RetryPolicy":           {"retry_back_off"},
		"envoy.config.core.v3.BackoffStrategy":       {"base_interval", "max_interval"},
	}
	maps.Copy(fields, http1Fields)
	maps.Copy(fields, http2Fields)
	maps.Copy(fields, socketFields)
	return fields
}

// Address reads an address that must be there, at the path at. Port 0 is left
// to the caller. It says whether the result is for use.
func Address(a *corev3.Address, at strict.Path, report *strict.Report) (netip.AddrPort, bool) {
	host, port, ok := NamedAddress(a, at, report)
	ip, err := netip.ParseAddr(host)
	if err != nil && host != "" {
		report.Add(at.Field("socket_address").Field("address"), "%q is not an IP address, and names are not resolved", host)
	}
	return netip.AddrPortFrom(ip.Unmap(), port), ok && err == nil
}

// NamedAddress reads an address that must be there, at the path at, and whose
// host may be a name. Port 0 is left to the caller. It says whether the result
// is for use.
func NamedAddress(a *corev3.Address, at strict.Path, report *strict.Report) (host string, port uint16, ok bool) {
	if a == nil {
		report.Add(at, "a socket_address is needed")
		return "", 0, false
	}
	socket := a.GetSocketAddress()
	tcp := socket.GetProtocol() == corev3.SocketAddress_TCP
	if !tcp {
		report.Add(at.Field("socket_address").Field("protocol"), "%s is not supported: use TCP", socket.GetProtocol())
	}
	number := socket.GetPortValue()
	return socket.GetAddress(), uint16(number), tcp && number <= 65535 && socket.GetAddress() != ""
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

// Sum adds durations of 0 or more. What is longer than the longest duration, of 292
// years, is that one: messages may have longer ones, and none becomes negative.
func Sum(durations ...time.Duration) (sum time.Duration) {
	for _, d := range durations {
		if sum += d; sum < 0 {
			return math.MaxInt64
		}
	}
	return sum
}
