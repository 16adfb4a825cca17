package protoyaml_test

import (
	"strings"
	"testing"

	clusterv3 "github.com/envoyproxy/go-control-plane/envoy/config/cluster/v3"
	_ "github.com/envoyproxy/go-control-plane/envoy/extensions/transport_sockets/tls/v3"
	"github.com/stretchr/testify/require"
	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/proto"

	"github.com/weirproxy/weir/internal/protoyaml"
	"github.com/weirproxy/weir/internal/servicetest"
)

func TestMain(m *testing.M) { servicetest.Main(m) }

// read fills a cluster from texts, one over the other, and validates it.
func read(t testing.TB, texts ...string) (*clusterv3.Cluster, error) {
	c := &clusterv3.Cluster{}
	for _, text := range texts {
		f, root := protoyaml.Open("f.yaml", []byte(text))
		if root == nil {
			require.Error(t, f.Err())
			return nil, f.Err()
		}
		f.Fill(root, c, "")
		f.Validate(c, "")
		if err := f.Err(); err != nil {
			return nil, err
		}
	}
	return c, nil
}

const tls = `{"@type":"type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.UpstreamTlsContext"`

func TestAMessageIsReadFromYAMLAsFromJSON(t *testing.T) {
	for name, test := range map[string]struct{ text, want string }{
		"nothing":     {`{name: a}`, `{"name":"a"}`},
		"JSON":        {`{"name": "a", "connectTimeout": "0.5s"}`, `{"name":"a","connectTimeout":"0.500s"}`},
		"both names":  {"name: a\nlbPolicy: RANDOM\nconnect_timeout: 2s", `{"name":"a","lbPolicy":"RANDOM","connectTimeout":"2s"}`},
		"null":        {"name: a\nlb_policy:\nconnect_timeout: ~", `{"name":"a"}`},
		"a number":    {"name: a\nlb_policy: 3", `{"name":"a","lbPolicy":"RANDOM"}`},
		"quoted":      {"name: 'true'\nalt_stat_name: \"8\"", `{"name":"true","altStatName":"8"}`},
		"a date":      {"name: 2026-01-01", `{"name":"2026-01-01"}`},
		"a wrapper":   {"name: a\nper_connection_buffer_limit_bytes: 0", `{"name":"a","perConnectionBufferLimitBytes":0}`},
		"an alias":    {"name: &n a\nalt_stat_name: *n", `{"name":"a","altStatName":"a"}`},
		"a bool":      {"name: a\nuse_tcp_for_dns_lookups: True", `{"name":"a","useTcpForDnsLookups":true}`},
		"nested":      {"name: a\ncircuit_breakers:\n  thresholds:\n  - max_connections: 5\n  - {priority: HIGH}", `{"name":"a","circuitBreakers":{"thresholds":[{"maxConnections":5},{"priority":"HIGH"}]}}`},
		"metadata":    {"name: a\nmetadata:\n  filter_metadata:\n    x: {n: 1, l: [true, ~, 'y', '0x1f']}", `{"name":"a","metadata":{"filterMetadata":{"x":{"n":1,"l":[true,null,"y","0x1f"]}}}}`},
		"a merge key": {"<<: {name: b, alt_stat_name: c}\nname: a", `{"name":"a","altStatName":"c"}`},
		"an Any":      {"name: a\ntransport_socket: {name: tls, typed_config: " + tls + ", sni: b}}", `{"name":"a","transportSocket":{"name":"tls","typedConfig":` + tls + `,"sni":"b"}}}`},
		"Anys by key": {"name: a\ntyped_extension_protocol_options: {k: " + tls + ", sni: b}}", `{"name":"a","typedExtensionProtocolOptions":{"k":` + tls + `,"sni":"b"}}}`},
	} {
		t.Run(name, func(t *testing.T) {
			got, err := read(t, test.text)
			require.NoError(t, err)
			want := &clusterv3.Cluster{}
			require.NoError(t, protojson.Unmarshal([]byte(test.want), want))
			require.True(t, proto.Equal(want, got), "got %s", protojson.Format(got))
		})
	}
}

func TestAMessageIsLaidOverAnother(t *testing.T) {
	got, err := read(t, `
name: a
lb_policy: RANDOM
use_tcp_for_dns_lookups: true
circuit_breakers: {thresholds: [{max_connections: 1}]}
upstream_connection_options: {tcp_keepalive: {keepalive_probes: 1, keepalive_time: 2}}
transport_socket: {name: tls, typed_config: `+tls+`, sni: b}}
metadata: {filter_metadata: {x: {a: 1, b: 2}, y: {}}}
`, `
lb_policy: ROUND_ROBIN
use_tcp_for_dns_lookups: false
circuit_breakers: {thresholds: [{max_connections: 2}]}
upstream_connection_options: {tcp_keepalive: {keepalive_time: 3}}
transport_socket: {typed_config: `+tls+`}}
metadata: {filter_metadata: {x: {a: 3}}}
`)
	require.NoError(t, err)
	want := &clusterv3.Cluster{}
	require.NoError(t, protojson.Unmarshal([]byte(`{"name":"a",
		"circuitBreakers":{"thresholds":[{"maxConnections":1},{"maxConnections":2}]},
		"upstreamConnectionOptions":{"tcpKeepalive":{"keepaliveProbes":1,"keepaliveTime":3}},
		"transportSocket":{"name":"tls","typedConfig":`+tls+`}},
		"metadata":{"filterMetadata":{"x":{"a":3},"y":{}}}}`), want))
	require.True(t, proto.Equal(want, got), "got %s", protojson.Format(got))
}

func TestWhatIsWrongIsToldByLineAndField(t *testing.T) {
	for name, test := range map[string]struct{ text, want string }{
		"nothing":            {"# later", "f.yaml:1:1: there is nothing in it"},
		"no YAML":            {"a: [", "f.yaml:2: did not find expected node content"},
		"two documents":      {"name: a\n---\nname: b", "f.yaml:2:1: a second document: want one in a file"},
		"too long":           {strings.Repeat(" ", 16<<20+1), "f.yaml:1:1: 16777217 bytes, of 16777216 at most"},
		"no mapping":         {"[]", "f.yaml:1:1: want the fields of envoy.config.cluster.v3.Cluster, got a list"},
		"all at once":        {"name: a\nkind: b\nlb_policy: FAST", "f.yaml:2:1: kind: unknown field of envoy.config.cluster.v3.Cluster\nf.yaml:3:12: lb_policy: \"FAST\" is not a envoy.config.cluster.v3.Cluster.LbPolicy: want ROUND_ROBIN, LEAST_REQUEST, RING_HASH, RANDOM, MAGLEV, CLUSTER_PROVIDED, LOAD_BALANCING_POLICY_CONFIG"},
		"beside a wrong key": {"name: a\nkind: b\nconnect_timeout: -1s", "f.yaml:2:1: kind: unknown field of envoy.config.cluster.v3.Cluster\nf.yaml:3:1: connect_timeout: value must be greater than 0s"},
		"a key twice":        {"name: a\nname: b", "f.yaml:2:1: duplicate key \"name\": it stands on line 1 already"},
		"a field twice":      {"name: a\nlb_policy: RANDOM\nlbPolicy: RANDOM", "f.yaml:3:1: lb_policy: given twice, as \"lb_policy\" and \"lbPolicy\""},
		"two of a oneof":     {"name: a\ntype: EDS\ncluster_type: {name: x}", "f.yaml:3:1: cluster_type: cannot be set beside type"},
		"no list":            {"name: a\nhealth_checks: {}", "f.yaml:2:16: health_checks: want a list, got a mapping"},
		"no text":            {"name: 5", "f.yaml:1:7: name: want a string, got the bare 5: put it in quotes"},
		"no duration":        {"name: a\nconnect_timeout: 5", "f.yaml:2:18: connect_timeout: \"5\" is not a Duration: want seconds, as in \"0.25s\""},
		"a broken rule":      {"name: a\nconnect_timeout: -1s", "f.yaml:2:1: connect_timeout: value must be greater than 0s"},
		"inside a list":      {"name: a\ncircuit_breakers:\n  thresholds:\n  - {max_pools: 1, priority: HIGH}\n  - {priority: 7}", "f.yaml:4:6: circuit_breakers.thresholds[0].max_pools: unknown field of envoy.config.cluster.v3.CircuitBreakers.Thresholds\nf.yaml:5:16: circuit_breakers.thresholds[1].priority: \"7\" is not a envoy.config.core.v3.RoutingPriority: want DEFAULT, HIGH"},
		"a oneof missing":    {"name: a\nhealth_checks:\n- {timeout: 1s, interval: 1s, unhealthy_threshold: 1, healthy_threshold: 1}", "f.yaml:3:3: health_checks[0].health_checker: one of http_health_check, tcp_health_check, grpc_health_check, custom_health_check is required"},
		"what is missing":    {"name: a\nhealth_checks:\n- {tcp_health_check: {}}", "f.yaml:3:3: health_checks[0].healthy_threshold: value is required\nf.yaml:3:3: health_checks[0].interval: value is required\nf.yaml:3:3: health_checks[0].timeout: value is required\nf.yaml:3:3: health_checks[0].unhealthy_threshold: value is required"},
		"an Any of none":     {"name: a\ntransport_socket: {name: tls, typed_config: {sni: b}}", "f.yaml:2:45: transport_socket.typed_config: @type is missing: it names the type, as in \"type.googleapis.com/envoy.…\""},
		"an Any by URL":      {"name: a\ntransport_socket: {name: tls, typed_config: {'@type': b}}", "f.yaml:2:55: transport_socket.typed_config: type URL \"b\" does not begin with type.googleapis.com/"},
		"an unknown Any":     {"name: a\ntransport_socket: {name: tls, typed_config: {'@type': type.googleapis.com/b}}", "f.yaml:2:55: transport_socket.typed_config: unknown type \"b\""},
		"an Any of no use":   {"name: a\ntransport_socket: {name: tls, typed_config: {'@type': type.googleapis.com/google.protobuf.Duration}}", "f.yaml:2:55: transport_socket.typed_config: type google.protobuf.Duration has no fields that a file can give"},
		"inside an Any":      {"name: a\ntransport_socket: {name: tls, typed_config: " + tls + ",\n  max_session_keys: x,\n  sni: " + strings.Repeat("x", 256) + "}}", "f.yaml:3:21: transport_socket.typed_config.max_session_keys: \"x\" is not a uint32: want a plain decimal number\nf.yaml:4:3: transport_socket.typed_config.sni: value length must be at most 255 bytes"},
		"too deep":           {"name: a\nmetadata: {filter_metadata: {x: {a: " + strings.Repeat("[", 101) + strings.Repeat("]", 101) + "}}}", "f.yaml:2:132: metadata.filter_metadata[\"x\"][\"a\"]" + strings.Repeat("[0]", 95) + ": nested more than 100 deep"},
		"in itself":          {"name: a\nmetadata: {filter_metadata: {x: &x {a: *x}}}", "f.yaml:2:40: metadata.filter_metadata[\"x\"][\"a\"][\"a\"]: the anchor &x contains itself"},
		"a tag":              {"name: !!binary aGFsbG8=", "f.yaml:1:7: name: the tag !!binary means nothing here"},
		"a misspelt field":   {"name: a\nlb_polici: RANDOM", "f.yaml:2:1: lb_polici: unknown field of envoy.config.cluster.v3.Cluster: did you mean lb_policy?"},
	} {
		t.Run(name, func(t *testing.T) {
			_, err := read(t, test.text)
			require.EqualError(t, err, test.want)
		})
	}
}

func TestATextThatStandsForTooMuchIsRefused(t *testing.T) {
	text := "name: a\nmetadata: {filter_metadata: {x: {a: &a0 [1,1,1,1,1,1,1,1,1,1]"
	for i := range 8 {
		n, m := string(rune('0'+i)), string(rune('1'+i))
		text += ", b" + n + ": &a" + m + " [" + strings.Repeat("*a"+n+",", 10) + "]"
	}
	_, err := read(t, text+"}}}")
	require.ErrorContains(t, err, "more than 200000 values")
}

func TestOnlySoManyFaultsAreTold(t *testing.T) {
	_, err := read(t, "name: a\nhealth_checks: ["+strings.Repeat("{x: 1},", 200)+"]")
	lines := strings.Split(err.Error(), "\n")
	require.Len(t, lines, 101)
	require.Equal(t, "f.yaml: and more", lines[100])
}

// FuzzFill wants no panic, and of what is read that it can be marshalled.
func FuzzFill(f *testing.F) {
	for _, seed := range []string{
		"name: a\nhealth_checks:\n- {tcp_health_check: {}}",
		"name: a\ntransport_socket: {name: tls, typed_config: " + tls + ", sni: b}}",
		"name: a\nmetadata: {filter_metadata: {x: &x {a: *x}}}",
		"{\"name\": \"a\", \"typed_extension_protocol_options\": {\"k\": 1}, \"name\": []}",
		"name: !!binary aGFsbG8=\nlb_policy: !x 1\n? [a]\n: b",
	} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, text string) {
		c, err := read(t, text)
		if err != nil {
			require.NotEmpty(t, err.Error())
			return
		}
		_, err = proto.Marshal(c)
		require.NoError(t, err)
	})
}

func TestWhatIsSensitiveIsNotTold(t *testing.T) {
	const secret = "'@type': type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.Secret\n"
	for name, test := range map[string]struct{ text, want string }{
		"a number for a text":    {secret + "tls_certificate: {password: {inline_string: 4711}}", "f.yaml:2:45: tls_certificate.password.inline_string: want a string, got something that is not told: put it in quotes"},
		"no base64":              {secret + "generic_secret: {secret: {inline_bytes: '!4711'}}", "f.yaml:2:41: generic_secret.secret.inline_bytes: something that is not told is not a bytes: want base64"},
		"a text for a message":   {secret + "generic_secret: {secret: '4711'}", "f.yaml:2:26: generic_secret.secret: want the fields of envoy.config.core.v3.DataSource, got something that is not told"},
		"a text for a list":      {secret + "session_ticket_keys: {keys: '4711'}", "f.yaml:2:29: session_ticket_keys.keys: want a list, got something that is not told"},
		"an unknown field":       {secret + "k4711: x", "f.yaml:2:1: unknown field of envoy.extensions.transport_sockets.tls.v3.Secret"},
		"an unknown field below": {secret + "tls_certificate: {k4711: x}", "f.yaml:2:19: tls_certificate: unknown field of envoy.extensions.transport_sockets.tls.v3.TlsCertificate"},
		"a key twice":            {secret + "tls_certificate: {password: {k4711: x, k4711: x}}", "f.yaml:2:19: tls_certificate.password.specifier: one of filename, inline_bytes, inline_string, environment_variable is required\nf.yaml:2:30: tls_certificate.password: unknown field of envoy.config.core.v3.DataSource\nf.yaml:2:40: tls_certificate.password: duplicate key something that is not told: it stands on line 2 already"},
		"a key twice at the top": {secret + "k4711: x\nk4711: x", "f.yaml:2:1: unknown field of envoy.extensions.transport_sockets.tls.v3.Secret\nf.yaml:3:1: duplicate key something that is not told: it stands on line 2 already"},
		"a broken rule":          {secret + "tls_certificate: {password: {inline_string: ''}, private_key: {}}", "f.yaml:2:50: tls_certificate.private_key.specifier: one of filename, inline_bytes, inline_string, environment_variable is required"},
		"an alias of no anchor":  {secret + "tls_certificate: {password: {inline_string: *k4711}}", "f.yaml:1: an alias of no anchor"},
		"in another message":     {"'@type': type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.UpstreamTlsContext\nsni: 4712\ncommon_tls_context: {tls_certificates: [{private_key: {inline_string: 4711}}]}", "f.yaml:2:6: sni: want a string, got the bare 4712: put it in quotes\nf.yaml:3:71: common_tls_context.tls_certificates[0].private_key.inline_string: want a string, got something that is not told: put it in quotes"},
	} {
		t.Run(name, func(t *testing.T) {
			f, documents := protoyaml.OpenAll("f.yaml", []byte(test.text))
			for _, n := range documents {
				f.Typed(n, "")
			}
			require.EqualError(t, f.Err(), test.want)
			require.NotContains(t, f.Err().Error(), "4711")
		})
	}
}

func TestDocumentsAreReadUntilOneIsNoYAML(t *testing.T) {
	for name, test := range map[string]struct {
		text string
		want int
		err  string
	}{
		"none":          {"# later\n", 0, ""},
		"two":           {"a: 1\n---\nb: 1\n", 2, ""},
		"empty ones":    {"---\n---\na: 1\n---\n", 3, ""},
		"the last bad":  {"a: 1\n---\nb: [\n", 1, "f.yaml:4: did not find expected node content"},
		"JSON in lines": {`{"a": 1}` + "\n" + `{"b": 1}`, 1, "f.yaml:2: did not find expected <document start>"},
	} {
		t.Run(name, func(t *testing.T) {
			f, documents := protoyaml.OpenAll("f.yaml", []byte(test.text))
			require.Len(t, documents, test.want)
			if test.err == "" {
				require.NoError(t, f.Err())
				return
			}
			require.EqualError(t, f.Err(), test.err)
		})
	}
}
