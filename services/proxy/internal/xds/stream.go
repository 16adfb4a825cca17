package xds

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"time"

	discoveryv3 "github.com/envoyproxy/go-control-plane/envoy/service/discovery/v3"
	"google.golang.org/genproto/googleapis/rpc/status"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/metadata"
	"google.golang.org/protobuf/proto"
)

// maxResponse bounds one response, in bytes, unless its control plane has another
// bound: the assignments of a large fleet come in one.
const maxResponse = 64 << 20

// methods are the full names of a stream for a type, in the state of the world
// and in delta; that of ADS is under no type.
var methods = map[string][2]string{
	"":             {"/envoy.service.discovery.v3.AggregatedDiscoveryService/StreamAggregatedResources", "/envoy.service.discovery.v3.AggregatedDiscoveryService/DeltaAggregatedResources"},
	ClusterType:    {"/envoy.service.cluster.v3.ClusterDiscoveryService/StreamClusters", "/envoy.service.cluster.v3.ClusterDiscoveryService/DeltaClusters"},
	AssignmentType: {"/envoy.service.endpoint.v3.EndpointDiscoveryService/StreamEndpoints", "/envoy.service.endpoint.v3.EndpointDiscoveryService/DeltaEndpoints"},
	ListenerType:   {"/envoy.service.listener.v3.ListenerDiscoveryService/StreamListeners", "/envoy.service.listener.v3.ListenerDiscoveryService/DeltaListeners"},
	RouteType:      {"/envoy.service.route.v3.RouteDiscoveryService/StreamRoutes", "/envoy.service.route.v3.RouteDiscoveryService/DeltaRoutes"},
}

// stream is one stream and what is true only of it.
type stream struct {
	origin *origin
	grpc   grpc.ClientStream
	types  map[string]*typeState
	// introduced says that a request with the node went out.
	introduced bool
	// steady says that the control plane is really there.
	steady bool
}

// typeState is what a stream knows of one type.
type typeState struct {
	asked bool   // a request went out
	nonce string // of the newest response
	// subscribed are the names asked for so far, sorted; in delta only.
	subscribed []string
}

// steadyAfter is how long a stream lasts before its control plane counts as
// there, if it has not answered: one that has nothing new need not.
const steadyAfter = time.Second

// connect opens a stream and serves it until it breaks or ctx ends. Steady
// says that the control plane was there for it.
func (o *origin) connect(ctx context.Context, dial *dialler) (steady bool, err error) {
	channel, err := dial.open(ctx)
	if err != nil {
		return false, err
	}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	method := methods[o.typeURL][0]
	if o.plane.Delta {
		method = methods[o.typeURL][1]
	}
	options := []grpc.CallOption{grpc.MaxCallRecvMsgSize(cmp.Or(int(o.plane.MaxMessage), maxResponse))}
	if o.plane.Authority != "" {
		options = append(options, grpc.CallAuthority(o.plane.Authority))
	}
	ctx = metadata.AppendToOutgoingContext(ctx, o.plane.Metadata.Pairs()...)
	opened, err := channel.NewStream(ctx, &grpc.StreamDesc{ClientStreams: true, ServerStreams: true}, method, options...)
	if err != nil {
		return false, fmt.Errorf("open xDS stream: %w", err)
	}
	o.setOnline(true)
	defer o.setOnline(false)
	s := &stream{origin: o, grpc: opened, types: map[string]*typeState{}}
	err = s.serve(ctx, cancel)
	return s.steady, err
}

func (o *origin) setOnline(online bool) {
	o.client.mu.Lock()
	o.online = online
	o.client.mu.Unlock()
	switch {
	case o.connected == nil:
	case online:
		o.connected.Set(1)
	default:
		o.connected.Set(0)
	}
}

// serve asks for what is subscribed, then answers responses and sends changed
// subscriptions as they come. Only it sends on the stream.
func (s *stream) serve(ctx context.Context, cancel context.CancelFunc) error {
	responses := make(chan proto.Message)
	broken := make(chan error, 1)
	done := make(chan struct{})
	// serve waits for it below; the end of ctx ends it.
	go func() {
		defer close(done)
		for {
			response := s.newResponse()
			if err := s.grpc.RecvMsg(response); err != nil {
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

	if err := s.subscribe(); err != nil {
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
		case <-s.origin.wake:
		case err := <-broken:
			return fmt.Errorf("read xDS stream: %w", err)
		case <-ctx.Done():
			return ctx.Err()
		}
		if err == nil {
			err = s.subscribe()
		}
		if err != nil {
			return s.cause(err, responses, broken)
		}
	}
}

func (s *stream) newResponse() proto.Message {
	if s.origin.plane.Delta {
		return &discoveryv3.DeltaDiscoveryResponse{}
	}
	return &discoveryv3.DiscoveryResponse{}
}

// settle notes, once, that the control plane is there.
func (s *stream) settle() {
	if !s.steady {
		s.steady = true
		s.origin.client.options.Log.Info("control plane is there", "source", s.origin.source)
	}
}

// cause is why a request could not be sent: the sender of a broken stream is
// told only that it has ended, the reader why.
func (s *stream) cause(err error, responses <-chan proto.Message, broken <-chan error) error {
	for errors.Is(err, io.EOF) {
		select {
		case <-responses: // Too late to be answered.
		case err = <-broken:
			return fmt.Errorf("send on xDS stream: %w", err)
		}
	}
	return fmt.Errorf("send on xDS stream: %w", err)
}

// state is what the stream knows of a type.
func (s *stream) state(typeURL string) *typeState {
	if s.types[typeURL] == nil {
		s.types[typeURL] = &typeState{}
	}
	return s.types[typeURL]
}

// subscribe sends a request for each type that is wanted and not asked for yet
// on this stream, or whose names changed, and two if some are to be sent anew. They go
// out in the order of the types.
func (s *stream) subscribe() error {
	for _, sub := range s.origin.wanted() {
		for s.wants(sub) {
			if err := s.send(sub, nil); err != nil {
				return err
			}
		}
	}
	return nil
}

// wants says whether a subscription is to be asked for.
func (s *stream) wants(sub *subscription) bool {
	s.origin.client.mu.Lock()
	defer s.origin.client.mu.Unlock()
	if !s.state(sub.typeURL).asked { // no names in a first request would ask for all there are
		return sub.wildcard || len(sub.wanted) > 0
	}
	return sub.changed
}

// answer is what a response gets: an ACK, or a NACK if refused is not nil.
type answer struct{ refused error }

// detail is the text of a NACK, nil for an ACK.
func (a *answer) detail() *status.Status {
	if a == nil || a.refused == nil {
		return nil
	}
	return &status.Status{Code: int32(codes.InvalidArgument), Message: cut(a.refused.Error())}
}

// send sends the state of a subscription. Answer is nil where no response is
// answered.
func (s *stream) send(sub *subscription, answer *answer) error {
	state := s.state(sub.typeURL)
	var request proto.Message
	if s.origin.plane.Delta {
		request = s.deltaRequest(sub, state, answer)
	} else {
		request = s.request(sub, state, answer)
	}
	s.introduced, state.asked = true, true
	return s.grpc.SendMsg(request)
}

// request is one in the state of the world: the version accepted last, the
// nonce of the newest response and the names.
func (s *stream) request(sub *subscription, state *typeState, answer *answer) *discoveryv3.DiscoveryRequest {
	c := s.origin.client
	c.mu.Lock()
	defer c.mu.Unlock()
	request := &discoveryv3.DiscoveryRequest{
		TypeUrl:       sub.typeURL,
		VersionInfo:   sub.version,
		ResponseNonce: state.nonce,
		ResourceNames: sub.ask(state.asked),
		ErrorDetail:   answer.detail(),
	}
	if !s.introduced || !s.origin.plane.NodeOnFirstMessageOnly {
		request.Node = c.options.Node
	}
	return request
}

// take hands a response to its sink and sends the ACK or NACK.
func (s *stream) take(message proto.Message) error {
	r := readResponse(message)
	o, c := s.origin, s.origin.client
	c.mu.Lock()
	sub := o.find(r.typeURL)
	o.identifier = r.identifier
	c.mu.Unlock()
	if sub == nil || !s.state(r.typeURL).asked {
		c.options.Log.Warn("ignored a response of a type that was not asked for", "type", r.typeURL)
		return nil
	}
	s.state(r.typeURL).nonce = r.nonce
	return s.send(sub, &answer{c.apply(sub, r)})
}
