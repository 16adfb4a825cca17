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
	response *discoveryv3.DiscoveryResponse
	requests []*discoveryv3.DiscoveryRequest
	sent     chan struct{}
	played   bool
}

func (p *player) Invoke(context.Context, string, any, any, ...grpc.CallOption) error { return io.EOF }
func (p *player) NewStream(context.Context, *grpc.StreamDesc, string, ...grpc.CallOption) (grpc.ClientStream, error) {
	return p, nil
}

func (p *player) SendMsg(m any) error {
	p.requests = append(p.requests, m.(*discoveryv3.DiscoveryRequest))
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
		p := &player{response: &discoveryv3.DiscoveryResponse{}, sent: make(chan struct{})}
		if proto.Unmarshal(raw, p.response) != nil {
			return
		}
		p.response.TypeUrl = xds.ClusterType
		client := xds.New(xds.Options{
			Dial:  func(context.Context) (grpc.ClientConnInterface, io.Closer, error) { return p, p, nil },
			Stats: stats.NewRegistry(), Log: slog.New(slog.DiscardHandler),
		})
		applied := 0
		client.Watch(xds.ClusterType, true, sinkFunc(func(list []xds.Resource) error {
			applied++
			for _, r := range list {
				require.NotEmpty(t, r.Name)
				require.NotNil(t, r.Message)
			}
			return nil
		}))
		ctx, cancel := context.WithCancel(context.Background())
		go func() { <-p.sent; cancel() }() // ends with the answer
		require.NoError(t, client.Run(ctx))
		answer := p.requests[1]
		require.Equal(t, p.response.GetNonce(), answer.GetResponseNonce())
		if answer.GetErrorDetail() == nil {
			require.Equal(t, 1, applied)
			require.Equal(t, p.response.GetVersionInfo(), answer.GetVersionInfo())
		} else {
			require.Zero(t, applied)
			require.Empty(t, answer.GetVersionInfo())
		}
	})
}
