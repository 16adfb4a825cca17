package hcm

import (
	"bytes"
	"slices"
	"strings"

	hcmv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/network/http_connection_manager/v3"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"

	"github.com/weirproxy/weir/services/proxy/internal/httpfilter"
	"github.com/weirproxy/weir/services/proxy/internal/route"
	"github.com/weirproxy/weir/services/proxy/internal/stream"
	"github.com/weirproxy/weir/services/proxy/internal/strict"
)

// upgrade is a protocol that requests may ask for (upgrade_configs).
type upgrade struct {
	protocol []byte
	chain    *httpfilter.Chain
	enabled  bool // where a route does not say otherwise
}

// mayUpgrade says whether a request for a protocol may pass; its route decides:
// upgraded.
func (m *manager) mayUpgrade(protocol []byte) bool {
	u := m.upgrade(protocol)
	return u != nil && u.enabled || m.routes.Load().Upgrades()
}

// upgraded is the chain for a request whose route is known: another one than usual
// for a protocol that it asks for. Or it is refused, if that is not allowed.
func (m *manager) upgraded(s *stream.Stream, usual *httpfilter.Chain) (*httpfilter.Chain, *refusal) {
	protocol := s.Request.Upgrade
	if len(protocol) == 0 {
		return usual, nil
	}
	u := m.upgrade(protocol)
	enabled, said := s.Route.Upgrade(protocol)
	if !said {
		enabled = u != nil && u.enabled
	}
	switch {
	case !enabled:
		return usual, m.refuseUpgrade(notConfigured(protocol))
	case u != nil:
		return u.chain, nil
	}
	return usual, nil
}

// refuseUpgrade counts and refuses an upgrade, or what is like one; the client is told why.
func (m *manager) refuseUpgrade(why string) *refusal {
	m.stats.upgradesRefused.Inc()
	return &refusal{status: 403, details: "upgrade_failed", text: why + "\n", malformed: true}
}

func notConfigured(protocol []byte) string {
	return "no upgrade to " + string(protocol) + " is configured"
}

// upgrade is how the manager deals with a protocol, nil if it says nothing of it.
func (m *manager) upgrade(protocol []byte) *upgrade {
	for i := range m.upgrades {
		if bytes.EqualFold(m.upgrades[i].protocol, protocol) {
			return &m.upgrades[i]
		}
	}
	return nil
}

// parseUpgrades makes the upgrades of m that are configured, of which those without
// filters of their own have its usual chain.
func (f *Factory) parseUpgrades(m *manager, configs []*hcmv3.HttpConnectionManager_UpgradeConfig, at strict.Path, report *strict.Report) []upgrade {
	var list []upgrade
	seen := map[string]bool{}
	for i, config := range configs {
		at := at.Index(i)
		name := strings.ToLower(config.GetUpgradeType())
		switch {
		case seen[name]:
			report.Add(at.Field("upgrade_type"), "%q is there twice", config.GetUpgradeType())
		case name == "" || name == "connect" || name == "h2c":
			report.Add(at.Field("upgrade_type"), "%q is not supported: use websocket or another protocol that HTTP/1.1 servers switch to", config.GetUpgradeType())
		}
		seen[name] = true
		u := upgrade{[]byte(name), m.chain, config.GetEnabled() == nil || config.GetEnabled().GetValue()}
		if len(config.GetFilters()) > 0 {
			u.chain = f.parseChain(m, config.GetFilters(), at.Field("filters"), report)
		}
		list = append(list, u)
	}
	return list
}

// parseChain makes a chain of m, of the filters at a path; nil if it has faults.
func (f *Factory) parseChain(m *manager, filters []*hcmv3.HttpFilter, at strict.Path, report *strict.Report) *httpfilter.Chain {
	var entries []httpfilter.Entry
	good := true
	fault := func(at strict.Path, format string, args ...any) {
		report.Add(at, format, args...)
		good = false
	}
	last := len(filters) - 1 // of those that are not left out
	for last >= 0 && f.leavesOut(filters[last]) {
		last--
	}
	for i, filter := range filters {
		at := at.Index(i)
		if f.leavesOut(filter) {
			f.Log.Warn("left out an optional filter of a type that is not known", "filter", filter.GetName(), "type", filter.GetTypedConfig().GetTypeUrl(), "at", at)
			m.leftOut++
			continue
		}
		message, err := strict.Unpack(filter.GetTypedConfig())
		switch {
		case filter.GetTypedConfig() == nil:
			fault(at, "filter %q needs a typed_config", filter.GetName())
			continue
		case err != nil: // the schema's walk has said so
			good = false
			continue
		}
		factory := f.find(message)
		if factory == nil {
			fault(at.Field("typed_config"), "%s is no HTTP filter known here; those are: %s", message.ProtoReflect().Descriptor().FullName(), f.known())
			continue
		}
		config := factory.Parse(message, at.Field("typed_config"), report)
		if config == nil { // too faulty to go on with
			good = false
			continue
		}
		entries = append(entries, httpfilter.Entry{Name: filter.GetName(), Disabled: filter.GetDisabled(), Config: config})
		_, terminal := config.NewFilter().(httpfilter.Terminal)
		if last := i == last; terminal && !last {
			fault(at, "filter %q answers every request, so that no filter can stand behind it", filter.GetName())
		} else if !terminal && last {
			fault(at, "the last filter must be one that gets the response, as the router does; %q does not", filter.GetName())
		} else if terminal && filter.GetDisabled() {
			fault(at.Field("disabled"), "filter %q answers every request, and cannot be disabled", filter.GetName())
		}
	}
	if last < 0 {
		fault(at, "there are no filters: the router is needed at least")
	}
	if !good {
		return nil
	}
	return httpfilter.NewChainOf(entries)
}

// checkRoutes reports what routes of the manager's own configure of filters that
// it does not have, by that name or of that kind. What comes by RDS is not held
// to that: it can be for several managers.
func (f *Factory) checkRoutes(table *route.Table, c *hcmv3.HttpConnectionManager, report *strict.Report) {
	kinds := map[string][]protoreflect.FullName{} // that configure the filters of a name
	add := func(filters []*hcmv3.HttpFilter) {
		for _, filter := range filters {
			wanted := kinds[filter.GetName()]
			for _, factory := range f.Filters {
				routed, ok := factory.(httpfilter.RouteFactory)
				if ok && strings.HasSuffix(filter.GetTypedConfig().GetTypeUrl(), "/"+string(factory.ConfigType())) {
					wanted = append(wanted, routed.RouteConfigType())
				}
			}
			kinds[filter.GetName()] = wanted
		}
	}
	add(c.GetHttpFilters())
	for _, upgrade := range c.GetUpgradeConfigs() {
		add(upgrade.GetFilters())
	}
	for _, r := range table.FilterReferences() {
		wanted, there := kinds[r.Name]
		switch {
		case r.Optional:
		case !there:
			report.Add(r.At, "no HTTP filter is named %q, as the key must be", r.Name)
		case r.Config != "" && !slices.Contains(wanted, r.Config):
			report.Add(r.At, "%s does not configure the HTTP filter that is named %q", r.Config, r.Name)
		}
	}
}

// leavesOut says whether a filter is optional and of a type that is not known.
func (f *Factory) leavesOut(filter *hcmv3.HttpFilter) bool {
	url := filter.GetTypedConfig().GetTypeUrl()
	return filter.GetIsOptional() && url != "" && !slices.ContainsFunc(f.Filters, func(known httpfilter.Factory) bool {
		return strings.HasSuffix(url, "/"+string(known.ConfigType()))
	})
}

func (f *Factory) find(message proto.Message) httpfilter.Factory {
	for _, factory := range f.Filters {
		if factory.ConfigType() == message.ProtoReflect().Descriptor().FullName() {
			return factory
		}
	}
	return nil
}

func (f *Factory) known() string {
	var names []string
	for _, factory := range f.Filters {
		names = append(names, string(factory.ConfigType()))
	}
	return strings.Join(names, ", ")
}
