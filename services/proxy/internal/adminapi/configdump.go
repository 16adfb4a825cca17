package adminapi

import (
	"net/http"
	"net/url"
	"slices"
	"time"

	adminv3 "github.com/envoyproxy/go-control-plane/envoy/admin/v3"
	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	endpointv3 "github.com/envoyproxy/go-control-plane/envoy/config/endpoint/v3"
	listenerv3 "github.com/envoyproxy/go-control-plane/envoy/config/listener/v3"
	routev3 "github.com/envoyproxy/go-control-plane/envoy/config/route/v3"
	hcmv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/network/http_connection_manager/v3"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/anypb"
	"google.golang.org/protobuf/types/known/timestamppb"
	"google.golang.org/protobuf/types/known/wrapperspb"

	"github.com/weirproxy/weir/services/proxy/internal/cluster"
	"github.com/weirproxy/weir/services/proxy/internal/listener"
	"github.com/weirproxy/weir/services/proxy/internal/strict"
	"github.com/weirproxy/weir/services/proxy/internal/xds"
)

// dumpParameters are those of /config_dump.
var dumpParameters = []string{"resource", "mask", "name_regex", "include_eds"}

// configDump serves /config_dump. Secrets are left out of it.
func (a *api) configDump(w http.ResponseWriter, query url.Values) error {
	named, err := filter(query, "name_regex")
	if err != nil {
		return err
	}
	parts := []proto.Message{
		&adminv3.BootstrapConfigDump{Bootstrap: proto.CloneOf(a.Bootstrap), LastUpdated: timestamp(a.Started)},
		a.clustersDump(named),
	}
	if query.Has("include_eds") {
		parts = append(parts, a.endpointsDump(named))
	}
	parts = append(parts, a.listenersDump(named), a.routesDump(named))
	parts, err = selectParts(parts, query.Get("resource"), parseMask(query.Get("mask")))
	if err != nil {
		return err
	}
	var dump adminv3.ConfigDump
	for _, part := range parts {
		redact(part.ProtoReflect(), false)
		packed, err := anypb.New(part)
		if err != nil {
			return err
		}
		dump.Configs = append(dump.Configs, packed)
	}
	return writeMessage(w, &dump, false)
}

// clustersDump has the static clusters, and the dynamic ones that are in use.
func (a *api) clustersDump(named func(string) bool) *adminv3.ClustersConfigDump {
	accepted := a.accepted(xds.ClusterType)
	dump := &adminv3.ClustersConfigDump{VersionInfo: accepted.Version}
	for _, m := range a.Bootstrap.GetStaticResources().GetClusters() {
		if !named(m.GetName()) {
			continue
		}
		dump.StaticClusters = append(dump.StaticClusters, &adminv3.ClustersConfigDump_StaticCluster{
			Cluster: pack(m), LastUpdated: timestamp(a.Started),
		})
	}
	for _, c := range a.Clusters.All() {
		if a.Clusters.IsStatic(c.Config.Name) || !named(c.Config.Name) {
			continue
		}
		dump.DynamicActiveClusters = append(dump.DynamicActiveClusters, &adminv3.ClustersConfigDump_DynamicCluster{
			VersionInfo: accepted.Version, Cluster: pack(c.Config.Message), LastUpdated: timestamp(accepted.Updated),
		})
	}
	return dump
}

// listenersDump has the listeners of the bootstrap, and those of LDS with what
// became of their newest updates.
func (a *api) listenersDump(named func(string) bool) *adminv3.ListenersConfigDump {
	dump := &adminv3.ListenersConfigDump{VersionInfo: a.accepted(xds.ListenerType).Version}
	for _, l := range a.Listeners.States() {
		if !named(l.Name) {
			continue
		}
		if l.Static {
			newest := l.Active
			if newest == nil {
				newest = l.Warming
			}
			dump.StaticListeners = append(dump.StaticListeners, &adminv3.ListenersConfigDump_StaticListener{
				Listener: pack(newest.Message), LastUpdated: timestamp(a.Started),
			})
			continue
		}
		shown := &adminv3.ListenersConfigDump_DynamicListener{Name: l.Name, ActiveState: listenerState(l.Active), WarmingState: listenerState(l.Warming)}
		if l.Refused != nil {
			shown.ErrorState = &adminv3.UpdateFailureState{
				FailedConfiguration: pack(l.Refused.Message), Details: l.Refused.Details, LastUpdateAttempt: timestamp(l.Refused.At),
			}
		}
		dump.DynamicListeners = append(dump.DynamicListeners, shown)
	}
	return dump
}

func listenerState(v *listener.Version) *adminv3.ListenersConfigDump_DynamicListenerState {
	if v == nil {
		return nil
	}
	return &adminv3.ListenersConfigDump_DynamicListenerState{VersionInfo: v.Version, Listener: pack(v.Message), LastUpdated: timestamp(v.Updated)}
}

// routesDump has the route tables of RDS, and those that stand in listeners.
func (a *api) routesDump(named func(string) bool) *adminv3.RoutesConfigDump {
	dump := &adminv3.RoutesConfigDump{}
	for _, l := range a.Listeners.States() {
		for _, table := range staticTables(managers(l.Active)) {
			if named(table.GetName()) {
				dump.StaticRouteConfigs = append(dump.StaticRouteConfigs, &adminv3.RoutesConfigDump_StaticRouteConfig{
					RouteConfig: pack(table), LastUpdated: timestamp(l.Active.Updated),
				})
			}
		}
	}
	for _, t := range a.Routes.Tables() {
		if !named(t.Message.GetName()) {
			continue
		}
		dump.DynamicRouteConfigs = append(dump.DynamicRouteConfigs, &adminv3.RoutesConfigDump_DynamicRouteConfig{
			VersionInfo: t.Version, RouteConfig: pack(t.Message), LastUpdated: timestamp(t.Updated),
		})
	}
	return dump
}

// managers are the http_connection_managers of a listener that serves, none of one
// that does not, which is nil.
func managers(active *listener.Version) (all []*hcmv3.HttpConnectionManager) {
	if active == nil {
		return nil
	}
	l := active.Message
	for _, chain := range slices.Concat(l.GetFilterChains(), []*listenerv3.FilterChain{l.GetDefaultFilterChain()}) {
		for _, filter := range chain.GetFilters() {
			config, err := strict.Unpack(filter.GetTypedConfig())
			if m, ok := config.(*hcmv3.HttpConnectionManager); ok && err == nil {
				all = append(all, m)
			}
		}
	}
	return all
}

// staticTables are the route tables that stand in http_connection_managers.
func staticTables(managers []*hcmv3.HttpConnectionManager) (all []*routev3.RouteConfiguration) {
	for _, m := range managers {
		if m.GetRouteConfig() != nil {
			all = append(all, m.GetRouteConfig())
		}
	}
	return all
}

// endpointsDump has the hosts in use as assignments: of STATIC clusters as
// static ones, of EDS clusters as dynamic ones.
func (a *api) endpointsDump(named func(string) bool) *adminv3.EndpointsConfigDump {
	accepted := a.accepted(xds.AssignmentType)
	dump := &adminv3.EndpointsConfigDump{}
	for _, c := range a.Clusters.All() {
		hosts := assignment(c)
		if !named(hosts.GetClusterName()) {
			continue
		}
		packed := pack(hosts)
		if c.Config.ServiceName == "" {
			dump.StaticEndpointConfigs = append(dump.StaticEndpointConfigs, &adminv3.EndpointsConfigDump_StaticEndpointConfig{
				EndpointConfig: packed, LastUpdated: timestamp(a.Started),
			})
			continue
		}
		dump.DynamicEndpointConfigs = append(dump.DynamicEndpointConfigs, &adminv3.EndpointsConfigDump_DynamicEndpointConfig{
			VersionInfo: accepted.Version, EndpointConfig: packed, LastUpdated: timestamp(accepted.Updated),
		})
	}
	return dump
}

// assignment makes a message of a cluster's present hosts, those of one
// locality together, in the order in which they stand.
func assignment(c *cluster.Cluster) *endpointv3.ClusterLoadAssignment {
	name := c.Config.ServiceName
	if name == "" {
		name = c.Config.Name
	}
	m := &endpointv3.ClusterLoadAssignment{ClusterName: name}
	type place struct {
		region, zone, subZone string
		priority              uint32
	}
	groups := map[place]*endpointv3.LocalityLbEndpoints{}
	for _, member := range c.Hosts().Members {
		key := place{member.Locality.GetRegion(), member.Locality.GetZone(), member.Locality.GetSubZone(), member.Priority}
		group := groups[key]
		if group == nil {
			group = &endpointv3.LocalityLbEndpoints{Locality: member.Locality, Priority: member.Priority}
			if member.LocalityWeight > 0 {
				group.LoadBalancingWeight = wrapperspb.UInt32(member.LocalityWeight)
			}
			groups[key] = group
			m.Endpoints = append(m.Endpoints, group)
		}
		health := member.Health
		if health == corev3.HealthStatus_UNKNOWN {
			health = corev3.HealthStatus_HEALTHY
		}
		group.LbEndpoints = append(group.LbEndpoints, &endpointv3.LbEndpoint{
			HostIdentifier:      &endpointv3.LbEndpoint_Endpoint{Endpoint: &endpointv3.Endpoint{Address: address(member.Address), Hostname: member.Hostname}},
			HealthStatus:        health,
			Metadata:            member.Metadata,
			LoadBalancingWeight: wrapperspb.UInt32(member.Weight),
		})
	}
	return m
}

// accepted is what the control plane sent last of a type.
func (a *api) accepted(typeURL string) xds.TypeStatus {
	for _, t := range a.ControlPlane.Status().Types {
		if t.TypeURL == typeURL {
			return t
		}
	}
	return xds.TypeStatus{}
}

// pack puts a message into an Any. What the proxy holds was read from bytes,
// and can be written again.
func pack(m proto.Message) *anypb.Any {
	packed, err := anypb.New(m)
	if err != nil {
		return nil
	}
	return packed
}

// timestamp is nil for a time that is not known.
func timestamp(t time.Time) *timestamppb.Timestamp {
	if t.IsZero() {
		return nil
	}
	return timestamppb.New(t.Truncate(time.Millisecond))
}
