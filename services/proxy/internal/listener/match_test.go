package listener

import (
	"net/netip"
	"testing"

	listenerv3 "github.com/envoyproxy/go-control-plane/envoy/config/listener/v3"
	"github.com/stretchr/testify/require"
	"google.golang.org/protobuf/encoding/protojson"

	"github.com/weirproxy/weir/services/proxy/internal/listenerfilter"
	"github.com/weirproxy/weir/services/proxy/internal/strict"
)

// TestFilterChainsAreChosenByWhatListenerFiltersFound picks among named chains;
// "" is none.
func TestFilterChainsAreChosenByWhatListenerFiltersFound(t *testing.T) {
	const all, h1, h2, both = `{}`, `{"application_protocols": ["http/1.0", "http/1.1"]}`, `{"application_protocols": ["h2c"]}`, `{"application_protocols": ["h2c", "http/1.1"]}`
	for _, c := range []struct {
		name   string
		chains map[string]string // of matches by name
		found  []string
		want   string
	}{
		{"any of its protocols", map[string]string{"any": all, "h1": h1, "h2": h2}, []string{"http/1.1"}, "h1"},
		{"another one", map[string]string{"any": all, "h1": h1, "h2": h2}, []string{"h2c"}, "h2"},
		{"none that a chain is for", map[string]string{"any": all, "h2": h2}, []string{"http/1.0"}, "any"},
		{"none", map[string]string{"any": all, "h1": h1}, nil, "any"},
		{"none, and no chain for that", map[string]string{"h1": h1, "h2": h2}, nil, ""},
		{"that which the client likes best", map[string]string{"h1": h1, "h2": h2}, []string{"h3", "h2c", "http/1.1"}, "h2"},
		{"not that which comes first in the chain", map[string]string{"both": both, "ten": `{"application_protocols": ["http/1.0"]}`}, []string{"http/1.0", "h2c"}, "ten"},
		{"transport before application", map[string]string{
			"raw": `{"transport_protocol": "raw_buffer"}`, "h2": h2,
		}, []string{"h2c"}, "raw"},
		{"no way back: the destination wins though its protocol fails", map[string]string{
			"port": `{"destination_port": 443, "application_protocols": ["h2c"]}`, "h1": h1,
		}, []string{"http/1.1"}, ""},
		{"no way back: the protocol wins though its source fails", map[string]string{
			"h2": `{"application_protocols": ["h2c"], "source_ports": [1]}`, "any": all,
		}, []string{"h2c"}, ""},
		{"application before direct source", map[string]string{
			"direct": `{"direct_source_prefix_ranges": [{"address_prefix": "192.168.0.0", "prefix_len": 16}]}`, "h2": h2,
		}, []string{"h2c"}, "h2"},
		{"who has connected is not who the client is", map[string]string{
			"direct": `{"direct_source_prefix_ranges": [{"address_prefix": "192.168.0.0", "prefix_len": 16}], "source_prefix_ranges": [{"address_prefix": "10.9.0.0", "prefix_len": 16}]}`,
		}, nil, "direct"},
	} {
		t.Run(c.name, func(t *testing.T) {
			found := parsed(t, c.chains).find(listenerfilter.Facts{
				Local: netip.MustParseAddrPort("10.1.2.3:443"), Remote: netip.MustParseAddrPort("10.9.9.9:7"), Direct: netip.MustParseAddrPort("192.168.0.9:5555"),
				Transport: listenerfilter.RawBuffer, Applications: c.found,
			})
			require.Equal(t, c.want, nameOf(found))
		})
	}
}

// parsed is a configuration of chains by their names.
func parsed(t *testing.T, chains map[string]string) *Config {
	t.Helper()
	message := &listenerv3.Listener{}
	for name, text := range chains {
		m := &listenerv3.FilterChainMatch{}
		require.NoError(t, protojson.Unmarshal([]byte(text), m))
		message.FilterChains = append(message.FilterChains, &listenerv3.FilterChain{Name: name, FilterChainMatch: m})
	}
	report := &strict.Report{}
	config := &Config{Message: message}
	config.parseChains("", nil, report)
	require.NoError(t, report.Err())
	return config
}

// nameOf is a chain's, "" for none.
func nameOf(c *chain) string {
	if c == nil {
		return ""
	}
	return c.message.GetName()
}

// TestFilterChainIsTheMostSpecific picks among named chains; "" is none.
func TestFilterChainIsTheMostSpecific(t *testing.T) {
	const local, remote = "10.1.2.3:443", "192.168.0.9:5555"
	cidr := func(address, length string) string {
		return `{"address_prefix": "` + address + `", "prefix_len": ` + length + `}`
	}
	for _, c := range []struct {
		name          string
		chains        map[string]string // of matches by name
		local, remote string
		want          string
	}{
		{"the only one", map[string]string{"a": `{}`}, local, remote, "a"},
		{"a port before none", map[string]string{"any": `{}`, "port": `{"destination_port": 443}`}, local, remote, "port"},
		{"another port", map[string]string{"any": `{}`, "port": `{"destination_port": 80}`}, local, remote, "any"},
		{"none at all", map[string]string{"port": `{"destination_port": 80}`}, local, remote, ""},
		{"the longest prefix", map[string]string{
			"8": `{"prefix_ranges": [` + cidr("10.0.0.0", "8") + `]}`, "16": `{"prefix_ranges": [` + cidr("11.1.0.0", "16") + `,` + cidr("10.1.0.0", "16") + `]}`, "any": `{}`,
		}, local, remote, "16"},
		{"no prefix of 0 bits before a longer one", map[string]string{
			"0": `{"prefix_ranges": [` + cidr("0.0.0.0", "0") + `]}`, "any": `{}`,
		}, local, remote, "0"},
		{"IPv4 in IPv6 is IPv4", map[string]string{"8": `{"prefix_ranges": [` + cidr("10.0.0.0", "8") + `]}`}, "[::ffff:10.1.2.3]:1", "[::1]:1", "8"},
		{"families apart", map[string]string{"6": `{"prefix_ranges": [` + cidr("::", "0") + `]}`}, local, remote, ""},
		{"no way back: the port wins though its source fails", map[string]string{
			"port": `{"destination_port": 443, "source_ports": [1]}`, "any": `{}`,
		}, local, remote, ""},
		{"no way back: the prefix wins though its source type fails", map[string]string{
			"prefix": `{"prefix_ranges": [` + cidr("10.1.0.0", "16") + `], "source_type": "SAME_IP_OR_LOOPBACK"}`, "any": `{}`,
		}, local, remote, ""},
		{"a raw buffer is what there is", map[string]string{"raw": `{"transport_protocol": "raw_buffer"}`, "any": `{}`}, local, remote, "raw"},
		{"direct source before source", map[string]string{
			"direct": `{"direct_source_prefix_ranges": [` + cidr("192.168.0.0", "16") + `]}`,
			"source": `{"source_prefix_ranges": [` + cidr("192.168.0.0", "24") + `]}`,
		}, local, remote, "direct"},
		{"from elsewhere", map[string]string{"out": `{"source_type": "EXTERNAL"}`, "in": `{"source_type": "SAME_IP_OR_LOOPBACK"}`, "any": `{}`}, local, remote, "out"},
		{"from the same address", map[string]string{"out": `{"source_type": "EXTERNAL"}`, "in": `{"source_type": "SAME_IP_OR_LOOPBACK"}`}, local, "10.1.2.3:9", "in"},
		{"from loopback", map[string]string{"out": `{"source_type": "EXTERNAL"}`, "in": `{"source_type": "SAME_IP_OR_LOOPBACK"}`}, "127.0.0.2:1", "127.0.0.1:9", "in"},
		{"source type before source prefix", map[string]string{
			"type": `{"source_type": "EXTERNAL"}`, "prefix": `{"source_prefix_ranges": [` + cidr("192.168.0.0", "24") + `]}`,
		}, local, remote, "type"},
		{"a source port last", map[string]string{"port": `{"source_ports": [1, 5555]}`, "any": `{}`}, local, remote, "port"},
	} {
		t.Run(c.name, func(t *testing.T) {
			unmapped := func(text string) netip.AddrPort {
				a := netip.MustParseAddrPort(text)
				return netip.AddrPortFrom(a.Addr().Unmap(), a.Port())
			}
			remote := unmapped(c.remote)
			found := parsed(t, c.chains).find(listenerfilter.Facts{Local: unmapped(c.local), Remote: remote, Direct: remote, Transport: listenerfilter.RawBuffer})
			require.Equal(t, c.want, nameOf(found))
		})
	}
}
