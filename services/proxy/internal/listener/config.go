package listener

import (
	"net"
	"net/netip"
	"slices"
	"strings"
	"time"

	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	listenerv3 "github.com/envoyproxy/go-control-plane/envoy/config/listener/v3"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/types/known/anypb"

	"github.com/weirproxy/weir/services/proxy/internal/coreconfig"
	"github.com/weirproxy/weir/services/proxy/internal/listenerfilter"
	"github.com/weirproxy/weir/services/proxy/internal/networkfilter"
	"github.com/weirproxy/weir/services/proxy/internal/stats"
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
			"connection_balance_config", "listener_filters", "listener_filters_timeout", "continue_on_listener_filters_timeout",
		},
		"envoy.config.listener.v3.Listener.ConnectionBalanceConfig":              {"exact_balance"},
		"envoy.config.listener.v3.Listener.ConnectionBalanceConfig.ExactBalance": {},
		"envoy.config.listener.v3.FilterChain":                                   {"name", "filter_chain_match", "filters", "metadata", "transport_socket", "transport_socket_connect_timeout"},
		"envoy.config.listener.v3.Filter":                                        {"name", "typed_config"},
		"envoy.config.listener.v3.FilterChainMatch": {
			"destination_port", "prefix_ranges", "transport_protocol", "application_protocols", "direct_source_prefix_ranges", "source_type",
			"source_prefix_ranges", "source_ports",
		},
		"envoy.config.listener.v3.ListenerFilter": {"name", "typed_config", "filter_disabled"},
		"envoy.config.listener.v3.ListenerFilterChainMatchPredicate": {
			"or_match", "and_match", "not_match", "any_match", "destination_port_range",
		},
		"envoy.config.listener.v3.ListenerFilterChainMatchPredicate.MatchSet": {"rules"},
		"envoy.type.v3.Int32Range":          {"start", "end"},
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
	// bufferLimit is per_connection_buffer_limit_bytes; 0 is none.
	bufferLimit uint32
	keepAlive   *net.KeepAliveConfig
	modifyOnly  bool // drain_type
	inbound     bool // traffic_direction

	filters []*inspector // listener_filters
	// filtersTimeout bounds what they take for a connection, 0 for any time;
	// afterTimeout says that it goes on then.
	filtersTimeout time.Duration
	afterTimeout   bool
}

// Filters are the filters that ship.
type Filters struct {
	Listener []listenerfilter.Factory
	Network  []networkfilter.Factory
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
	connections map[*handle]bool
}

// Parse makes a Config of a listener that lies at the path at. Faults go to report;
// the result is for use only if there are none.
func Parse(message *listenerv3.Listener, at strict.Path, filters Filters, report *strict.Report) *Config {
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
	c.bufferLimit = defaultBufferLimit
	if n := message.GetPerConnectionBufferLimitBytes(); n != nil {
		c.bufferLimit = n.GetValue()
	}
	if n := message.GetTcpBacklogSize(); n != nil {
		if c.backlog = int(n.GetValue()); c.backlog < 1 || c.backlog > 65535 {
			report.Add(at.Field("tcp_backlog_size"), "%d is not between 1 and 65535", n.GetValue())
		}
	}
	c.keepAlive = parseKeepAlive(message.GetTcpKeepalive())
	c.parseFilters(at, filters.Listener, report)
	c.parseChains(at, filters.Network, report)
	return c
}

// defaultBufferLimit is that of per_connection_buffer_limit_bytes.
const defaultBufferLimit = 1 << 20

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
	c := &chain{message: message, connections: map[*handle]bool{}}
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
	if factory, config, at, ok := unpack(factories, "network filter", filters[0], at.Index(0), report); ok {
		c.filter = factory.Parse(config, at, report)
	}
	return c
}

// filterMessage is how a filter is named and configured.
type filterMessage interface {
	GetName() string
	GetTypedConfig() *anypb.Any
}

// unpack finds the factory for what configures a filter of a kind, which stands at the
// path at. It returns it with that message, and with the path of that; not ok is a
// fault, which was reported.
func unpack[F interface{ ConfigType() protoreflect.FullName }](
	factories []F, kind string, filter filterMessage, at strict.Path, report *strict.Report,
) (factory F, config proto.Message, configAt strict.Path, ok bool) {
	if filter.GetTypedConfig() == nil {
		report.Add(at, "%s %q needs a typed_config", kind, filter.GetName())
		return factory, nil, at, false
	}
	config, err := strict.Unpack(filter.GetTypedConfig())
	if err != nil { // the schema's walk has said so
		return factory, nil, at, false
	}
	at = at.Field("typed_config")
	name := config.ProtoReflect().Descriptor().FullName()
	var known []string
	for _, f := range factories {
		if f.ConfigType() == name {
			return f, config, at, true
		}
		known = append(known, string(f.ConfigType()))
	}
	report.Add(at, "%s is no %s known here; those are: %s", name, kind, strings.Join(known, ", "))
	return factory, nil, at, false
}

// place makes ready for connections: it has the listener filters make their metrics,
// and tells the network filters where they stand.
func (c *Config) place(registry *stats.Registry) {
	for _, i := range c.filters {
		i.measure(registry)
	}
	for _, chain := range c.all() {
		if placed, ok := chain.filter.(networkfilter.Placed); ok {
			placed.Place(networkfilter.Place{Chain: chain.message, StatPrefix: c.statPrefix, BufferLimit: c.bufferLimit})
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

// adopt takes over the listener filters of an older configuration and, if they are the
// same in this one, its chains that are, and so their connections. With other listener
// filters its connections would have got here otherwise, and none of them stays.
func (c *Config) adopt(old *Config) {
	if !c.sharesFilters(old) {
		return
	}
	c.filters = old.filters
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

// sharesFilters says whether another configuration has the same listener filters.
func (c *Config) sharesFilters(other *Config) bool {
	return slices.EqualFunc(c.Message.GetListenerFilters(), other.Message.GetListenerFilters(), func(a, b *listenerv3.ListenerFilter) bool {
		return proto.Equal(a, b)
	})
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
