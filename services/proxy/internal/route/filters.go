package route

import (
	"maps"
	"slices"
	"unique"

	routev3 "github.com/envoyproxy/go-control-plane/envoy/config/route/v3"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/types/known/anypb"

	"github.com/weirproxy/weir/services/proxy/internal/strict"
)

// FilterFields are the supported fields by which routes configure HTTP filters.
func FilterFields() strict.Fields {
	return strict.Fields{
		"envoy.config.route.v3.RouteConfiguration":            {"typed_per_filter_config"},
		"envoy.config.route.v3.VirtualHost":                   {"typed_per_filter_config"},
		"envoy.config.route.v3.Route":                         {"typed_per_filter_config"},
		"envoy.config.route.v3.WeightedCluster.ClusterWeight": {"typed_per_filter_config"},
		"envoy.config.route.v3.FilterConfig":                  {"config", "is_optional", "disabled"},
	}
}

// FilterParser checks a message by which a route configures an HTTP filter, at
// the path at, and makes of it what that filter takes. Faults go to report.
// Known is false, and nothing is reported, if it configures none.
type FilterParser func(config proto.Message, at strict.Path, report *strict.Report) (_ any, known bool)

// FilterName is the name of a filter in http_filters, made to be compared fast.
type FilterName = unique.Handle[string]

// FilterConfig is what holds for one HTTP filter on a route: what the most
// specific of weighted cluster, route, virtual host and route configuration say
// of it in typed_per_filter_config, by its name.
type FilterConfig struct {
	// Config is what the FilterParser made; nil leaves the filter its own.
	Config any
	// Disabled takes the filter out of the chain. If it is not set the filter is
	// there, even if it is disabled in http_filters.
	Disabled bool
}

// FilterConfig is what the route says of the filter of that name; nil is
// nothing. It is to be changed by nobody.
func (r *Route) FilterConfig(name FilterName) *FilterConfig {
	if r == nil {
		return nil
	}
	return r.filters.find(name)
}

// FilterReference is a filter that a route configures, with the place of it.
type FilterReference struct {
	Name string
	// Config is the type of the message; empty if the filter is but turned on or
	// off.
	Config protoreflect.FullName
	// Optional says that there need be no such filter.
	Optional bool
	At       strict.Path
}

// FilterReferences lists the filters that the routes configure, for those who
// know which there are.
func (t *Table) FilterReferences() []FilterReference { return t.filterReferences }

// filterConfigs are those of one level and what is above it: a few, in no order.
type filterConfigs []filterConfig

type filterConfig struct {
	name FilterName
	FilterConfig
}

func (l filterConfigs) find(name FilterName) *FilterConfig {
	for i := range l {
		if l[i].name == name {
			return &l[i].FilterConfig
		}
	}
	return nil
}

// filterConfigs reads a typed_per_filter_config at the path at, of a level below
// above. The nearest config of a filter counts, and so does by itself whether it
// is there.
func (p *parser) filterConfigs(configs map[string]*anypb.Any, above filterConfigs, at strict.Path) filterConfigs {
	list := append(filterConfigs(nil), above...)
	for _, name := range slices.Sorted(maps.Keys(configs)) {
		own := filterConfig{name: unique.Make(name)}
		own.Config, own.Disabled = p.filterConfig(name, configs[name], at.Key(name))
		if there := list.find(own.name); there != nil {
			if there.Disabled = own.Disabled; own.Config != nil {
				there.Config = own.Config
			}
			continue
		}
		list = append(list, own)
	}
	return list
}

// filterConfig reads one value of a typed_per_filter_config: the config of a
// filter, or a FilterConfig around it.
func (p *parser) filterConfig(name string, packed *anypb.Any, at strict.Path) (config any, disabled bool) {
	m, err := strict.Unpack(packed)
	if err != nil { // the schema's walk has said so
		return nil, false
	}
	reference := FilterReference{Name: name, At: at}
	if wrapped, ok := m.(*routev3.FilterConfig); ok {
		reference.Optional = wrapped.GetIsOptional()
		if wrapped.GetDisabled() || wrapped.GetConfig() == nil || wrapped.GetConfig().GetTypeUrl() == "" {
			if !wrapped.GetDisabled() && wrapped.GetConfig() == nil {
				p.report.Add(at, "the config of filter %q is empty: give one, {} to turn the filter on, or disabled", name)
			}
			p.table.filterReferences = append(p.table.filterReferences, reference)
			return nil, wrapped.GetDisabled()
		}
		at = at.Field("config")
		if m, err = strict.Unpack(wrapped.GetConfig()); err != nil { // told, unless it is optional
			return nil, false
		}
	}
	reference.Config = m.ProtoReflect().Descriptor().FullName()
	if p.filters != nil {
		if config, known := p.filters(m, at, p.report); known {
			p.table.filterReferences = append(p.table.filterReferences, reference)
			return config, false
		}
	}
	if !reference.Optional {
		p.report.Add(at, "%s configures no filter of a route", reference.Config)
	}
	return nil, false
}
