package listener

import (
	"net/netip"
	"strings"

	listenerv3 "github.com/envoyproxy/go-control-plane/envoy/config/listener/v3"

	"github.com/weirproxy/weir/services/proxy/internal/coreconfig"
	"github.com/weirproxy/weir/services/proxy/internal/networkfilter"
	"github.com/weirproxy/weir/services/proxy/internal/strict"
)

// Fields are the supported fields of the messages that Parse reads.
func Fields() strict.Fields {
	return strict.Fields{
		"envoy.config.listener.v3.Listener":    {"name", "address", "filter_chains", "stat_prefix"},
		"envoy.config.listener.v3.FilterChain": {"name", "filters"},
		"envoy.config.listener.v3.Filter":      {"name", "typed_config"},
	}
}

// Config is a checked listener configuration.
type Config struct {
	// Message is what it was made of, for the config dump.
	Message *listenerv3.Listener
	Name    string
	// Address is where it listens; port 0 takes a free one.
	Address netip.AddrPort
	// At is where the configuration lies, for errors.
	At strict.Path

	filter     networkfilter.Filter
	statPrefix string
}

// Parse makes a Config of a listener that lies at the path at. Factories are
// the network filters that ship. Faults go to report; the result is for use
// only if there are none.
func Parse(message *listenerv3.Listener, at strict.Path, factories []networkfilter.Factory, report *strict.Report) *Config {
	c := &Config{Message: message, Name: message.GetName(), At: at, statPrefix: message.GetStatPrefix()}
	if c.Name == "" {
		report.Add(at.Field("name"), "a listener needs a name")
	}
	c.Address, _ = coreconfig.Address(message.GetAddress(), at.Field("address"), report)
	if c.statPrefix == "" {
		c.statPrefix = c.Address.String()
	}

	chainsAt := at.Field("filter_chains")
	if n := len(message.GetFilterChains()); n != 1 {
		report.Add(chainsAt, "%d filter chains are not supported: use one", n)
		return c
	}
	filters, at := message.GetFilterChains()[0].GetFilters(), chainsAt.Index(0).Field("filters")
	if len(filters) != 1 {
		report.Add(at, "%d network filters are not supported: use one", len(filters))
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

// Filters are the network filters that serve the listener's connections.
func (c *Config) Filters() []networkfilter.Filter { return []networkfilter.Filter{c.filter} }
