package xds

import (
	"context"
	"fmt"
	"io"
	"testing"
	"testing/synctest"
	"time"

	adminv3 "github.com/envoyproxy/go-control-plane/envoy/admin/v3"
	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	discoveryv3 "github.com/envoyproxy/go-control-plane/envoy/service/discovery/v3"
	statusv3 "github.com/envoyproxy/go-control-plane/envoy/service/status/v3"
	matcherv3 "github.com/envoyproxy/go-control-plane/envoy/type/matcher/v3"
	"github.com/stretchr/testify/require"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"

	"github.com/weirproxy/weir/internal/servicetest"
	"github.com/weirproxy/weir/services/discovery/internal/hello"
	"github.com/weirproxy/weir/services/discovery/internal/resources"
)

// shown is what CSDS says of each resource of a stream, by type and name.
func shown(c *statusv3.ClientConfig) map[string]string {
	got := map[string]string{}
	for _, g := range c.GetGenericXdsConfigs() {
		t, _ := resources.OfURL(g.GetTypeUrl())
		text := g.GetConfigStatus().String() + " " + g.GetClientStatus().String()
		if e := g.GetErrorState(); e != nil {
			text += " " + e.GetDetails()
		}
		if g.GetXdsConfig() != nil {
			text += " with it"
		}
		got[t.String()+" "+g.GetName()] = text
	}
	return got
}

func TestClientStatusTellsResourceByResource(t *testing.T) {
	h := newTestHub(t)
	h.open(&h.loaded)
	h.hosts("users", "10.0.0.1:80")
	h.hosts("orders", "10.0.0.2:80")
	everyone := func(string) bool { return true }
	synced := statusv3.ConfigStatus_SYNCED.String() + " " + adminv3.ClientResourceStatus_ACKED.String() + " with it"
	stale := statusv3.ConfigStatus_STALE.String() + " " + adminv3.ClientResourceStatus_REQUESTED.String() + " with it"
	absent := statusv3.ConfigStatus_NOT_SENT.String() + " " + adminv3.ClientResourceStatus_DOES_NOT_EXIST.String()

	for _, delta := range []bool{false, true} {
		s := h.stream(t, delta)
		ask(t, s, resources.Clusters)
		clusters := s.next(start)
		ask(t, s, resources.Endpoints, "users", "orders", "unknown")
		endpoints := s.next(start)
		require.Equal(t, map[string]string{
			"clusters users": stale, "clusters orders": stale,
			"endpoints users": stale, "endpoints orders": stale, "endpoints unknown": unansweredIf(delta, absent),
		}, shown(s.clientConfig(everyone, true)), variant(delta))

		answer(t, s, clusters)
		answer(t, s, endpoints)
		require.Equal(t, map[string]string{
			"clusters users": synced, "clusters orders": synced,
			"endpoints users": synced, "endpoints orders": synced, "endpoints unknown": absent,
		}, shown(s.clientConfig(everyone, true)), variant(delta))
		require.NotContains(t, shown(s.clientConfig(everyone, false))["clusters users"], "with it")

		// A refusal of the clusters that changed: of the one, or of all of them.
		h.setFiles((&player{t: t}).files([]string{"clusters/users:1"}))
		refuse(t, s, s.next(start), "because")
		got := shown(s.clientConfig(everyone, true))
		want := statusv3.ConfigStatus_ERROR.String() + " " + adminv3.ClientResourceStatus_NACKED.String() + " because"
		if delta {
			require.Equal(t, want, got["clusters users"])
			require.Equal(t, synced, got["clusters orders"])
		} else {
			require.Equal(t, want, got["clusters *"])
		}
		h.setFiles(nil)
		h.makeAsked()
	}
}

func TestClientStatusTellsSoMuchAtOnce(t *testing.T) {
	h := newTestHub(t)
	h.open(&h.loaded)
	h.hosts("users", "10.0.0.1:80")
	var addresses []string
	for i := range 20_000 {
		addresses = append(addresses, fmt.Sprintf("10.1.%d.%d:80", i/250, i%250+1))
	}
	h.hosts("large", addresses...)
	s := &Server{hub: h.hub}
	for i := range 30 {
		st := h.stream(t, false)
		node := &corev3.Node{Id: fmt.Sprint("node-", i)}
		send(t, st, &discoveryv3.DiscoveryRequest{TypeUrl: resources.Endpoints.URL(), Node: node, ResourceNames: []string{"users", "large"}})
		answer(t, st, st.next(start))
	}
	configs := func(r *statusv3.ClientStatusRequest) int {
		got, err := s.clientStatus(r)
		require.NoError(t, err)
		require.LessOrEqual(t, proto.Size(got), maxClientStatus+1<<10)
		return len(got.GetConfig())
	}
	_, err := s.clientStatus(&statusv3.ClientStatusRequest{})
	require.Equal(t, codes.ResourceExhausted, status.Code(err), "%v", err)
	require.ErrorContains(t, err, "more than the 16 MiB that are told at once")
	require.Equal(t, 30, configs(&statusv3.ClientStatusRequest{ExcludeResourceContents: true}))
	one := &matcherv3.NodeMatcher{NodeId: &matcherv3.StringMatcher{MatchPattern: &matcherv3.StringMatcher_Prefix{Prefix: "node-1"}}}
	require.Equal(t, 11, configs(&statusv3.ClientStatusRequest{NodeMatchers: []*matcherv3.NodeMatcher{one}}))
}

func TestClientStatusShowsOfSecretsNothingButNames(t *testing.T) {
	h := newTestHub(t)
	h.open(&h.loaded)
	h.setFiles((&player{t: t}).files([]string{"secrets/cert:1"}))
	for _, delta := range []bool{false, true} {
		s := h.stream(t, delta)
		ask(t, s, resources.Secrets, "cert")
		answer(t, s, s.next(start))
		require.Equal(t, map[string]string{
			"secrets cert": statusv3.ConfigStatus_SYNCED.String() + " " + adminv3.ClientResourceStatus_ACKED.String(),
		}, shown(s.clientConfig(func(string) bool { return true }, true)), variant(delta))
	}
}

// unansweredIf is the status of a name that there is not: in delta its removal
// is unanswered like the rest.
func unansweredIf(delta bool, absent string) string {
	if delta {
		return statusv3.ConfigStatus_STALE.String() + " " + adminv3.ClientResourceStatus_REQUESTED.String()
	}
	return absent
}

func TestClientStatusIsServed(t *testing.T) {
	s := serving(t, nil)
	<-s.hosts.Loaded()
	c := s.aggregated(t)
	c.ask(resources.Clusters.URL(), "")
	c.want(resources.Clusters.URL())
	ctx, cancel := context.WithTimeout(t.Context(), servicetest.Patience)
	defer cancel()
	tool := statusv3.NewClientStatusDiscoveryServiceClient(s.dial(t))
	by := func(m *matcherv3.StringMatcher) *statusv3.ClientStatusRequest {
		return &statusv3.ClientStatusRequest{NodeMatchers: []*matcherv3.NodeMatcher{{NodeId: m}}}
	}
	for _, test := range []struct {
		request *statusv3.ClientStatusRequest
		want    int
	}{
		{&statusv3.ClientStatusRequest{}, 1},
		{by(&matcherv3.StringMatcher{MatchPattern: &matcherv3.StringMatcher_Exact{Exact: "client-1"}}), 1},
		{by(&matcherv3.StringMatcher{MatchPattern: &matcherv3.StringMatcher_Exact{Exact: "CLIENT-1"}}), 0},
		{by(&matcherv3.StringMatcher{MatchPattern: &matcherv3.StringMatcher_Exact{Exact: "CLIENT-1"}, IgnoreCase: true}), 1},
		{by(&matcherv3.StringMatcher{MatchPattern: &matcherv3.StringMatcher_Prefix{Prefix: "cl"}}), 1},
		{by(&matcherv3.StringMatcher{MatchPattern: &matcherv3.StringMatcher_Suffix{Suffix: "-2"}}), 0},
		{by(&matcherv3.StringMatcher{MatchPattern: &matcherv3.StringMatcher_Contains{Contains: "ent"}}), 1},
		{by(&matcherv3.StringMatcher{MatchPattern: &matcherv3.StringMatcher_SafeRegex{SafeRegex: &matcherv3.RegexMatcher{Regex: "client-."}}}), 1},
	} {
		r, err := tool.FetchClientStatus(ctx, test.request)
		require.NoError(t, err)
		require.Len(t, r.GetConfig(), test.want, "%v", test.request)
	}
	for _, bad := range []*statusv3.ClientStatusRequest{
		by(&matcherv3.StringMatcher{MatchPattern: &matcherv3.StringMatcher_SafeRegex{SafeRegex: &matcherv3.RegexMatcher{Regex: "("}}}),
		{NodeMatchers: []*matcherv3.NodeMatcher{{NodeMetadatas: []*matcherv3.StructMatcher{{}}}}},
	} {
		_, err := tool.FetchClientStatus(ctx, bad)
		require.Equal(t, codes.InvalidArgument, status.Code(err))
	}

	stream, err := tool.StreamClientStatus(ctx)
	require.NoError(t, err)
	for range 2 {
		require.NoError(t, stream.Send(&statusv3.ClientStatusRequest{}))
		r, err := stream.Recv()
		require.NoError(t, err)
		require.Equal(t, "client-1", r.GetConfig()[0].GetNode().GetId())
		require.Equal(t, "stream 1, ads, sotw", r.GetConfig()[0].GetClientScope())
	}
	s.stop()
	_, err = stream.Recv()
	require.Equal(t, codes.Unavailable, status.Code(err))
}

func TestStreamsOfClientStatusAreSoManyAndBegin(t *testing.T) {
	s := serving(t, nil)
	ctx, cancel := context.WithTimeout(t.Context(), servicetest.Patience)
	defer cancel()
	tool := statusv3.NewClientStatusDiscoveryServiceClient(s.dial(t))
	open := func() error {
		stream, err := tool.StreamClientStatus(ctx)
		require.NoError(t, err)
		_ = stream.Send(&statusv3.ClientStatusRequest{}) // what went wrong Recv says
		_, err = stream.Recv()
		return err
	}
	for range maxStatusStreams {
		require.NoError(t, open())
	}
	err := open()
	require.Equal(t, codes.ResourceExhausted, status.Code(err))
	require.ErrorContains(t, err, "100 streams of client status are open")
}

// muteTool is a stream of client status, within a synctest bubble, whose client says
// nothing.
type muteTool struct {
	grpc.BidiStreamingServer[statusv3.ClientStatusRequest, statusv3.ClientStatusResponse]
	ended chan struct{}
}

func (w *muteTool) Recv() (*statusv3.ClientStatusRequest, error) {
	<-w.ended
	return nil, io.EOF
}

func TestAStreamOfClientStatusEndsThatDoesNotBegin(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		wire := &muteTool{ended: make(chan struct{})}
		began := time.Now()
		err := (&clientStatus{server: &Server{}}).StreamClientStatus(wire)
		require.Equal(t, codes.DeadlineExceeded, status.Code(err))
		require.Equal(t, hello.Within, time.Since(began))
		close(wire.ended)
	})
}
