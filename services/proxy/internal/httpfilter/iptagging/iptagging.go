// Package iptagging is the HTTP filter that names the networks which a client's
// address is in (envoy.extensions.filters.http.ip_tagging.v3.IPTagging): it adds
// their tags to a header of the request, for the rate limits of a route and for
// the upstream to read. The address is the trusted one of the client. It refuses
// nothing.
package iptagging

import (
	"math/rand/v2"
	"net/netip"
	"slices"
	"strings"

	iptaggingv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/http/ip_tagging/v3"
	"golang.org/x/net/http/httpguts"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"

	"github.com/weirproxy/weir/services/proxy/internal/fixedheader"
	"github.com/weirproxy/weir/services/proxy/internal/httpfilter"
	"github.com/weirproxy/weir/services/proxy/internal/matcher"
	"github.com/weirproxy/weir/services/proxy/internal/stats"
	"github.com/weirproxy/weir/services/proxy/internal/stream"
	"github.com/weirproxy/weir/services/proxy/internal/strict"
)

// defaultHeader gets the tags where ip_tag_header names no other.
const defaultHeader = "x-envoy-ip-tags"

// Factory makes IP tagging filters. It implements httpfilter.Factory.
type Factory struct{}

// ConfigType implements httpfilter.Factory.
func (Factory) ConfigType() protoreflect.FullName {
	return (&iptaggingv3.IPTagging{}).ProtoReflect().Descriptor().FullName()
}

// Fields implements httpfilter.Factory.
func (f Factory) Fields() strict.Fields {
	return strict.Fields{
		f.ConfigType(): {"request_type", "ip_tags", "ip_tag_header"},
		"envoy.extensions.filters.http.ip_tagging.v3.IPTagging.IPTag":       {"ip_tag_name", "ip_list"},
		"envoy.extensions.filters.http.ip_tagging.v3.IPTagging.IpTagHeader": {"header", "action"},
		"envoy.config.core.v3.CidrRange":                                    {"address_prefix", "prefix_len"},
	}
}

// Parse implements httpfilter.Factory.
func (f Factory) Parse(message proto.Message, at strict.Path, report *strict.Report) httpfilter.Config {
	m, ok := message.(*iptaggingv3.IPTagging)
	if !ok {
		report.Add(at, "is a %T, not a %s", message, f.ConfigType())
		return nil
	}
	c := &filter{enabled: matcher.Always(true).Under("ip_tagging.http_filter_enabled"), kind: m.GetRequestType(), header: defaultHeader, networks: networks{byPrefix: map[netip.Prefix][]int{}}}
	if m.GetIpTagHeader() != nil {
		at := at.Field("ip_tag_header")
		c.header = fixedheader.CheckName(m.GetIpTagHeader().GetHeader(), at.Field("header"), report)
		c.sanitize = m.GetIpTagHeader().GetAction() == iptaggingv3.IPTagging_IpTagHeader_SANITIZE
	}
	if len(m.GetIpTags()) == 0 {
		report.Add(at.Field("ip_tags"), "there are no tags")
	}
	for i, tag := range m.GetIpTags() {
		at := at.Field("ip_tags").Index(i)
		name := tag.GetIpTagName()
		if name == "" || strings.ContainsAny(name, ", ") || !httpguts.ValidHeaderFieldValue(name) {
			report.Add(at.Field("ip_tag_name"), "%q is no tag: it stands in a header, between commas", name)
		}
		for j, r := range tag.GetIpList() {
			at := at.Field("ip_list").Index(j)
			ip, err := netip.ParseAddr(r.GetAddressPrefix())
			if err != nil {
				report.Add(at.Field("address_prefix"), "%q is not an IP address", r.GetAddressPrefix())
				continue
			}
			prefix, err := ip.Prefix(int(r.GetPrefixLen().GetValue()))
			if err != nil {
				report.Add(at.Field("prefix_len"), "%d is no prefix length of %s", r.GetPrefixLen().GetValue(), ip)
				continue
			}
			c.networks.add(prefix, i)
		}
		c.tags = append(c.tags, name)
	}
	return c
}

// filter is the configuration of one chain and the filter of all its streams:
// it keeps nothing between its steps.
type filter struct {
	enabled  matcher.RuntimeFraction
	kind     iptaggingv3.IPTagging_RequestType
	header   string
	sanitize bool // takes out what the client sent in the header
	tags     []string
	networks networks

	hits           []*stats.Counter // of each tag
	total, without *stats.Counter
}

// Measure implements httpfilter.Measured.
func (f *filter) Measure(scope *stats.Scope) {
	scope = scope.Scope("ip_tagging")
	f.total, f.without = scope.Counter("total"), scope.Counter("no_hit")
	for _, tag := range f.tags {
		f.hits = append(f.hits, scope.Counter(tag+".hit"))
	}
}

// NewFilter implements httpfilter.Config.
func (f *filter) NewFilter() httpfilter.Filter { return f }

// RequestHead implements httpfilter.RequestHead.
func (f *filter) RequestHead(s *stream.Stream) *httpfilter.Reply {
	if !f.enabled.Has(rand.Uint64(), s.Runtime) {
		return nil
	}
	value, _ := s.Request.Headers.Get("x-envoy-internal")
	internal := string(value) == "true"
	if f.kind == iptaggingv3.IPTagging_INTERNAL && !internal || f.kind == iptaggingv3.IPTagging_EXTERNAL && internal {
		return nil
	}
	if f.sanitize {
		s.Request.Headers.Remove(f.header)
	}
	f.total.Inc()
	var room [8]int
	found := f.networks.find(room[:0], s.ClientAddress)
	if len(found) == 0 {
		f.without.Inc()
		return nil
	}
	var text [256]byte
	tags := text[:0]
	if there, ok := s.Request.Headers.Get(f.header); ok {
		tags = append(tags, there...)
	}
	for _, i := range found {
		f.hits[i].Inc()
		if len(tags) > 0 {
			tags = append(tags, ',')
		}
		tags = append(tags, f.tags[i]...)
	}
	s.Request.Headers.Remove(f.header)
	s.Request.Headers.AddBytes(f.header, tags)
	return nil
}

// networks finds the tags of an address: one look-up for each length of prefix
// that there is.
type networks struct {
	byPrefix map[netip.Prefix][]int // the tags of each network
	v4, v6   []int                  // the lengths of prefixes
}

func (n *networks) add(prefix netip.Prefix, tag int) {
	lengths := &n.v6
	if prefix.Addr().Is4() {
		lengths = &n.v4
	}
	if !slices.Contains(*lengths, prefix.Bits()) {
		*lengths = append(*lengths, prefix.Bits())
	}
	if tags := n.byPrefix[prefix]; !slices.Contains(tags, tag) {
		n.byPrefix[prefix] = append(tags, tag)
	}
}

// find appends the tags of an address to list, each once, in their order. An
// address that is invalid has none.
func (n *networks) find(list []int, ip netip.Addr) []int {
	ip = ip.Unmap().WithZone("")
	lengths := n.v6
	if ip.Is4() {
		lengths = n.v4
	}
	for _, bits := range lengths {
		prefix, err := ip.Prefix(bits)
		if err != nil {
			return list
		}
		for _, tag := range n.byPrefix[prefix] {
			if !slices.Contains(list, tag) {
				list = append(list, tag)
			}
		}
	}
	slices.Sort(list)
	return list
}
