package rls

import (
	"math/rand/v2"
	"strconv"
	"strings"
	"testing"
	"time"

	corepb "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	v2pb "github.com/envoyproxy/go-control-plane/envoy/service/ratelimit/v2"
	pb "github.com/envoyproxy/go-control-plane/envoy/service/ratelimit/v3"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/stretchr/testify/require"
	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/wrapperspb"

	lyftpb "github.com/weirproxy/weir/proto/ratelimit/lyft"
	"github.com/weirproxy/weir/services/ratelimit/internal/limiter"
	"github.com/weirproxy/weir/services/ratelimit/internal/limits"
)

// some is an answer with one of everything.
func some() limiter.Answer {
	named := &limits.Rule{Name: "gold"}
	return limiter.Answer{Over: true, Tightest: 1, Statuses: []limiter.Status{
		{Over: true, Limited: true, Rule: named, Rate: limits.Rate{Requests: 5, Unit: limits.Week, Multiplier: 1}, ResetIn: 1500 * time.Millisecond},
		{Limited: true, Rate: limits.Rate{Requests: 9, Unit: limits.Second, Multiplier: 10}, Remaining: 4, ResetIn: time.Nanosecond},
		{Limited: true, Rule: named, Rate: limits.Rate{Requests: 300, Unit: limits.Day, Multiplier: 1}, Remaining: 300, ResetIn: time.Hour},
		{Rule: named, Remaining: 4294967295},
		{},
	}}
}

// decimal is a number as headers have it.
func decimal(n uint32) string { return strconv.FormatUint(uint64(n), 10) }

// requireAnswer compares what a service with o makes of answer with want, the
// JSON of the version's own message; out is an empty one.
func requireAnswer(t *testing.T, o Options, answer limiter.Answer, v Version, out proto.Message, want string) {
	o.Limiter, o.Metrics = &scripted{answer: answer}, prometheus.NewRegistry()
	text, err := New(o).ShouldRateLimit(t.Context(), v, encode(t, usual()), nil)
	require.Nil(t, err)
	require.NoError(t, proto.Unmarshal(text, out))
	require.Empty(t, out.ProtoReflect().GetUnknown())
	expected := out.ProtoReflect().New().Interface()
	require.NoError(t, protojson.Unmarshal([]byte(want), expected))
	require.True(t, proto.Equal(expected, out), "want %v\n got %v", expected, out)
}

func TestTheAnswerIsWrittenWholeInEachVersion(t *testing.T) {
	o := Options{Headers: &Headers{Limit: "x-limit", Remaining: "x-remaining", Reset: "x-reset"}}
	const headers = `[{"key": "x-limit", "value": "9"}, {"key": "x-remaining", "value": "4"}, {"key": "x-reset", "value": "1"}]`
	t.Run("v3", func(t *testing.T) {
		requireAnswer(t, o, some(), V3, &pb.RateLimitResponse{}, `{"overallCode": "OVER_LIMIT", "responseHeadersToAdd": `+headers+`, "statuses": [
			{"code": "OVER_LIMIT", "currentLimit": {"name": "gold", "requestsPerUnit": 5, "unit": "WEEK"}, "durationUntilReset": "2s"},
			{"code": "OK", "currentLimit": {"requestsPerUnit": 9, "unit": "SECOND", "unitMultiplier": 10}, "limitRemaining": 4, "durationUntilReset": "1s"},
			{"code": "OK", "currentLimit": {"name": "gold", "requestsPerUnit": 300, "unit": "DAY"}, "limitRemaining": 300, "durationUntilReset": "3600s"},
			{"code": "OK", "limitRemaining": 4294967295},
			{"code": "OK"}]}`)
	})
	t.Run("v2", func(t *testing.T) {
		requireAnswer(t, o, some(), V2, &v2pb.RateLimitResponse{}, `{"overallCode": "OVER_LIMIT", "headers": `+headers+`, "statuses": [
			{"code": "OVER_LIMIT", "currentLimit": {"name": "gold", "requestsPerUnit": 5}},
			{"code": "OK", "currentLimit": {"requestsPerUnit": 9}, "limitRemaining": 4},
			{"code": "OK", "currentLimit": {"name": "gold", "requestsPerUnit": 300, "unit": "DAY"}, "limitRemaining": 300},
			{"code": "OK", "limitRemaining": 4294967295},
			{"code": "OK"}]}`)
	})
	t.Run("lyft", func(t *testing.T) {
		requireAnswer(t, o, some(), Lyft, &lyftpb.RateLimitResponse{}, `{"overallCode": "OVER_LIMIT", "statuses": [
			{"code": "OVER_LIMIT", "currentLimit": {"requestsPerUnit": 5}},
			{"code": "OK", "currentLimit": {"requestsPerUnit": 9}, "limitRemaining": 4},
			{"code": "OK", "currentLimit": {"requestsPerUnit": 300, "unit": "DAY"}, "limitRemaining": 300},
			{"code": "OK", "limitRemaining": 4294967295},
			{"code": "OK"}]}`)
	})
}

func TestHeadersAreSentOnlyWhereALimitWasApplied(t *testing.T) {
	answer := limiter.Answer{Tightest: -1, Statuses: []limiter.Status{{Remaining: 4294967295}}}
	requireAnswer(t, Options{Headers: &Headers{Limit: "l"}}, answer, V3, &pb.RateLimitResponse{},
		`{"overallCode": "OK", "statuses": [{"code": "OK", "limitRemaining": 4294967295}]}`)
}

// TestAnyAnswerIsReadByProtobufAsItWasMeant writes random answers.
func TestAnyAnswerIsReadByProtobufAsItWasMeant(t *testing.T) {
	random := rand.New(rand.NewPCG(1, 2))
	number := func() uint32 { return uint32(random.Uint64() >> (32 + random.IntN(33))) }
	for range 2000 {
		answer := limiter.Answer{Over: random.IntN(2) == 0, Tightest: random.IntN(3) - 1}
		want := &pb.RateLimitResponse{OverallCode: pb.RateLimitResponse_Code(code(answer.Over))}
		for range random.IntN(4) {
			rate := limits.Rate{Requests: number(), Unit: limits.Unit(1 + random.IntN(7)), Multiplier: max(1, number())}
			status := limiter.Status{Over: random.IntN(2) == 0, Limited: random.IntN(4) > 0, Remaining: number()}
			out := &pb.RateLimitResponse_DescriptorStatus{
				Code: pb.RateLimitResponse_Code(code(status.Over)), LimitRemaining: status.Remaining,
			}
			if status.Limited {
				status.Rate, status.ResetIn = rate, time.Duration(number())*time.Second
				name := strings.Repeat("n", random.IntN(300))
				status.Rule = &limits.Rule{Name: name}
				out.CurrentLimit = &pb.RateLimitResponse_RateLimit{
					Name: name, RequestsPerUnit: rate.Requests, Unit: pb.RateLimitResponse_RateLimit_Unit(rate.Unit),
				}
				if rate.Multiplier > 1 {
					out.CurrentLimit.UnitMultiplier = wrapperspb.UInt32(rate.Multiplier)
				}
				out.DurationUntilReset = durationpb.New(status.ResetIn)
			}
			answer.Statuses = append(answer.Statuses, status)
			want.Statuses = append(want.Statuses, out)
		}
		headers := &Headers{Limit: strings.Repeat("h", 1+random.IntN(200)), Remaining: "left", Reset: "reset"}
		if i := answer.Tightest; i >= 0 && i < len(answer.Statuses) {
			want.ResponseHeadersToAdd = []*corepb.HeaderValue{
				{Key: headers.Limit, Value: decimal(answer.Statuses[i].Rate.Requests)},
				{Key: "left", Value: decimal(answer.Statuses[i].Remaining)},
				{Key: "reset", Value: decimal(uint32(resetSeconds(&answer.Statuses[i])))},
			}
		}
		s := New(Options{Headers: headers, Metrics: prometheus.NewRegistry()})
		text, err := s.appendAnswer(nil, &call{answer: answer}, &dialects[V3])
		require.NoError(t, err)
		got := &pb.RateLimitResponse{}
		require.NoError(t, proto.Unmarshal(text, got))
		require.True(t, proto.Equal(want, got), "want %v\n got %v", want, got)
		size, err := proto.MarshalOptions{Deterministic: true}.Marshal(want)
		require.NoError(t, err)
		require.Len(t, text, len(size))
	}
}

func BenchmarkEncode(b *testing.B) {
	answer := some()
	out := &pb.RateLimitResponse{}
	s := newService(nil)
	text, err := s.appendAnswer(nil, &call{answer: answer}, &dialects[V3])
	require.NoError(b, err)
	require.NoError(b, proto.Unmarshal(text, out))
	b.Run("own", func(b *testing.B) {
		c := &call{answer: answer}
		b.ReportAllocs()
		for b.Loop() {
			text, _ = s.appendAnswer(text[:0], c, &dialects[V3])
		}
	})
	b.Run("protobuf", func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			text, _ = proto.MarshalOptions{}.MarshalAppend(text[:0], out)
		}
	})
}
