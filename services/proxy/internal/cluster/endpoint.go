package cluster

import (
	"math"
	"net/netip"
	"slices"
	"time"

	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	endpointv3 "github.com/envoyproxy/go-control-plane/envoy/config/endpoint/v3"
	"google.golang.org/protobuf/proto"

	"github.com/weirproxy/weir/services/proxy/internal/coreconfig"
	"github.com/weirproxy/weir/services/proxy/internal/layeredruntime"
	"github.com/weirproxy/weir/services/proxy/internal/strict"
)

// Assignment is a checked ClusterLoadAssignment. It is not changed once made.
type Assignment struct {
	// Endpoints are in the order of the message, each address once.
	Endpoints []Endpoint
	// Overprovisioning is policy.overprovisioning_factor, in percent.
	Overprovisioning uint32
	// Drop is the share of requests that are answered 503 at once, from 0 to 1
	// (policy.drop_overloads).
	Drop float64
	// StaleAfter is for how long the assignment holds without another one of EDS; 0 is
	// for ever (policy.endpoint_stale_after).
	StaleAfter time.Duration
}

// Endpoint is one member of an assignment.
type Endpoint struct {
	// Address of an endpoint that DNS resolves has only its port until then.
	Address netip.AddrPort
	// Hostname is Endpoint.hostname, or the name that DNS resolved.
	Hostname    string
	HealthCheck HealthCheckConfig
	// Weight is at least 1.
	Weight   uint32
	Health   corev3.HealthStatus
	Metadata *corev3.Metadata // may be nil
	// Priority is from 0, which comes first, to 128.
	Priority uint32
	Locality *corev3.Locality // may be nil
	// LocalityWeight is that of all endpoints of the locality within the
	// priority; 0 is none.
	LocalityWeight uint32

	name string // what DNS resolves; empty for an address
}

// HealthCheckConfig is Endpoint.health_check_config.
type HealthCheckConfig struct {
	// Address, if valid, is asked instead of the endpoint's.
	Address netip.AddrPort
	// Port, unless 0, is asked instead of the address's.
	Port uint16
	// Hostname, unless empty, is the host that is asked for.
	Hostname string
	// Disabled says that the endpoint is not checked.
	Disabled bool
}

// hashKey is what a policy that hashes hosts knows the endpoint by, if it has
// one of its own: hash_key in the metadata of envoy.lb.
func (e *Endpoint) hashKey() string {
	return e.Metadata.GetFilterMetadata()["envoy.lb"].GetFields()["hash_key"].GetStringValue()
}

func (e Endpoint) equal(other Endpoint) bool {
	if !proto.Equal(e.Metadata, other.Metadata) || !proto.Equal(e.Locality, other.Locality) {
		return false
	}
	e.Metadata, e.Locality = other.Metadata, other.Locality
	return e == other
}

func (a *Assignment) equal(other *Assignment) bool {
	return a.Overprovisioning == other.Overprovisioning && a.Drop == other.Drop && slices.EqualFunc(a.Endpoints, other.Endpoints, Endpoint.equal)
}

// defaultOverprovisioning is Envoy's of overprovisioning_factor.
const defaultOverprovisioning = 140

// addressing says what an assignment's endpoints have for an address.
type addressing int

const (
	ipAddresses addressing = iota
	// dnsNames also has IP addresses, which are names of themselves.
	dnsNames
)

// parseAssignment makes an Assignment of the message, which may be nil and lies
// at the path at. An address that is there twice counts once, as in Envoy.
func parseAssignment(message *endpointv3.ClusterLoadAssignment, addresses addressing, at strict.Path, report *strict.Report) *Assignment {
	a := &Assignment{Overprovisioning: defaultOverprovisioning}
	a.parsePolicy(message.GetPolicy(), at.Field("policy"), report)
	parseGroups(message.GetEndpoints(), at.Field("endpoints"), report)
	seen := map[netip.AddrPort]bool{}
	for i, group := range message.GetEndpoints() {
		at := at.Field("endpoints").Index(i).Field("lb_endpoints")
		for j, e := range group.GetLbEndpoints() {
			endpoint, ok := parseEndpoint(e, addresses, at.Index(j), report)
			if !ok || endpoint.name == "" && seen[endpoint.Address] {
				continue
			}
			seen[endpoint.Address] = true
			endpoint.Priority = group.GetPriority()
			endpoint.Locality = group.GetLocality()
			endpoint.LocalityWeight = group.GetLoadBalancingWeight().GetValue()
			a.Endpoints = append(a.Endpoints, endpoint)
		}
	}
	return a
}

func (a *Assignment) parsePolicy(policy *endpointv3.ClusterLoadAssignment_Policy, at strict.Path, report *strict.Report) {
	if factor := policy.GetOverprovisioningFactor(); factor != nil {
		a.Overprovisioning = factor.GetValue()
	}
	// That it is more than 0 is held by the message's own rules.
	a.StaleAfter = policy.GetEndpointStaleAfter().AsDuration()
	drops := policy.GetDropOverloads()
	at = at.Field("drop_overloads")
	if len(drops) > 1 {
		report.Add(at, "want one category at most, got %d", len(drops))
	}
	if len(drops) == 1 {
		share := drops[0].GetDropPercentage()
		of := layeredruntime.ShareOf(share)
		if a.Drop = float64(of.Numerator) / float64(of.Denominator); a.Drop > 1 {
			report.Add(at.Index(0).Field("drop_percentage"), "%d of %s is more than all", share.GetNumerator(), share.GetDenominator())
		}
	}
}

// locality is what makes two localities the same.
type locality struct{ region, zone, subZone string }

func localityOf(l *corev3.Locality) locality {
	return locality{l.GetRegion(), l.GetZone(), l.GetSubZone()}
}

// lastPriority is what the message's own rules allow.
const lastPriority = 128

// parseGroups checks what must hold among the groups of endpoints.
func parseGroups(groups []*endpointv3.LocalityLbEndpoints, at strict.Path, report *strict.Report) {
	type place struct {
		locality
		priority uint32
	}
	weights := map[place]uint32{}
	sums := map[uint32]uint64{}
	for i, group := range groups {
		at := at.Index(i)
		where := place{localityOf(group.GetLocality()), group.GetPriority()}
		weight := group.GetLoadBalancingWeight().GetValue()
		if known, twice := weights[where]; twice && known != weight {
			report.Add(at.Field("load_balancing_weight"), "the locality has the weight %d in the same priority before", known)
		} else if !twice {
			weights[where] = weight
			sums[where.priority] += uint64(weight)
		}
		sum := uint64(0)
		for _, e := range group.GetLbEndpoints() {
			sum += uint64(e.GetLoadBalancingWeight().GetValue())
		}
		if sum > math.MaxUint32 {
			report.Add(at.Field("lb_endpoints"), "their weights make %d together, which is more than %d", sum, uint32(math.MaxUint32))
		}
	}
	for priority, sum := range sums {
		if sum > math.MaxUint32 {
			report.Add(at, "the weights of localities of priority %d make %d together, which is more than %d", priority, sum, uint32(math.MaxUint32))
		}
	}
	for i, group := range groups {
		if p := group.GetPriority(); p > 0 && p <= lastPriority {
			if _, ok := sums[p-1]; !ok {
				report.Add(at.Index(i).Field("priority"), "%d is there, but not %d: none may be left out", p, p-1)
			}
		}
	}
}

// parseEndpoint makes what an lb_endpoint says of itself; the caller adds what
// its group does.
func parseEndpoint(e *endpointv3.LbEndpoint, addresses addressing, at strict.Path, report *strict.Report) (Endpoint, bool) {
	made := Endpoint{Hostname: e.GetEndpoint().GetHostname(), Weight: 1, Health: e.GetHealthStatus(), Metadata: e.GetMetadata()}
	if w := e.GetLoadBalancingWeight(); w != nil {
		made.Weight = w.GetValue()
	}
	at = at.Field("endpoint")
	ok := made.parseAddress(e.GetEndpoint().GetAddress(), addresses, at.Field("address"), report)
	check := e.GetEndpoint().GetHealthCheckConfig()
	made.HealthCheck = HealthCheckConfig{
		Port: uint16(check.GetPortValue()), Hostname: check.GetHostname(), Disabled: check.GetDisableActiveHealthCheck(),
	}
	if check.GetAddress() != nil {
		made.HealthCheck.Address, _ = coreconfig.Address(check.GetAddress(), at.Field("health_check_config").Field("address"), report)
	}
	return made, ok
}

func (e *Endpoint) parseAddress(a *corev3.Address, addresses addressing, at strict.Path, report *strict.Report) (ok bool) {
	if addresses == dnsNames {
		var port uint16
		e.name, port, ok = coreconfig.NamedAddress(a, at, report)
		e.Address = netip.AddrPortFrom(netip.Addr{}, port)
		if e.Hostname == "" {
			e.Hostname = e.name
		}
	} else {
		e.Address, ok = coreconfig.Address(a, at, report)
	}
	if ok && e.Address.Port() == 0 {
		report.Add(at.Field("socket_address").Field("port_value"), "0 is no port of an endpoint")
		return false
	}
	return ok
}
