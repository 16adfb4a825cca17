// Command rlsfloor is a rate limit service that decides nothing: grpc-go with
// its generated code and an answer that never changes. The benchmarks run it to
// know what a call costs before any limiting is done; it is no part of the
// product. GOGC is the Go runtime's own.
package main

import (
	"context"
	"flag"
	"fmt"
	"math"
	"os"
	"time"

	rlspb "github.com/envoyproxy/go-control-plane/envoy/service/ratelimit/v3"
	"google.golang.org/grpc"
	"google.golang.org/protobuf/types/known/durationpb"

	"github.com/weirproxy/weir/internal/daemon"
)

func main() {
	os.Exit(daemon.Main("rlsfloor", func(ctx context.Context) error { return run(ctx, os.Args[1:]) }))
}

// run serves until ctx ends.
func run(ctx context.Context, args []string) error {
	flags := flag.NewFlagSet("rlsfloor", flag.ContinueOnError)
	readyFile := flags.String("ready-file", "", "`path` of a JSON file of the bound address")
	workers := flags.Uint("stream-workers", 0, "goroutines that serve calls without being started for each; 0 starts one for each call, as grpc-go does by itself")
	if err := flags.Parse(args); err != nil {
		return err
	}
	listener, err := daemon.Listen("127.0.0.1:0", "loopback")
	if err != nil {
		return err
	}
	server := grpc.NewServer(grpc.NumStreamWorkers(uint32(*workers)))
	rlspb.RegisterRateLimitServiceServer(server, newFloor())
	if err := daemon.WriteReadyFile(*readyFile, map[string]string{"grpc": listener.Addr().String()}); err != nil {
		_ = listener.Close()
		return err
	}
	defer context.AfterFunc(ctx, server.Stop)()
	return server.Serve(listener)
}

// maxDescriptors is the most descriptors of a request that has an answer.
const maxDescriptors = 8

// floor holds its answers ready, by the number of statuses, so that they have
// the shape that a client wants and cost nothing to make.
type floor struct {
	answers [maxDescriptors + 1]*rlspb.RateLimitResponse
}

func newFloor() *floor {
	f := &floor{}
	for n := range f.answers {
		f.answers[n] = &rlspb.RateLimitResponse{OverallCode: rlspb.RateLimitResponse_OK}
		for range n {
			f.answers[n].Statuses = append(f.answers[n].Statuses, &rlspb.RateLimitResponse_DescriptorStatus{
				Code: rlspb.RateLimitResponse_OK,
				CurrentLimit: &rlspb.RateLimitResponse_RateLimit{
					RequestsPerUnit: math.MaxUint32,
					Unit:            rlspb.RateLimitResponse_RateLimit_YEAR,
				},
				LimitRemaining:     math.MaxUint32,
				DurationUntilReset: durationpb.New(365 * 24 * time.Hour),
			})
		}
	}
	return f
}

// ShouldRateLimit implements the service: always OK.
func (f *floor) ShouldRateLimit(_ context.Context, request *rlspb.RateLimitRequest) (*rlspb.RateLimitResponse, error) {
	n := len(request.GetDescriptors())
	if n > maxDescriptors {
		return nil, fmt.Errorf("%d descriptors: more than %d", n, maxDescriptors)
	}
	return f.answers[n], nil
}
