package descriptor

import (
	"errors"
	"math/rand/v2"
	"net/netip"

	routev3 "github.com/envoyproxy/go-control-plane/envoy/config/route/v3"
	matcherv3 "github.com/envoyproxy/go-control-plane/envoy/type/matcher/v3"
	metadatav3 "github.com/envoyproxy/go-control-plane/envoy/type/metadata/v3"

	"github.com/weirproxy/weir/services/proxy/internal/format"
	"github.com/weirproxy/weir/services/proxy/internal/layeredruntime"
	"github.com/weirproxy/weir/services/proxy/internal/matcher"
	"github.com/weirproxy/weir/services/proxy/internal/strict"
)

// Fields are the supported fields of the messages that Parse reads.
func Fields() strict.Fields {
	const limit, action = "envoy.config.route.v3.RateLimit", "envoy.config.route.v3.RateLimit.Action"
	return strict.Fields{
		limit: {"stage", "disable_key", "actions", "limit", "hits_addend", "apply_on_stream_done", "x_ratelimit_option"},
		action: {
			"source_cluster", "destination_cluster", "request_headers", "query_parameters", "remote_address", "masked_remote_address",
			"generic_key", "header_value_match", "query_parameter_value_match", "remote_address_match", "metadata",
		},
		action + ".SourceCluster":            {},
		action + ".DestinationCluster":       {},
		action + ".RequestHeaders":           {"header_name", "descriptor_key", "skip_if_absent"},
		action + ".QueryParameters":          {"query_parameter_name", "descriptor_key", "skip_if_absent"},
		action + ".RemoteAddress":            {},
		action + ".MaskedRemoteAddress":      {"v4_prefix_mask_len", "v6_prefix_mask_len"},
		action + ".GenericKey":               {"descriptor_value", "descriptor_key"},
		action + ".HeaderValueMatch":         {"descriptor_value", "descriptor_key", "expect_match", "headers"},
		action + ".QueryParameterValueMatch": {"descriptor_value", "descriptor_key", "expect_match", "query_parameters"},
		action + ".RemoteAddressMatch":       {"descriptor_value", "descriptor_key", "default_value", "address_matcher"},
		action + ".MetaData":                 {"descriptor_key", "metadata_key", "default_value", "source", "skip_if_absent"},
		limit + ".Override":                  {"dynamic_metadata", "rate_limit"},
		limit + ".Override.DynamicMetadata":  {"metadata_key"},
		limit + ".Override.RateLimitOverride": {
			"requests_per_unit", "unit",
		},
		limit + ".HitsAddend":                            {"number", "format", "is_negative_hits"},
		"envoy.type.matcher.v3.AddressMatcher":           {"ranges", "invert_match"},
		"xds.core.v3.CidrRange":                          {"address_prefix", "prefix_len"},
		"envoy.type.metadata.v3.MetadataKey":             {"key", "path"},
		"envoy.type.metadata.v3.MetadataKey.PathSegment": {"key"},
	}
}

// Policy is one RateLimit entry: it makes at most one descriptor of a request.
// It never changes.
type Policy struct {
	// Stage is that of the filters that heed the policy.
	Stage uint32
	// OnStreamDone says that the descriptor is sent when the stream is over, and
	// the answer counts for nothing.
	OnStreamDone bool

	actions []action
	limit   limitSource
	hits    hitsSource
	option  Option
	// share is of the requests that it is for, by a key of the runtime; nil is all.
	share *matcher.RuntimeFraction
}

// Enabled says whether the policy is for a request, by the values that hold for it.
func (p *Policy) Enabled(values *layeredruntime.Snapshot) bool {
	return p.share == nil || p.share.Has(rand.Uint64(), values)
}

// Parse makes a policy of each limit of a route or a virtual host, whose list
// lies at the path at. Faults go to report; the result is for use only if there
// are none.
func Parse(limits []*routev3.RateLimit, at strict.Path, report *strict.Report) []Policy {
	policies := parse(limits, at, report)
	for i, limit := range limits {
		if limit.GetHitsAddend() != nil {
			report.Add(at.Index(i).Field("hits_addend"), "has no effect here: it is for the rate_limits of filters, and of typed_per_filter_config")
		}
	}
	return policies
}

// ParseOfFilter is Parse for a list of a filter's own, or in what a route
// configures the filter with.
func ParseOfFilter(limits []*routev3.RateLimit, at strict.Path, report *strict.Report) []Policy {
	policies := parse(limits, at, report)
	for i, limit := range limits {
		at := at.Index(i)
		if limit.GetStage() != nil {
			report.Add(at.Field("stage"), "is for the rate_limits of routes and virtual hosts only")
		}
		if limit.GetDisableKey() != "" {
			report.Add(at.Field("disable_key"), "is for the rate_limits of routes and virtual hosts only")
		}
	}
	return policies
}

func parse(limits []*routev3.RateLimit, at strict.Path, report *strict.Report) []Policy {
	var policies []Policy
	for i, limit := range limits {
		at := at.Index(i)
		p := Policy{Stage: limit.GetStage().GetValue(), OnStreamDone: limit.GetApplyOnStreamDone(), option: Option(limit.GetXRatelimitOption())}
		for j, a := range limit.GetActions() {
			p.actions = append(p.actions, parseAction(a, at.Field("actions").Index(j), report))
		}
		switch override := limit.GetLimit().GetOverrideSpecifier().(type) {
		case *routev3.RateLimit_Override_DynamicMetadata_:
			key := parseKey(override.DynamicMetadata.GetMetadataKey())
			p.limit.dynamic = &key
		case *routev3.RateLimit_Override_RateLimit:
			p.limit.fixed = Limit{override.RateLimit.GetRequestsPerUnit(), override.RateLimit.GetUnit()}
			if p.limit.fixed.Unit == 0 {
				report.Add(at.Field("limit").Field("rate_limit").Field("unit"), "a unit of time is needed")
			}
		}
		if key := limit.GetDisableKey(); key != "" {
			p.share = new(matcher.Always(true).Under("ratelimit." + key + ".http_filter_enabled"))
		}
		p.hits = parseHits(limit.GetHitsAddend(), at.Field("hits_addend"), report)
		policies = append(policies, p)
	}
	return policies
}

// parseAction reads one action. Kinds that Fields doesn't list are the schema's
// to refuse.
func parseAction(m *routev3.RateLimit_Action, at strict.Path, report *strict.Report) action {
	switch m := m.GetActionSpecifier().(type) {
	case *routev3.RateLimit_Action_SourceCluster_:
		return action{kind: sourceCluster, key: "source_cluster"}
	case *routev3.RateLimit_Action_DestinationCluster_:
		return action{kind: destinationCluster, key: "destination_cluster"}
	case *routev3.RateLimit_Action_RequestHeaders_:
		header := matcher.ParseName(m.RequestHeaders.GetHeaderName(), at.Field("request_headers").Field("header_name"), report)
		return action{kind: requestHeader, key: m.RequestHeaders.GetDescriptorKey(), name: header, skipIfAbsent: m.RequestHeaders.GetSkipIfAbsent()}
	case *routev3.RateLimit_Action_QueryParameters_:
		q := m.QueryParameters
		return action{kind: queryParameter, key: q.GetDescriptorKey(), name: q.GetQueryParameterName(), skipIfAbsent: q.GetSkipIfAbsent()}
	case *routev3.RateLimit_Action_RemoteAddress_:
		return action{kind: remoteAddress, key: "remote_address"}
	case *routev3.RateLimit_Action_MaskedRemoteAddress_:
		a := action{kind: maskedRemoteAddress, key: "masked_remote_address", v4: 32, v6: 128}
		if length := m.MaskedRemoteAddress.GetV4PrefixMaskLen(); length != nil {
			a.v4 = int(length.GetValue())
		}
		if length := m.MaskedRemoteAddress.GetV6PrefixMaskLen(); length != nil {
			a.v6 = int(length.GetValue())
		}
		return a
	case *routev3.RateLimit_Action_GenericKey_:
		return action{kind: genericKey, key: or(m.GenericKey.GetDescriptorKey(), "generic_key"), value: []byte(m.GenericKey.GetDescriptorValue())}
	case *routev3.RateLimit_Action_HeaderValueMatch_:
		h := m.HeaderValueMatch
		return action{
			kind: headerMatch, key: or(h.GetDescriptorKey(), "header_match"), value: []byte(h.GetDescriptorValue()),
			expect:  h.GetExpectMatch() == nil || h.GetExpectMatch().GetValue(),
			headers: matcher.ParseHeaders(h.GetHeaders(), at.Field("header_value_match").Field("headers"), report),
		}
	case *routev3.RateLimit_Action_QueryParameterValueMatch_:
		q := m.QueryParameterValueMatch
		return action{
			kind: queryMatch, key: or(q.GetDescriptorKey(), "query_match"), value: []byte(q.GetDescriptorValue()),
			expect:     q.GetExpectMatch() == nil || q.GetExpectMatch().GetValue(),
			parameters: matcher.ParseQueryParameters(q.GetQueryParameters(), at.Field("query_parameter_value_match").Field("query_parameters"), report),
		}
	case *routev3.RateLimit_Action_RemoteAddressMatch_:
		return parseAddressMatch(m.RemoteAddressMatch, at.Field("remote_address_match"), report)
	case *routev3.RateLimit_Action_Metadata:
		a := action{
			kind: metadataValue, key: m.Metadata.GetDescriptorKey(), metadata: parseKey(m.Metadata.GetMetadataKey()),
			fallback: m.Metadata.GetDefaultValue(), skipIfAbsent: m.Metadata.GetSkipIfAbsent(),
		}
		a.metadata.ofRoute = m.Metadata.GetSource() == routev3.RateLimit_Action_MetaData_ROUTE_ENTRY
		return a
	}
	return action{kind: genericKey}
}

// parseAddressMatch reads the one match whose value may have operators.
func parseAddressMatch(m *routev3.RateLimit_Action_RemoteAddressMatch, at strict.Path, report *strict.Report) action {
	a := action{
		kind: addressMatch, key: or(m.GetDescriptorKey(), "remote_address_match"), fallback: m.GetDefaultValue(),
		ranges: parseRanges(m.GetAddressMatcher(), at.Field("address_matcher").Field("ranges"), report),
		expect: !m.GetAddressMatcher().GetInvertMatch(),
	}
	template, err := format.Parse(m.GetDescriptorValue(), format.LogOmitting)
	if err != nil {
		report.Add(at.Field("descriptor_value"), "format %q: %v", m.GetDescriptorValue(), err)
		return a
	}
	if text, constant := template.Constant(); constant && text != "" {
		a.value = []byte(text)
	} else {
		a.template = template
	}
	return a
}

func parseRanges(m *matcherv3.AddressMatcher, at strict.Path, report *strict.Report) []netip.Prefix {
	var ranges []netip.Prefix
	for i, r := range m.GetRanges() {
		at := at.Index(i)
		address, err := netip.ParseAddr(r.GetAddressPrefix())
		if err != nil {
			if r.GetAddressPrefix() != "" { // else told already
				report.Add(at.Field("address_prefix"), "%q is not an IP address", r.GetAddressPrefix())
			}
			continue
		}
		prefix, err := address.Unmap().Prefix(int(r.GetPrefixLen().GetValue()))
		if err != nil {
			report.Add(at.Field("prefix_len"), "%d is longer than the address", r.GetPrefixLen().GetValue())
		}
		ranges = append(ranges, prefix)
	}
	return ranges
}

func parseKey(m *metadatav3.MetadataKey) metadataKey {
	key := metadataKey{namespace: m.GetKey()}
	for _, segment := range m.GetPath() {
		key.path = append(key.path, segment.GetKey())
	}
	return key
}

// parseHits reads a hits_addend, of which nil sets nothing.
func parseHits(m *routev3.RateLimit_HitsAddend, at strict.Path, report *strict.Report) hitsSource {
	s := hitsSource{fixed: Hits{Set: m.GetNumber() != nil, Number: m.GetNumber().GetValue(), Negative: m.GetIsNegativeHits()}}
	switch {
	case m == nil:
		return s
	case (m.GetNumber() != nil) == (m.GetFormat() != ""):
		report.Add(at, "either a number or a format is needed")
	case m.GetFormat() != "":
		template, err := format.Parse(m.GetFormat(), format.LogOmitting)
		if err == nil && !template.Single() {
			err = errors.New("exactly one operator is needed, and nothing beside it")
		}
		if err != nil {
			report.Add(at.Field("format"), "format %q: %v", m.GetFormat(), err)
		}
		s.template = template
	}
	return s
}

// or is text, or the other one if it is empty.
func or(text, other string) string {
	if text == "" {
		return other
	}
	return text
}
