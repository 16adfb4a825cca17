package resources

import (
	"cmp"
	"net/netip"
	"slices"

	endpointv3 "github.com/envoyproxy/go-control-plane/envoy/config/endpoint/v3"

	"github.com/weirproxy/weir/services/discovery/internal/registry"
)

// assignment is the hosts of a service or of a subset of it by locality, in a
// fixed order; those that are Out are left out. gRPC refuses an assignment as a
// whole in which an address is there twice, a locality is there twice in a
// priority or has no weight, or a priority is left out.
func (m *Maker) assignment(n name, a Asker, hosts []registry.View) *endpointv3.ClusterLoadAssignment {
	shown := unique(hosts)
	shown = slices.DeleteFunc(shown, func(v *registry.View) bool {
		return v.State == registry.Out || !n.subset.has(v.Host)
	})
	shown = m.share(a, shown)
	if !m.options.ZonePriorities || !servedIn(a, shown) {
		a = Asker{} // to whom all are near
	}
	of := m.endpointsOf(shown)
	slices.SortStableFunc(shown, func(x, y *registry.View) int {
		return cmp.Or(
			cmp.Compare(a.distance(&x.Host.Tags), a.distance(&y.Host.Tags)),
			compareLocality(x, y))
	})

	made := &endpointv3.ClusterLoadAssignment{ClusterName: n.cluster}
	priority := uint32(0)
	for first := 0; first < len(shown); {
		end := first + 1
		for end < len(shown) && compareLocality(shown[first], shown[end]) == 0 {
			end++
		}
		if first > 0 && a.distance(&shown[first-1].Host.Tags) != a.distance(&shown[first].Host.Tags) {
			priority++
		}
		made.Endpoints = append(made.Endpoints, of.locality(shown[first:end], priority))
		first = end
	}
	return made
}

// NoEndpoints is the assignment of a cluster of which no host is known: what Make
// makes of a service without hosts. The name is one of UTF-8.
func NoEndpoints(cluster string) (*Resource, error) {
	return New(Endpoints, cluster, &endpointv3.ClusterLoadAssignment{ClusterName: cluster}, 0)
}

// servedIn reports whether a host in the asker's zone takes work.
func servedIn(a Asker, hosts []*registry.View) bool {
	return a.Zone != "" && slices.ContainsFunc(hosts, func(v *registry.View) bool {
		return v.TakesWork() && a.distance(&v.Host.Tags) == 0
	})
}

// Duplicates is how many hosts of a service are shown to nobody because a later
// comer has the same address.
func Duplicates(hosts []registry.View) int {
	addresses := make(map[netip.AddrPort]struct{}, len(hosts))
	for i := range hosts {
		addresses[hosts[i].Host.Address] = struct{}{}
	}
	return len(hosts) - len(addresses)
}

// unique returns hosts by address, of those with equal addresses the latest
// comer.
func unique(hosts []registry.View) []*registry.View {
	list := make([]*registry.View, len(hosts))
	for i := range hosts {
		list[i] = &hosts[i]
	}
	slices.SortFunc(list, func(x, y *registry.View) int {
		return cmp.Or(
			x.Host.Address.Compare(y.Host.Address),
			y.FirstSeen.Compare(x.FirstSeen),
			cmp.Compare(x.Host.ID, y.Host.ID))
	})
	return slices.CompactFunc(list, func(x, y *registry.View) bool { return x.Host.Address == y.Host.Address })
}

// additional returns the further addresses of hosts that have such, without
// those that are another host's: a host's own address comes before all, and of
// two that claim a further one the latest comer has it.
func additional(hosts []*registry.View) map[*registry.View][]netip.Addr {
	var claimants []*registry.View
	for _, v := range hosts {
		if len(v.Host.Additional) > 0 {
			claimants = append(claimants, v)
		}
	}
	if claimants == nil {
		return nil
	}
	taken := make(map[netip.AddrPort]bool, len(hosts)+len(claimants))
	for _, v := range hosts {
		taken[v.Host.Address] = true
	}
	slices.SortStableFunc(claimants, func(x, y *registry.View) int { return y.FirstSeen.Compare(x.FirstSeen) })
	given := make(map[*registry.View][]netip.Addr, len(claimants))
	for _, v := range claimants {
		for _, ip := range v.Host.Additional {
			if at := netip.AddrPortFrom(ip, v.Host.Address.Port()); !taken[at] {
				taken[at] = true
				given[v] = append(given[v], ip)
			}
		}
	}
	return given
}

func compareLocality(x, y *registry.View) int {
	return cmp.Or(
		cmp.Compare(x.Host.Tags.Region, y.Host.Tags.Region),
		cmp.Compare(x.Host.Tags.Zone, y.Host.Tags.Zone))
}
