package healthcheck

import (
	"net/netip"
	"time"

	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	"google.golang.org/protobuf/types/known/durationpb"

	"github.com/weirproxy/weir/services/proxy/internal/coreconfig"
	"github.com/weirproxy/weir/services/proxy/internal/strict"
)

// Fields are the supported fields of the messages that Parse reads.
func Fields() strict.Fields {
	return strict.Fields{
		"envoy.config.core.v3.HealthCheck": {
			"timeout", "interval", "initial_jitter", "interval_jitter", "interval_jitter_percent",
			"unhealthy_threshold", "healthy_threshold", "alt_port", "reuse_connection",
			"no_traffic_interval", "no_traffic_healthy_interval", "unhealthy_interval", "unhealthy_edge_interval", "healthy_edge_interval",
			"http_health_check", "tcp_health_check", "grpc_health_check",
		},
		"envoy.config.core.v3.HealthCheck.Payload": {"text", "binary"},
		"envoy.config.core.v3.HealthCheck.HttpHealthCheck": {
			"host", "path", "method", "send", "receive", "response_buffer_size", "request_headers_to_add", "request_headers_to_remove",
			"expected_statuses", "retriable_statuses", "codec_client_type", "service_name_matcher",
		},
		"envoy.config.core.v3.HealthCheck.TcpHealthCheck":  {"send", "receive", "proxy_protocol_config"},
		"envoy.config.core.v3.ProxyProtocolConfig":         {"version"},
		"envoy.config.core.v3.HealthCheck.GrpcHealthCheck": {"service_name", "authority", "initial_metadata"},
		"envoy.type.v3.Int64Range":                         {"start", "end"},
	}
}

// Config is a checked HealthCheck of one cluster.
type Config struct {
	// Timeout bounds one check, with its connect.
	Timeout time.Duration
	// Interval is the time from the end of one check to the begin of the next.
	Interval time.Duration
	// In place of Interval: after a check that failed; after one that failed, or
	// passed, while the threshold of the change is not reached yet; and as long
	// as the cluster has had no traffic, for hosts that are well and for others.
	UnhealthyInterval, UnhealthyEdgeInterval, HealthyEdgeInterval time.Duration
	NoTrafficHealthyInterval, NoTrafficInterval                   time.Duration
	// InitialJitter is how long the first check may wait; to each later wait up
	// to IntervalJitter is added, and up to so many percent of it.
	InitialJitter, IntervalJitter time.Duration
	IntervalJitterPercent         uint32
	// UnhealthyThreshold and HealthyThreshold are how many results in a row
	// change a host's health.
	UnhealthyThreshold, HealthyThreshold uint32
	// ReuseConnection keeps a connection from one check to the next.
	ReuseConnection bool
	// AltPort is where hosts are checked that have no port of their own for it;
	// 0 is the port of their traffic.
	AltPort uint16

	check check
}

// check is one of the three kinds of checks.
type check interface {
	// newProber makes the prober of one host.
	newProber(h hostConfig) prober
}

// defaultNoTrafficInterval is Envoy's of HealthCheck.no_traffic_interval.
const defaultNoTrafficInterval = time.Minute

// Parse makes a Config of a cluster's health_checks, which lie at the path at;
// nil if there are none. Faults go to report; the result is for use only if
// there are none. What is required, and above 0, is held by the messages' own
// rules.
func Parse(checks []*corev3.HealthCheck, at strict.Path, report *strict.Report) *Config {
	if len(checks) == 0 {
		return nil
	}
	if len(checks) > 1 {
		report.Add(at.Index(1), "a cluster has one health check at most")
	}
	m, at := checks[0], at.Index(0)
	duration := func(d *durationpb.Duration, fallback time.Duration, field string) time.Duration {
		return coreconfig.Duration(d, fallback, at.Field(field), report)
	}
	c := &Config{
		Timeout:               m.GetTimeout().AsDuration(),
		Interval:              m.GetInterval().AsDuration(),
		InitialJitter:         duration(m.GetInitialJitter(), 0, "initial_jitter"),
		IntervalJitter:        duration(m.GetIntervalJitter(), 0, "interval_jitter"),
		IntervalJitterPercent: m.GetIntervalJitterPercent(),
		UnhealthyThreshold:    m.GetUnhealthyThreshold().GetValue(),
		HealthyThreshold:      m.GetHealthyThreshold().GetValue(),
		ReuseConnection:       m.GetReuseConnection() == nil || m.GetReuseConnection().GetValue(),
	}
	c.NoTrafficInterval = duration(m.GetNoTrafficInterval(), defaultNoTrafficInterval, "no_traffic_interval")
	c.NoTrafficHealthyInterval = duration(m.GetNoTrafficHealthyInterval(), c.NoTrafficInterval, "no_traffic_healthy_interval")
	c.UnhealthyInterval = duration(m.GetUnhealthyInterval(), c.Interval, "unhealthy_interval")
	c.UnhealthyEdgeInterval = duration(m.GetUnhealthyEdgeInterval(), c.UnhealthyInterval, "unhealthy_edge_interval")
	c.HealthyEdgeInterval = duration(m.GetHealthyEdgeInterval(), c.Interval, "healthy_edge_interval")
	if port := m.GetAltPort(); port != nil {
		if port.GetValue() == 0 || port.GetValue() > 65535 {
			report.Add(at.Field("alt_port"), "%d is no port", port.GetValue())
		}
		c.AltPort = uint16(port.GetValue())
	}
	switch kind := m.GetHealthChecker().(type) {
	case *corev3.HealthCheck_HttpHealthCheck_:
		c.check = parseHTTP(kind.HttpHealthCheck, at.Field("http_health_check"), report)
	case *corev3.HealthCheck_TcpHealthCheck_:
		c.check = parseTCP(kind.TcpHealthCheck, at.Field("tcp_health_check"), report)
	case *corev3.HealthCheck_GrpcHealthCheck_:
		c.check = parseGRPC(kind.GrpcHealthCheck, at.Field("grpc_health_check"), report)
	}
	return c
}

// Endpoint is what the health_check_config of an endpoint says. The zero value is
// that of one without.
type Endpoint struct {
	// Address is where the host is checked in the place of its own address; its
	// port may be 0.
	Address netip.AddrPort
	// Port is where the host is checked; 0 is Address's, alt_port or the port of
	// its traffic.
	Port uint16
	// Hostname is the host header and the authority of checks; empty is the
	// check's.
	Hostname string
	// Disabled says that the host is not checked, and taken to be well.
	Disabled bool
}

// Target says where one host is checked.
type Target struct {
	// Address is where its traffic goes.
	Address  netip.AddrPort
	Endpoint Endpoint
}

// address is where the check goes.
func (c *Config) address(t Target) netip.AddrPort {
	at, port := t.Address, t.Endpoint.Port
	if t.Endpoint.Address.IsValid() {
		at = t.Endpoint.Address
	} else if port == 0 {
		port = c.AltPort
	}
	if port == 0 {
		port = at.Port()
	}
	return netip.AddrPortFrom(at.Addr(), port)
}
