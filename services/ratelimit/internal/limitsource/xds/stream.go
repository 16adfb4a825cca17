package xds

import (
	"context"
	"errors"
	"fmt"
	"io"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	discoveryv3 "github.com/envoyproxy/go-control-plane/envoy/service/discovery/v3"
	"google.golang.org/genproto/googleapis/rpc/status"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/metadata"
)

// typeURL is the type of the resources.
const typeURL = "type.googleapis.com/ratelimit.config.ratelimit.v3.RateLimitConfig"

const (
	// steadyAfter is how long a stream lasts before its control plane counts as
	// there, if it has not answered: one that has nothing new need not.
	steadyAfter = 5 * time.Second
	// refuseEvery is the least time between two NACKs. Some control planes
	// answer each with the same response at once.
	refuseEvery = time.Second
)

// end says how a stream ended.
type end struct {
	// opened says that there was one, steady that the control plane was there
	// for it.
	opened, steady bool
	err            error
}

// stream opens a stream and serves it until it breaks or ctx ends. Each has a
// channel of its own, so that names are looked up and files of TLS are read
// anew.
func (s *Source) stream(ctx context.Context) (e end) {
	defer func() { s.setAway(e.err) }()
	channel, closer, err := s.dial()
	if err != nil {
		return end{err: err}
	}
	defer closer.Close()
	ctx, cancel := context.WithCancel(metadata.NewOutgoingContext(ctx, s.headers))
	defer cancel()
	client := discoveryv3.NewAggregatedDiscoveryServiceClient(channel)
	ads, err := client.StreamAggregatedResources(ctx, grpc.MaxCallRecvMsgSize(s.options.MaxMessage))
	if err != nil {
		return end{err: fmt.Errorf("open ADS stream: %w", err)}
	}
	s.setAway(nil)
	var steady atomic.Bool
	settle := sync.OnceFunc(func() {
		steady.Store(true)
		s.options.Log.Info("control plane is there", "server", s.options.Server)
	})
	defer time.AfterFunc(steadyAfter, settle).Stop()
	err = s.serve(ctx, ads, settle)
	return end{opened: true, steady: steady.Load(), err: fmt.Errorf("ADS stream: %w", err)}
}

// serve asks for all rules, with the version accepted last, then applies each
// response and answers it, and calls settle. The error is why there is no next
// one.
func (s *Source) serve(ctx context.Context, ads discoveryv3.AggregatedDiscoveryService_StreamAggregatedResourcesClient, settle func()) error {
	for request := s.request("", nil); ; {
		if err := ads.Send(request); err != nil && !errors.Is(err, io.EOF) {
			return err
		}
		// A sender is told only that the stream has ended, a receiver why.
		response, err := ads.Recv()
		for err == nil && response.GetTypeUrl() != typeURL {
			s.options.Log.Warn("ignored a response of a type that was not asked for", "type", response.GetTypeUrl())
			response, err = ads.Recv()
		}
		if err != nil {
			return err
		}
		settle()
		refused := s.apply(response)
		if len(refused) > 0 {
			if err := s.pace(ctx); err != nil {
				return err
			}
		}
		request = s.request(response.GetNonce(), refused)
	}
}

// request asks for all resources: the first of a stream has no nonce, later
// ones are the answer to the response of that nonce. Refused makes it a NACK.
func (s *Source) request(nonce string, refused []string) *discoveryv3.DiscoveryRequest {
	r := &discoveryv3.DiscoveryRequest{TypeUrl: typeURL, Node: s.node, VersionInfo: s.version, ResponseNonce: nonce}
	if len(refused) > 0 {
		text := cut(strings.Join(refused, "\n"))
		r.ErrorDetail = &status.Status{Code: int32(codes.InvalidArgument), Message: text}
	}
	return r
}

// pace waits until another NACK may go out. The error is that of ctx.
func (s *Source) pace(ctx context.Context) error {
	select {
	case <-time.After(refuseEvery - time.Since(s.refusedAt)):
		s.refusedAt = time.Now()
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// maxRefusal bounds the text of a NACK, in bytes.
const maxRefusal = 32 << 10

// cut shortens a text to what a NACK may carry, and makes it UTF-8.
func cut(text string) string {
	text = strings.ToValidUTF8(text, "\uFFFD")
	if len(text) <= maxRefusal {
		return text
	}
	const end = " … (cut)"
	return strings.ToValidUTF8(text[:maxRefusal-len(end)], "") + end
}
