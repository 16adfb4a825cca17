package app_test

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"io"
	"net"
	"net/http"
	"net/url"
	"path/filepath"
	"strings"
	"testing"
	"time"

	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	discoveryv3 "github.com/envoyproxy/go-control-plane/envoy/service/discovery/v3"
	healthv3 "github.com/envoyproxy/go-control-plane/envoy/service/health/v3"
	loadstats "github.com/envoyproxy/go-control-plane/envoy/service/load_stats/v3"
	secretv3 "github.com/envoyproxy/go-control-plane/envoy/service/secret/v3"
	statusv3 "github.com/envoyproxy/go-control-plane/envoy/service/status/v3"
	"github.com/stretchr/testify/require"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"

	"github.com/weirproxy/weir/internal/servicetest"

	discoveryv2 "github.com/weirproxy/weir/proto/discovery/v2"
)

const (
	edgeToken = "edge-0123456789abcdef"
	shopToken = "shop-0123456789abcdef"
	edgeID    = "spiffe://td/ns/prod/sa/edge"
	// bound are rules that hold callers to their nodes.
	bound = `
tokens:
- {name: edge-team, token: ` + edgeToken + `, nodes: ["edge-*"], clusters: [edge], services: ["*"]}
- {name: shop-team, token: ` + shopToken + `, nodes: ["shop-*"], clusters: [shop]}
identities:
- {spiffe: "` + edgeID + `", nodes: ["edge-*"], clusters: [edge], services: ["*"]}
`
)

// bearer is credentials of a token.
type bearer string

func (b bearer) GetRequestMetadata(context.Context, ...string) (map[string]string, error) {
	return map[string]string{"authorization": "Bearer " + string(b)}, nil
}

func (bearer) RequireTransportSecurity() bool { return true }

// secured is a service over TLS, of whose clients certificates are asked, with
// the secret cert for nodes of the cluster edge.
type secured struct {
	*running
	authority *servicetest.Authority
	auth      string // the file of access
	rules     string // that of secrets
}

func startSecured(t *testing.T, access string) *secured {
	t.Helper()
	o, _, rules := filed(t)
	a := servicetest.NewAuthority(t)
	o.TLSCert, o.TLSKey = a.IssueFiles(x509.Certificate{IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)}})
	o.TLSClientCA, o.TLSClientAuth = a.File(), "optional"
	o.HDSFile = filepath.Join(t.TempDir(), "hds.yaml")
	put(t, o.HDSFile, "services: [{service: '*', health_checks: [{timeout: 1s, interval: 1s, unhealthy_threshold: 1, healthy_threshold: 1, tcp_health_check: {}}]}]")
	put(t, rules, "secrets: [{names: [cert], clusters: [edge]}]")
	put(t, o.AuthFile, access)
	return &secured{start(t, o), a, o.AuthFile, rules}
}

// config is how a client with a SPIFFE ID, or none, connects.
func (s *secured) config(t *testing.T, id string) *tls.Config {
	t.Helper()
	config := &tls.Config{RootCAs: s.authority.Pool()}
	if id != "" {
		u, err := url.Parse(id)
		require.NoError(t, err)
		pair, err := tls.X509KeyPair(s.authority.Issue(x509.Certificate{URIs: []*url.URL{u}}))
		require.NoError(t, err)
		config.Certificates = []tls.Certificate{pair}
	}
	return config
}

// dial connects to the gRPC listener with a SPIFFE ID and a token, or without.
func (s *secured) dial(t *testing.T, id, token string) (*grpc.ClientConn, context.Context) {
	t.Helper()
	options := []grpc.DialOption{grpc.WithTransportCredentials(credentials.NewTLS(s.config(t, id)))}
	if token != "" {
		options = append(options, grpc.WithPerRPCCredentials(bearer(token)))
	}
	conn, err := grpc.NewClient(s.addrs["xds"], options...)
	require.NoError(t, err)
	ctx, cancel := context.WithTimeout(t.Context(), servicetest.Patience)
	t.Cleanup(func() { cancel(); _ = conn.Close() })
	return conn, ctx
}

// first sends a first message on a stream, and returns what receives an answer, or
// why there is none.
func first[Q, A any](stream grpc.BidiStreamingClient[Q, A], err error, m *Q) (answer func() error) {
	if err != nil {
		return func() error { return err }
	}
	_ = stream.Send(m) // Recv says why not
	return func() error {
		_, err := stream.Recv()
		return err
	}
}

// ways are all in which a client says which node it is. Each returns what receives
// an answer, or why there is none.
var ways = map[string]func(ctx context.Context, conn *grpc.ClientConn, node *corev3.Node) (answer func() error){
	"state of the world": func(ctx context.Context, conn *grpc.ClientConn, node *corev3.Node) func() error {
		stream, err := discoveryv3.NewAggregatedDiscoveryServiceClient(conn).StreamAggregatedResources(ctx)
		return first(stream, err, &discoveryv3.DiscoveryRequest{TypeUrl: clusterURL, Node: node})
	},
	"delta": func(ctx context.Context, conn *grpc.ClientConn, node *corev3.Node) func() error {
		stream, err := discoveryv3.NewAggregatedDiscoveryServiceClient(conn).DeltaAggregatedResources(ctx)
		return first(stream, err, &discoveryv3.DeltaDiscoveryRequest{TypeUrl: clusterURL, Node: node})
	},
	"a stream of one type": func(ctx context.Context, conn *grpc.ClientConn, node *corev3.Node) func() error {
		stream, err := secretv3.NewSecretDiscoveryServiceClient(conn).DeltaSecrets(ctx)
		return first(stream, err, &discoveryv3.DeltaDiscoveryRequest{ResourceNamesSubscribe: []string{"none"}, Node: node})
	},
	"load reports": func(ctx context.Context, conn *grpc.ClientConn, node *corev3.Node) func() error {
		stream, err := loadstats.NewLoadReportingServiceClient(conn).StreamLoadStats(ctx)
		return first(stream, err, &loadstats.LoadStatsRequest{Node: node})
	},
	"health checks": func(ctx context.Context, conn *grpc.ClientConn, node *corev3.Node) func() error {
		stream, err := healthv3.NewHealthDiscoveryServiceClient(conn).StreamHealthCheck(ctx)
		return first(stream, err, &healthv3.HealthCheckRequestOrEndpointHealthResponse{
			RequestType: &healthv3.HealthCheckRequestOrEndpointHealthResponse_HealthCheckRequest{
				HealthCheckRequest: &healthv3.HealthCheckRequest{Node: node}}})
	},
}

func TestAClientIsTheNodeThatARuleLetsItBe(t *testing.T) {
	s := startSecured(t, bound)
	edge, shop := &corev3.Node{Id: "edge-1", Cluster: "edge"}, &corev3.Node{Id: "shop-1", Cluster: "shop"}
	for name, test := range map[string]struct {
		id, token string
		node      *corev3.Node
		code      codes.Code
		why       string
	}{
		"by its certificate":           {edgeID, "", edge, codes.OK, ""},
		"by its token":                 {"", edgeToken, edge, codes.OK, ""},
		"another by certificate":       {edgeID, "", shop, codes.PermissionDenied, `the rule of "` + edgeID + `" does not let it be node "shop-1" of cluster "shop" (` + s.auth + `)`},
		"another by token":             {"", edgeToken, shop, codes.PermissionDenied, `the rule of "edge-team" does not let it be node "shop-1" of cluster "shop" (` + s.auth + `)`},
		"of another cluster":           {edgeID, "", &corev3.Node{Id: "edge-1", Cluster: "shop"}, codes.PermissionDenied, `node "edge-1" of cluster "shop"`},
		"none":                         {edgeID, "", nil, codes.PermissionDenied, `node ""`},
		"by a token nobody knows":      {"", "s3cret", edge, codes.Unauthenticated, "takes a token that is known"},
		"by a token before":            {edgeID, shopToken, edge, codes.PermissionDenied, `the rule of "shop-team" does not let it be node "edge-1"`},
		"by a certificate no rule has": {"spiffe://td/eve", "", edge, codes.PermissionDenied, `no rule is for identity "spiffe://td/eve"`},
		"without saying who it is":     {"", "", edge, codes.Unauthenticated, "takes a token"},
	} {
		t.Run(name, func(t *testing.T) {
			conn, ctx := s.dial(t, test.id, test.token)
			for way, ask := range ways {
				err := ask(ctx, conn, test.node)()
				if way == "health checks" && test.node == nil {
					require.Equal(t, codes.InvalidArgument, status.Code(err), "a checker must have an id")
					continue
				}
				require.Equal(t, test.code, status.Code(err), "%s: %v", way, err)
				if way != "health checks" { // who may write nothing is told that first
					require.Contains(t, status.Convert(err).Message(), test.why, way)
				}
			}
			require.Equal(t, test.code, s.poll(t, test.id, test.token, test.node, test.why))
		})
	}
	require.Positive(t, s.metric(t, `discovery_refusals_total{reason="node"}`))
}

func TestAStreamEndsWhoseIdentityMayBeItsNodeNoMore(t *testing.T) {
	s := startSecured(t, bound)
	edge, shop := &corev3.Node{Id: "edge-1", Cluster: "edge"}, &corev3.Node{Id: "shop-1", Cluster: "shop"}
	byCertificate, ctx := s.dial(t, edgeID, "")
	byToken, _ := s.dial(t, "", edgeToken)
	another, _ := s.dial(t, "", shopToken)
	ends := map[string]func() error{} // by way and identity
	for way, ask := range ways {
		ends[way+" by certificate"] = ask(ctx, byCertificate, edge)
		if way == "health checks" { // of one node there is one
			continue
		}
		ends[way+" by token"] = ask(ctx, byToken, edge)
	}
	stays := ways["state of the world"](ctx, another, shop)
	for way, answer := range ends {
		require.NoError(t, answer(), way)
	}
	require.NoError(t, stays())

	put(t, s.auth, strings.ReplaceAll(bound, `clusters: [edge]`, `clusters: [other]`))
	for way, answer := range ends {
		err := answer()
		for err == nil { // what was on its way
			err = answer()
		}
		require.Equal(t, codes.PermissionDenied, status.Code(err), "%s: %v", way, err)
		require.Contains(t, status.Convert(err).Message(), `does not let it be node "edge-1" of cluster "edge"`, way)
	}
	_, streams := s.get(t, "admin", "/xds")
	require.Contains(t, streams, `"shop-1"`, "another identity's stays")
	require.NotContains(t, streams, `"edge-1"`)
}

func TestAStreamEndsOfAStrangerOnceReadsAreForThoseWhomARuleNames(t *testing.T) {
	o := options(t)
	o.Reads = "closed"
	o.AuthFile = filepath.Join(t.TempDir(), "auth.yaml")
	rules := "tokens: [{name: edge-team, token: " + edgeToken + ", services: [echo]}]"
	put(t, o.AuthFile, rules)
	r := start(t, o)
	conn, err := grpc.NewClient(r.addrs["xds"], grpc.WithTransportCredentials(insecure.NewCredentials()))
	require.NoError(t, err)
	defer conn.Close()
	ctx, cancel := context.WithTimeout(metadata.AppendToOutgoingContext(t.Context(), "authorization", "Bearer "+edgeToken), servicetest.Patience)
	defer cancel()
	answer := ways["delta"](ctx, conn, &corev3.Node{Id: "edge-1"})
	require.NoError(t, answer())
	tool, err := statusv3.NewClientStatusDiscoveryServiceClient(conn).StreamClientStatus(ctx)
	require.NoError(t, err)
	require.NoError(t, tool.Send(&statusv3.ClientStatusRequest{}))
	_, err = tool.Recv()
	require.NoError(t, err)
	request, err := http.NewRequestWithContext(ctx, "GET", "http://"+r.addrs["http"]+"/v2/events", nil)
	require.NoError(t, err)
	request.Header.Set("Authorization", "Bearer "+edgeToken)
	events, err := http.DefaultClient.Do(request)
	require.NoError(t, err)
	defer events.Body.Close()
	first := make([]byte, len("retry: 3000\n\n"))
	_, err = io.ReadFull(events.Body, first)
	require.NoError(t, err)
	put(t, o.AuthFile, strings.ReplaceAll(rules, edgeToken, "another-token-of-the-team"))
	err = answer()
	require.Equal(t, codes.Unauthenticated, status.Code(err), "%v", err)
	require.ErrorContains(t, err, "to read takes a token that is known")

	// The rules hold by now: the stream above has ended by them.
	require.NoError(t, tool.Send(&statusv3.ClientStatusRequest{}))
	_, err = tool.Recv()
	require.Equal(t, codes.Unauthenticated, status.Code(err), "%v", err)
	require.ErrorContains(t, err, "to read takes a token that is known")
	response, _ := r.call(t, "POST", "/v1/registration/echo", "another-token-of-the-team", url.Values{
		"ip": {"10.0.0.1"}, "port": {"80"}, "revision": {"r1"}, "tags": {`{"az":"a","region":"r","instance_id":"i"}`}})
	require.Equal(t, 200, response.StatusCode)
	rest, err := io.ReadAll(events.Body)
	require.NoError(t, err, "it ends")
	require.Empty(t, string(rest), "and is told of nothing more")
}

// metric is the text of a metric's value; empty if it is 0.
func (s *secured) metric(t *testing.T, name string) int {
	t.Helper()
	_, body := s.get(t, "admin", "/metrics")
	return strings.Count(body, name+" ") - strings.Count(body, name+" 0\n")
}

// poll asks for clusters by REST-JSON, and returns the code of gRPC that the
// status is like. The answer holds a text.
func (s *secured) poll(t *testing.T, id, token string, node *corev3.Node, why string) codes.Code {
	t.Helper()
	body := `{"node":{"id":"` + node.GetId() + `","cluster":"` + node.GetCluster() + `"}}`
	request, err := http.NewRequest("POST", "https://"+s.addrs["http"]+"/v3/discovery:clusters", strings.NewReader(body))
	require.NoError(t, err)
	if token != "" {
		request.Header.Set("Authorization", "Bearer "+token)
	}
	client := http.Client{Transport: &http.Transport{TLSClientConfig: s.config(t, id), DisableKeepAlives: true}}
	response, err := client.Do(request)
	require.NoError(t, err)
	defer response.Body.Close()
	text, err := io.ReadAll(response.Body)
	require.NoError(t, err)
	require.Contains(t, strings.ReplaceAll(string(text), `\"`, `"`), why)
	code, known := map[int]codes.Code{200: codes.OK, 401: codes.Unauthenticated, 403: codes.PermissionDenied}[response.StatusCode]
	require.True(t, known, "%d: %s", response.StatusCode, text)
	require.Equal(t, response.StatusCode == http.StatusUnauthorized, response.Header.Get("WWW-Authenticate") != "")
	return code
}

func TestHeartbeatsComeOverTLSByCertificateAndToken(t *testing.T) {
	s := startSecured(t, bound)
	for _, by := range []struct {
		id, token string
		code      codes.Code
	}{{edgeID, "", codes.OK}, {"", edgeToken, codes.OK}, {"", "", codes.Unauthenticated}, {"spiffe://td/eve", "", codes.PermissionDenied}} {
		conn, ctx := s.dial(t, by.id, by.token)
		stream, err := discoveryv2.NewHeartbeatServiceClient(conn).Beat(ctx)
		err = first(stream, err, &discoveryv2.BeatRequest{})()
		require.Equal(t, by.code, status.Code(err), "%v: %v", by, err)
	}
}

// asks opens a delta stream over TLS that asks for the secret cert.
func (s *secured) asks(t *testing.T, id, token, node, cluster string) discoveryv3.AggregatedDiscoveryService_DeltaAggregatedResourcesClient {
	t.Helper()
	conn, ctx := s.dial(t, id, token)
	stream, err := discoveryv3.NewAggregatedDiscoveryServiceClient(conn).DeltaAggregatedResources(ctx)
	require.NoError(t, err)
	_ = stream.Send(&discoveryv3.DeltaDiscoveryRequest{ // Recv says why not
		TypeUrl: secretURL, ResourceNamesSubscribe: []string{"cert"}, Node: &corev3.Node{Id: node, Cluster: cluster},
	})
	return stream
}

func TestASecretGoesOnlyToANodeWhoseIdentityARuleBindsToIt(t *testing.T) {
	s := startSecured(t, bound)
	for _, by := range []struct{ id, token string }{{edgeID, ""}, {"", edgeToken}} {
		require.Equal(t, "first", nextSecret(t, s.asks(t, by.id, by.token, "edge-1", "edge")))
	}
	require.Equal(t, "gone", nextSecret(t, s.asks(t, "", shopToken, "shop-1", "shop")))
	_, err := s.asks(t, "", shopToken, "shop-1", "edge").Recv()
	require.Equal(t, codes.PermissionDenied, status.Code(err), "it may not say that it is of the cluster whose secret it is")
	_, err = s.asks(t, "", "", "edge-1", "edge").Recv()
	require.Equal(t, codes.Unauthenticated, status.Code(err))
}

func TestRulesThatComeToBindNodesHoldForStreamsThatAreOpen(t *testing.T) {
	s := startSecured(t, "tokens: [{name: edge-team, token: "+edgeToken+", services: []}, {name: shop-team, token: "+shopToken+", services: []}]")
	edge, claims := s.asks(t, "", edgeToken, "edge-1", "edge"), s.asks(t, "", shopToken, "edge-1", "edge")
	stranger := s.asks(t, "", "", "edge-1", "edge")
	for _, stream := range []discoveryv3.AggregatedDiscoveryService_DeltaAggregatedResourcesClient{edge, claims, stranger} {
		require.Equal(t, "first", nextSecret(t, stream), "whoever says so is such a node")
	}
	put(t, s.auth, bound)
	err := end(claims)
	require.Equal(t, codes.PermissionDenied, status.Code(err), "%v", err)
	err = end(stranger)
	require.Equal(t, codes.Unauthenticated, status.Code(err), "%v", err)
	put(t, s.rules, "secrets: [{names: [cert], clusters: [edge], nodes: [edge-2]}]")
	require.Equal(t, "gone", nextSecret(t, edge), "it is that node still, and may have it no more")
	put(t, s.auth, strings.ReplaceAll(bound, edgeToken, "another-token-of-the-team"))
	err = end(edge)
	require.Equal(t, codes.Unauthenticated, status.Code(err), "its token is not known any more: %v", err)
}

// end is why a stream ended. It may be told before that a secret is gone.
func end(stream discoveryv3.AggregatedDiscoveryService_DeltaAggregatedResourcesClient) error {
	for {
		if _, err := stream.Recv(); err != nil {
			return err
		}
	}
}

func TestAClientThatIsSilentIsAskedWhetherItIsThereAndThenLetGo(t *testing.T) {
	o := options(t)
	o.XDSKeepalive = time.Second
	r := start(t, o)
	conn, err := net.Dial("tcp", r.addrs["xds"])
	require.NoError(t, err)
	defer conn.Close()
	require.NoError(t, conn.SetDeadline(time.Now().Add(time.Minute)))
	// The preface of HTTP/2 and empty settings; then nothing more.
	_, err = conn.Write(append([]byte("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"), 0, 0, 0, 4, 0, 0, 0, 0, 0))
	require.NoError(t, err)
	types := map[byte]bool{} // of the frames that come
	for head := make([]byte, 9); ; {
		if _, err := io.ReadFull(conn, head); err != nil {
			require.ErrorIs(t, err, io.EOF, "it is the server that ends it")
			break
		}
		types[head[3]] = true
		_, err := io.CopyN(io.Discard, conn, int64(head[0])<<16|int64(head[1])<<8|int64(head[2]))
		require.NoError(t, err)
	}
	const ping = 6
	require.True(t, types[ping], "frames of types %v", types)
}

// A call that is held while its token is revoked is refused.
func TestAHeldCallIsRefusedWhoseTokenIsRevokedMeanwhile(t *testing.T) {
	o := options(t)
	o.Reads, o.XDSPollWait = "closed", time.Minute
	o.AuthFile = filepath.Join(t.TempDir(), "auth.yaml")
	put(t, o.AuthFile, "tokens: [{name: edge-team, token: "+edgeToken+", services: [users]}, {name: ops, token: "+opsToken+", operator: true}]")
	r := start(t, o)
	ask := func(method, path, token, body string) (int, string) {
		request, err := http.NewRequestWithContext(t.Context(), method, "http://"+r.addrs["http"]+path, strings.NewReader(body))
		require.NoError(t, err)
		request.Header.Set("Authorization", "Bearer "+token)
		request.Header.Set("Content-Type", "application/json")
		response, err := http.DefaultClient.Do(request)
		require.NoError(t, err)
		defer response.Body.Close()
		text, err := io.ReadAll(response.Body)
		require.NoError(t, err)
		return response.StatusCode, string(text)
	}
	register := func(id string) {
		status, text := ask("PUT", "/v2/services/echo/hosts/"+id, opsToken, `{"address":"10.0.0.1","port":80}`)
		require.Equal(t, 201, status, text)
	}
	register("a")
	var list struct{ Index string }
	_, text := ask("GET", "/v2/services/echo/hosts", edgeToken, "")
	require.NoError(t, json.Unmarshal([]byte(text), &list))
	var version struct{ VersionInfo string }
	servicetest.Eventually(t, "the host is polled", func() bool {
		status, text := ask("POST", "/v3/discovery:endpoints", edgeToken, `{"node":{"id":"edge-1"},"resource_names":["echo"]}`)
		return status == 200 && json.Unmarshal([]byte(text), &version) == nil
	})
	type answer struct {
		status int
		text   string
	}
	answers := make(chan answer, 2)
	hold := func(method, path, body string) {
		status, text := ask(method, path, edgeToken, body)
		answers <- answer{status, text}
	}
	// Both end with their answers, which the test waits for.
	go hold("GET", "/v2/services/echo/hosts?wait=1m&index="+list.Index, "")
	go hold("POST", "/v3/discovery:endpoints", `{"node":{"id":"edge-1"},"resource_names":["echo"],"version_info":"`+version.VersionInfo+`"}`)
	servicetest.Eventually(t, "that of v2 is held; of the other nothing shows", func() bool {
		_, metrics := r.get(t, "admin", "/metrics")
		return strings.Contains(metrics, "\ndiscovery_rest_v2_waiters 1\n")
	})
	put(t, o.AuthFile, "tokens: [{name: ops, token: "+opsToken+", operator: true}]")
	servicetest.Eventually(t, "the token is revoked", func() bool {
		status, _ := ask("GET", "/v2/services", edgeToken, "")
		return status == 401
	})
	require.Empty(t, answers)
	register("b")
	for range 2 {
		a := <-answers
		require.Equal(t, 401, a.status, a.text)
		require.Contains(t, a.text, "to read takes a token that is known")
	}
}
