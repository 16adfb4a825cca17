package xds

import (
	"errors"
	"io"

	discoveryv3 "github.com/envoyproxy/go-control-plane/envoy/service/discovery/v3"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/peer"
	"google.golang.org/grpc/status"
)

// wire is a gRPC stream of the state-of-the-world variant.
type wire = grpc.BidiStreamingServer[discoveryv3.DiscoveryRequest, discoveryv3.DiscoveryResponse]

// serve answers one stream until the client or the server ends it. Only this
// goroutine sends, and it holds no lock meanwhile: a client that does not read
// holds up nobody else.
func (s *Server) serve(w wire, only kind) error {
	st := newStream(s.hub, only, s.identifier, s.log)
	st.number = s.lastStream.Add(1)
	if p, ok := peer.FromContext(w.Context()); ok {
		st.peer = p.Addr.String()
	}
	if !s.hub.join(st, s.maxStreams) {
		s.metrics.refused.Inc()
		return status.Errorf(codes.ResourceExhausted, "%d streams are open, the most that are served", s.maxStreams)
	}
	defer s.hub.leave(st)
	s.log.Info("stream opened", "stream", st.number, "peer", st.peer)
	defer func() { s.log.Info("stream closed", "stream", st.number, "peer", st.peer, "node", st.node.GetId()) }()

	requests := make(chan *discoveryv3.DiscoveryRequest)
	ended := make(chan error, 1)
	// Ends when the stream does, which is when serve returns; nobody waits.
	go func() { ended <- receive(w, requests) }()
	for {
		for {
			response := st.next()
			if response == nil {
				break
			}
			if err := w.Send(response); err != nil {
				return err
			}
		}
		select {
		case r := <-requests:
			s.metrics.requests.Inc()
			if err := st.request(r); err != nil {
				return err
			}
		case <-st.wake:
		case err := <-ended:
			return err
		case <-s.stopping:
			return status.Error(codes.Unavailable, "this server is stopping")
		}
	}
}

// receive hands on requests until the stream ends. It returns nil if the
// client ended it.
func receive(w wire, requests chan<- *discoveryv3.DiscoveryRequest) error {
	for {
		r, err := w.Recv()
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return err
		}
		select {
		case requests <- r:
		case <-w.Context().Done():
			return w.Context().Err()
		}
	}
}
