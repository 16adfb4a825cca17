package listener

import (
	"context"
	"net"
	"net/netip"
	"slices"
	"strings"
	"time"

	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	listenerv3 "github.com/envoyproxy/go-control-plane/envoy/config/listener/v3"
	"google.golang.org/protobuf/proto"

	"github.com/weirproxy/weir/services/proxy/internal/coreconfig"
	"github.com/weirproxy/weir/services/proxy/internal/networkfilter"
	"github.com/weirproxy/weir/services/proxy/internal/strict"
)

// Fields are the supported fields of the messages that Parse reads. Some need
// nothing done: buffers of a connection never grow to a limit, since bodies are
// pulled; one accept loop feeds all processors without enable_reuse_port or a
// connection_balance_config; traffic_direction is for those who read the
// configuration; and a transport_socket_connect_timeout never ends a plaintext
// connection, which is made as soon as it is accepted.
func Fields() strict.Fields {
	return strict.Fields{
		"envoy.config.listener.v3.Listener": {
			"name", "address", "stat_prefix", "filter_chains", "default_filter_chain", "per_connection_buffer_limit_bytes",
			"drain_type", "traffic_direction", "tcp_backlog_size", "tcp_keepalive", "enable_reuse_port",
			"connection_balance_config",
		},
		"envoy.config.listener.v3.Listener.ConnectionBalanceConfig":              {"exact_balance"},
		"envoy.config.listener.v3.Listener.ConnectionBalanceConfig.ExactBalance": {},
		"envoy.config.listener.v3.FilterChain":                                   {"name", "filter_chain_match", "filters", "metadata", "transport_socket", "transport_socket_connect_timeout"},
		"envoy.config.listener.v3.Filter":                                        {"name", "typed_config"},
		"envoy.config.listener.v3.FilterChainMatch": {
			"destination_port", "prefix_ranges", "transport_protocol", "direct_source_prefix_ranges", "source_type",
			"source_prefix_ranges", "source_ports",
		},
		"envoy.config.core.v3.CidrRange":    {"address_prefix", "prefix_len"},
		"envoy.config.core.v3.TcpKeepalive": {"keepalive_probes", "keepalive_time", "keepalive_interval"},
	}
}

// Config is a checked listener configuration.
type Config struct {
	// Message is what it was made of, for the config dump.
	Message *listenerv3.Listener
	Name    string
	// Address is where it listens; port 0 takes a free one.
	Address netip.AddrPort
	// bothFamilies says that [::] takes IPv4 too (ipv4_compat).
	bothFamilies bool
	// At is where the configuration lies, for errors.
	At strict.Path

	chains     []*chain
	fallback   *chain // default_filter_chain; nil for none
	statPrefix string
	backlog    int // 0 is the system's most
	keepAlive  *net.KeepAliveConfig
	modifyOnly bool // drain_type
	inbound    bool // traffic_direction
}

// chain is one filter chain with the connections that it serves.
type chain struct {
	message *listenerv3.FilterChain
	match   match
	// filter is nil for a chain without filters, which closes what it gets.
	filter networkfilter.Filter
	// stop lets go of what the filter was started for; nil before.
	stop func()
	// connections are guarded by the mu of the listener, which keeps a chain from
	// one configuration to the next where it is the same.
	connections map[networkfilter.Connection]*handle
}

// handle is what ends a connection.
type handle struct {
	cancel            context.CancelFunc // of its context
	drained, finished bool               // it was told so
	later             *time.Timer        // drains it; nil if nothing does
}

// Parse makes a Config of a listener that lies at the path at. Factories are
// the network filters that ship. Faults go to report; the result is for use
// only if there are none.
func Parse(message *listenerv3.Listener, at strict.Path, factories []networkfilter.Factory, report *strict.Report) *Config {
	c := &Config{
		Message: message, Name: message.GetName(), At: at, statPrefix: message.GetStatPrefix(),
		modifyOnly: message.GetDrainType() == listenerv3.Listener_MODIFY_ONLY,
		inbound:    message.GetTrafficDirection() == corev3.TrafficDirection_INBOUND,
	}
	if c.Name == "" {
		report.Add(at.Field("name"), "a listener needs a name")
	}
	c.Address, _ = coreconfig.Address(message.GetAddress(), at.Field("address"), report)
	c.bothFamilies = message.GetAddress().GetSocketAddress().GetIpv4Compat()
	if c.statPrefix == "" {
		c.statPrefix = c.Address.String()
	}
	if n := message.GetTcpBacklogSize(); n != nil {
		if c.backlog = int(n.GetValue()); c.backlog < 1 || c.backlog > 65535 {
			report.Add(at.Field("tcp_backlog_size"), "%d is not between 1 and 65535", n.GetValue())
		}
	}
	c.keepAlive = parseKeepAlive(message.GetTcpKeepalive())
	c.parseChains(at, factories, report)
	return c
}

// network is what the socket is opened on.
func (c *Config) network() string {
	switch {
	case c.Address.Addr().Is4():
		return "tcp4"
	case c.bothFamilies:
		return "tcp"
	}
	return "tcp6"
}

// parseKeepAlive reads what is left out as the system's value; all left out, it
// is only switched on.
func parseKeepAlive(k *corev3.TcpKeepalive) *net.KeepAliveConfig {
	if k == nil {
		return nil
	}
	config := &net.KeepAliveConfig{Enable: true, Idle: -1, Interval: -1, Count: -1}
	if n := k.GetKeepaliveTime(); n != nil {
		config.Idle = time.Duration(n.GetValue()) * time.Second
	}
	if n := k.GetKeepaliveInterval(); n != nil {
		config.Interval = time.Duration(n.GetValue()) * time.Second
	}
	if n := k.GetKeepaliveProbes(); n != nil {
		config.Count = int(n.GetValue())
	}
	return config
}

func (c *Config) parseChains(at strict.Path, factories []networkfilter.Factory, report *strict.Report) {
	chainsAt := at.Field("filter_chains")
	if len(c.Message.GetFilterChains()) == 0 && c.Message.GetDefaultFilterChain() == nil {
		report.Add(chainsAt, "there are none, and no default_filter_chain: one is needed")
	}
	names := map[string]bool{}
	add := func(message *listenerv3.FilterChain, at strict.Path) *chain {
		if name := message.GetName(); name != "" {
			if names[name] {
				report.Add(at.Field("name"), "filter chain %q is there twice", name)
			}
			names[name] = true
		}
		return parseChain(message, at, factories, report)
	}
	for i, message := range c.Message.GetFilterChains() {
		parsed := add(message, chainsAt.Index(i))
		for j, other := range c.chains {
			if parsed.match.overlaps(&other.match) {
				report.Add(chainsAt.Index(i).Field("filter_chain_match"), "it matches what %s does, and is not more specific", chainsAt.Index(j))
			}
		}
		c.chains = append(c.chains, parsed)
	}
	if message := c.Message.GetDefaultFilterChain(); message != nil {
		at := at.Field("default_filter_chain")
		if message.GetFilterChainMatch() != nil {
			report.Add(at.Field("filter_chain_match"), "the default filter chain takes what no other matches, and has no match of its own")
		}
		c.fallback = add(message, at)
	}
}

func parseChain(message *listenerv3.FilterChain, at strict.Path, factories []networkfilter.Factory, report *strict.Report) *chain {
	c := &chain{message: message, connections: map[networkfilter.Connection]*handle{}}
	c.match = parseMatch(message.GetFilterChainMatch(), at.Field("filter_chain_match"), report)
	coreconfig.TransportSocket(message.GetTransportSocket(), at.Field("transport_socket"), report)
	coreconfig.Duration(message.GetTransportSocketConnectTimeout(), 0, at.Field("transport_socket_connect_timeout"), report)
	filters := message.GetFilters()
	at = at.Field("filters")
	if len(filters) > 1 {
		report.Add(at, "%d network filters are not supported: use one", len(filters))
	}
	if len(filters) != 1 {
		return c
	}
	at = at.Index(0)
	config, err := strict.Unpack(filters[0].GetTypedConfig())
	switch {
	case filters[0].GetTypedConfig() == nil:
		report.Add(at, "filter %q needs a typed_config", filters[0].GetName())
		return c
	case err != nil: // the schema's walk has said so
		return c
	}
	at = at.Field("typed_config")
	var known []string
	for _, f := range factories {
		if f.ConfigType() == config.ProtoReflect().Descriptor().FullName() {
			c.filter = f.Parse(config, at, report)
			return c
		}
		known = append(known, string(f.ConfigType()))
	}
	report.Add(at, "%s is no network filter known here; those are: %s", config.ProtoReflect().Descriptor().FullName(), strings.Join(known, ", "))
	return c
}

// place tells the filters where they stand.
func (c *Config) place() {
	for _, chain := range c.all() {
		if placed, ok := chain.filter.(networkfilter.Placed); ok {
			placed.Place(networkfilter.Place{Chain: chain.message, StatPrefix: c.statPrefix})
		}
	}
}

// Filters are the network filters that serve the listener's connections.
func (c *Config) Filters() []networkfilter.Filter {
	var filters []networkfilter.Filter
	for _, chain := range c.all() {
		if chain.filter != nil {
			filters = append(filters, chain.filter)
		}
	}
	return filters
}

// all are the chains of a configuration.
func (c *Config) all() []*chain {
	if c.fallback == nil {
		return c.chains
	}
	return append(slices.Clip(c.chains), c.fallback)
}

// adopt takes over the chains of an older configuration that are the same in
// this one, and so their connections.
func (c *Config) adopt(old *Config) {
	if old == nil {
		return
	}
	same := func(wanted *chain) *chain {
		for _, candidate := range old.all() {
			if proto.Equal(candidate.message, wanted.message) {
				return candidate
			}
		}
		return wanted
	}
	for i := range c.chains {
		c.chains[i] = same(c.chains[i])
	}
	if c.fallback != nil {
		c.fallback = same(c.fallback)
	}
}

// without are the chains of a configuration that the other has not.
func (c *Config) without(other *Config) []*chain {
	var gone []*chain
	kept := map[*chain]bool{}
	for _, k := range other.all() {
		kept[k] = true
	}
	for _, k := range c.all() {
		if !kept[k] {
			gone = append(gone, k)
		}
	}
	return gone
}
