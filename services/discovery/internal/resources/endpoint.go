package resources

import (
	"net/netip"

	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	endpointv3 "github.com/envoyproxy/go-control-plane/envoy/config/endpoint/v3"
	"google.golang.org/protobuf/types/known/wrapperspb"

	"github.com/weirproxy/weir/services/discovery/internal/registry"
)

// endpoints makes the endpoints of one assignment. What they have in common they
// share, and what they do not is allocated at once.
type endpoints struct {
	maker *Maker
	// additional are the further addresses that hosts are shown with.
	additional map[*registry.View][]netip.Addr
	metadata   map[remarks]*corev3.Metadata
	unused     []endpoint
}

// endpoint is the messages that every endpoint consists of.
type endpoint struct {
	whole      endpointv3.LbEndpoint
	identifier endpointv3.LbEndpoint_Endpoint
	host       endpointv3.Endpoint
	address    address
	weight     wrapperspb.UInt32Value
}

// address is the messages that an address consists of.
type address struct {
	whole  corev3.Address
	socket corev3.Address_SocketAddress
	inner  corev3.SocketAddress
	port   corev3.SocketAddress_PortValue
}

// endpointsOf prepares the endpoints of hosts, each of which is made once.
func (m *Maker) endpointsOf(hosts []*registry.View) *endpoints {
	return &endpoints{
		maker:      m,
		additional: additional(hosts),
		metadata:   map[remarks]*corev3.Metadata{},
		unused:     make([]endpoint, len(hosts)),
	}
}

// locality is one locality of an assignment. Its weight is the sum of its
// hosts', of which one without a weight counts 1: so it is never 0, and far from
// the end of its type.
func (s *endpoints) locality(hosts []*registry.View, priority uint32) *endpointv3.LocalityLbEndpoints {
	tags := &hosts[0].Host.Tags
	made := &endpointv3.LocalityLbEndpoints{
		Locality:    &corev3.Locality{Region: tags.Region, Zone: tags.Zone},
		LbEndpoints: make([]*endpointv3.LbEndpoint, len(hosts)),
		Priority:    priority,
	}
	weight := uint32(0)
	for i, v := range hosts {
		made.LbEndpoints[i] = s.endpoint(v)
		weight += uint32(max(1, v.Weight))
	}
	made.LoadBalancingWeight = wrapperspb.UInt32(weight)
	return made
}

// endpoint is one host of an assignment. Active health checks go to the port
// that the host names health, if it has one.
func (s *endpoints) endpoint(v *registry.View) *endpointv3.LbEndpoint {
	e := &s.unused[0]
	s.unused = s.unused[1:]
	port := v.Host.Address.Port()
	e.host.Address = e.address.of(v.Host.Address.Addr(), port)
	for _, ip := range s.additional[v] {
		e.host.AdditionalAddresses = append(e.host.AdditionalAddresses,
			&endpointv3.Endpoint_AdditionalAddress{Address: new(address).of(ip, port)})
	}
	for _, p := range v.Host.Ports {
		if p.Name == HealthPort && p.Number != port {
			e.host.HealthCheckConfig = &endpointv3.Endpoint_HealthCheckConfig{PortValue: uint32(p.Number)}
		}
	}
	e.identifier.Endpoint = &e.host
	e.whole.HostIdentifier = &e.identifier
	e.whole.HealthStatus = s.maker.health(v)
	e.whole.Metadata = s.metadataOf(v)
	if v.Weight != 0 {
		e.weight.Value = uint32(v.Weight)
		e.whole.LoadBalancingWeight = &e.weight
	}
	return &e.whole
}

// HealthPort is the name of the port at which a host is asked for its health.
const HealthPort = "health"

// health is what clients are told of a host's: to let go of one that drains or
// was found to be unhealthy, and of the others nothing, which they take for
// healthy.
func (m *Maker) health(v *registry.View) corev3.HealthStatus {
	switch {
	case v.State == registry.Draining:
		return corev3.HealthStatus_DRAINING
	case v.Unhealthy:
		return corev3.HealthStatus_UNHEALTHY
	case v.Stale && m.options.StaleDegraded:
		return corev3.HealthStatus_DEGRADED
	default:
		return corev3.HealthStatus_UNKNOWN
	}
}

// of makes a the address of a port.
func (a *address) of(ip netip.Addr, port uint16) *corev3.Address {
	a.port.PortValue = uint32(port)
	a.inner.Address, a.inner.PortSpecifier = ip.String(), &a.port
	a.socket.SocketAddress = &a.inner
	a.whole.Address = &a.socket
	return &a.whole
}
