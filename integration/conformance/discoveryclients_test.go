package conformance

import (
	"context"
	"crypto/sha256"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/chromedp/chromedp"
	corepb "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	endpointpb "github.com/envoyproxy/go-control-plane/envoy/config/endpoint/v3"
	discoverypb "github.com/envoyproxy/go-control-plane/envoy/service/discovery/v3"
	loadpb "github.com/envoyproxy/go-control-plane/envoy/service/load_stats/v3"
	"github.com/envoyproxy/go-control-plane/pkg/resource/v3"
	"github.com/stretchr/testify/require"
	rpcstatus "google.golang.org/genproto/googleapis/rpc/status"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	grpcmetadata "google.golang.org/grpc/metadata"
	"google.golang.org/protobuf/types/known/durationpb"

	"github.com/weirproxy/weir/integration/harness"
)

// dial connects to discovery's gRPC listener until the test ends.
func (p *pageOf) dial() (*grpc.ClientConn, context.Context) {
	p.t.Helper()
	conn, err := grpc.NewClient(p.Addr("xds"), grpc.WithTransportCredentials(insecure.NewCredentials()))
	require.NoError(p.t, err)
	ctx, cancel := context.WithTimeout(context.Background(), browserTime)
	p.t.Cleanup(func() { cancel(); _ = conn.Close() })
	return conn, ctx
}

func TestDiscoverysPageShowsItsClientsAndWhatTheyRefuse(t *testing.T) {
	const token = "the-token-of-the-edge-team"
	file := filepath.Join(t.TempDir(), "auth.yaml")
	require.NoError(t, os.WriteFile(file, fmt.Appendf(nil, "tokens:\n- {name: edge-team, sha256: %x, services: []}\n- {name: ops, token: %s, operator: true}\n",
		sha256.Sum256([]byte(token)), operatorToken), 0o600))
	p := openDiscovery(t, "DISCOVERY_AUTH_FILE="+file, "DISCOVERY_WARM_UP=0s")
	p.shows("#clients-text", "0 clients.")
	p.shows("#clients", "no such client")
	p.putAs(operatorToken, "users", "a", "10.0.0.1")

	conn, ctx := p.dial()
	edge := grpcmetadata.AppendToOutgoingContext(ctx, "authorization", "Bearer "+token)
	// One takes all clusters and refuses an assignment, by state of the world.
	sotw, err := discoverypb.NewAggregatedDiscoveryServiceClient(conn).StreamAggregatedResources(edge)
	require.NoError(t, err)
	ask := &discoverypb.DiscoveryRequest{TypeUrl: resource.EndpointType, ResourceNames: []string{"users"},
		Node: &corepb.Node{Id: "edge-1", Cluster: "edge", UserAgentName: "envoy", Locality: &corepb.Locality{Zone: "eu-1a"}}}
	require.NoError(t, sotw.Send(ask))
	response, err := sotw.Recv()
	require.NoError(t, err)
	p.shows("#clients tbody", "edge-1\nenvoy\neu-1a\n\tedge\tedge-team\n127.0.0.1:")
	p.shows("#clients tbody", "ADS, state of the world\nsince ")
	p.shows("#clients tbody", "not answered yet")
	p.shows("#clients-text", "1 client, 1 have something to come.")
	const reason = `no "> <img src=x onerror=window.harmed=1> such host`
	require.NoError(t, sotw.Send(&discoverypb.DiscoveryRequest{TypeUrl: resource.EndpointType, ResourceNames: []string{"users"},
		ResponseNonce: response.GetNonce(), ErrorDetail: &rpcstatus.Status{Message: reason}}))
	p.shows("#clients tbody", "0 ACKs, 1 NACK")
	p.shows("#clients tbody", reason+" (users)")
	p.shows("#clients-text", "1 refused what they were sent last")

	// Another takes everything, by delta.
	delta, err := discoverypb.NewAggregatedDiscoveryServiceClient(conn).DeltaAggregatedResources(ctx)
	require.NoError(t, err)
	require.NoError(t, delta.Send(&discoverypb.DeltaDiscoveryRequest{TypeUrl: resource.ClusterType, Node: &corepb.Node{Id: "shop-1", Cluster: "shop"}}))
	changes, err := delta.Recv()
	require.NoError(t, err)
	require.NoError(t, delta.Send(&discoverypb.DeltaDiscoveryRequest{TypeUrl: resource.ClusterType, ResponseNonce: changes.GetNonce()}))
	p.shows("#clients tbody", "ADS, delta")
	p.shows("#clients tbody", "clusters: 1 resource, all are asked for")
	p.shows("#clients tbody", "1 ACK, 0 NACKs")

	// A third calls.
	p.call("POST", "/v3/discovery:clusters", `{"node":{"id":"poller-1","cluster":"shop"}}`)
	p.shows("#clients tbody", "poller-1\tshop\t–")
	p.shows("#clients tbody", "REST-JSON\nsince ")
	p.shows("#clients-text", "3 clients")

	p.fill("#client-search", "EDGE-T")
	p.waits(`document.querySelectorAll("#clients tbody tr").length === 1`)
	p.shows("#clients tbody", "edge-1")
	p.fill("#client-search", "1")
	p.waits(`document.querySelectorAll("#clients tbody tr").length === 3`)
	p.do(chromedp.SetValue("#client-show", "refusing", chromedp.ByQuery), chromedp.Evaluate(
		`document.querySelector("#client-show").dispatchEvent(new Event("input"))`, nil))
	p.waits(`document.querySelectorAll("#clients tbody tr").length === 1`)
	p.shows("#clients tbody", "edge-1")

	p.click(`#clients tbody button`)
	p.shows("#client-title", "What edge-1 has, by stream ")
	p.shows("#resources tbody", "users\tendpoints\t"+response.GetVersionInfo())
	p.shows("#resources tbody", "nacked\n"+reason)
	require.NoError(t, sotw.CloseSend())
	p.shows("#client-gone", "Its stream has ended.")
	p.click("#client-close")
	p.hides("#client")
	p.shows("#clients", "no such client")
	require.Equal(t, "0 undefined", p.evaluate(`document.querySelectorAll("img").length + " " + typeof window.harmed`))
}

// operatorToken is that of an operator in these tests.
const operatorToken = "the-token-of-an-operator"

func TestDiscoverysPageIsOfUseWithThousandsOfClients(t *testing.T) {
	p := openDiscovery(t, "DISCOVERY_WARM_UP=0s")
	p.put("users", "a", "10.0.0.1", "")
	var client discoverypb.AggregatedDiscoveryServiceClient
	var ctx context.Context
	for i := range 5000 {
		if i%1000 == 0 { // as many as one connection may have
			var conn *grpc.ClientConn
			conn, ctx = p.dial()
			client = discoverypb.NewAggregatedDiscoveryServiceClient(conn)
		}
		stream, err := client.DeltaAggregatedResources(ctx)
		require.NoError(t, err)
		require.NoError(t, stream.Send(&discoverypb.DeltaDiscoveryRequest{TypeUrl: resource.EndpointType, ResourceNamesSubscribe: []string{"users"},
			Node: &corepb.Node{Id: fmt.Sprintf("node-%04d", i), Cluster: strings.Repeat("c", 200)}}))
	}
	p.shows("#clients-text", "5,000 clients")
	p.shows("#clients-section .pager", "1–100 of 5,000")
	p.waits(`document.querySelectorAll("#clients tbody tr").length === 100`)
	p.click("#clients-section .pager button:last-child")
	p.shows("#clients tbody tr:first-child", "node-0100")
	p.fill("#client-search", "-4999")
	p.waits(`document.querySelectorAll("#clients tbody tr").length === 1`)
	p.shows("#clients tbody", "node-4999")
	p.hides("#clients-section .pager")
	p.fill("#client-search", "NODE-")
	p.shows("#clients tbody tr:first-child", "node-0000")
	require.Less(t, len(p.call("GET", "/v2/xds/clients", "")), 200_000)
}

func TestDiscoverysPageShowsLoadsAndBadFiles(t *testing.T) {
	directory := t.TempDir()
	good := "- {\"@type\": type.googleapis.com/envoy.service.runtime.v3.Runtime, name: flags, layer: {on: true}}\n"
	layer := filepath.Join(directory, "flags.yaml")
	require.NoError(t, os.WriteFile(layer, []byte(good), 0o600))
	p := openDiscovery(t, "DISCOVERY_XDS_RESOURCES="+directory, "DISCOVERY_LRS_INTERVAL=1m", "DISCOVERY_LRS_ENDPOINTS=true", "DISCOVERY_XDS_RESOURCES_POLL=100ms")
	p.shows("#files-text", "1 file in "+directory+", 0 bad.")
	p.shows("#files tbody", layer+"\tgood\t1")
	p.shows("#loads", "nobody reports any")
	require.NoError(t, os.WriteFile(layer, []byte(strings.Replace(good, "name", "nam", 1)), 0o600))
	p.shows("#files-text", "1 bad.")
	p.shows("#files tbody", layer+"\tbad: what it gave before stays in force\t1")
	p.shows("#files tbody", layer+":1:")
	require.NoError(t, os.WriteFile(layer, []byte(good), 0o600))
	p.shows("#files-text", "0 bad.")

	conn, ctx := p.dial()
	stream, err := loadpb.NewLoadReportingServiceClient(conn).StreamLoadStats(ctx)
	require.NoError(t, err)
	require.NoError(t, stream.Send(&loadpb.LoadStatsRequest{Node: &corepb.Node{Id: "edge-1"}}))
	_, err = stream.Recv()
	require.NoError(t, err)
	require.NoError(t, stream.Send(&loadpb.LoadStatsRequest{ClusterStats: []*endpointpb.ClusterStats{{
		ClusterName: "users", LoadReportInterval: durationpb.New(2 * time.Second),
		DroppedRequests: []*endpointpb.ClusterStats_DroppedRequests{{Category: "lb", DroppedCount: 1}},
		UpstreamLocalityStats: []*endpointpb.UpstreamLocalityStats{{
			Locality:            &corepb.Locality{Region: "eu", Zone: "eu-1a"},
			TotalIssuedRequests: 25, TotalSuccessfulRequests: 20, TotalErrorRequests: 4, TotalRequestsInProgress: 1,
			UpstreamEndpointStats: []*endpointpb.UpstreamEndpointStats{{
				Address: &corepb.Address{Address: &corepb.Address_SocketAddress{SocketAddress: &corepb.SocketAddress{
					Address: "10.0.0.1", PortSpecifier: &corepb.SocketAddress_PortValue{PortValue: 8080}}}},
				TotalIssuedRequests: 5, TotalSuccessfulRequests: 5,
			}},
		}},
	}}}))
	p.shows("#loads-text", "1 cluster.")
	p.shows("#loads tbody", "users\t1\t12.5\t10\t2\t1\t0.5")
	p.click("#loads tbody button")
	p.shows("#load-title", "Where requests of users go")
	p.shows("#places tbody", "eu / eu-1a\tall\t12.5\t10\t2\t1")
	p.shows("#places tbody", "eu / eu-1a\t10.0.0.1:8080\t2.5\t2.5\t0\t0")
	p.fill("#load-search", "orders")
	p.shows("#loads", "nobody reports any")
	require.NoError(t, stream.CloseSend())
	p.shows("#places", "nobody reports any")
	p.click("#load-close")
	p.hides("#load")
}

func TestDiscoverysPageShowsARefusingClientBesideABadFile(t *testing.T) {
	directory := t.TempDir()
	file := filepath.Join(directory, "flags.yaml")
	layer := func(key string) string {
		return "- {\"@type\": type.googleapis.com/envoy.service.runtime.v3.Runtime, name: flags, layer: {" + key + ": true}}\n"
	}
	write := func(text string) { require.NoError(t, os.WriteFile(file, []byte(text), 0o600)) }
	write(layer("first"))
	p := openDiscovery(t, "DISCOVERY_XDS_RESOURCES="+directory, "DISCOVERY_XDS_RESOURCES_POLL=100ms", "DISCOVERY_WARM_UP=0s")
	conn, ctx := p.dial()
	stream, err := discoverypb.NewAggregatedDiscoveryServiceClient(conn).StreamAggregatedResources(ctx)
	require.NoError(t, err)
	ask := func(nonce, refusal string) {
		request := &discoverypb.DiscoveryRequest{TypeUrl: resource.RuntimeType, ResourceNames: []string{"flags"}, ResponseNonce: nonce, Node: &corepb.Node{Id: "edge-1"}}
		if refusal != "" {
			request.ErrorDetail = &rpcstatus.Status{Message: refusal}
		}
		require.NoError(t, stream.Send(request))
	}
	ask("", "")
	response, err := stream.Recv()
	require.NoError(t, err)
	ask(response.GetNonce(), "no such flag")
	p.call("POST", "/v3/discovery:runtime", `{"node":{"id":"poller-1"},"resource_names":["flags"],"error_detail":{"message":"nor here"}}`)
	write("- {name: flags}\n")

	// Both at once, each with its own reason.
	p.shows("#clients-text", "2 clients, 2 refused what they were sent last")
	p.shows("#clients tbody", "no such flag (flags)")
	p.shows("#clients tbody", "nor here")
	p.shows("#files-text", "1 file in "+directory+", 1 bad.")
	p.shows("#files tbody", file+"\tbad: what it gave before stays in force\t1")
	p.shows("#files tbody", file+":1:")

	// A file that is good again brings the client another one, which it takes.
	write(layer("second"))
	p.shows("#files-text", "0 bad.")
	response, err = stream.Recv()
	require.NoError(t, err)
	ask(response.GetNonce(), "")
	p.shows("#clients tbody", "1 ACK, 1 NACK")
	p.shows("#clients-text", "2 clients, 1 refused what they were sent last")
	p.call("POST", "/v3/discovery:runtime", `{"node":{"id":"poller-1"},"resource_names":["flags"]}`)
	p.shows("#clients-text", "2 clients.")
	p.shows("#clients tbody", "last refused ")
}

// putAs registers a host by a token.
func (p *pageOf) putAs(token, service, id, address string) {
	p.t.Helper()
	answer, err := harness.Send(p.client, harness.Request{
		Method: "PUT", URL: "http://" + p.Addr("http") + "/v2/services/" + service + "/hosts/" + id, Body: `{"address":"` + address + `","port":8080}`,
		Header: http.Header{"Content-Type": {"application/json"}, "Authorization": {"Bearer " + token}},
	})
	require.NoError(p.t, err)
	require.Equal(p.t, 201, answer.Status, answer.Body)
}
