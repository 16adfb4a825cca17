package conformance

import (
	"context"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	commonpb "github.com/envoyproxy/go-control-plane/envoy/extensions/common/ratelimit/v3"
	rlspb "github.com/envoyproxy/go-control-plane/envoy/service/ratelimit/v3"
	"github.com/stretchr/testify/require"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	healthpb "google.golang.org/grpc/health/grpc_health_v1"
	reflectionpb "google.golang.org/grpc/reflection/grpc_reflection_v1"
	"google.golang.org/grpc/status"

	"github.com/weirproxy/weir/integration/harness"
	"github.com/weirproxy/weir/internal/servicetest"
)

// limiterRules has a rule of each kind.
const limiterRules = `
domain: mill
descriptors:
  - key: user
    rate_limit: {unit: day, requests_per_unit: 3}
  - key: user
    value: miller
    rate_limit: {unlimited: true}
  - key: route
    value: grind
    descriptors:
      - key: user
        rate_limit: {unit: hour, requests_per_unit: 2}
`

// exchange is one call and its answer, both as text.
type exchange struct{ call, want string }

// calls are made in this order by one client. A call is the domain, +hits if
// not one, and its descriptors; the answer is its code, and for each descriptor
// the code and, where it met a limit, that and what remains. USER stands for a
// name of each run's own.
var calls = []exchange{
	{"mill user=USER", "OK [OK 3/DAY 2 left]"},
	{"mill user=USER", "OK [OK 3/DAY 1 left]"},
	{"mill user=other-USER", "OK [OK 3/DAY 2 left]"},
	{"mill user=USER", "OK [OK 3/DAY 0 left]"},
	{"mill user=USER", "OVER_LIMIT [OVER_LIMIT 3/DAY 0 left]"},
	{"mill user=USER route=grind,user=USER", "OVER_LIMIT [OVER_LIMIT 3/DAY 0 left] [OK 2/HOUR 1 left]"},
	{"mill route=grind,user=USER route=sift", "OK [OK 2/HOUR 0 left] [OK]"},
	{"mill route=grind,user=USER", "OVER_LIMIT [OVER_LIMIT 2/HOUR 0 left]"},
	{"mill+2 user=third-USER", "OK [OK 3/DAY 1 left]"},
	{"mill+2 user=third-USER", "OVER_LIMIT [OVER_LIMIT 3/DAY 0 left]"},
	{"mill user=miller", "OK [OK 4294967295 left]"},
	{"mill route=grind", "OK [OK]"},
	{"mill user=USER,route=grind", "OK [OK]"},
	{"granary user=USER", "OK [OK]"},
	{"mill", "InvalidArgument: descriptors: empty"},
	{" user=USER", "InvalidArgument: domain: empty"},
}

// stores starts a ratelimit for each kind of store there is.
func stores(t *testing.T, test func(t *testing.T, limiter *harness.Process)) {
	t.Helper()
	rules := t.TempDir()
	require.NoError(t, os.WriteFile(filepath.Join(rules, "mill.yaml"), []byte(limiterRules), 0o644))
	t.Run("memory", func(t *testing.T) { test(t, harness.Ratelimit(t, rules, "BACKEND_TYPE=memory")) })
	t.Run("redis", func(t *testing.T) {
		test(t, harness.Ratelimit(t, rules, "REDIS_URL=redis://"+servicetest.Redis(t).Address, "REDIS_TIMEOUT=1m")) // this machine may be busy
	})
}

// dial connects grpc-go's client to a ratelimit.
func dial(t *testing.T, limiter *harness.Process) *grpc.ClientConn {
	t.Helper()
	connection, err := grpc.NewClient(limiter.Addr("grpc"), grpc.WithTransportCredentials(insecure.NewCredentials()))
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, connection.Close()) })
	return connection
}

func TestGRPCClientsGetTheSameAnswersFromBothStores(t *testing.T) {
	stores(t, func(t *testing.T, limiter *harness.Process) {
		client := rlspb.NewRateLimitServiceClient(dial(t, limiter))
		for run := 0; ; run++ { // another one if an hour ended in between
			began, user := time.Now().Unix()/3600, fmt.Sprintf("user-%d", run)
			var want, got []string
			for _, c := range calls {
				answer, err := client.ShouldRateLimit(t.Context(), readCall(t, strings.ReplaceAll(c.call, "USER", user)))
				want = append(want, c.call+" → "+c.want)
				got = append(got, c.call+" → "+showAnswer(t, answer, err))
			}
			if time.Now().Unix()/3600 == began {
				require.Equal(t, want, got)
				return
			}
		}
	})
}

func TestConcurrentCallsNeverExceedTheLimit(t *testing.T) {
	stores(t, func(t *testing.T, limiter *harness.Process) {
		client := rlspb.NewRateLimitServiceClient(dial(t, limiter))
		request := readCall(t, "mill user=ann")
		const callers = 64
		codes := make(chan rlspb.RateLimitResponse_Code, callers)
		for range callers {
			// Ends with its call; the loop below waits for it.
			go func() {
				answer, err := client.ShouldRateLimit(t.Context(), request)
				if err != nil {
					codes <- rlspb.RateLimitResponse_UNKNOWN
					return
				}
				codes <- answer.GetOverallCode()
			}()
		}
		counts := map[rlspb.RateLimitResponse_Code]int{}
		for range callers {
			counts[<-codes]++
		}
		require.Equal(t, map[rlspb.RateLimitResponse_Code]int{
			rlspb.RateLimitResponse_OK:         3,
			rlspb.RateLimitResponse_OVER_LIMIT: callers - 3,
		}, counts)
	})
}

func TestHealthAndReflectionAreServedToGRPCClients(t *testing.T) {
	stores(t, func(t *testing.T, limiter *harness.Process) {
		connection := dial(t, limiter)
		health, err := healthpb.NewHealthClient(connection).Check(t.Context(), &healthpb.HealthCheckRequest{})
		require.NoError(t, err)
		require.Equal(t, healthpb.HealthCheckResponse_SERVING, health.GetStatus())

		stream, err := reflectionpb.NewServerReflectionClient(connection).ServerReflectionInfo(t.Context())
		require.NoError(t, err)
		require.NoError(t, stream.Send(&reflectionpb.ServerReflectionRequest{
			MessageRequest: &reflectionpb.ServerReflectionRequest_ListServices{},
		}))
		listed, err := stream.Recv()
		require.NoError(t, err)
		var names []string
		for _, service := range listed.GetListServicesResponse().GetService() {
			names = append(names, service.GetName())
		}
		require.Contains(t, names, "envoy.service.ratelimit.v3.RateLimitService")
		require.Contains(t, names, "grpc.health.v1.Health")
		require.NoError(t, stream.CloseSend())
	})
}

func TestARedisThatHangsOrIsAwayIsToldAndSoIsItsReturn(t *testing.T) {
	redis := servicetest.Redis(t)
	rules := t.TempDir()
	require.NoError(t, os.WriteFile(filepath.Join(rules, "mill.yaml"), []byte(limiterRules), 0o644))
	limiter := harness.Ratelimit(t, rules, "REDIS_URL=redis://"+redis.Address)
	connection := dial(t, limiter)
	client, request := rlspb.NewRateLimitServiceClient(connection), readCall(t, "mill user=ann")
	isAnswered := func() bool {
		_, err := client.ShouldRateLimit(t.Context(), request)
		return err == nil
	}
	servicetest.Eventually(t, "a call is answered within the 50 ms that Redis has", isAnswered)

	// A call that waited for Redis would be over by its own deadline.
	isRefused := func() {
		ctx, cancel := context.WithTimeout(t.Context(), slowMachine)
		defer cancel()
		_, err := client.ShouldRateLimit(ctx, request)
		require.Equal(t, codes.Unavailable, status.Code(err))
	}
	require.NoError(t, redis.Process().Signal(syscall.SIGSTOP))
	isRefused()
	redis.Kill()
	isRefused()
	servicetest.Eventually(t, "health tells of it", func() bool {
		answer, err := healthpb.NewHealthClient(connection).Check(t.Context(), &healthpb.HealthCheckRequest{})
		return err == nil && answer.GetStatus() == healthpb.HealthCheckResponse_NOT_SERVING
	})
	answer, err := harness.Send(harness.Client(t), harness.Request{URL: "http://" + limiter.Addr("http") + "/healthcheck"})
	require.NoError(t, err)
	require.Equal(t, http.StatusInternalServerError, answer.Status)

	redis.Start()
	servicetest.Eventually(t, "calls are answered again", isAnswered)
	servicetest.Eventually(t, "health tells of that too", func() bool {
		answer, err := healthpb.NewHealthClient(connection).Check(t.Context(), &healthpb.HealthCheckRequest{})
		return err == nil && answer.GetStatus() == healthpb.HealthCheckResponse_SERVING
	})
}

// readCall makes the request of a call's text.
func readCall(t *testing.T, text string) *rlspb.RateLimitRequest {
	t.Helper()
	domain, rest, _ := strings.Cut(text, " ")
	request := &rlspb.RateLimitRequest{}
	domain, hits, given := strings.Cut(domain, "+")
	request.Domain = domain
	if given {
		_, err := fmt.Sscan(hits, &request.HitsAddend)
		require.NoError(t, err)
	}
	for descriptor := range strings.FieldsSeq(rest) {
		d := &commonpb.RateLimitDescriptor{}
		for entry := range strings.SplitSeq(descriptor, ",") {
			key, value, _ := strings.Cut(entry, "=")
			d.Entries = append(d.Entries, &commonpb.RateLimitDescriptor_Entry{Key: key, Value: value})
		}
		request.Descriptors = append(request.Descriptors, d)
	}
	return request
}

// showAnswer writes an answer as calls does, and holds the time until its reset
// to the limit's unit.
func showAnswer(t *testing.T, answer *rlspb.RateLimitResponse, err error) string {
	t.Helper()
	if err != nil {
		return fmt.Sprintf("%v: %s", status.Code(err), status.Convert(err).Message())
	}
	text := answer.GetOverallCode().String()
	for _, s := range answer.GetStatuses() {
		text += " [" + s.GetCode().String()
		if limit := s.GetCurrentLimit(); limit != nil {
			text += fmt.Sprintf(" %d/%v", limit.GetRequestsPerUnit(), limit.GetUnit())
			most := map[rlspb.RateLimitResponse_RateLimit_Unit]time.Duration{
				rlspb.RateLimitResponse_RateLimit_HOUR: time.Hour,
				rlspb.RateLimitResponse_RateLimit_DAY:  24 * time.Hour,
			}[limit.GetUnit()]
			reset := s.GetDurationUntilReset().AsDuration()
			require.True(t, reset > 0 && reset <= most, "until the reset: %v", reset)
		}
		if s.GetCurrentLimit() != nil || s.GetLimitRemaining() != 0 {
			text += fmt.Sprintf(" %d left", s.GetLimitRemaining())
		}
		text += "]"
	}
	return text
}
