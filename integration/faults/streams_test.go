package faults

import (
	"context"
	"fmt"
	"slices"
	"strconv"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"

	discoveryv2 "github.com/weirproxy/weir/proto/discovery/v2"
)

// streams is how a carrier beats over gRPC: on one stream, to one replica at a time,
// whose loss ends the hosts on it where the replica lets it. It is for one goroutine.
type streams struct {
	addresses []string // of the replicas, over gRPC

	replica  int // that of the stream
	stream   discoveryv2.HeartbeatService_BeatClient
	end      func() // nil if no stream is open
	attached []uint64
}

// beat beats for just these leases at a replica, over a new stream if there is none
// to it. unknown are those that it does not know.
func (s *streams) beat(ctx context.Context, replica int, leases []string) (unknown []string, err error) {
	if s.end == nil || s.replica != replica {
		if err := s.open(ctx, replica); err != nil {
			return nil, err
		}
	}
	wanted := make([]uint64, len(leases))
	for i, lease := range leases {
		if wanted[i], err = strconv.ParseUint(lease, 16, 64); err != nil {
			return nil, err
		}
	}
	request := &discoveryv2.BeatRequest{LossEnds: true}
	for _, lease := range wanted {
		if !slices.Contains(s.attached, lease) {
			request.Attach = append(request.Attach, lease)
		}
	}
	for _, lease := range s.attached {
		if !slices.Contains(wanted, lease) {
			request.Detach = append(request.Detach, lease)
		}
	}
	response, err := s.exchange(request)
	if err != nil {
		s.close()
		return nil, err
	}
	s.attached = slices.DeleteFunc(wanted, func(lease uint64) bool { return slices.Contains(response.GetUnknown(), lease) })
	for _, lease := range response.GetUnknown() {
		unknown = append(unknown, fmt.Sprintf("%016x", lease))
	}
	return unknown, nil
}

// exchange sends a message and waits for its answer for callTimeout.
func (s *streams) exchange(request *discoveryv2.BeatRequest) (*discoveryv2.BeatResponse, error) {
	late := time.AfterFunc(callTimeout, s.end)
	defer late.Stop()
	if err := s.stream.Send(request); err != nil {
		return nil, err
	}
	return s.stream.Recv()
}

func (s *streams) open(ctx context.Context, replica int) error {
	s.close()
	conn, err := grpc.NewClient(s.addresses[replica], grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		return err
	}
	ctx, cancel := context.WithCancel(ctx)
	end := func() {
		cancel()
		_ = conn.Close()
	}
	late := time.AfterFunc(callTimeout, end)
	defer late.Stop()
	stream, err := discoveryv2.NewHeartbeatServiceClient(conn).Beat(ctx)
	if err != nil {
		end()
		return err
	}
	s.replica, s.stream, s.end, s.attached = replica, stream, end, nil
	return nil
}

// close ends the stream, if there is one.
func (s *streams) close() {
	if s.end != nil {
		s.end()
		s.end = nil
	}
}
