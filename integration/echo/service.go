package echo

import (
	"context"
	"errors"
	"io"

	"google.golang.org/grpc"

	echov1 "github.com/weirproxy/weir/proto/echo/v1"
)

// service is the gRPC side of an instance.
type service struct {
	echov1.UnimplementedEchoServiceServer
	name string
}

func (s service) Echo(_ context.Context, r *echov1.EchoRequest) (*echov1.EchoResponse, error) {
	return &echov1.EchoResponse{Instance: s.name, Payload: r.GetPayload()}, nil
}

func (s service) EchoStream(stream grpc.BidiStreamingServer[echov1.EchoStreamRequest, echov1.EchoStreamResponse]) error {
	for {
		r, err := stream.Recv()
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return err
		}
		if err := stream.Send(&echov1.EchoStreamResponse{Instance: s.name, Payload: r.GetPayload()}); err != nil {
			return err
		}
	}
}
