package app_test

import (
	"context"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"

	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	tlsv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/transport_sockets/tls/v3"
	discoveryv3 "github.com/envoyproxy/go-control-plane/envoy/service/discovery/v3"
	"github.com/stretchr/testify/require"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/metadata"

	"github.com/weirproxy/weir/internal/servicetest"
	"github.com/weirproxy/weir/services/discovery/internal/app"
)

// put writes a file in one step.
func put(t testing.TB, path, text string) {
	t.Helper()
	require.NoError(t, os.WriteFile(path+".new", []byte(text), 0o600))
	require.NoError(t, os.Rename(path+".new", path))
}

const secretURL = "type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.Secret"

// secret is a file with a secret of a content.
func secret(content string) string {
	return "- {'@type': " + secretURL + ", name: cert, generic_secret: {secret: {inline_string: " + content + "}}}\n"
}

// filed is a service with resources of files, a token for the edge team, and rules
// by which that has the secret cert on nodes of the cluster edge.
func filed(t *testing.T) (o app.Options, resources, rules string) {
	dir := t.TempDir()
	o = options(t)
	o.Resources, o.SecretRules, o.AuthFile = filepath.Join(dir, "resources"), filepath.Join(dir, "rules"), filepath.Join(dir, "auth")
	require.NoError(t, os.Mkdir(o.Resources, 0o700))
	put(t, o.Resources+"/secrets.yaml", secret("first"))
	put(t, o.SecretRules, "secrets: [{names: [cert], clusters: [edge], identities: [edge-team]}]")
	put(t, o.AuthFile, "tokens: [{name: edge-team, token: 0123456789abcdef, services: []}]")
	return o, o.Resources, o.SecretRules
}

// asksForSecret opens a delta stream that asks for the secret cert.
func (r *running) asksForSecret(t *testing.T, cluster, token string) discoveryv3.AggregatedDiscoveryService_DeltaAggregatedResourcesClient {
	t.Helper()
	conn, err := grpc.NewClient(r.addrs["xds"], grpc.WithTransportCredentials(insecure.NewCredentials()))
	require.NoError(t, err)
	ctx, cancel := context.WithTimeout(t.Context(), servicetest.Patience)
	t.Cleanup(func() { cancel(); _ = conn.Close() })
	if token != "" {
		ctx = metadata.AppendToOutgoingContext(ctx, "authorization", "Bearer "+token)
	}
	stream, err := discoveryv3.NewAggregatedDiscoveryServiceClient(conn).DeltaAggregatedResources(ctx)
	require.NoError(t, err)
	require.NoError(t, stream.Send(&discoveryv3.DeltaDiscoveryRequest{
		TypeUrl: secretURL, ResourceNamesSubscribe: []string{"cert"}, Node: &corev3.Node{Id: "n1", Cluster: cluster},
	}))
	return stream
}

// nextSecret takes a response, and returns the content of the secret in it, or
// that it is gone.
func nextSecret(t *testing.T, stream discoveryv3.AggregatedDiscoveryService_DeltaAggregatedResourcesClient) string {
	t.Helper()
	response, err := stream.Recv()
	require.NoError(t, err)
	require.NoError(t, stream.Send(&discoveryv3.DeltaDiscoveryRequest{TypeUrl: secretURL, ResponseNonce: response.GetNonce()}))
	if len(response.GetResources()) == 0 {
		require.Equal(t, []string{"cert"}, response.GetRemovedResources())
		return "gone"
	}
	var s tlsv3.Secret
	require.NoError(t, response.GetResources()[0].GetResource().UnmarshalTo(&s))
	return s.GetGenericSecret().GetSecret().GetInlineString()
}

func TestASecretGoesToThoseThatARuleNames(t *testing.T) {
	o, resources, rules := filed(t)
	r := start(t, o)
	const token = "0123456789abcdef"
	has := r.asksForSecret(t, "edge", token)
	require.Equal(t, "first", nextSecret(t, has))
	noToken, otherCluster := r.asksForSecret(t, "edge", ""), r.asksForSecret(t, "shop", token)
	require.Equal(t, "gone", nextSecret(t, noToken))
	require.Equal(t, "gone", nextSecret(t, otherCluster))

	put(t, resources+"/secrets.yaml", secret("second"))
	require.Equal(t, "second", nextSecret(t, has))
	put(t, rules, "secrets: [{names: [cert], clusters: [shop]}]")
	require.Equal(t, "gone", nextSecret(t, has))
	require.Equal(t, "second", nextSecret(t, otherCluster))
}

func TestWithoutRulesNobodyIsSentASecret(t *testing.T) {
	o, _, _ := filed(t)
	o.SecretRules = ""
	require.Equal(t, "gone", nextSecret(t, start(t, o).asksForSecret(t, "edge", "0123456789abcdef")))
}

func TestABadFileIsNamedOnThePageAndInTheMetrics(t *testing.T) {
	o, resources, _ := filed(t)
	r := start(t, o)
	has := r.asksForSecret(t, "edge", "0123456789abcdef")
	require.Equal(t, "first", nextSecret(t, has))
	put(t, resources+"/secrets.yaml", secret("4711"))
	servicetest.Eventually(t, "the page names the file", func() bool {
		_, page := r.get(t, "admin", "/xds/files")
		require.NotContains(t, page, "4711")
		return strings.Contains(page, `"state": "kept"`) && strings.Contains(page, "[0].generic_secret.secret.inline_string: want a string")
	})
	_, body := r.get(t, "admin", "/metrics")
	require.Contains(t, body, "discovery_xds_files{state=\"kept\"} 1\n")
	require.Contains(t, body, "discovery_xds_bad_file{file=\""+resources+"/secrets.yaml\"} 1\n")
	_, files := r.get(t, "http", "/v2/xds/files")
	require.Contains(t, files, "[0].generic_secret.secret.inline_string: want a string")
	require.NotContains(t, files, "4711")
	require.Equal(t, "first", nextSecret(t, r.asksForSecret(t, "edge", "0123456789abcdef")))
	for _, path := range []string{"/xds", "/xds/files", "/metrics"} {
		_, body := r.get(t, "admin", path)
		require.NotContains(t, body, "first", path)
	}
	put(t, resources+"/secrets.yaml", secret("second"))
	servicetest.Eventually(t, "no file is bad", func() bool {
		_, body := r.get(t, "admin", "/metrics")
		return !strings.Contains(body, "discovery_xds_bad_file{")
	})
}

func TestWhatIsWrongWithFilesAtTheStartEndsIt(t *testing.T) {
	o, resources, _ := filed(t)
	put(t, resources+"/clusters.yaml", "- {'@type': "+clusterURL+"}")
	_, err := app.New(o, slog.New(slog.DiscardHandler))
	require.EqualError(t, err, "DISCOVERY_XDS_RESOURCES: "+resources+"/clusters.yaml:1:3: [0].name: a resource must have a name\n"+
		resources+"/clusters.yaml:1:3: [0].name: value length must be at least 1 runes")
}

func TestWhereThereIsNoDirectoryOfResourcesThereAreNoFiles(t *testing.T) {
	status, body := start(t, options(t)).get(t, "admin", "/xds/files")
	require.Equal(t, 200, status)
	require.JSONEq(t, `{"directory": "", "files": [], "resources": {}, "warnings": []}`, body)
}

func TestTheFilesOfTheREADMEAreGood(t *testing.T) {
	readme, err := os.ReadFile("../../README.md")
	require.NoError(t, err)
	_, section, _ := strings.Cut(string(readme), "### Resources from files\n")
	var blocks []string
	for range 2 {
		_, block, _ := strings.Cut(section, "```yaml\n")
		text, rest, found := strings.Cut(block, "```\n")
		require.True(t, found)
		blocks, section = append(blocks, text), rest
	}
	o, resources, rules := filed(t)
	put(t, resources+"/readme.yaml", blocks[0])
	put(t, rules, blocks[1])
	start(t, o)
}
