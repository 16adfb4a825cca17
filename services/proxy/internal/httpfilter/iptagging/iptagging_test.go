package iptagging_test

import (
	"fmt"
	"net/netip"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/weirproxy/weir/internal/servicetest"
	"github.com/weirproxy/weir/services/proxy/internal/httpfilter"
	"github.com/weirproxy/weir/services/proxy/internal/httpfilter/filtertest"
	"github.com/weirproxy/weir/services/proxy/internal/httpfilter/iptagging"
	"github.com/weirproxy/weir/services/proxy/internal/layeredruntime/runtimetest"
	"github.com/weirproxy/weir/services/proxy/internal/stream"
)

func TestMain(m *testing.M) { servicetest.Main(m) }

func TestReadme(t *testing.T) { filtertest.Readme(t, iptagging.Factory{}) }

const tags = `
ip_tags:
- {ip_tag_name: office, ip_list: [{address_prefix: 192.0.2.0, prefix_len: 24}, {address_prefix: "2001:db8::", prefix_len: 32}]}
- {ip_tag_name: printer, ip_list: [{address_prefix: 192.0.2.7, prefix_len: 32}, {address_prefix: 192.0.2.7, prefix_len: 24}]}
- {ip_tag_name: anybody, ip_list: [{address_prefix: 0.0.0.0, prefix_len: 0}]}
`

func TestTags(t *testing.T) {
	for _, c := range []struct {
		name    string
		config  string
		address string
		headers string
		want    string // headers of the forwarded request
	}{
		{"all tags of an address, in their order", "", "192.0.2.7", "", "\nx-envoy-ip-tags: office,printer,anybody"},
		{"a shorter prefix alone", "", "198.51.100.1", "", "\nx-envoy-ip-tags: anybody"},
		{"IPv6", "", "2001:db8::1", "", "\nx-envoy-ip-tags: office"},
		{"IPv4 in IPv6", "", "::ffff:192.0.2.1", "", "\nx-envoy-ip-tags: office,printer,anybody"},
		{"none", "", "2001:db9::1", "", ""},
		{"they are added to those that are there", "", "198.51.100.1", "\nx-envoy-ip-tags: a,b", "\nx-envoy-ip-tags: a,b,anybody"},
		{"those that are there stay where there are none", "", "2001:db9::1", "\nx-envoy-ip-tags: a", "\nx-envoy-ip-tags: a"},
		{"another header is sanitized by default", "ip_tag_header: {header: X-Net}", "198.51.100.1", "\nx-net: a", "\nx-net: anybody"},
		{"also where there are none", "ip_tag_header: {header: X-Net}", "2001:db9::1", "\nx-net: a", ""},
		{"or added to", "ip_tag_header: {header: X-Net, action: APPEND_IF_EXISTS_OR_ADD}", "198.51.100.1", "\nx-net: a", "\nx-net: a,anybody"},
		{"internal requests only: an external one", "request_type: INTERNAL", "192.0.2.7", "", ""},
		{"internal requests only: an internal one", "request_type: INTERNAL", "198.51.100.1", "\nx-envoy-internal: true", "\nx-envoy-internal: true\nx-envoy-ip-tags: anybody"},
		{"external requests only: an internal one", "request_type: EXTERNAL", "192.0.2.7", "\nx-envoy-internal: true", "\nx-envoy-internal: true"},
		{"external requests only: an external one", "request_type: EXTERNAL", "198.51.100.1", "", "\nx-envoy-ip-tags: anybody"},
	} {
		t.Run(c.name, func(t *testing.T) {
			config := filtertest.MustParse(t, iptagging.Factory{}, tags+c.config)
			filtertest.Measure(config)
			got := filtertest.Run(t, config, filtertest.Exchange{
				Request: "GET /" + c.headers,
				Prepare: func(s *stream.Stream) { s.ClientAddress = netip.MustParseAddr(c.address) },
			})
			require.Equal(t, "GET /\nhost: a.example"+c.want, got.Forwarded)
		})
	}
}

func TestStats(t *testing.T) {
	config := filtertest.MustParse(t, iptagging.Factory{}, tags)
	counts := filtertest.Measure(config)
	for _, address := range []string{"192.0.2.7", "198.51.100.1", "2001:db9::1"} {
		filtertest.Run(t, config, filtertest.Exchange{
			Request: "GET /", Prepare: func(s *stream.Stream) { s.ClientAddress = netip.MustParseAddr(address) },
		})
	}
	require.Equal(t, map[string]int{
		"ip_tagging.total": 3, "ip_tagging.no_hit": 1, "ip_tagging.office.hit": 1, "ip_tagging.printer.hit": 1, "ip_tagging.anybody.hit": 2,
	}, counts())
}

func TestAClientWithoutAnAddressHasNoTags(t *testing.T) {
	config := filtertest.MustParse(t, iptagging.Factory{}, tags)
	counts := filtertest.Measure(config)
	filtertest.Run(t, config, filtertest.Exchange{Request: "GET /", Prepare: func(s *stream.Stream) { s.ClientAddress = netip.Addr{} }})
	require.Equal(t, 1, counts()["ip_tagging.no_hit"])
}

func TestFaultsAreTold(t *testing.T) {
	for config, want := range map[string]string{
		"{}": "ip_tags: there are no tags",
		"ip_tags: [{ip_tag_name: 'a,b', ip_list: [{address_prefix: 10.0.0.0}]}]":                              `ip_tags[0].ip_tag_name: "a,b" is no tag`,
		"ip_tags: [{ip_tag_name: a, ip_list: [{address_prefix: ten}]}]":                                       `ip_tags[0].ip_list[0].address_prefix: "ten" is not an IP address`,
		"ip_tags: [{ip_tag_name: a, ip_list: [{address_prefix: 10.0.0.0, prefix_len: 33}]}]":                  "ip_tags[0].ip_list[0].prefix_len: 33 is no prefix length of 10.0.0.0",
		"{ip_tags: [{ip_tag_name: a, ip_list: [{address_prefix: 10.0.0.0}]}], ip_tag_header: {header: host}}": `ip_tag_header.header: "host" can't be added`,
		"ip_tags_datasource: {filename: /tags}":                                                               "ip_tags_datasource: not supported",
	} {
		_, report := filtertest.Parse(t, iptagging.Factory{}, config)
		require.ErrorContains(t, report.Err(), want)
	}
}

func BenchmarkRequestHead(b *testing.B) {
	yaml := "ip_tags:\n"
	for i := range 1000 {
		yaml += fmt.Sprintf("- {ip_tag_name: t%d, ip_list: [{address_prefix: 10.%d.%d.0, prefix_len: %d}]}\n", i, i/250, i%250, 16+i%9)
	}
	config := filtertest.MustParse(b, iptagging.Factory{}, yaml)
	filtertest.Measure(config)
	f := config.NewFilter().(httpfilter.RequestHead)
	s := &stream.Stream{ClientAddress: netip.MustParseAddr("10.1.7.9")}
	b.ReportAllocs()
	for b.Loop() {
		s.Request.Headers.Reset()
		f.RequestHead(s)
	}
}

func TestTheRuntimeTurnsTheFilterOff(t *testing.T) {
	for values, want := range map[string]int{"{ip_tagging.http_filter_enabled: 0}": 0, "{ip_tagging: {http_filter_enabled: 100}}": 1} {
		config := filtertest.MustParse(t, iptagging.Factory{}, tags)
		counts := filtertest.Measure(config)
		filtertest.Run(t, config, filtertest.Exchange{Request: "GET /", Runtime: runtimetest.Values(t, values)})
		require.Equal(t, want, counts()["ip_tagging.total"], values)
	}
}
