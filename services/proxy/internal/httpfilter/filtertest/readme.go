package filtertest

import (
	"testing"

	routerv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/http/router/v3"
	hcmv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/network/http_connection_manager/v3"
	"github.com/stretchr/testify/require"

	"github.com/weirproxy/weir/services/proxy/internal/httpfilter"
	"github.com/weirproxy/weir/services/proxy/internal/readmetest"
	"github.com/weirproxy/weir/services/proxy/internal/route"
	"github.com/weirproxy/weir/services/proxy/internal/strict"
)

// Readme holds the README.md beside a filter's test to its form, and loads its
// examples: every YAML block is the config of an http_connection_manager with
// the filter in it, cut down to stat_prefix, route_config and http_filters.
func Readme(t testing.TB, factory httpfilter.Factory) {
	t.Helper()
	schema, err := strict.NewSchema(append(shared(), factory.Fields(), route.Fields(), route.FilterFields(), strict.Fields{
		(&hcmv3.HttpConnectionManager{}).ProtoReflect().Descriptor().FullName(): {"stat_prefix", "route_config", "http_filters"},
		(&hcmv3.HttpFilter{}).ProtoReflect().Descriptor().FullName():            {"name", "typed_config"},
		(&routerv3.Router{}).ProtoReflect().Descriptor().FullName():             {},
	})...)
	require.NoError(t, err)
	for _, example := range readmetest.Examples(t) {
		require.Equal(t, 1, load(t, factory, schema, example), "filters of this kind in the example")
	}
}

// load checks an example and counts the filters of the factory in it.
func load(t testing.TB, factory httpfilter.Factory, schema *strict.Schema, example string) (count int) {
	t.Helper()
	manager := &hcmv3.HttpConnectionManager{}
	report := strict.Load("README.md", []byte(example), manager, schema)
	require.NoError(t, report.Err())
	route.ParseFor(httpfilter.RouteParser([]httpfilter.Factory{factory}), manager.GetRouteConfig(), "route_config", report)
	for i, filter := range manager.GetHttpFilters() {
		message, err := strict.Unpack(filter.GetTypedConfig())
		require.NoError(t, err)
		if message.ProtoReflect().Descriptor().FullName() == factory.ConfigType() {
			factory.Parse(message, strict.Path("http_filters").Index(i).Field("typed_config"), report)
			count++
		}
	}
	require.NoError(t, report.Err())
	return count
}
