package resourcefiles

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/weirproxy/weir/internal/filewatch"
	"github.com/weirproxy/weir/internal/servicetest"
	"github.com/weirproxy/weir/services/discovery/internal/resources"
)

func TestMain(m *testing.M) { servicetest.Main(m) }

// The types as files name them.
const (
	clusterType  = `"@type": type.googleapis.com/envoy.config.cluster.v3.Cluster`
	routeType    = `"@type": type.googleapis.com/envoy.config.route.v3.RouteConfiguration`
	secretType   = `"@type": type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.Secret`
	wrappedType  = `"@type": type.googleapis.com/envoy.service.discovery.v3.Resource`
	anyOf        = "envoy.config.cluster.v3.Cluster, envoy.config.endpoint.v3.ClusterLoadAssignment, envoy.config.listener.v3.Listener, envoy.config.route.v3.RouteConfiguration, envoy.extensions.transport_sockets.tls.v3.Secret, envoy.service.runtime.v3.Runtime, envoy.config.core.v3.TypedExtensionConfig"
	clusterOfOne = "{" + clusterType + ", name: a}"
)

// keys are entries by type and name, as text.
func keys(entries []*entry) (list []string) {
	for _, e := range entries {
		list = append(list, e.String()+" "+strings.TrimPrefix(e.place, "f.yaml:"))
	}
	return list
}

func TestAFileIsReadInEveryForm(t *testing.T) {
	for name, test := range map[string]struct {
		text string
		want []string
	}{
		"one resource":         {clusterType + "\nname: a", []string{`"a" of clusters 2:1`}},
		"documents":            {clusterType + "\nname: a\n---\n---\n" + clusterType + "\nname: b\n---\n", []string{`"a" of clusters 2:1`, `"b" of clusters 6:1`}},
		"a list":               {"- " + clusterOfOne + "\n- {" + routeType + ", name: a}", []string{`"a" of clusters 1:66`, `"a" of routes 2:75`}},
		"a list in a document": {"- " + clusterOfOne + "\n---\n[{" + routeType + ", name: a}]", []string{`"a" of clusters 1:66`, `"a" of routes 3:74`}},
		"a response":           {"versionInfo: 7\nresources:\n- " + clusterOfOne, []string{`"a" of clusters 3:66`}},
		"a response of a type": {"type_url: type.googleapis.com/envoy.config.cluster.v3.Cluster\nresources: [" + clusterOfOne + "]", []string{`"a" of clusters 2:76`}},
		"JSON":                 {strings.ReplaceAll(strings.ReplaceAll(`{"resources": [{`+clusterType+`, "name": "a"}]}`, ": type", `: "type`), "Cluster,", `Cluster",`), []string{`"a" of clusters 1:81`}},
		"no resources":         {"[]", nil},
		"a response of none":   {"resources: []", nil},
	} {
		t.Run(name, func(t *testing.T) {
			entries, err := read("f.yaml", []byte(test.text))
			require.NoError(t, err)
			require.Equal(t, test.want, keys(entries))
		})
	}
}

func TestAWrappedResourceHasATTL(t *testing.T) {
	entries, err := read("f.yaml", []byte(wrappedType+"\nname: a\nttl: 3s\nresource: "+clusterOfOne))
	require.NoError(t, err)
	require.Equal(t, 3*time.Second, entries[0].resource.TTL)
	plain, err := read("f.yaml", []byte(clusterOfOne))
	require.NoError(t, err)
	require.Equal(t, plain[0].resource.Encoded(), entries[0].resource.Encoded())
	require.NotEqual(t, plain[0].resource.Version, entries[0].resource.Version, "clients hear of a TTL that goes")
	require.Zero(t, plain[0].resource.TTL)
}

func TestWhatIsWrongIsToldAllAtOnceByPlaceAndField(t *testing.T) {
	for name, test := range map[string]struct{ text, want string }{
		"nothing":         {"# later", "f.yaml:1:1: there is nothing in it; no resources are []"},
		"empty documents": {"---\n---\n", "f.yaml:1:1: there is nothing in it; no resources are []"},
		"no YAML":         {clusterOfOne + "\n---\na: [", "f.yaml:4: did not find expected node content"},
		"a text":          {"users", `f.yaml:1:1: want a mapping with @type, got "users"`},
		"no type":         {"name: a", `f.yaml:1:1: @type is missing: it names the type, as in "type.googleapis.com/envoy.…"`},
		"another message": {`"@type": type.googleapis.com/envoy.config.core.v3.Address`, "f.yaml:1:1: @type: envoy.config.core.v3.Address is not one of " + anyOf + "\nf.yaml:1:1: address: one of socket_address, pipe, envoy_internal_address is required"},
		"an unknown type": {`"@type": type.googleapis.com/x.Y`, `f.yaml:1:10: unknown type "x.Y"`},
		"no name": {"- {" + secretType + ", generic_secret: {secret: {inline_string: x}}}\n- {" + routeType + "}",
			"f.yaml:1:3: [0].name: a resource must have a name\nf.yaml:2:3: [1].name: a resource must have a name"},
		"the wildcard":            {clusterType + "\nname: '*'", "f.yaml:2:1: name: * means all resources and cannot be the name of one"},
		"a name twice":            {"[" + clusterOfOne + ",\n" + clusterOfOne + "]", `f.yaml:2:64: [1].name: "a" of clusters is given at f.yaml:1:65 already`},
		"in several documents":    {clusterType + "\nname: a\nx: 1\n---\n" + clusterType + "\nname: a\nx: 1", "f.yaml:3:1: document[0].x: unknown field of envoy.config.cluster.v3.Cluster\nf.yaml:6:1: document[1].name: \"a\" of clusters is given at f.yaml:2:1 already\nf.yaml:7:1: document[1].x: unknown field of envoy.config.cluster.v3.Cluster"},
		"what a response is not":  {"resource: 1\nresources: {}\ntypeUrl: x\nnonce: 1", "f.yaml:1:1: resource: not one of version_info, type_url, resources\nf.yaml:2:12: resources: want a list, got a mapping\nf.yaml:3:10: typeUrl: \"x\" is not that of one of " + anyOf + "\nf.yaml:4:1: nonce: not one of version_info, type_url, resources"},
		"another type than told":  {"type_url: type.googleapis.com/envoy.config.cluster.v3.Cluster\nresources: [{" + routeType + ", name: a}]", "f.yaml:2:13: resources[0]: @type: type.googleapis.com/envoy.config.route.v3.RouteConfiguration beside type_url type.googleapis.com/envoy.config.cluster.v3.Cluster"},
		"EDS of no source":        {"{" + clusterType + ", name: a, type: EDS}", "f.yaml:1:1: eds_cluster_config: a cluster of type EDS wants an eds_config"},
		"a domain twice":          {routeType + "\nname: a\nvirtual_hosts:\n- {name: a, domains: [A, b, a]}\n- {name: b, domains: [c, B]}", "f.yaml:4:29: virtual_hosts[0].domains[2]: the domain \"a\" is given at f.yaml:4:23 already\nf.yaml:5:26: virtual_hosts[1].domains[1]: the domain \"b\" is given at f.yaml:4:26 already"},
		"a secret of nothing":     {secretType + "\nname: a", "f.yaml:1:1: a secret holds one of tls_certificate, session_ticket_keys, validation_context, generic_secret"},
		"too short a TTL":         {wrappedType + "\nname: a\nttl: 2.999s\nresource: " + clusterOfOne, "f.yaml:3:1: ttl: 2.999s: want 3s or more, for clients are told once a second at most that they keep it"},
		"a wrapper of nothing":    {wrappedType + "\nttl: 0s", "f.yaml:1:1: resource: a Resource must hold a resource\nf.yaml:2:1: ttl: 0s: want 3s or more, for clients are told once a second at most that they keep it"},
		"a wrapper of much":       {wrappedType + "\nversion: x\nname: b\nresource: " + clusterOfOne, "f.yaml:1:1: of a Resource only name, resource and ttl can be given\nf.yaml:3:1: name: \"b\" holds \"a\": leave it out"},
		"deep inside":             {clusterType + "\nname: a\ntransport_socket: {name: tls, typed_config: {'@type': type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.UpstreamTlsContext,\n  sni: " + strings.Repeat("x", 256) + "}}", "f.yaml:4:3: transport_socket.typed_config.sni: value length must be at most 255 bytes"},
		"a wrapper in a wrapper":  {wrappedType + "\nresource: {" + wrappedType + "}", "f.yaml:1:1: @type: envoy.service.discovery.v3.Resource is not one of " + anyOf},
		"a secret with its value": {secretType + "\nname: a\ngeneric_secret: {secret: {inline_string: 4711}}", "f.yaml:3:42: generic_secret.secret.inline_string: want a string, got something that is not told: put it in quotes"},
	} {
		t.Run(name, func(t *testing.T) {
			entries, err := read("f.yaml", []byte(test.text))
			require.EqualError(t, err, test.want)
			require.Empty(t, entries)
			require.NotContains(t, err.Error(), "4711")
		})
	}
}

func TestADirectoryIsReadAsAWhole(t *testing.T) {
	status, err := Read(Options{Directory: filewatch.File{Setting: "DIR", Path: "testdata/good"}})
	require.NoError(t, err)
	require.Equal(t, Status{
		Directory: "testdata/good",
		Files: []FileStatus{
			{Path: "testdata/good/clusters.yaml", State: Good, Resources: 2},
			{Path: "testdata/good/edge/listeners.yaml", State: Good, Resources: 1},
			{Path: "testdata/good/edge/others.json", State: Good, Resources: 4},
		},
		Resources: map[string][]string{
			"clusters": {"users"}, "endpoints": {"users"}, "listeners": {"ingress"}, "routes": {"ingress"},
			"secrets": {"edge-cert"}, "runtime": {"rtds"}, "extension_configs": {"limit"},
		},
		Warnings: []string{`testdata/good/edge/others.json:4:5: "ingress" of routes names "pages" of clusters, which no file has: it must be a service, or the client's own`},
	}, status)
}

// FuzzRead wants no panic, and of what is read that it has names and bytes.
func FuzzRead(f *testing.F) {
	for _, pattern := range []string{"testdata/good/*.yaml", "testdata/good/edge/*", "testdata/bad/*"} {
		paths, err := filepath.Glob(pattern)
		require.NoError(f, err)
		require.NotEmpty(f, paths)
		for _, path := range paths {
			text, err := os.ReadFile(path)
			require.NoError(f, err)
			f.Add(text)
		}
	}
	for _, text := range []string{"resources: &x [*x]", "- &a {" + clusterType + ", name: a}\n- *a", "{? [a] : b}", wrappedType + "\nresource: {" + wrappedType + "}"} {
		f.Add([]byte(text))
	}
	f.Fuzz(func(t *testing.T, text []byte) {
		entries, err := read("f.yaml", text)
		if err != nil {
			require.NotEmpty(t, err.Error())
			require.Empty(t, entries)
			return
		}
		for _, e := range entries {
			require.NotEmpty(t, e.name)
			require.Less(t, e.typ, resources.Types)
			require.NotEmpty(t, e.resource.Encoded())
		}
	})
}
