package resources

import (
	"strings"
	"testing"
	"time"

	clusterv3 "github.com/envoyproxy/go-control-plane/envoy/config/cluster/v3"
	"github.com/stretchr/testify/require"
	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/proto"
)

const edsByADS = `"type":"EDS","edsClusterConfig":{"edsConfig":{"ads":{},"resourceApiVersion":"V3"}}`

func TestAClusterHasItsHostsByEDSOnTheSameStream(t *testing.T) {
	m := newMaker(t, Options{})
	wantJSON(t, `{"name":"users",`+edsByADS+`,"connectTimeout":"1s"}`, made[clusterv3.Cluster](t, m, Clusters, "users", ""))
	wantJSON(t, `{"name":"users#canary",`+edsByADS+`,"connectTimeout":"1s"}`, made[clusterv3.Cluster](t, m, Clusters, "users#canary", ""))
}

const (
	tlsType  = "type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.UpstreamTlsContext"
	httpType = "type.googleapis.com/envoy.extensions.upstreams.http.v3.HttpProtocolOptions"
	httpKey  = "envoy.extensions.upstreams.http.v3.HttpProtocolOptions"
)

func TestAClusterIsMadeByTheTemplate(t *testing.T) {
	for name, test := range map[string]struct {
		text   string
		wanted map[string]string // clusters by name, without what all have
	}{
		"nothing but its keys": {
			"services: {}", map[string]string{"users": `"connectTimeout":"1s"`},
		},
		"for all and for one": {
			`
cluster:
  connect_timeout: 0.25s
  lb_policy: LEAST_REQUEST
  circuit_breakers: {thresholds: [{max_connections: 10}]}
  eds_cluster_config: {eds_config: {initial_fetch_timeout: 5s}}
services:
  users:
    lb_policy: ROUND_ROBIN
    circuit_breakers: {thresholds: [{priority: HIGH, max_connections: 20}]}
    eds_cluster_config: {eds_config: {initial_fetch_timeout: 0s}}
  orders: {}
`, map[string]string{
				"carts": `"connectTimeout":"0.250s","lbPolicy":"LEAST_REQUEST","circuitBreakers":{"thresholds":[{"maxConnections":10}]},
					"edsClusterConfig":{"edsConfig":{"initialFetchTimeout":"5s"}}`,
				"orders": `"connectTimeout":"0.250s","lbPolicy":"LEAST_REQUEST","circuitBreakers":{"thresholds":[{"maxConnections":10}]},
					"edsClusterConfig":{"edsConfig":{"initialFetchTimeout":"5s"}}`,
				"users": `"connectTimeout":"0.250s","circuitBreakers":{"thresholds":[{"maxConnections":10},{"priority":"HIGH","maxConnections":20}]},
					"edsClusterConfig":{"edsConfig":{"initialFetchTimeout":"0s"}}`,
				"users#canary": `"connectTimeout":"0.250s","circuitBreakers":{"thresholds":[{"maxConnections":10},{"priority":"HIGH","maxConnections":20}]},
					"edsClusterConfig":{"edsConfig":{"initialFetchTimeout":"0s"}}`,
			},
		},
		"JSON, with what Anys hold": {
			`{"services": {"users": {
				"typed_extension_protocol_options": {"` + httpKey + `": {"@type": "` + httpType + `", "explicit_http_config": {"http2_protocol_options": {}}}},
				"transport_socket": {"name": "tls", "typed_config": {"@type": "` + tlsType + `", "sni": "users.example"}}}}}`,
			map[string]string{"users": `"connectTimeout":"1s",
				"typedExtensionProtocolOptions":{"` + httpKey + `":{"@type":"` + httpType + `","explicitHttpConfig":{"http2ProtocolOptions":{}}}},
				"transportSocket":{"name":"tls","typedConfig":{"@type":"` + tlsType + `","sni":"users.example"}}`},
		},
		"what it may say of its hosts": {
			"cluster: {type: EDS, eds_cluster_config: {eds_config: {ads: {}, resource_api_version: V3}}}",
			map[string]string{"users": `"connectTimeout":"1s"`},
		},
		"hosts by a stream of their own": {
			"cluster: {eds_cluster_config: {eds_config: {api_config_source: {api_type: GRPC, transport_api_version: V3, grpc_services: [{envoy_grpc: {cluster_name: discovery}}]}}}}",
			map[string]string{"users": `"connectTimeout":"1s","edsClusterConfig":{"edsConfig":{
				"apiConfigSource":{"apiType":"GRPC","transportApiVersion":"V3","grpcServices":[{"envoyGrpc":{"clusterName":"discovery"}}]}}}`},
		},
	} {
		t.Run(name, func(t *testing.T) {
			template, err := ReadTemplate("clusters.yaml", []byte(test.text))
			require.NoError(t, err)
			m := newMaker(t, Options{Template: template})
			for name, fields := range test.wanted {
				want := &clusterv3.Cluster{}
				require.NoError(t, protojson.Unmarshal([]byte(`{"name":"`+name+`",`+edsByADS+`}`), want))
				more := &clusterv3.Cluster{}
				require.NoError(t, protojson.Unmarshal([]byte(`{`+fields+`}`), more))
				proto.Merge(want, more)
				got := made[clusterv3.Cluster](t, m, Clusters, name, "")
				require.True(t, proto.Equal(want, got), "got %s", protojson.Format(got))
			}
		})
	}
}

func TestAnotherTemplateLeavesAMakerAsItIs(t *testing.T) {
	template, err := ReadTemplate("clusters.yaml", []byte("cluster: {connect_timeout: 2s}"))
	require.NoError(t, err)
	before := newMaker(t, Options{ZonePriorities: true})
	after := before.WithTemplate(template)
	require.Equal(t, time.Second, made[clusterv3.Cluster](t, before, Clusters, "users", "").GetConnectTimeout().AsDuration())
	require.Equal(t, 2*time.Second, made[clusterv3.Cluster](t, after, Clusters, "users", "").GetConnectTimeout().AsDuration())
	require.True(t, after.Varies(Endpoints))
}

func TestABadTemplateIsRefusedByLineAndField(t *testing.T) {
	for name, test := range map[string]struct{ text, want string }{
		"nothing":     {"", "clusters.yaml:1:1: there is nothing in it"},
		"a list":      {"[]", "clusters.yaml:1:1: want a mapping, got a list"},
		"another key": {"clusters: {}", `clusters.yaml:1:1: "clusters" is not one of cluster, services`},
		"an empty part": {"cluster:\nservices:", "clusters.yaml:1:9: cluster: want the fields of envoy.config.cluster.v3.Cluster, got nothing\n" +
			"clusters.yaml:2:10: services: want a mapping by service, got nothing"},
		"what breaks a cluster": {
			"cluster:\n  name: a\n  type: STATIC\n  lb_policy: CLUSTER_PROVIDED\n  load_assignment: {cluster_name: a}\n" +
				"  eds_cluster_config:\n    service_name: b\n    eds_config: {path: /c, resource_api_version: V2}",
			"clusters.yaml:2:3: cluster.name: every cluster bears the name of its service\n" +
				"clusters.yaml:3:3: cluster.type: hosts come by EDS\n" +
				"clusters.yaml:4:3: cluster.lb_policy: no cluster whose hosts come by EDS provides one\n" +
				"clusters.yaml:5:3: cluster.load_assignment: hosts come by EDS\n" +
				"clusters.yaml:7:5: cluster.eds_cluster_config.service_name: assignments bear the names of their clusters\n" +
				"clusters.yaml:8:5: cluster.eds_cluster_config.eds_config: hosts come from here: want ads, self or api_config_source\n" +
				"clusters.yaml:8:28: cluster.eds_cluster_config.eds_config.resource_api_version: want V3",
		},
		"another way to its hosts": {
			"cluster: {cluster_type: {name: a}}", "clusters.yaml:1:11: cluster.cluster_type: hosts come by EDS",
		},
		"for all, told once": {
			"cluster: {connect_timeout: 0s}\nservices: {users: {}}", "clusters.yaml:1:11: cluster.connect_timeout: value must be greater than 0s",
		},
		"for all and for some": {
			"cluster: {connect_timeout: 0s}\nservices: {users: {}, orders: {kind: a, lb_policy: RANDOM}}",
			"clusters.yaml:1:11: cluster.connect_timeout: value must be greater than 0s\n" +
				"clusters.yaml:2:32: services[\"orders\"].kind: unknown field of envoy.config.cluster.v3.Cluster",
		},
		"for some": {
			"services:\n  users: {connect_timeout: 0s}\n  orders: {kind: a}\n  users#canary: {}\n  '*': {}",
			"clusters.yaml:2:11: services[\"users\"].connect_timeout: value must be greater than 0s\n" +
				"clusters.yaml:3:12: services[\"orders\"].kind: unknown field of envoy.config.cluster.v3.Cluster\n" +
				"clusters.yaml:4:3: services[\"users#canary\"]: want a service's name: its subsets have the cluster of the service\n" +
				"clusters.yaml:5:3: services[\"*\"]: want a service's name: its subsets have the cluster of the service",
		},
		"inside an Any": {
			"services:\n  users:\n    transport_socket:\n      name: tls\n      typed_config:\n        '@type': " + tlsType + "\n        sni: " + strings.Repeat("x", 300),
			"clusters.yaml:7:9: services[\"users\"].transport_socket.typed_config.sni: value length must be at most 255 bytes",
		},
	} {
		t.Run(name, func(t *testing.T) {
			template, err := ReadTemplate("clusters.yaml", []byte(test.text))
			require.EqualError(t, err, test.want)
			require.Nil(t, template)
		})
	}
}

// FuzzReadTemplate wants no panic, and clusters that can be made by any template
// that is taken.
func FuzzReadTemplate(f *testing.F) {
	for _, seed := range []string{
		"cluster: {connect_timeout: 1s}\nservices: {users: {lb_policy: RANDOM}}",
		"services: {users: {transport_socket: {name: tls, typed_config: {'@type': " + tlsType + "}}}}",
		"cluster: &c {lb_policy: MAGLEV}\nservices: {users: *c}",
		"cluster: {eds_cluster_config: {eds_config: {self: {}}}}",
	} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, text string) {
		template, err := ReadTemplate("f", []byte(text))
		if err != nil {
			require.NotEmpty(t, err.Error())
			return
		}
		m := newMaker(t, Options{Template: template})
		for _, name := range []string{"users", "other", "users#canary"} {
			c := made[clusterv3.Cluster](t, m, Clusters, name, "")
			require.Equal(t, name, c.GetName())
			require.Equal(t, clusterv3.Cluster_EDS, c.GetType())
		}
	})
}

func TestBadOptionsAreRefusedAtOnce(t *testing.T) {
	_, err := NewMaker(Options{SubsetSize: -1, TagNamespace: "\xff"})
	require.EqualError(t, err, "subset of -1 hosts: below 0\nnamespace \"\\xff\" of tags: not UTF-8")
}
