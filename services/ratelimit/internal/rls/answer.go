package rls

import (
	"time"

	pb "github.com/envoyproxy/go-control-plane/envoy/service/ratelimit/v3"
	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/wrapperspb"

	"github.com/weirproxy/weir/services/ratelimit/internal/limiter"
)

// limitedStatus is a status together with what it points to, so that all
// statuses of an answer are one piece of memory.
type limitedStatus struct {
	status pb.RateLimitResponse_DescriptorStatus
	limit  pb.RateLimitResponse_RateLimit
	reset  durationpb.Duration
}

// writeAnswer makes the protocol's message of answer. The message belongs to
// the gRPC server, which encodes it later, so that it cannot be pooled.
func writeAnswer(answer *limiter.Answer) *pb.RateLimitResponse {
	out := &pb.RateLimitResponse{
		OverallCode: code(answer.Over),
		Statuses:    make([]*pb.RateLimitResponse_DescriptorStatus, len(answer.Statuses)),
	}
	slab := make([]limitedStatus, len(answer.Statuses))
	for i := range answer.Statuses {
		from, to := &answer.Statuses[i], &slab[i]
		out.Statuses[i] = &to.status
		to.status.Code = code(from.Over)
		to.status.LimitRemaining = from.Remaining
		if !from.Limited {
			continue
		}
		to.limit.RequestsPerUnit = from.Rate.Requests
		to.limit.Unit = pb.RateLimitResponse_RateLimit_Unit(from.Rate.Unit)
		if from.Rate.Multiplier > 1 {
			to.limit.UnitMultiplier = wrapperspb.UInt32(from.Rate.Multiplier)
		}
		to.status.CurrentLimit = &to.limit
		// Whole seconds, rounded up: who waits for them is in the next window.
		to.reset.Seconds = int64((from.ResetIn + time.Second - 1) / time.Second)
		to.status.DurationUntilReset = &to.reset
	}
	return out
}

func code(over bool) pb.RateLimitResponse_Code {
	if over {
		return pb.RateLimitResponse_OVER_LIMIT
	}
	return pb.RateLimitResponse_OK
}
