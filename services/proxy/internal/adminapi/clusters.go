package adminapi

import (
	"bytes"
	"fmt"
	"net/http"
	"net/netip"
	"net/url"

	adminv3 "github.com/envoyproxy/go-control-plane/envoy/admin/v3"
	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"

	"github.com/weirproxy/weir/services/proxy/internal/cluster"
)

// clusters serves /clusters.
func (a *api) clusters(w http.ResponseWriter, query url.Values) error {
	format, err := choice(query, "format", "text", "json")
	if err != nil {
		return err
	}
	wanted, err := filter(query)
	if err != nil {
		return err
	}
	var text bytes.Buffer
	var message adminv3.Clusters
	for _, c := range a.Clusters.All() {
		if wanted(c.Config.Name) {
			a.writeCluster(&text, c)
			message.ClusterStatuses = append(message.ClusterStatuses, a.clusterStatus(c))
		}
	}
	if format == "json" {
		return writeMessage(w, &message, false)
	}
	writeText(w, text.Bytes())
	return nil
}

// hostNumber is a number of a host by Envoy's name.
type hostNumber struct {
	name  string
	kind  adminv3.SimpleMetric_Type
	value uint64
}

func hostNumbers(s *cluster.HostStats) []hostNumber {
	const counter, gauge = adminv3.SimpleMetric_COUNTER, adminv3.SimpleMetric_GAUGE
	return []hostNumber{
		{"cx_active", gauge, uint64(max(s.ConnectionsActive.Load(), 0))},
		{"cx_connect_fail", counter, s.ConnectFailures.Load()},
		{"cx_total", counter, s.ConnectionsTotal.Load()},
		{"rq_active", gauge, uint64(max(s.RequestsActive.Load(), 0))},
		{"rq_error", counter, s.RequestErrors.Load()},
		{"rq_success", counter, s.RequestsSucceeded.Load()},
		{"rq_total", counter, s.RequestsTotal.Load()},
	}
}

// writeCluster writes one line a fact, as Envoy does.
func (a *api) writeCluster(text *bytes.Buffer, c *cluster.Cluster) {
	name := c.Config.Name
	fmt.Fprintf(text, "%s::observability_name::%s\n", name, name)
	fmt.Fprintf(text, "%s::added_via_api::%t\n", name, !a.Clusters.IsStatic(name))
	for _, m := range c.Hosts().Members {
		line := func(key string, value any) {
			fmt.Fprintf(text, "%s::%s::%s::%v\n", name, m.Address, key, value)
		}
		for _, n := range hostNumbers(&m.Host.Stats) {
			line(n.name, n.value)
		}
		line("hostname", "")
		line("health_flags", healthFlags(m.Health))
		line("weight", m.Weight)
		line("region", m.Locality.GetRegion())
		line("zone", m.Locality.GetZone())
		line("sub_zone", m.Locality.GetSubZone())
		line("canary", false)
		line("priority", 0)
		line("success_rate", -1)
		line("local_origin_success_rate", -1)
	}
}

// healthFlags says why a host is not healthy.
func healthFlags(health corev3.HealthStatus) string {
	switch health {
	case corev3.HealthStatus_UNHEALTHY, corev3.HealthStatus_TIMEOUT:
		return "/failed_eds_health"
	case corev3.HealthStatus_DRAINING:
		return "/eds_status_draining"
	case corev3.HealthStatus_DEGRADED:
		return "/degraded_eds_health"
	}
	return "healthy"
}

func (a *api) clusterStatus(c *cluster.Cluster) *adminv3.ClusterStatus {
	status := &adminv3.ClusterStatus{
		Name: c.Config.Name, ObservabilityName: c.Config.Name, AddedViaApi: !a.Clusters.IsStatic(c.Config.Name),
		EdsServiceName: c.Config.ServiceName,
	}
	for _, m := range c.Hosts().Members {
		health := m.Health
		if health == corev3.HealthStatus_UNKNOWN {
			health = corev3.HealthStatus_HEALTHY
		}
		host := &adminv3.HostStatus{
			Address:      address(m.Address),
			HealthStatus: &adminv3.HostHealthStatus{EdsHealthStatus: health},
			Weight:       m.Weight,
			Locality:     m.Locality,
		}
		for _, n := range hostNumbers(&m.Host.Stats) {
			host.Stats = append(host.Stats, &adminv3.SimpleMetric{Type: n.kind, Name: n.name, Value: n.value})
		}
		status.HostStatuses = append(status.HostStatuses, host)
	}
	return status
}

func address(a netip.AddrPort) *corev3.Address {
	return &corev3.Address{Address: &corev3.Address_SocketAddress{SocketAddress: &corev3.SocketAddress{
		Address: a.Addr().String(), PortSpecifier: &corev3.SocketAddress_PortValue{PortValue: uint32(a.Port())},
	}}}
}
