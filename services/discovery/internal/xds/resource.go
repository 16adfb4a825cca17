package xds

import (
	"cmp"
	"crypto/sha256"
	"encoding/binary"
	"fmt"
	"net/netip"
	"slices"
	"time"

	clusterv3 "github.com/envoyproxy/go-control-plane/envoy/config/cluster/v3"
	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	endpointv3 "github.com/envoyproxy/go-control-plane/envoy/config/endpoint/v3"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/anypb"
	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/wrapperspb"

	"github.com/weirproxy/weir/services/discovery/internal/registry"
)

// kind is a type of resource. Responses go out in the order of the kinds, so
// that a client knows a cluster before it is sent its assignment.
type kind int

const (
	clusters kind = iota
	endpoints
	// kinds is how many there are.
	kinds
	// anyKind stands for a stream of all kinds.
	anyKind kind = -1
)

const (
	clusterURL  = "type.googleapis.com/envoy.config.cluster.v3.Cluster"
	endpointURL = "type.googleapis.com/envoy.config.endpoint.v3.ClusterLoadAssignment"
)

// kindOf returns the kind of a type URL.
func kindOf(url string) (kind, bool) {
	switch url {
	case clusterURL:
		return clusters, true
	case endpointURL:
		return endpoints, true
	default:
		return 0, false
	}
}

func (k kind) url() string {
	if k == clusters {
		return clusterURL
	}
	return endpointURL
}

func (k kind) String() string {
	if k == clusters {
		return "clusters"
	}
	return "endpoints"
}

// whole says that a response of this kind always holds all that the client
// subscribed to, and that absence means deletion. Of the other kinds only what
// changed is sent, and nothing can be deleted.
func (k kind) whole() bool { return k == clusters }

// resource is one resource as all streams send it: marshalled once, shared by
// all of them and never changed.
type resource struct {
	name string
	// version is a hash of name and content, so it is equal on every replica
	// and after every restart.
	version uint64
	body    *anypb.Any
}

// newResource marshals m. Messages made from checked hosts always can be.
func newResource(k kind, name string, m proto.Message) (*resource, error) {
	content, err := proto.MarshalOptions{Deterministic: true}.Marshal(m)
	if err != nil {
		return nil, fmt.Errorf("marshal %s of %q: %w", k, name, err)
	}
	sum := sha256.Sum256(append([]byte(name+"\x00"), content...))
	return &resource{
		name:    name,
		version: binary.BigEndian.Uint64(sum[:8]),
		body:    &anypb.Any{TypeUrl: k.url(), Value: content},
	}, nil
}

// versionText is a version as clients see it. That of several resources is the
// exclusive or of theirs, which does not depend on their order.
func versionText(version uint64) string { return fmt.Sprintf("%016x", version) }

// makeCluster is the cluster of a service: its hosts come by EDS on the same
// stream.
func makeCluster(service string) *clusterv3.Cluster {
	return &clusterv3.Cluster{
		Name:                 service,
		ClusterDiscoveryType: &clusterv3.Cluster_Type{Type: clusterv3.Cluster_EDS},
		EdsClusterConfig: &clusterv3.Cluster_EdsClusterConfig{
			EdsConfig: &corev3.ConfigSource{
				ConfigSourceSpecifier: &corev3.ConfigSource_Ads{Ads: &corev3.AggregatedConfigSource{}},
				ResourceApiVersion:    corev3.ApiVersion_V3,
			},
		},
		ConnectTimeout: durationpb.New(time.Second),
		LbPolicy:       clusterv3.Cluster_ROUND_ROBIN,
	}
}

// makeAssignment is the hosts of a service by locality, in a fixed order; those
// that are Out are left out. Of hosts with equal addresses, which a client may
// refuse as a whole, only the latest comer is taken; duplicates is how many were
// left out for that.
func makeAssignment(service string, hosts []registry.View) (assignment *endpointv3.ClusterLoadAssignment, duplicates int) {
	assignment = &endpointv3.ClusterLoadAssignment{ClusterName: service}
	hosts = ordered(hosts)
	unique := slices.CompactFunc(slices.Clone(hosts), func(a, b registry.View) bool {
		return a.Host.Address == b.Host.Address
	})
	duplicates = len(hosts) - len(unique)
	slices.SortStableFunc(unique, compareLocality)

	for first := 0; first < len(unique); {
		end := first + 1
		for end < len(unique) && compareLocality(unique[first], unique[end]) == 0 {
			end++
		}
		assignment.Endpoints = append(assignment.Endpoints, makeLocality(unique[first:end]))
		first = end
	}
	return assignment, duplicates
}

// ordered returns the hosts that are not Out by address, the latest comer of
// equal ones first.
func ordered(hosts []registry.View) []registry.View {
	sorted := make([]registry.View, 0, len(hosts))
	for _, v := range hosts {
		if v.State != registry.Out {
			sorted = append(sorted, v)
		}
	}
	slices.SortFunc(sorted, func(a, b registry.View) int {
		return cmp.Or(
			a.Host.Address.Compare(b.Host.Address),
			b.FirstSeen.Compare(a.FirstSeen),
			cmp.Compare(a.Host.ID, b.Host.ID))
	})
	return sorted
}

// makeLocality is one locality of an assignment. Its weight is always given,
// since gRPC leaves out a locality without one.
func makeLocality(hosts []registry.View) *endpointv3.LocalityLbEndpoints {
	first := hosts[0].Host.Tags
	locality := &endpointv3.LocalityLbEndpoints{
		Locality:    &corev3.Locality{Region: first.Region, Zone: first.Zone},
		LbEndpoints: make([]*endpointv3.LbEndpoint, len(hosts)),
	}
	weight := uint32(0)
	for i := range hosts {
		endpoint := makeEndpoint(&hosts[i])
		locality.LbEndpoints[i] = endpoint
		weight += max(1, endpoint.GetLoadBalancingWeight().GetValue())
	}
	locality.LoadBalancingWeight = wrapperspb.UInt32(weight)
	return locality
}

func makeEndpoint(v *registry.View) *endpointv3.LbEndpoint {
	endpoint := &endpointv3.LbEndpoint{
		HostIdentifier: &endpointv3.LbEndpoint_Endpoint{Endpoint: &endpointv3.Endpoint{
			Address: makeAddress(v.Host.Address.Addr(), v.Host.Address.Port()),
		}},
	}
	if v.State == registry.Draining {
		endpoint.HealthStatus = corev3.HealthStatus_DRAINING
	}
	if v.Weight != 0 {
		endpoint.LoadBalancingWeight = wrapperspb.UInt32(uint32(v.Weight))
	}
	return endpoint
}

func makeAddress(ip netip.Addr, port uint16) *corev3.Address {
	return &corev3.Address{Address: &corev3.Address_SocketAddress{SocketAddress: &corev3.SocketAddress{
		Address:       ip.String(),
		PortSpecifier: &corev3.SocketAddress_PortValue{PortValue: uint32(port)},
	}}}
}

func compareLocality(a, b registry.View) int {
	return cmp.Or(
		cmp.Compare(a.Host.Tags.Region, b.Host.Tags.Region),
		cmp.Compare(a.Host.Tags.Zone, b.Host.Tags.Zone))
}
