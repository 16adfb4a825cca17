package bootstrap_test

import (
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/weirproxy/weir/internal/servicetest"
	"github.com/weirproxy/weir/services/proxy/internal/bootstrap"
	"github.com/weirproxy/weir/services/proxy/internal/coreconfig"
	"github.com/weirproxy/weir/services/proxy/internal/layeredruntime"
	"github.com/weirproxy/weir/services/proxy/internal/matcher"
	"github.com/weirproxy/weir/services/proxy/internal/stats"
	"github.com/weirproxy/weir/services/proxy/internal/strict"
)

func TestMain(m *testing.M) { servicetest.Main(m) }

func newSchema(t testing.TB) *strict.Schema {
	schema, err := strict.NewSchema(bootstrap.Fields(), coreconfig.Fields(), matcher.Fields(), layeredruntime.Fields(), strict.Fields{
		"envoy.config.listener.v3.Listener": {"name", "address"},
		"envoy.config.cluster.v3.Cluster":   {"name", "type"},
	})
	require.NoError(t, err)
	return schema
}

const complete = `
node:
  id: proxy-1
  cluster: edge
  locality: {region: r, zone: z}
  metadata: {team: weir}
admin: {address: {socket_address: {address: "::1", port_value: 9901}}, allow_paths: [{exact: /ready}, {prefix: /stats}]}
dynamic_resources:
  ads_config:
    api_type: GRPC
    transport_api_version: V3
    grpc_services: [{envoy_grpc: {cluster_name: discovery}}]
    set_node_on_first_message_only: true
  cds_config: {ads: {}, resource_api_version: V3, initial_fetch_timeout: 2s}
  lds_config: {path_config_source: {path: /lds.yaml}, resource_api_version: V3}
layered_runtime:
  layers:
  - name: first
    static_layer: {envoy.resource_limits.listener.ingress.connection_limit: 5}
  - name: second
    static_layer: {envoy: {resource_limits: {listener: {ingress: {connection_limit: 7}}}}}
static_resources:
  listeners: [{name: ingress, address: {socket_address: {address: 0.0.0.0, port_value: 80}}}]
  clusters: [{name: other, type: STATIC}, {name: discovery, type: STATIC}]
`

func TestLoad(t *testing.T) {
	t.Run("gives access to what a bootstrap holds", func(t *testing.T) {
		b, report := bootstrap.Load(bootstrap.Source{File: "f", Text: []byte(complete)}, newSchema(t))
		require.NoError(t, report.Err())
		require.Equal(t, "proxy-1", b.Node.GetId())
		require.Equal(t, "edge", b.Node.GetCluster())
		require.Equal(t, "z", b.Node.GetLocality().GetZone())
		require.Equal(t, "weir", b.Node.GetMetadata().GetFields()["team"].GetStringValue())
		require.Equal(t, "[::1]:9901", b.AdminAddress)
		require.Len(t, b.AdminPaths, 2)
		require.True(t, b.AdminPaths[1].Match([]byte("/stats/prometheus?usedonly")))
		require.Equal(t, &bootstrap.ADS{
			GRPC: coreconfig.GRPC{Cluster: "discovery", NodeOnFirstMessageOnly: true}, At: "dynamic_resources.ads_config",
		}, b.ADS)
		require.Equal(t, &bootstrap.Discovery{InitialFetchTimeout: 2 * time.Second, At: "dynamic_resources.cds_config"}, b.CDS)
		require.Equal(t, &bootstrap.Discovery{
			Source: coreconfig.Source{Path: "/lds.yaml"}, InitialFetchTimeout: 15 * time.Second, At: "dynamic_resources.lds_config",
		}, b.LDS)
		values := layeredruntime.New(b.Runtime, stats.NewRegistry().Scope("runtime")).Snapshot()
		require.EqualValues(t, 7, values.Integer(layeredruntime.ConnectionLimitKey("ingress"), 1))
		require.Len(t, b.Listeners, 1)
		require.EqualValues(t, "static_resources.listeners[0]", b.Listeners[0].At)
		require.Equal(t, "ingress", b.Listeners[0].Message.GetName())
		require.Len(t, b.Clusters, 2)
		require.EqualValues(t, "static_resources.clusters[1]", b.Clusters[1].At)
		require.Equal(t, "discovery", b.Clusters[1].Message.GetName())
	})
	t.Run("flags win over the node of the texts", func(t *testing.T) {
		b, report := bootstrap.Load(bootstrap.Source{
			File: "f", Text: []byte(strings.ReplaceAll(complete, "  id: proxy-1\n", "")), NodeID: "flag-id", NodeCluster: "flag-cluster", NodeZone: "flag-zone",
		}, newSchema(t))
		require.NoError(t, report.Err())
		require.Equal(t, "flag-id", b.Node.GetId())
		require.Equal(t, "flag-cluster", b.Message.GetNode().GetCluster())
		require.Equal(t, "flag-zone", b.Node.GetLocality().GetZone())
	})
	t.Run("a node says what it is", func(t *testing.T) {
		b, report := bootstrap.Load(bootstrap.Source{File: "f", Text: []byte(`node:
  client_features: [a.feature]
  user_agent_name: mill
  user_agent_build_version: {version: {major_number: 1, minor_number: 2, patch: 3}, metadata: {built: today}}
`), NodeZone: "z"}, newSchema(t))
		require.NoError(t, report.Err())
		require.Equal(t, "mill", b.Node.GetUserAgentName())
		require.Equal(t, []string{"a.feature"}, b.Node.GetClientFeatures())
		require.EqualValues(t, 2, b.Node.GetUserAgentBuildVersion().GetVersion().GetMinorNumber())
		require.Equal(t, "z", b.Node.GetLocality().GetZone())
		b, _ = bootstrap.Load(bootstrap.Source{File: "f", Text: []byte(`node: {id: a}`)}, newSchema(t))
		require.Equal(t, "weir", b.Node.GetUserAgentName())
	})
	t.Run("an overlay is merged over the file", func(t *testing.T) {
		b, report := bootstrap.Load(bootstrap.Source{
			File: "f", Text: []byte(complete),
			Overlay: []byte(`{node: {id: over}, static_resources: {clusters: [{name: third}]}}`),
		}, newSchema(t))
		require.NoError(t, report.Err())
		require.Equal(t, "over", b.Node.GetId())
		require.Equal(t, "edge", b.Node.GetCluster())
		require.Len(t, b.Clusters, 3)
	})
	t.Run("an overlay can stand alone", func(t *testing.T) {
		b, report := bootstrap.Load(bootstrap.Source{Overlay: []byte(complete)}, newSchema(t))
		require.NoError(t, report.Err())
		require.Equal(t, "proxy-1", b.Node.GetId())
	})
	t.Run("without admin and dynamic resources there are none", func(t *testing.T) {
		b, report := bootstrap.Load(bootstrap.Source{File: "f", Text: []byte(`static_resources: {}`)}, newSchema(t))
		require.NoError(t, report.Err())
		require.Empty(t, b.AdminAddress)
		require.Nil(t, b.ADS)
		require.Nil(t, b.CDS)
		require.Nil(t, b.LDS)
		require.NotNil(t, b.Node)
	})
	t.Run("the start waits 15 seconds for clusters where nothing is said", func(t *testing.T) {
		b, report := bootstrap.Load(bootstrap.Source{
			File: "f", Text: []byte(strings.ReplaceAll(complete, ", initial_fetch_timeout: 2s", "")),
		}, newSchema(t))
		require.NoError(t, report.Err())
		require.Equal(t, 15*time.Second, b.CDS.InitialFetchTimeout)
	})
}

func TestBrokenBootstrapsSayAllThatIsWrong(t *testing.T) {
	servicetest.GoldenFaults(t, "testdata/*.yaml", func(t *testing.T, name string, text []byte) error {
		_, report := bootstrap.Load(bootstrap.Source{File: name, Text: text}, newSchema(t))
		return report.Err()
	})
}

// FuzzLoad wants no panic and a usable result without faults.
func FuzzLoad(f *testing.F) {
	f.Add([]byte(complete), []byte(`{node: {id: over}}`))
	f.Add([]byte(`dynamic_resources: {ads_config: {grpc_services: [{}]}, cds_config: {}}`), []byte(``))
	f.Add([]byte(`static_resources: {clusters: [{name: a}, {name: a}]}`), []byte(`[]`))
	schema := newSchema(f)
	f.Fuzz(func(t *testing.T, text, overlay []byte) {
		b, report := bootstrap.Load(bootstrap.Source{File: "f", Text: text, Overlay: overlay}, schema)
		if report.Err() == nil && b.ADS != nil {
			require.NotEmpty(t, b.ADS.Cluster)
			require.NotEmpty(t, b.Node.GetId())
		}
	})
}
