package xds

import (
	"context"
	"errors"
	"fmt"
	"io"
	"time"

	discoveryv3 "github.com/envoyproxy/go-control-plane/envoy/service/discovery/v3"
	"google.golang.org/genproto/googleapis/rpc/status"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
)

// maxResponse bounds one response, in bytes: the assignments of a large fleet
// come in one.
const maxResponse = 64 << 20

// stream is one ADS stream and what is true only of it.
type stream struct {
	client *Client
	grpc   discoveryv3.AggregatedDiscoveryService_StreamAggregatedResourcesClient
	// nonces are the newest by type.
	nonces map[string]string
	// asked are the types with a request on this stream.
	asked map[string]bool
	// introduced says that a request with the node went out.
	introduced bool
	// steady says that the control plane is really there.
	steady bool
}

// steadyAfter is how long a stream lasts before its control plane counts as
// there, if it has not answered: one that has nothing new need not.
const steadyAfter = time.Second

// connect opens a stream and serves it until it breaks or ctx ends. Steady
// says that the control plane was there for it.
func (c *Client) connect(ctx context.Context, dial *dialler) (steady bool, err error) {
	channel, err := dial.open(ctx)
	if err != nil {
		return false, err
	}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	client := discoveryv3.NewAggregatedDiscoveryServiceClient(channel)
	ads, err := client.StreamAggregatedResources(ctx, grpc.MaxCallRecvMsgSize(maxResponse))
	if err != nil {
		return false, fmt.Errorf("open ADS stream: %w", err)
	}
	c.setOnline(true)
	defer c.setOnline(false)
	s := &stream{client: c, grpc: ads, nonces: map[string]string{}, asked: map[string]bool{}}
	err = s.serve(ctx, cancel)
	return s.steady, err
}

func (c *Client) setOnline(online bool) {
	c.mu.Lock()
	c.online = online
	c.mu.Unlock()
	if online {
		c.connected.Set(1)
	} else {
		c.connected.Set(0)
	}
}

// serve asks for what is subscribed, then answers responses and sends changed
// subscriptions as they come. Only it sends on the stream.
func (s *stream) serve(ctx context.Context, cancel context.CancelFunc) error {
	responses := make(chan *discoveryv3.DiscoveryResponse)
	broken := make(chan error, 1)
	done := make(chan struct{})
	// serve waits for it below; the end of ctx ends it.
	go func() {
		defer close(done)
		for {
			response, err := s.grpc.Recv()
			if err != nil {
				broken <- err
				return
			}
			select {
			case responses <- response:
			case <-ctx.Done():
				return
			}
		}
	}()
	defer func() { cancel(); <-done }()

	if err := s.subscribe(true); err != nil {
		return s.cause(err, responses, broken)
	}
	steady := time.NewTimer(steadyAfter)
	defer steady.Stop()
	for {
		var err error
		select {
		case <-steady.C:
			s.settle()
		case response := <-responses:
			s.settle()
			err = s.take(response)
		case <-s.client.wake:
		case err := <-broken:
			return fmt.Errorf("read ADS stream: %w", err)
		case <-ctx.Done():
			return ctx.Err()
		}
		if err == nil {
			err = s.subscribe(false)
		}
		if err != nil {
			return s.cause(err, responses, broken)
		}
	}
}

// settle notes, once, that the control plane is there.
func (s *stream) settle() {
	if !s.steady {
		s.steady = true
		s.client.options.Log.Info("control plane is there")
	}
}

// cause is why a request could not be sent: the sender of a broken stream is
// told only that it has ended, the reader why.
func (s *stream) cause(err error, responses <-chan *discoveryv3.DiscoveryResponse, broken <-chan error) error {
	for errors.Is(err, io.EOF) {
		select {
		case <-responses: // Too late to be answered.
		case err = <-broken:
			return fmt.Errorf("send on ADS stream: %w", err)
		}
	}
	return fmt.Errorf("send on ADS stream: %w", err)
}

// subscribe sends a request for each type whose names changed; at the first
// call for each type that is wanted. They go out in the order of the types.
func (s *stream) subscribe(first bool) error {
	for _, sub := range s.client.subscriptions {
		s.client.mu.Lock()
		wanted := sub.changed && (len(sub.names) > 0 || s.asked[sub.typeURL])
		if first {
			// No names on a new stream would ask for all there are.
			wanted = sub.wildcard || len(sub.names) > 0
		}
		s.client.mu.Unlock()
		if wanted {
			if err := s.request(sub, nil); err != nil {
				return err
			}
		}
	}
	return nil
}

// request sends the state of a subscription: the version accepted last, the
// nonce of the newest response and the names. Refused, if not nil, makes it a
// NACK.
func (s *stream) request(sub *subscription, refused error) error {
	c := s.client
	c.mu.Lock()
	request := &discoveryv3.DiscoveryRequest{
		TypeUrl:       sub.typeURL,
		VersionInfo:   sub.version,
		ResponseNonce: s.nonces[sub.typeURL],
		ResourceNames: sub.names,
	}
	sub.changed = false
	c.mu.Unlock()
	if !s.introduced || !c.options.NodeOnFirstMessageOnly {
		request.Node = c.options.Node
	}
	if refused != nil {
		request.ErrorDetail = &status.Status{Code: int32(codes.InvalidArgument), Message: cut(refused.Error())}
	}
	s.introduced = true
	s.asked[sub.typeURL] = true
	return s.grpc.Send(request)
}

// take hands a response to its sink and sends the ACK or NACK.
func (s *stream) take(response *discoveryv3.DiscoveryResponse) error {
	c := s.client
	c.mu.Lock()
	sub := c.find(response.GetTypeUrl())
	c.identifier = response.GetControlPlane().GetIdentifier()
	c.mu.Unlock()
	if sub == nil || !s.asked[sub.typeURL] {
		c.options.Log.Warn("ignored a response of a type that was not asked for", "type", response.GetTypeUrl())
		return nil
	}
	s.nonces[sub.typeURL] = response.GetNonce()
	return s.request(sub, c.apply(sub, response))
}
