package descriptor_test

import (
	"net/netip"
	"strings"
	"testing"

	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	routev3 "github.com/envoyproxy/go-control-plane/envoy/config/route/v3"
	typev3 "github.com/envoyproxy/go-control-plane/envoy/type/v3"
	"github.com/stretchr/testify/require"
	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/types/known/structpb"

	"github.com/weirproxy/weir/internal/servicetest"
	"github.com/weirproxy/weir/services/proxy/internal/descriptor"
	"github.com/weirproxy/weir/services/proxy/internal/format"
	"github.com/weirproxy/weir/services/proxy/internal/message"
	"github.com/weirproxy/weir/services/proxy/internal/strict"
)

func TestMain(m *testing.M) { servicetest.Main(m) }

// parse makes policies of RateLimit messages in JSON.
func parse(t testing.TB, limits ...string) []descriptor.Policy {
	t.Helper()
	policies, report := parseReport(t, limits...)
	require.NoError(t, report.Err())
	return policies
}

func parseReport(t testing.TB, limits ...string) ([]descriptor.Policy, *strict.Report) {
	t.Helper()
	var messages []*routev3.RateLimit
	for _, text := range limits {
		m := &routev3.RateLimit{}
		require.NoError(t, protojson.Unmarshal([]byte(text), m))
		require.NoError(t, m.ValidateAll())
		messages = append(messages, m)
	}
	report := &strict.Report{}
	return descriptor.Parse(messages, "rate_limits", report), report
}

// request is what the cases below look at.
func request() *descriptor.Input {
	r := &message.Request{Method: []byte("GET"), Path: []byte("/a?b=c"), Authority: []byte("api.example")}
	r.Headers.Add("x-user", "ann")
	r.Headers.Add("x-user", "bob")
	r.Headers.Add("x-empty", "")
	r.Headers.Add("x-bytes", "a\xffz")
	facts := &format.Facts{Request: r, DynamicMetadata: map[string]*structpb.Struct{"ns": structOf(`{
		"tier": "gold", "number": 7, "empty": "", "app": {"tier": "silver"},
		"limit": {"requests_per_unit": 42, "unit": "HOUR"}, "noUnit": {"requests_per_unit": 42}, "noNumber": {"requests_per_unit": "42", "unit": "HOUR"},
		"fraction": {"requests_per_unit": 1.5, "unit": "HOUR"}, "negative": {"requests_per_unit": -1, "unit": "HOUR"}, "unknown": {"requests_per_unit": 1, "unit": "EPOCH"}}`)}}
	return &descriptor.Input{
		Request: r, ClientAddress: netip.MustParseAddr("192.0.2.7"), Service: "edge", Cluster: "echo", Facts: facts,
		RouteMetadata: &corev3.Metadata{FilterMetadata: map[string]*structpb.Struct{"route": structOf(`{"tier": "bronze"}`)}},
	}
}

// show writes a list as "key=value,key=value key=value".
func show(l *descriptor.List) string {
	var all []string
	for i := range l.Len() {
		var entries []string
		for _, e := range l.At(i) {
			entries = append(entries, e.Key+"="+string(e.Value))
		}
		all = append(all, strings.Join(entries, ","))
	}
	return strings.Join(all, " ")
}

const (
	user  = `{"request_headers": {"header_name": "x-user", "descriptor_key": "user"}}`
	other = `{"request_headers": {"header_name": "x-other", "descriptor_key": "other"}}`
	skip  = `{"request_headers": {"header_name": "x-other", "descriptor_key": "other", "skip_if_absent": true}}`
	ip    = `{"remote_address": {}}`
)

func path(path string) func(*descriptor.Input) {
	return func(in *descriptor.Input) { in.Request.Path = []byte(path) }
}

// client makes the request one from an address, of which "" is none.
func client(address string) func(*descriptor.Input) {
	return func(in *descriptor.Input) { in.ClientAddress, _ = netip.ParseAddr(address) }
}

func match(fields string) string {
	return `{"header_value_match": {"descriptor_value": "v", ` + fields + `}}`
}

func query(fields string) string {
	return `{"query_parameter_value_match": {"descriptor_value": "v", ` + fields + `}}`
}

func address(matcher, more string) string {
	return `{"remote_address_match": {"descriptor_value": "v", "address_matcher": {` + matcher + `}` + more + `}}`
}

func meta(path, more string) string {
	return `{"metadata": {"descriptor_key": "m", "metadata_key": {"key": "ns", "path": [{"key": "` + path + `"}]}` + more + `}}`
}

// structOf is a Struct in JSON.
func structOf(text string) *structpb.Struct {
	s := &structpb.Struct{}
	if err := protojson.Unmarshal([]byte(text), s); err != nil {
		panic(err)
	}
	return s
}

func TestAction(t *testing.T) {
	for _, c := range []struct {
		name    string
		actions string
		change  func(*descriptor.Input)
		want    string // empty: dropped
	}{
		{"a header gives its first value", user, nil, "user=ann"},
		{"a header's name is matched without heed to case", `{"request_headers": {"header_name": "X-User", "descriptor_key": "U"}}`, nil, "U=ann"},
		{"an empty header is a value", `{"request_headers": {"header_name": "x-empty", "descriptor_key": "e"}}`, nil, "e="},
		{"an absent header drops the descriptor", user + "," + other, nil, ""},
		{"an absent header to be skipped leaves the rest", skip + "," + user, nil, "user=ann"},
		{"nothing but skipped headers drops the descriptor", skip, nil, ""},
		{"bytes that are no UTF-8 are replaced", `{"request_headers": {"header_name": "x-bytes", "descriptor_key": "b"}}`, nil, "b=a\uFFFDz"},
		{":path comes with its query", `{"request_headers": {"header_name": ":path", "descriptor_key": "p"}}`, nil, "p=/a?b=c"},
		{":path of a CONNECT is absent", `{"request_headers": {"header_name": ":path", "descriptor_key": "p"}}`, func(in *descriptor.Input) { in.Request.Path = nil }, ""},
		{":method", `{"request_headers": {"header_name": ":method", "descriptor_key": "m"}}`, nil, "m=GET"},
		{":authority", `{"request_headers": {"header_name": ":authority", "descriptor_key": "h"}}`, nil, "h=api.example"},
		{"host is :authority", `{"request_headers": {"header_name": "Host", "descriptor_key": "h"}}`, nil, "h=api.example"},
		{":scheme", `{"request_headers": {"header_name": ":scheme", "descriptor_key": "s"}}`, nil, "s=http"},
		{"an IPv4 address", ip, nil, "remote_address=192.0.2.7"},
		{"an IPv6 address", ip, func(in *descriptor.Input) { in.ClientAddress = netip.MustParseAddr("2001:db8::1") }, "remote_address=2001:db8::1"},
		{"an IPv4 address in IPv6 is the IPv4 one", ip, func(in *descriptor.Input) { in.ClientAddress = netip.MustParseAddr("::ffff:192.0.2.7") }, "remote_address=192.0.2.7"},
		{"an address has no zone", ip, func(in *descriptor.Input) { in.ClientAddress = netip.MustParseAddr("fe80::1%eth0") }, "remote_address=fe80::1"},
		{"a client without an IP address drops the descriptor", user + "," + ip, func(in *descriptor.Input) { in.ClientAddress = netip.Addr{} }, ""},
		{"generic_key", `{"generic_key": {"descriptor_value": "v"}}`, nil, "generic_key=v"},
		{"generic_key with a key", `{"generic_key": {"descriptor_value": "v", "descriptor_key": "k"}}`, nil, "k=v"},
		{"destination_cluster", `{"destination_cluster": {}}`, nil, "destination_cluster=echo"},
		{"source_cluster is that of the proxy", `{"source_cluster": {}}`, nil, "source_cluster=edge"},
		{"a parameter of the query, decoded", `{"query_parameters": {"query_parameter_name": "b", "descriptor_key": "q"}}`, path("/a?x=1&b=c%20d&b=e"), "q=c d"},
		{"its name is decoded too", `{"query_parameters": {"query_parameter_name": "ab", "descriptor_key": "q"}}`, path("/a?%61b=1"), "q=1"},
		{"a parameter without a value", `{"query_parameters": {"query_parameter_name": "b", "descriptor_key": "q"}}`, path("/a?b"), "q="},
		{"an absent parameter drops the descriptor", ip + `,{"query_parameters": {"query_parameter_name": "z", "descriptor_key": "q"}}`, nil, ""},
		{"an absent parameter to be skipped leaves the rest", `{"query_parameters": {"query_parameter_name": "z", "descriptor_key": "q", "skip_if_absent": true}},` + ip, nil, "remote_address=192.0.2.7"},
		{"decoded bytes that are no UTF-8 are replaced", `{"query_parameters": {"query_parameter_name": "b", "descriptor_key": "q"}}`, path("/a?b=%ff"), "q=\uFFFD"},
		{"a whole address is one of 32 bits", `{"masked_remote_address": {}}`, nil, "masked_remote_address=192.0.2.7/32"},
		{"a.b.c.0/24 form", `{"masked_remote_address": {"v4_prefix_mask_len": 24}}`, nil, "masked_remote_address=192.0.2.0/24"},
		{"IPv6 has a mask of its own", `{"masked_remote_address": {"v4_prefix_mask_len": 24, "v6_prefix_mask_len": 64}}`, client("2001:db8:1:2:3::4"), "masked_remote_address=2001:db8:1:2::/64"},
		{"a mask of no address", `{"masked_remote_address": {}}`, client(""), ""},
		{"a mask of an address with a zone", `{"masked_remote_address": {"v6_prefix_mask_len": 10}}`, client("fe80::1%eth0"), "masked_remote_address=fe80::/10"},
		{"header_value_match", match(`"headers": [{"name": "x-user", "present_match": true}]`), nil, "header_match=v"},
		{"all headers must match", match(`"headers": [{"name": "x-user", "present_match": true}, {"name": "x-other", "present_match": true}]`), nil, ""},
		{"all headers must match (equal to expect_match)", match(`"descriptor_key": "k", "expect_match": false, "headers": [{"name": "x-user", "present_match": true}, {"name": "x-other", "present_match": true}]`), nil, "k=v"},
		{"else nothing", match(`"expect_match": false, "headers": [{"name": "x-user", "present_match": true}]`), nil, ""},
		{"query_parameter_value_match", query(`"query_parameters": [{"name": "b", "string_match": {"exact": "c"}}]`), nil, "query_match=v"},
		{"a query that does not match", query(`"query_parameters": [{"name": "b", "string_match": {"exact": "d"}}]`), nil, ""},
		{"a query that is not to match", query(`"descriptor_key": "k", "expect_match": false, "query_parameters": [{"name": "b", "string_match": {"exact": "d"}}]`), nil, "k=v"},
		{"remote_address_match", address(`"ranges": [{"address_prefix": "198.51.100.0", "prefix_len": 24}, {"address_prefix": "192.0.2.0", "prefix_len": 24}]`, ""), nil, "remote_address_match=v"},
		{"an address outside", address(`"ranges": [{"address_prefix": "198.51.100.0", "prefix_len": 24}]`, ""), nil, ""},
		{"an address outside that is to be", address(`"invert_match": true, "ranges": [{"address_prefix": "198.51.100.0", "prefix_len": 24}]`, `, "descriptor_key": "k"`), nil, "k=v"},
		{"no address is in no range and outside none", address(`"invert_match": true, "ranges": [{"address_prefix": "198.51.100.0", "prefix_len": 24}]`, ""), client(""), ""},
		{"a value with operators", strings.Replace(address(`"ranges": [{"address_prefix": "192.0.2.0", "prefix_len": 24}]`, ""), `"v"`, `"u-%REQ(x-user)%"`, 1), nil, "remote_address_match=u-ann"},
		{"a value that comes out empty", strings.Replace(address(`"ranges": [{"address_prefix": "192.0.2.0", "prefix_len": 24}]`, `, "default_value": "d"`), `"v"`, `"%REQ(x-other)%"`, 1), nil, "remote_address_match=d"},
		{"and has no default", strings.Replace(address(`"ranges": [{"address_prefix": "192.0.2.0", "prefix_len": 24}]`, ""), `"v"`, `"%REQ(x-other)%"`, 1), nil, ""},
		{"other values have none: they are as they stand", `{"generic_key": {"descriptor_value": "%REQ(x-user)%"}}`, nil, "generic_key=%REQ(x-user)%"},
		{"string at path", meta("tier", ""), nil, "m=gold"},
		{"a path of several", meta(`app"}, {"key": "tier`, ""), nil, "m=silver"},
		{"metadata of the route", strings.Replace(meta("tier", `, "source": "ROUTE_ENTRY"`), "ns", "route", 1), nil, "m=bronze"},
		{"not a non-empty string: default_value", meta("number", `, "default_value": "d"`), nil, "m=d"},
		{"not a non-empty string: empty", meta("empty", `, "default_value": "d"`), nil, "m=d"},
		{"else drop", ip + "," + meta("none", ""), nil, ""},
		{"else skip_if_absent", ip + "," + meta("none", `, "skip_if_absent": true`), nil, "remote_address=192.0.2.7"},
		{"without metadata", meta("tier", ""), func(in *descriptor.Input) { in.Facts = nil }, ""},
		{"actions keep their order", ip + "," + user + `,{"destination_cluster": {}}`, nil, "remote_address=192.0.2.7,user=ann,destination_cluster=echo"},
	} {
		t.Run(c.name, func(t *testing.T) {
			policies := parse(t, `{"actions": [`+c.actions+`]}`)
			in := request()
			if c.change != nil {
				c.change(in)
			}
			var l descriptor.List
			require.Equal(t, c.want != "", policies[0].Append(&l, in))
			require.Equal(t, c.want, show(&l))
		})
	}
}

// TestLimit: "per-descriptor override from struct {requests_per_unit: integer
// number, unit: enum name}; invalid or missing → no override (descriptor stays)".
func TestLimit(t *testing.T) {
	for key, want := range map[string]descriptor.Limit{
		"limit": {Requests: 42, Unit: typev3.RateLimitUnit_HOUR},
		"none":  {}, "tier": {}, "noUnit": {}, "noNumber": {}, "fraction": {}, "negative": {}, "unknown": {},
	} {
		var l descriptor.List
		policies := parse(t, `{"actions": [`+ip+`], "limit": {"dynamic_metadata": {"metadata_key": {"key": "ns", "path": [{"key": "`+key+`"}]}}}}`)
		require.True(t, policies[0].Append(&l, request()))
		require.Equal(t, descriptor.Details{Limit: want}, l.Details(0), key)
	}
}

// TestHits: "per-descriptor addend; number ≤ 1e9 | format, is_negative_hits; bad
// value → descriptor dropped".
func TestHits(t *testing.T) {
	for _, c := range []struct {
		hits, header string
		want         descriptor.Hits // of which one that is not set is a dropped descriptor
	}{
		{`"number": 3`, "", descriptor.Hits{Set: true, Number: 3}},
		{`"number": 0, "is_negative_hits": true`, "", descriptor.Hits{Set: true, Negative: true}},
		{`"format": "%REQ(x-hits)%"`, "12", descriptor.Hits{Set: true, Number: 12}},
		{`"format": "%REQ(x-hits)%", "is_negative_hits": true`, "12", descriptor.Hits{Set: true, Number: 12, Negative: true}},
		{`"format": "%REQ(x-hits)%"`, "1.9", descriptor.Hits{Set: true, Number: 1}},
		{`"format": "%REQ(x-hits)%"`, "1000000000", descriptor.Hits{Set: true, Number: 1_000_000_000}},
		{`"format": "%REQ(x-hits)%"`, "1000000001", descriptor.Hits{}},
		{`"format": "%REQ(x-hits)%"`, "-1", descriptor.Hits{}},
		{`"format": "%REQ(x-hits)%"`, "NaN", descriptor.Hits{}},
		{`"format": "%REQ(x-none)%"`, "", descriptor.Hits{}},
		{`"format": "%DYNAMIC_METADATA(ns:number)%"`, "", descriptor.Hits{Set: true, Number: 7}},
	} {
		m := &routev3.RateLimit{}
		require.NoError(t, protojson.Unmarshal([]byte(`{"actions": [`+ip+`], "hits_addend": {`+c.hits+`}, "x_ratelimit_option": "OFF"}`), m))
		report := &strict.Report{}
		policies := descriptor.ParseOfFilter([]*routev3.RateLimit{m}, "", report)
		require.NoError(t, report.Err())
		in, l := request(), descriptor.List{}
		in.Request.Headers.Add("x-hits", c.header)
		require.Equal(t, c.want.Set, policies[0].Append(&l, in), "%+v", c)
		if c.want.Set {
			require.Equal(t, descriptor.Details{Hits: c.want, Option: descriptor.Off}, l.Details(0), "%+v", c)
		}
		in.Facts = nil
		policies[0].Append(&l, in) // nothing is known
	}
}

func TestCopyHoldsNothingOfTheRequest(t *testing.T) {
	var l descriptor.List
	several(t, &l)()
	made, want := l.Copy(), show(&l)
	in := request()
	l.Reset()
	parse(t, `{"actions": [{"destination_cluster": {}}]}`)[0].Append(&l, in)
	require.Equal(t, want, show(made))
}

// several makes a list of four policies, of which the second makes none.
func several(t testing.TB, l *descriptor.List) (appendAll func()) {
	policies := parse(t, `{"actions": [`+ip+`]}`, `{"actions": [`+user+`,`+other+`]}`, `{"actions": [`+user+`,{"destination_cluster": {}}]}`, `{"actions": [`+ip+`]}`)
	in := request()
	return func() {
		for i := range policies {
			policies[i].Append(l, in)
		}
	}
}

func TestListKeepsDescriptorsApart(t *testing.T) {
	var l descriptor.List
	appendAll := several(t, &l)
	appendAll()
	require.Equal(t, "remote_address=192.0.2.7 user=ann,destination_cluster=echo remote_address=192.0.2.7", show(&l),
		"a dropped descriptor leaves no trace, equal ones stay")
	l.Reset()
	require.Zero(t, l.Len())
	appendAll()
	require.Equal(t, 3, l.Len())
}

func TestListUsedAgainAllocatesNothing(t *testing.T) {
	var l descriptor.List
	appendAll := several(t, &l)
	servicetest.Allocations(t, 0, func() {
		l.Reset()
		appendAll()
	})
}

func TestParseRefusesUnknownPseudoHeaders(t *testing.T) {
	_, report := parseReport(t, `{"actions": [`+ip+`]}`, `{"actions": [`+ip+`,{"request_headers": {"header_name": ":Status", "descriptor_key": "s"}}]}`)
	require.ErrorContains(t, report.Err(), `rate_limits[1].actions[1].request_headers.header_name`)
	require.ErrorContains(t, report.Err(), `":status" is no pseudo header of a request: those are :authority, :method, :path, :scheme`)
}

func TestParseRefusesRangesThatAreNone(t *testing.T) {
	_, report := parseReport(t, `{"actions": [`+address(`"ranges": [{"address_prefix": "home"}, {"address_prefix": "1.2.3.4", "prefix_len": 33}]`, "")+`,`+
		strings.Replace(address(`"ranges": [{"address_prefix": "::1"}]`, ""), `"v"`, `"%NOBODY%"`, 1)+`]}`)
	require.ErrorContains(t, report.Err(), `rate_limits[0].actions[0].remote_address_match.address_matcher.ranges[0].address_prefix: "home" is not an IP address`)
	require.ErrorContains(t, report.Err(), `ranges[1].prefix_len: 33 is longer than the address`)
	require.ErrorContains(t, report.Err(), `actions[1].remote_address_match.descriptor_value: format "%NOBODY%": column 1: unknown operator NOBODY`)
}

func BenchmarkAppend(b *testing.B) {
	policies := parse(b, `{"actions": [`+ip+`]}`, `{"actions": [`+user+`,{"generic_key": {"descriptor_value": "v"}}]}`)
	in := request()
	var l descriptor.List
	b.ReportAllocs()
	for b.Loop() {
		l.Reset()
		for i := range policies {
			policies[i].Append(&l, in)
		}
	}
}
