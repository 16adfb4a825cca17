package descriptor

import (
	"bytes"
	"net/netip"
	"strconv"

	"google.golang.org/protobuf/types/known/structpb"

	typev3 "github.com/envoyproxy/go-control-plane/envoy/type/v3"

	"github.com/weirproxy/weir/services/proxy/internal/format"
	"github.com/weirproxy/weir/services/proxy/internal/matcher"
	"github.com/weirproxy/weir/services/proxy/internal/message"
)

// action makes at most one entry of a request.
type action struct {
	kind         kind
	key          string
	name         string // of the header, in lower case and perhaps a pseudo header's, or of the parameter
	skipIfAbsent bool   // leave the entry out rather than the descriptor
	value        []byte // of a generic_key and of matches

	v4, v6     int // lengths of masks
	headers    []matcher.Header
	parameters []matcher.QueryParameter
	expect     bool // that all of them match, or that not all do
	ranges     []netip.Prefix
	template   *format.Template // in the place of value
	metadata   metadataKey
	fallback   string // default_value
}

type kind int

const (
	requestHeader kind = iota
	queryParameter
	remoteAddress
	maskedRemoteAddress
	sourceCluster
	destinationCluster
	genericKey
	headerMatch
	queryMatch
	addressMatch
	metadataValue
)

// append adds the action's entry; false means that it has no value, so that
// the descriptor is dropped.
func (a *action) append(l *List, in *Input) bool {
	switch a.kind {
	case requestHeader:
		value, ok := requestValue(in.Request, a.name)
		if !ok {
			return a.skipIfAbsent
		}
		l.entries = append(l.entries, Entry{a.key, l.valid(value)})
	case queryParameter:
		return a.appendParameter(l, in)
	case remoteAddress, maskedRemoteAddress:
		return a.appendAddress(l, in.ClientAddress)
	case sourceCluster:
		l.writeString(a.key, in.Service)
	case destinationCluster:
		l.writeString(a.key, in.Cluster)
	case genericKey:
		l.entries = append(l.entries, Entry{a.key, a.value})
	case headerMatch:
		return a.appendMatch(l, in, a.expect == matchAll(a.headers, in.Request))
	case queryMatch:
		return a.appendMatch(l, in, a.expect == matchQuery(a.parameters, in.Request.Path))
	case addressMatch:
		if !in.ClientAddress.IsValid() {
			return false
		}
		return a.appendMatch(l, in, a.expect == within(a.ranges, plain(in.ClientAddress)))
	case metadataValue:
		return a.appendMetadata(l, in)
	}
	return true
}

// plain is an address as it is written in an entry.
func plain(a netip.Addr) netip.Addr { return a.Unmap().WithZone("") }

func (a *action) appendAddress(l *List, address netip.Addr) bool {
	if !address.IsValid() {
		return false
	}
	address = plain(address)
	if a.kind == remoteAddress {
		l.write(a.key, address.AppendTo)
		return true
	}
	length := a.v4
	if address.Is6() {
		length = a.v6
	}
	prefix, err := address.Prefix(length)
	if err != nil { // the length was held to the address's when it was read
		return false
	}
	l.write(a.key, prefix.AppendTo)
	return true
}

// appendMatch adds the entry of a match that holds.
func (a *action) appendMatch(l *List, in *Input, holds bool) bool {
	switch {
	case !holds:
		return false
	case a.template == nil:
		l.entries = append(l.entries, Entry{a.key, a.value})
		return true
	}
	start := len(l.text)
	if in.Facts != nil {
		l.text = a.template.Append(l.text, in.Facts)
	}
	if len(l.text) == start {
		l.text = append(l.text, a.fallback...)
	}
	value := l.text[start:]
	l.entries = append(l.entries, Entry{a.key, l.valid(value)})
	return len(value) > 0
}

// appendParameter adds the first query parameter of the name, both decoded.
func (a *action) appendParameter(l *List, in *Input) bool {
	_, query, _ := bytes.Cut(in.Request.Path, []byte{'?'})
	for len(query) > 0 {
		var pair []byte
		pair, query, _ = bytes.Cut(query, []byte{'&'})
		name, value, _ := bytes.Cut(pair, []byte{'='})
		start := len(l.text)
		l.text = format.AppendDecoded(l.text, name)
		found := string(l.text[start:]) == a.name
		l.text = l.text[:start]
		if found {
			l.text = format.AppendDecoded(l.text, value)
			l.entries = append(l.entries, Entry{a.key, l.valid(l.text[start:])})
			return true
		}
	}
	return a.skipIfAbsent
}

// appendMetadata adds a text of the metadata that is not empty.
func (a *action) appendMetadata(l *List, in *Input) bool {
	value := a.metadata.find(in).GetStringValue()
	if value == "" {
		value = a.fallback
	}
	if value == "" {
		return a.skipIfAbsent
	}
	l.writeString(a.key, value)
	return true
}

func matchAll(headers []matcher.Header, r *message.Request) bool {
	for i := range headers {
		if !headers[i].Match(r) {
			return false
		}
	}
	return true
}

func matchQuery(parameters []matcher.QueryParameter, path []byte) bool {
	for i := range parameters {
		if !parameters[i].Match(path) {
			return false
		}
	}
	return true
}

func within(ranges []netip.Prefix, a netip.Addr) bool {
	for _, r := range ranges {
		if r.Contains(a) {
			return true
		}
	}
	return false
}

// requestValue is the first value of a header or pseudo header, and whether
// there is one.
func requestValue(r *message.Request, header string) ([]byte, bool) {
	switch header {
	case ":path":
		return r.Path, len(r.Path) > 0
	case ":method":
		return r.Method, true
	case ":authority", "host":
		return r.Authority, true
	}
	return matcher.Value(r, header)
}

// metadataKey leads to a value of metadata.
type metadataKey struct {
	namespace string
	path      []string
	ofRoute   bool // in the place of the dynamic one
}

// find is the value; nil if there is none.
func (k *metadataKey) find(in *Input) *structpb.Value {
	var fields map[string]*structpb.Value
	switch {
	case k.ofRoute:
		fields = in.RouteMetadata.GetFilterMetadata()[k.namespace].GetFields()
	case in.Facts != nil:
		fields = in.Facts.DynamicMetadata[k.namespace].GetFields()
	}
	var value *structpb.Value
	for _, key := range k.path {
		value = fields[key]
		fields = value.GetStructValue().GetFields()
	}
	return value
}

// limitSource is where the Limit of a policy's descriptors is: fixed, or in the
// dynamic metadata.
type limitSource struct {
	fixed   Limit
	dynamic *metadataKey
}

// of is the limit for a request. A value that is none gives none.
func (s *limitSource) of(in *Input) Limit {
	if s.dynamic == nil {
		return s.fixed
	}
	fields := s.dynamic.find(in).GetStructValue().GetFields()
	unit := typev3.RateLimitUnit_value[fields["unit"].GetStringValue()]
	requests, ok := fields["requests_per_unit"].GetKind().(*structpb.Value_NumberValue)
	if !ok || unit == 0 || requests.NumberValue < 0 || requests.NumberValue > 1<<32-1 || requests.NumberValue != float64(uint32(requests.NumberValue)) {
		return Limit{}
	}
	return Limit{uint32(requests.NumberValue), typev3.RateLimitUnit(unit)}
}

// mostHits bounds what a request can count as (RateLimit.HitsAddend).
const mostHits = 1_000_000_000

// hitsSource is where the Hits of a policy's descriptors are from: fixed, or what
// a format says.
type hitsSource struct {
	fixed    Hits
	template *format.Template
}

// of is the hits of a request, and whether they are a number. The list's memory
// is used and left as it was.
func (s *hitsSource) of(l *List, in *Input) (Hits, bool) {
	switch {
	case s.template == nil:
		return s.fixed, true
	case in.Facts == nil:
		return Hits{}, false
	}
	start := len(l.text)
	l.text = s.template.Append(l.text, in.Facts)
	// Fractions are cut off, as in Envoy.
	number, err := strconv.ParseFloat(string(l.text[start:]), 64)
	l.text = l.text[:start]
	if err != nil || !(number >= 0 && number <= mostHits) {
		return Hits{}, false
	}
	return Hits{true, uint64(number), s.fixed.Negative}, true
}
