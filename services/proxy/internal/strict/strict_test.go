package strict_test

import (
	"testing"

	bootstrapv3 "github.com/envoyproxy/go-control-plane/envoy/config/bootstrap/v3"
	"github.com/stretchr/testify/require"

	_ "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/http/router/v3"
	_ "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/network/http_connection_manager/v3"
	_ "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/network/tcp_proxy/v3"

	"github.com/weirproxy/weir/internal/servicetest"
	"github.com/weirproxy/weir/services/proxy/internal/strict"
)

func TestMain(m *testing.M) { servicetest.Main(m) }

// fields is a schema as wide as the tests need, and not the proxy's.
var fields = strict.Fields{
	"envoy.config.bootstrap.v3.Bootstrap":                 {"node", "static_resources", "admin"},
	"envoy.config.bootstrap.v3.Bootstrap.StaticResources": {"listeners", "clusters"},
	"envoy.config.bootstrap.v3.Admin":                     {"address"},
	"envoy.config.core.v3.Node":                           {"id", "cluster", "metadata", "locality"},
	"envoy.config.core.v3.Locality":                       {"region", "zone"},
	"envoy.config.core.v3.Address":                        {"socket_address"},
	"envoy.config.core.v3.SocketAddress":                  {"address", "port_value", "protocol"},
	"envoy.config.core.v3.Metadata":                       {"filter_metadata"},
	"envoy.config.core.v3.DataSource":                     {"inline_bytes", "inline_string"},
	"envoy.config.core.v3.RuntimeDouble":                  {"default_value", "runtime_key"},
	"envoy.config.core.v3.HeaderValueOption":              {"header", "append_action"},
	"envoy.config.core.v3.HeaderValue":                    {"key", "value"},
	"envoy.config.listener.v3.Listener":                   {"name", "address", "filter_chains", "metadata", "listener_filters_timeout"},
	"envoy.config.listener.v3.FilterChain":                {"filters", "filter_chain_match"},
	"envoy.config.listener.v3.FilterChainMatch":           {"destination_port", "server_names"},
	"envoy.config.listener.v3.Filter":                     {"name", "typed_config"},
	"envoy.config.cluster.v3.Cluster":                     {"name", "type", "connect_timeout", "lb_policy", "eds_cluster_config", "typed_extension_protocol_options"},
	"envoy.config.route.v3.RouteConfiguration":            {"name", "virtual_hosts"},
	"envoy.config.route.v3.VirtualHost":                   {"name", "domains", "routes", "request_headers_to_add"},
	"envoy.config.route.v3.Route":                         {"name", "match", "route", "direct_response"},
	"envoy.config.route.v3.RouteMatch":                    {"prefix", "path"},
	"envoy.config.route.v3.RouteAction":                   {"cluster", "timeout"},
	"envoy.config.route.v3.DirectResponseAction":          {"status", "body"},
	"envoy.extensions.filters.http.router.v3.Router":      {},
	"envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager": {
		"stat_prefix", "route_config", "http_filters", "codec_type",
	},
	"envoy.extensions.filters.network.http_connection_manager.v3.HttpFilter": {"name", "typed_config", "is_optional"},
}

func newSchema(t testing.TB) *strict.Schema {
	t.Helper()
	schema, err := strict.NewSchema(fields)
	require.NoError(t, err)
	return schema
}

func TestBrokenFilesSayAllThatIsWrong(t *testing.T) {
	schema := newSchema(t)
	servicetest.GoldenFaults(t, "testdata/broken/*.yaml", func(_ *testing.T, name string, text []byte) error {
		return strict.Load(name, text, &bootstrapv3.Bootstrap{}, schema).Err()
	})
}

func TestNewSchemaNamesWhatDoesNotExist(t *testing.T) {
	_, err := strict.NewSchema(
		strict.Fields{"envoy.config.core.v3.Nod": {"id"}},
		strict.Fields{"envoy.config.core.v3.Node": {"id", "idd"}},
	)
	require.EqualError(t, err, "declare supported fields: message envoy.config.core.v3.Nod does not exist; "+
		"message envoy.config.core.v3.Node has no field idd")
}
