package adminapi

import (
	"bytes"
	"cmp"
	"fmt"
	"net/http"
	"net/netip"
	"net/url"

	adminv3 "github.com/envoyproxy/go-control-plane/envoy/admin/v3"
	clusterv3 "github.com/envoyproxy/go-control-plane/envoy/config/cluster/v3"
	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	typev3 "github.com/envoyproxy/go-control-plane/envoy/type/v3"
	"google.golang.org/protobuf/types/known/wrapperspb"

	"github.com/weirproxy/weir/services/proxy/internal/cluster"
	"github.com/weirproxy/weir/services/proxy/internal/cluster/breaker"
)

// clusters serves /clusters.
func (a *api) clusters(w http.ResponseWriter, query url.Values) error {
	format, err := choice(query, "format", "text", "json")
	if err != nil {
		return err
	}
	wanted, err := filter(query, "filter")
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
		{"rq_timeout", counter, s.RequestTimeouts.Load()},
		{"rq_total", counter, s.RequestsTotal.Load()},
	}
}

// writeCluster writes one line a fact, as Envoy does.
func (a *api) writeCluster(text *bytes.Buffer, c *cluster.Cluster) {
	name := c.Config.Name
	fmt.Fprintf(text, "%s::observability_name::%s\n", name, observabilityName(c))
	if external, local, ok := c.OutlierThresholds(); ok {
		fmt.Fprintf(text, "%s::outlier::success_rate_average::%.6g\n", name, external.Average)
		fmt.Fprintf(text, "%s::outlier::success_rate_ejection_threshold::%.6g\n", name, external.Ejection)
		fmt.Fprintf(text, "%s::outlier::local_origin_success_rate_average::%.6g\n", name, local.Average)
		fmt.Fprintf(text, "%s::outlier::local_origin_success_rate_ejection_threshold::%.6g\n", name, local.Ejection)
	}
	for i, priority := range []string{"default", "high"} {
		limits := c.Config.Thresholds[i]
		fmt.Fprintf(text, "%s::%s_priority::max_connections::%d\n", name, priority, limits.MaxConnections)
		fmt.Fprintf(text, "%s::%s_priority::max_pending_requests::%d\n", name, priority, limits.MaxPendingRequests)
		fmt.Fprintf(text, "%s::%s_priority::max_requests::%d\n", name, priority, limits.MaxRequests)
		fmt.Fprintf(text, "%s::%s_priority::max_retries::%d\n", name, priority, limits.MaxRetries)
	}
	fmt.Fprintf(text, "%s::added_via_api::%t\n", name, !a.Clusters.IsStatic(name))
	if service := c.Config.Message.GetEdsClusterConfig().GetServiceName(); service != "" {
		fmt.Fprintf(text, "%s::eds_service_name::%s\n", name, service)
	}
	for _, m := range c.Hosts().Members {
		line := func(key string, value any) {
			fmt.Fprintf(text, "%s::%s::%s::%v\n", name, m.Address, key, value)
		}
		for _, n := range hostNumbers(&m.Host.Stats) {
			line(n.name, n.value)
		}
		line("hostname", m.Hostname)
		line("health_flags", m.Host.Flags())
		line("weight", m.Weight)
		line("region", m.Locality.GetRegion())
		line("zone", m.Locality.GetZone())
		line("sub_zone", m.Locality.GetSubZone())
		line("canary", m.Host.Canary())
		line("priority", m.Priority)
		external, local := m.Host.Outlier.SuccessRate()
		line("success_rate", external)
		line("local_origin_success_rate", local)
	}
}

// observabilityName is the cluster's name in its metrics.
func observabilityName(c *cluster.Cluster) string {
	return cmp.Or(c.Config.Message.GetAltStatName(), c.Config.Name)
}

func (a *api) clusterStatus(c *cluster.Cluster) *adminv3.ClusterStatus {
	status := &adminv3.ClusterStatus{
		Name: c.Config.Name, ObservabilityName: observabilityName(c), AddedViaApi: !a.Clusters.IsStatic(c.Config.Name),
		EdsServiceName:  c.Config.Message.GetEdsClusterConfig().GetServiceName(),
		CircuitBreakers: &clusterv3.CircuitBreakers{},
	}
	if external, local, ok := c.OutlierThresholds(); ok {
		status.SuccessRateEjectionThreshold, status.LocalOriginSuccessRateEjectionThreshold = percent(external.Ejection), percent(local.Ejection)
	}
	for i, priority := range []corev3.RoutingPriority{corev3.RoutingPriority_DEFAULT, corev3.RoutingPriority_HIGH} {
		status.CircuitBreakers.Thresholds = append(status.CircuitBreakers.Thresholds, thresholds(priority, c.Config.Thresholds[i]))
	}
	for _, m := range c.Hosts().Members {
		host := &adminv3.HostStatus{
			Address:      address(m.Address),
			HealthStatus: healthStatus(m.Host.Flags(), m.Health),
			Weight:       m.Weight,
			Hostname:     m.Hostname,
			Priority:     m.Priority,
			Locality:     m.Locality,
		}
		external, local := m.Host.Outlier.SuccessRate()
		host.SuccessRate, host.LocalOriginSuccessRate = percent(external), percent(local)
		for _, n := range hostNumbers(&m.Host.Stats) {
			host.Stats = append(host.Stats, &adminv3.SimpleMetric{Type: n.kind, Name: n.name, Value: n.value})
		}
		status.HostStatuses = append(status.HostStatuses, host)
	}
	return status
}

// percent is a percentage, nil for one below 0, which is that there is none.
func percent(value float64) *typev3.Percent {
	if value < 0 {
		return nil
	}
	return &typev3.Percent{Value: value}
}

// thresholds are the limits of one routing priority.
func thresholds(priority corev3.RoutingPriority, t breaker.Thresholds) *clusterv3.CircuitBreakers_Thresholds {
	return &clusterv3.CircuitBreakers_Thresholds{
		Priority:           priority,
		MaxConnections:     wrapperspb.UInt32(t.MaxConnections),
		MaxPendingRequests: wrapperspb.UInt32(t.MaxPendingRequests),
		MaxRequests:        wrapperspb.UInt32(t.MaxRequests),
		MaxRetries:         wrapperspb.UInt32(t.MaxRetries),
	}
}

// healthStatus is a host's health, with what EDS said of it.
func healthStatus(flags cluster.HealthFlags, eds corev3.HealthStatus) *adminv3.HostHealthStatus {
	if eds == corev3.HealthStatus_UNKNOWN {
		eds = corev3.HealthStatus_HEALTHY
	}
	has := func(f cluster.HealthFlags) bool { return flags&f != 0 }
	return &adminv3.HostHealthStatus{
		FailedActiveHealthCheck:    has(cluster.FailedActiveHC),
		FailedOutlierCheck:         has(cluster.FailedOutlierCheck),
		FailedActiveDegradedCheck:  has(cluster.DegradedActiveHC),
		PendingDynamicRemoval:      has(cluster.PendingDynamicRemoval),
		PendingActiveHc:            has(cluster.PendingActiveHC),
		ExcludedViaImmediateHcFail: has(cluster.ExcludedViaImmediateHCFail),
		ActiveHcTimeout:            has(cluster.ActiveHCTimeout),
		EdsHealthStatus:            eds,
	}
}

func address(a netip.AddrPort) *corev3.Address {
	return &corev3.Address{Address: &corev3.Address_SocketAddress{SocketAddress: &corev3.SocketAddress{
		Address: a.Addr().String(), PortSpecifier: &corev3.SocketAddress_PortValue{PortValue: uint32(a.Port())},
	}}}
}
