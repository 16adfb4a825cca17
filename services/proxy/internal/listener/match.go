package listener

import (
	"net/netip"
	"slices"
	"strings"

	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	listenerv3 "github.com/envoyproxy/go-control-plane/envoy/config/listener/v3"

	"github.com/weirproxy/weir/services/proxy/internal/listenerfilter"
	"github.com/weirproxy/weir/services/proxy/internal/strict"
)

// match says which connections a filter chain takes (FilterChainMatch). Of each
// list one entry must hold; an empty one holds for all.
type match struct {
	port          []uint32 // destination_port, one at most
	destinations  []netip.Prefix
	transports    []string // transport_protocol, one at most
	applications  []string // application_protocols
	directSources []netip.Prefix
	sourceType    []listenerv3.FilterChainMatch_ConnectionSourceType // other than ANY, one at most
	sources       []netip.Prefix
	sourcePorts   []uint32
}

func parseMatch(m *listenerv3.FilterChainMatch, at strict.Path, report *strict.Report) match {
	r := match{
		destinations:  parsePrefixes(m.GetPrefixRanges(), at.Field("prefix_ranges"), report),
		directSources: parsePrefixes(m.GetDirectSourcePrefixRanges(), at.Field("direct_source_prefix_ranges"), report),
		sources:       parsePrefixes(m.GetSourcePrefixRanges(), at.Field("source_prefix_ranges"), report),
		sourcePorts:   m.GetSourcePorts(),
	}
	if p := m.GetDestinationPort(); p != nil {
		r.port = []uint32{p.GetValue()}
	}
	if t := m.GetSourceType(); t != listenerv3.FilterChainMatch_ANY {
		r.sourceType = []listenerv3.FilterChainMatch_ConnectionSourceType{t}
	}
	switch t := m.GetTransportProtocol(); t {
	case "":
	case listenerfilter.RawBuffer:
		r.transports = []string{t}
	default:
		report.Add(at.Field("transport_protocol"), "%q: TLS is not there yet, and so it matches nothing", t)
	}
	for i, protocol := range m.GetApplicationProtocols() {
		if !slices.Contains(listenerfilter.Applications, protocol) {
			report.Add(at.Field("application_protocols").Index(i), "%q: TLS is not there yet, and so nothing tells of it; what http_inspector tells of is %s",
				protocol, strings.Join(listenerfilter.Applications, ", "))
		}
	}
	r.applications = m.GetApplicationProtocols()
	return r
}

func parsePrefixes(ranges []*corev3.CidrRange, at strict.Path, report *strict.Report) []netip.Prefix {
	var list []netip.Prefix
	for i, r := range ranges {
		at := at.Index(i)
		address, err := netip.ParseAddr(r.GetAddressPrefix())
		if err != nil || address.Zone() != "" {
			report.Add(at.Field("address_prefix"), "%q is not an IP address", r.GetAddressPrefix())
			continue
		}
		address = address.Unmap()
		prefix, err := address.Prefix(int(r.GetPrefixLen().GetValue()))
		if err != nil {
			report.Add(at.Field("prefix_len"), "%d is more than an address of this family has", r.GetPrefixLen().GetValue())
			continue
		}
		list = append(list, prefix)
	}
	return list
}

// overlaps says whether there are connections of which neither match is more
// specific than the other: both have an entry in common in every list.
func (m *match) overlaps(o *match) bool {
	return common(m.port, o.port) && common(m.destinations, o.destinations) && common(m.transports, o.transports) &&
		common(m.applications, o.applications) &&
		common(m.directSources, o.directSources) && common(m.sourceType, o.sourceType) &&
		common(m.sources, o.sources) && common(m.sourcePorts, o.sourcePorts)
}

func common[T comparable](a, b []T) bool {
	if len(a) == 0 && len(b) == 0 {
		return true
	}
	return slices.ContainsFunc(a, func(v T) bool { return slices.Contains(b, v) })
}

// find is the chain that takes a connection, nil if none does. Criterion by
// criterion, in Envoy's order, only those chains stay that match best; there is
// no way back to those that matched less well when a later criterion fails.
func (c *Config) find(f listenerfilter.Facts) *chain {
	left := c.chains
	switch {
	case len(left) == 1 && left[0].message.GetFilterChainMatch() == nil:
		return left[0] // the usual one
	case len(left) == 0:
		return c.fallback
	}
	for _, criterion := range criteria {
		var best []*chain
		most := 0
		for _, k := range left {
			switch fit := criterion(&k.match, f); {
			case fit > most:
				best, most = []*chain{k}, fit
			case fit == most && fit > 0:
				best = append(best, k)
			}
		}
		left = best
	}
	if len(left) == 0 {
		return c.fallback
	}
	return left[0]
}

// criteria say how well a match fits a connection: 0 is not at all, 1 is by
// saying nothing, more is better. The order is that of FilterChainMatch; what is
// known of TLS alone (server_names) is left out.
var criteria = []func(*match, listenerfilter.Facts) int{
	func(m *match, f listenerfilter.Facts) int { return equal(m.port, uint32(f.Local.Port())) },
	func(m *match, f listenerfilter.Facts) int { return longest(m.destinations, f.Local.Addr()) },
	func(m *match, f listenerfilter.Facts) int { return equal(m.transports, f.Transport) },
	func(m *match, f listenerfilter.Facts) int { return earliest(m.applications, f.Applications) },
	func(m *match, f listenerfilter.Facts) int { return longest(m.directSources, f.Direct.Addr()) },
	func(m *match, f listenerfilter.Facts) int {
		from := listenerv3.FilterChainMatch_EXTERNAL
		if f.Remote.Addr().IsLoopback() || f.Remote.Addr() == f.Local.Addr() {
			from = listenerv3.FilterChainMatch_SAME_IP_OR_LOOPBACK
		}
		return equal(m.sourceType, from)
	},
	func(m *match, f listenerfilter.Facts) int { return longest(m.sources, f.Remote.Addr()) },
	func(m *match, f listenerfilter.Facts) int { return equal(m.sourcePorts, uint32(f.Remote.Port())) },
}

func equal[T comparable](list []T, value T) int {
	switch {
	case len(list) == 0:
		return 1
	case slices.Contains(list, value):
		return 2
	default:
		return 0
	}
}

// earliest is the more the earlier the first of the wanted ones is that the list has,
// and 2 at least.
func earliest(list, wanted []string) int {
	if len(list) == 0 {
		return 1
	}
	for i, w := range wanted {
		if slices.Contains(list, w) {
			return 1 + len(wanted) - i
		}
	}
	return 0
}

// longest is 2 and the length of the longest prefix of the list that holds the
// address.
func longest(list []netip.Prefix, address netip.Addr) int {
	if len(list) == 0 {
		return 1
	}
	most := 0
	for _, prefix := range list {
		if prefix.Contains(address) {
			most = max(most, 2+prefix.Bits())
		}
	}
	return most
}
