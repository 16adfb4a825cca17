package xds_test

import (
	"context"
	"io"
	"log/slog"
	"testing"

	discoveryv3 "github.com/envoyproxy/go-control-plane/envoy/service/discovery/v3"
	"github.com/stretchr/testify/require"
	"google.golang.org/grpc"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/anypb"

	"github.com/weirproxy/weir/services/proxy/internal/coreconfig"
	"github.com/weirproxy/weir/services/proxy/internal/stats"
	"github.com/weirproxy/weir/services/proxy/internal/xds"
)

func resources(t testing.TB, names ...string) []*anypb.Any {
	var list []*anypb.Any
	for _, name := range names {
		list = append(list, resource(t, "cds", name))
	}
	return list
}

// player is a channel whose one stream plays one response and then ends.
type player struct {
	grpc.ClientStream
	response proto.Message
	requests []proto.Message
	sent     chan struct{}
	played   bool
}

func (p *player) Invoke(context.Context, string, any, any, ...grpc.CallOption) error { return io.EOF }
func (p *player) NewStream(context.Context, *grpc.StreamDesc, string, ...grpc.CallOption) (grpc.ClientStream, error) {
	return p, nil
}

func (p *player) SendMsg(m any) error {
	p.requests = append(p.requests, m.(proto.Message))
	if len(p.requests) == 2 {
		close(p.sent)
	}
	return nil
}

func (p *player) RecvMsg(m any) error {
	if p.played {
		<-p.sent
		return io.EOF
	}
	p.played = true
	proto.Merge(m.(proto.Message), p.response)
	return nil
}
func (p *player) Close() error { return nil }

// exchange plays one response to a client that watches all clusters, and returns
// its answer and how often the sink was called.
func (p *player) exchange(t *testing.T, delta bool) (answer proto.Message, applied int) {
	client := xds.New(xds.Options{
		Dial: func(context.Context, string) (grpc.ClientConnInterface, io.Closer, error) { return p, p, nil },
		ADS:  &coreconfig.GRPC{Delta: delta}, Stats: stats.NewRegistry(), Log: slog.New(slog.DiscardHandler),
	})
	client.Handle(xds.ClusterType, sinkFunc(func(list []xds.Resource, all bool) error {
		applied++
		require.Equal(t, !delta, all)
		for _, r := range list {
			require.True(t, delta || r.Name != "" && r.Message != nil)
		}
		return nil
	}))
	client.Subscribe(coreconfig.Source{}, xds.ClusterType, 0, nil)
	ctx, cancel := context.WithCancel(context.Background())
	go func() { <-p.sent; cancel() }() // ends with the answer
	require.NoError(t, client.Run(ctx))
	return p.requests[1], applied
}

// FuzzResponse wants exactly one answer to whatever a control plane sends of a
// watched type, an ACK of its version or a NACK of none, and no panic.
func FuzzResponse(f *testing.F) {
	for _, r := range []*discoveryv3.DiscoveryResponse{
		{VersionInfo: "1", Resources: resources(f, "a", "b")},
		{VersionInfo: "1", Nonce: "n", Resources: resources(f, "a", "a", "garbage", "wrapped:c", "nameless", "othertype")},
		{},
	} {
		raw, err := proto.Marshal(r)
		require.NoError(f, err)
		f.Add(raw)
	}
	f.Fuzz(func(t *testing.T, raw []byte) {
		response := &discoveryv3.DiscoveryResponse{}
		p := &player{response: response, sent: make(chan struct{})}
		if proto.Unmarshal(raw, response) != nil {
			return
		}
		response.TypeUrl = xds.ClusterType
		m, applied := p.exchange(t, false)
		answer := m.(*discoveryv3.DiscoveryRequest)
		require.Equal(t, response.GetNonce(), answer.GetResponseNonce())
		if answer.GetErrorDetail() == nil {
			require.Equal(t, 1, applied)
			require.Equal(t, response.GetVersionInfo(), answer.GetVersionInfo())
		} else {
			require.Zero(t, applied)
			require.Empty(t, answer.GetVersionInfo())
		}
	})
}

// FuzzDeltaResponse wants the same of delta.
func FuzzDeltaResponse(f *testing.F) {
	for _, r := range []*discoveryv3.DeltaDiscoveryResponse{
		{SystemVersionInfo: "1", Nonce: "n", Resources: deltaResources(f, "cds", "a=1", "b=2")},
		{Resources: deltaResources(f, "cds", "a=1", "a=2"), RemovedResources: []string{"a", ""}},
		{},
	} {
		raw, err := proto.Marshal(r)
		require.NoError(f, err)
		f.Add(raw)
	}
	f.Fuzz(func(t *testing.T, raw []byte) {
		response := &discoveryv3.DeltaDiscoveryResponse{}
		p := &player{response: response, sent: make(chan struct{})}
		if proto.Unmarshal(raw, response) != nil {
			return
		}
		response.TypeUrl = xds.ClusterType
		m, applied := p.exchange(t, true)
		answer := m.(*discoveryv3.DeltaDiscoveryRequest)
		require.Equal(t, response.GetNonce(), answer.GetResponseNonce())
		require.Equal(t, answer.GetErrorDetail() == nil, applied == 1)
	})
}
