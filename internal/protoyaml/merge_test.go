package protoyaml_test

import (
	"testing"

	bootstrapv3 "github.com/envoyproxy/go-control-plane/envoy/config/bootstrap/v3"
	clusterv3 "github.com/envoyproxy/go-control-plane/envoy/config/cluster/v3"
	hcmv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/network/http_connection_manager/v3"
	"github.com/stretchr/testify/require"

	"github.com/weirproxy/weir/internal/protoyaml"
)

const mergeBase = `
node: {id: a, cluster: b}
admin: {address: {socket_address: {address: 127.0.0.1, port_value: 1}}}
static_resources:
  listeners:
  - {name: first, address: {socket_address: {address: a, port_value: 1}}}
  - {name: second, address: {socket_address: {address: a, port_value: 2}}}
`

func TestTextsAreMerged(t *testing.T) {
	overlaid := func(overlay string) (*bootstrapv3.Bootstrap, *protoyaml.Report) {
		var b bootstrapv3.Bootstrap
		return &b, load(&b, source{"file.yaml", mergeBase}, source{"--config-yaml", overlay})
	}
	t.Run("a later text fills, replaces and appends", func(t *testing.T) {
		b, report := overlaid(`
node: {cluster: c}
admin: {address: {socket_address: {port_value: 2}}}
static_resources: {listeners: [{name: third, address: {socket_address: {address: a, port_value: 3}}}]}
`)
		require.NoError(t, report.Err())
		require.Equal(t, "a", b.GetNode().GetId())
		require.Equal(t, "c", b.GetNode().GetCluster())
		require.Equal(t, "127.0.0.1", b.GetAdmin().GetAddress().GetSocketAddress().GetAddress())
		require.EqualValues(t, 2, b.GetAdmin().GetAddress().GetSocketAddress().GetPortValue())
		require.Len(t, b.GetStaticResources().GetListeners(), 3)
	})
	t.Run("faults name the text that they are in", func(t *testing.T) {
		_, report := overlaid(`static_resources: {listeners: [{name: third, address: {socket_address: {address: "", port_value: 3}}}], x: 1}`)
		report.Add("static_resources.listeners[1].name", "the second")
		report.Add("static_resources.listeners[2].filter_chains[0]", "nowhere")
		report.Add("static_resources.listeners[3].name", "beyond the end")
		report.Add("admin.address", "in the file")
		require.EqualError(t, report.Err(), `file.yaml:3:9: admin.address: in the file
file.yaml:7:6: static_resources.listeners[1].name: the second
--config-yaml:1:20: static_resources.listeners[3].name: beyond the end
--config-yaml:1:32: static_resources.listeners[2].filter_chains[0]: nowhere
--config-yaml:1:73: static_resources.listeners[2].address.socket_address.address: value length must be at least 1 runes
--config-yaml:1:105: static_resources.x: unknown field of envoy.config.bootstrap.v3.Bootstrap.StaticResources`)
	})
	t.Run("a text that is no YAML does not hide the other's faults", func(t *testing.T) {
		var b bootstrapv3.Bootstrap
		report := load(&b, source{"a", "{"}, source{"b", "x: 1"})
		require.EqualError(t, report.Err(), "a:2: did not find expected node content\nb:1:1: x: unknown field of envoy.config.bootstrap.v3.Bootstrap")
	})
}

func TestAddFindsTheLine(t *testing.T) {
	text := `!ignore shared: &chain
  filters: [{name: a}]
static_resources:
  listeners:
  - name: x
    address: {socketAddress: {address: a, portValue: 1}}
    filter_chains:
    - *chain
    - <<: *chain
      filter_chain_match: {destination_port: 1}
    metadata:
      filter_metadata:
        'odd "key".[0]': {a: [{b: 1}]}
`
	for _, c := range []struct {
		path protoyaml.Path
		want string
	}{
		{"", "1:1"},
		{"nowhere", "1:1"},
		{"static_resources.listeners[0].address.socket_address.port_value", "6:43"},
		{"static_resources.listeners[0].filter_chains[0].filters[0].name", "2:14"},
		{"static_resources.listeners[0].filter_chains[1].filters[0].typed_config.x.y", "2:13"},
		{"static_resources.listeners[0].filter_chains[1].filter_chain_match", "10:7"},
		{"static_resources.listeners[0].filter_chains[7]", "7:5"},
		{protoyaml.Path("static_resources.listeners[0].metadata.filter_metadata").Key(`odd "key".[0]`).Key("a").Index(0).Key("b"), "13:32"},
		{"static_resources.listeners[", "4:3"},
		{`static_resources.listeners["`, "4:3"},
		{"static_resources..listeners", "3:1"},
		{"static_resources.listeners[0]x.y", "4:3"},
	} {
		t.Run(string(c.path), func(t *testing.T) {
			var b bootstrapv3.Bootstrap
			report := load(&b, source{"f", text})
			require.NoError(t, report.Err())
			report.Add(c.path, "here")
			want := "f:" + c.want
			if c.path != "" {
				want += ": " + string(c.path)
			}
			require.EqualError(t, report.Err(), want+": here")
		})
	}
}

func TestAddSaysNothingMoreOfARefusedValue(t *testing.T) {
	var b bootstrapv3.Bootstrap
	report := load(&b, source{"f", "node: {id: 1, clutser: x, metadata: {}}"})
	report.Add("node.id", "a node needs an id")
	report.Add("node.cluster", "a node needs a cluster")
	report.Add("node.clutser[0].x", "inside")
	report.Add("node.metadata", "told")
	require.EqualError(t, report.Err(), `f:1:12: node.id: want a string, got the bare 1: put it in quotes
f:1:15: node.clutser: unknown field of envoy.config.core.v3.Node: did you mean cluster?
f:1:27: node.metadata: told`)
}

func TestPath(t *testing.T) {
	for want, got := range map[protoyaml.Path]protoyaml.Path{
		"a.b[2].c":     protoyaml.Path("").Field("a").Field("b").Index(2).Field("c"),
		`a["x.y"].b`:   protoyaml.Path("a").Key("x.y").Field("b"),
		`a["odd one"]`: protoyaml.Path("a").Field("odd one"),
		`[""]`:         protoyaml.Path("").Field(""),
	} {
		require.Equal(t, want, got)
	}
}

func TestFaultLeavesOutWhatIsEmpty(t *testing.T) {
	for want, f := range map[string]protoyaml.Fault{
		"f:1:2: a.b: text": {File: "f", Line: 1, Column: 2, Path: "a.b", Text: "text"},
		"f:1: text":        {File: "f", Line: 1, Text: "text"},
		"f: text":          {File: "f", Text: "text"},
		"a: text":          {Path: "a", Text: "text"},
		"text":             {Text: "text"},
	} {
		require.Equal(t, want, f.String())
	}
}

func TestAReportApartFindsLinesAndHasNoFaults(t *testing.T) {
	var c clusterv3.Cluster
	report := load(&c, source{"f", "name: a\nconnect_timeout: 1s\nx: y\n"})
	require.Error(t, report.Err())
	apart := report.Apart()
	require.NoError(t, apart.Err())
	apart.Add("connect_timeout", "too short")
	require.EqualError(t, apart.Err(), "f:2:1: connect_timeout: too short")
}

func TestAnOptionalExtensionMayBeOfATypeThatNobodyKnows(t *testing.T) {
	const extension = `typed_config: {"@type": type.googleapis.com/nobody.Knows, x: y}`
	read := func(text string, schema protoyaml.Schema) (*hcmv3.HttpFilter, error) {
		report, filter := &protoyaml.Report{}, &hcmv3.HttpFilter{}
		f, root := report.Open("f", []byte(text), schema)
		f.Fill(root, filter, "")
		return filter, report.Err()
	}
	filter, err := read("name: a\nis_optional: true\n"+extension, tolerant{})
	require.NoError(t, err)
	require.Equal(t, "type.googleapis.com/nobody.Knows", filter.GetTypedConfig().GetTypeUrl())
	_, err = read("name: a\nis_optional: false\n"+extension, tolerant{})
	require.ErrorContains(t, err, "nobody.Knows")
	_, err = read("name: a\nis_optional: true\n"+extension, protoyaml.Linked{})
	require.ErrorContains(t, err, "nobody.Knows", "who keeps what it reads would keep it emptied")
}

type tolerant struct{ protoyaml.Linked }

func (tolerant) LeavesOutOptional() {}
