package descriptor_test

import (
	"net/netip"
	"strings"
	"testing"

	routev3 "github.com/envoyproxy/go-control-plane/envoy/config/route/v3"
	"github.com/stretchr/testify/require"
	"google.golang.org/protobuf/encoding/protojson"

	"github.com/weirproxy/weir/internal/servicetest"
	"github.com/weirproxy/weir/services/proxy/internal/descriptor"
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
	return &descriptor.Input{Request: r, ClientAddress: netip.MustParseAddr("192.0.2.7"), Cluster: "echo"}
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
