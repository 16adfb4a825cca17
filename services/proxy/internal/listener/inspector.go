package listener

import (
	"net"
	"slices"
	"time"

	listenerv3 "github.com/envoyproxy/go-control-plane/envoy/config/listener/v3"

	"github.com/weirproxy/weir/services/proxy/internal/coreconfig"
	"github.com/weirproxy/weir/services/proxy/internal/listenerfilter"
	"github.com/weirproxy/weir/services/proxy/internal/stats"
	"github.com/weirproxy/weir/services/proxy/internal/strict"
)

// inspector is a listener filter in its place.
type inspector struct {
	filter listenerfilter.Filter
	// disabled says which connections it does not look at; nil is none.
	disabled predicate
	measured bool
}

func (i *inspector) measure(registry *stats.Registry) {
	if !i.measured {
		i.measured = true
		i.filter.Measure(registry)
	}
}

// inspect has the listener filters look at a connection, and returns what they found.
// The error is that of the filter which is the last one to look at it; what those
// before it found holds.
func (c *Config) inspect(conn net.Conn) (listenerfilter.Facts, error) {
	s, err := listenerfilter.NewSocket(conn)
	if err != nil {
		return listenerfilter.FactsOf(conn), err
	}
	defer s.Release()
	for _, i := range c.filters {
		if i.disabled != nil && i.disabled(s.Facts) {
			continue
		}
		if err := i.filter.Inspect(s); err != nil {
			return s.Facts, err
		}
	}
	return s.Facts, nil
}

// defaultFiltersTimeout is Envoy's of listener_filters_timeout.
const defaultFiltersTimeout = 15 * time.Second

func (c *Config) parseFilters(at strict.Path, factories []listenerfilter.Factory, report *strict.Report) {
	c.filtersTimeout = coreconfig.Duration(c.Message.GetListenerFiltersTimeout(), defaultFiltersTimeout, at.Field("listener_filters_timeout"), report)
	c.afterTimeout = c.Message.GetContinueOnListenerFiltersTimeout()
	for n, m := range c.Message.GetListenerFilters() {
		at := at.Field("listener_filters").Index(n)
		i := &inspector{}
		if factory, config, at, ok := unpack(factories, "listener filter", m, at, report); ok {
			i.filter = factory.Parse(config, at, report)
		}
		if m.GetFilterDisabled() != nil {
			i.disabled = parsePredicate(m.GetFilterDisabled())
		}
		c.filters = append(c.filters, i)
	}
}

// predicate says which connections are meant (ListenerFilterChainMatchPredicate).
type predicate func(listenerfilter.Facts) bool

// parsePredicate reads a message that its own rules hold to have one rule.
func parsePredicate(m *listenerv3.ListenerFilterChainMatchPredicate) predicate {
	switch rule := m.GetRule().(type) {
	case *listenerv3.ListenerFilterChainMatchPredicate_OrMatch:
		rules := parsePredicates(rule.OrMatch)
		return func(f listenerfilter.Facts) bool {
			return slices.ContainsFunc(rules, func(holds predicate) bool { return holds(f) })
		}
	case *listenerv3.ListenerFilterChainMatchPredicate_AndMatch:
		rules := parsePredicates(rule.AndMatch)
		return func(f listenerfilter.Facts) bool {
			return !slices.ContainsFunc(rules, func(holds predicate) bool { return !holds(f) })
		}
	case *listenerv3.ListenerFilterChainMatchPredicate_NotMatch:
		holds := parsePredicate(rule.NotMatch)
		return func(f listenerfilter.Facts) bool { return !holds(f) }
	case *listenerv3.ListenerFilterChainMatchPredicate_DestinationPortRange:
		start, end := rule.DestinationPortRange.GetStart(), rule.DestinationPortRange.GetEnd()
		return func(f listenerfilter.Facts) bool {
			port := int32(f.Local.Port())
			return start <= port && port < end
		}
	}
	return func(listenerfilter.Facts) bool { return true } // any_match
}

func parsePredicates(set *listenerv3.ListenerFilterChainMatchPredicate_MatchSet) (rules []predicate) {
	for _, m := range set.GetRules() {
		rules = append(rules, parsePredicate(m))
	}
	return rules
}
