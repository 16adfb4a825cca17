package rls

import (
	"context"
	"errors"
	"testing"
	"time"

	commonpb "github.com/envoyproxy/go-control-plane/envoy/extensions/common/ratelimit/v3"
	pb "github.com/envoyproxy/go-control-plane/envoy/service/ratelimit/v3"
	typepb "github.com/envoyproxy/go-control-plane/envoy/type/v3"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil"
	"github.com/stretchr/testify/require"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/wrapperspb"

	"github.com/weirproxy/weir/internal/servicetest"
	"github.com/weirproxy/weir/services/ratelimit/internal/algorithm"
	"github.com/weirproxy/weir/services/ratelimit/internal/algorithm/fixedwindow"
	"github.com/weirproxy/weir/services/ratelimit/internal/limiter"
	"github.com/weirproxy/weir/services/ratelimit/internal/limits"
	"github.com/weirproxy/weir/services/ratelimit/internal/store/memory"
)

func TestMain(m *testing.M) { servicetest.Main(m) }

// scripted is a Limiter that keeps what it was asked and answers what it was
// told to.
type scripted struct {
	asked  limiter.Request
	answer limiter.Answer
	err    error
}

func (s *scripted) Check(_ context.Context, req *limiter.Request, answer *limiter.Answer) error {
	s.asked.Domain = req.Domain
	s.asked.Descriptors = append([]limiter.Descriptor(nil), req.Descriptors...)
	*answer = s.answer
	return s.err
}

func newService(l Limiter) *Service { return New(l, prometheus.NewRegistry()) }

// descriptor makes a descriptor of pairs of keys and values.
func descriptor(kv ...string) *commonpb.RateLimitDescriptor {
	d := &commonpb.RateLimitDescriptor{}
	for i := 0; i < len(kv); i += 2 {
		d.Entries = append(d.Entries, &commonpb.RateLimitDescriptor_Entry{Key: kv[i], Value: kv[i+1]})
	}
	return d
}

func TestARequestReachesTheLimiterWhole(t *testing.T) {
	s := &scripted{}
	withHits := descriptor("a", "b")
	withHits.HitsAddend = wrapperspb.UInt64(0)
	overriding := descriptor("c", "d", "e", "f")
	overriding.Limit = &commonpb.RateLimitDescriptor_RateLimitOverride{
		RequestsPerUnit: 7, Unit: typepb.RateLimitUnit_HOUR, UnitMultiplier: wrapperspb.UInt32(2),
	}
	service := newService(s)
	for range 2 { // the second time in used memory
		_, err := service.ShouldRateLimit(t.Context(), &pb.RateLimitRequest{
			Domain: "d", HitsAddend: 3, Descriptors: []*commonpb.RateLimitDescriptor{withHits, overriding, descriptor()},
		})
		require.NoError(t, err)
		require.Equal(t, "d", s.asked.Domain)
		require.Len(t, s.asked.Descriptors, 3)
		require.Equal(t, limiter.Descriptor{Entries: []limits.Entry{{Key: "a", Value: "b"}}, Hits: 0}, s.asked.Descriptors[0])
		require.Equal(t, limiter.Descriptor{
			Entries: []limits.Entry{{Key: "c", Value: "d"}, {Key: "e", Value: "f"}}, Hits: 3,
			Override: limits.Rate{Requests: 7, Unit: limits.Hour, Multiplier: 2}, HasOverride: true,
		}, s.asked.Descriptors[1])
		require.Empty(t, s.asked.Descriptors[2].Entries)
		require.False(t, s.asked.Descriptors[2].HasOverride)

		// A request of another shape leaves nothing of itself behind.
		_, err = service.ShouldRateLimit(t.Context(), &pb.RateLimitRequest{
			Domain: "x", Descriptors: []*commonpb.RateLimitDescriptor{overriding, overriding, overriding},
		})
		require.NoError(t, err)
		require.Equal(t, uint64(1), s.asked.Descriptors[0].Hits, "hits_addend 0 counts one")
	}
}

func TestTheAnswerIsWrittenWhole(t *testing.T) {
	s := &scripted{answer: limiter.Answer{Over: true, Statuses: []limiter.Status{
		{Over: true, Limited: true, Rate: limits.Rate{Requests: 5, Unit: limits.Week, Multiplier: 1}, ResetIn: 1500 * time.Millisecond},
		{Limited: true, Rate: limits.Rate{Requests: 9, Unit: limits.Second, Multiplier: 10}, Remaining: 4, ResetIn: time.Nanosecond},
		{Remaining: 4294967295},
		{},
	}}}
	out, err := newService(s).ShouldRateLimit(t.Context(), &pb.RateLimitRequest{
		Domain: "d", Descriptors: []*commonpb.RateLimitDescriptor{descriptor("a", "b")},
	})
	require.NoError(t, err)
	want := &pb.RateLimitResponse{}
	require.NoError(t, protojson.Unmarshal([]byte(`{"overallCode": "OVER_LIMIT", "statuses": [
		{"code": "OVER_LIMIT", "currentLimit": {"requestsPerUnit": 5, "unit": "WEEK"}, "durationUntilReset": "2s"},
		{"code": "OK", "currentLimit": {"requestsPerUnit": 9, "unit": "SECOND", "unitMultiplier": 10}, "limitRemaining": 4, "durationUntilReset": "1s"},
		{"code": "OK", "limitRemaining": 4294967295},
		{"code": "OK"}]}`), want))
	require.True(t, proto.Equal(want, out), "%v", out)
}

func TestMalformedRequestsAreInvalidArguments(t *testing.T) {
	override := func(unit int32, multiplier *wrapperspb.UInt32Value) *commonpb.RateLimitDescriptor {
		d := descriptor("a", "b")
		d.Limit = &commonpb.RateLimitDescriptor_RateLimitOverride{Unit: typepb.RateLimitUnit(unit), UnitMultiplier: multiplier}
		return d
	}
	hits := func(n uint64) *commonpb.RateLimitDescriptor {
		return &commonpb.RateLimitDescriptor{HitsAddend: wrapperspb.UInt64(n)}
	}
	good := descriptor("a", "b")
	for _, c := range []struct {
		name        string
		domain      string
		descriptors []*commonpb.RateLimitDescriptor
		want        string
	}{
		{"no_domain", "", []*commonpb.RateLimitDescriptor{good}, "domain: empty"},
		{"no_descriptors", "d", nil, "descriptors: empty"},
		{"override_without_unit", "d", []*commonpb.RateLimitDescriptor{good, override(0, nil)}, "descriptors[1].limit: unit 0 is not a unit"},
		{"override_of_an_unknown_unit", "d", []*commonpb.RateLimitDescriptor{override(99, nil)}, "descriptors[0].limit: unit 99 is not a unit"},
		{"override_of_a_negative_unit", "d", []*commonpb.RateLimitDescriptor{override(-1, nil)}, "descriptors[0].limit: unit -1 is not a unit"},
		{"override_in_a_domain_without_rules", "unknown", []*commonpb.RateLimitDescriptor{override(0, nil)}, "descriptors[0].limit: unit 0 is not a unit"},
		{"override_times_nothing", "d", []*commonpb.RateLimitDescriptor{override(1, wrapperspb.UInt32(0))}, "descriptors[0].limit: unit_multiplier 0 makes no window"},
		{"override_times_too_much", "d", []*commonpb.RateLimitDescriptor{override(6, wrapperspb.UInt32(101))}, "descriptors[0].limit: 101 × YEAR is longer than 100 years"},
		{"absurd_hits", "d", []*commonpb.RateLimitDescriptor{hits(1 << 63)}, "descriptors[0].hits_addend: 9223372036854775808 is above 4294967295"},
		{"negative_hits", "d", []*commonpb.RateLimitDescriptor{{IsNegativeHits: true}}, "descriptors[0].is_negative_hits: not supported yet"},
	} {
		t.Run(c.name, func(t *testing.T) {
			service := newService(&scripted{err: errors.New("asked")})
			_, err := service.ShouldRateLimit(t.Context(), &pb.RateLimitRequest{Domain: c.domain, Descriptors: c.descriptors})
			require.Equal(t, codes.InvalidArgument, status.Code(err))
			require.Equal(t, c.want, status.Convert(err).Message())
			require.Equal(t, 1.0, testutil.ToFloat64(service.stats.badRequests))
		})
	}
}

func TestAStoreThatDoesNotAnswerIsUnavailable(t *testing.T) {
	service := newService(&scripted{err: errors.New("no answer")})
	req := &pb.RateLimitRequest{Domain: "d", Descriptors: []*commonpb.RateLimitDescriptor{descriptor("a", "b")}}
	_, err := service.ShouldRateLimit(t.Context(), req)
	require.Equal(t, codes.Unavailable, status.Code(err))
	require.Equal(t, `count hits of domain "d": no answer`, status.Convert(err).Message())

	ended, cancel := context.WithTimeout(t.Context(), 0)
	defer cancel()
	_, err = service.ShouldRateLimit(ended, req)
	require.Equal(t, codes.DeadlineExceeded, status.Code(err))
	require.Equal(t, 2.0, testutil.ToFloat64(service.stats.storeErrors))
}

func TestACallBeforeTheFirstRulesIsUnavailable(t *testing.T) {
	service := newService(limiter.New(limiter.Options{Metrics: prometheus.NewRegistry()}))
	_, err := service.ShouldRateLimit(t.Context(), usual())
	require.Equal(t, codes.Unavailable, status.Code(err))
	require.Equal(t, "no rules are loaded", status.Convert(err).Message())
	require.Equal(t, 1.0, testutil.ToFloat64(service.stats.noRules))
	require.Zero(t, testutil.ToFloat64(service.stats.storeErrors))
}

// overMemory is a service over rules and a memory store.
func overMemory(t testing.TB) *Service {
	p := &limits.Parser{
		Algorithms:     []algorithm.Algorithm{fixedwindow.Algorithm{}},
		NearLimitRatio: 0.8,
		Stats:          limits.NewStats(prometheus.NewRegistry()),
	}
	d, err := p.Parse("rules.yaml", []byte("domain: d\ndescriptors:\n- {key: user, rate_limit: {unit: minute, requests_per_unit: 1000000}}\n"))
	require.NoError(t, err)
	l := limiter.New(limiter.Options{
		Store: memory.New(10000, prometheus.NewRegistry()), Algorithm: fixedwindow.Algorithm{},
		NearLimitRatio: 0.8, Metrics: prometheus.NewRegistry(),
	})
	l.SetRules(limits.NewSet([]*limits.Domain{d}))
	return newService(l)
}

func FuzzShouldRateLimit(f *testing.F) {
	overriding := descriptor("user", "alice")
	overriding.Limit = &commonpb.RateLimitDescriptor_RateLimitOverride{RequestsPerUnit: 1, Unit: typepb.RateLimitUnit_YEAR, UnitMultiplier: wrapperspb.UInt32(9)}
	for _, req := range []*pb.RateLimitRequest{
		{},
		{Domain: "d", Descriptors: []*commonpb.RateLimitDescriptor{descriptor("user", "alice"), descriptor()}},
		{Domain: "d", HitsAddend: 4294967295, Descriptors: []*commonpb.RateLimitDescriptor{overriding}},
		{Domain: "d", Descriptors: []*commonpb.RateLimitDescriptor{{HitsAddend: wrapperspb.UInt64(1 << 63), IsNegativeHits: true}}},
	} {
		text, err := proto.Marshal(req)
		require.NoError(f, err)
		f.Add(text)
	}
	service := overMemory(f)
	f.Fuzz(func(t *testing.T, text []byte) {
		req := &pb.RateLimitRequest{}
		if proto.Unmarshal(text, req) != nil {
			return
		}
		out, err := service.ShouldRateLimit(context.Background(), req)
		if err != nil {
			require.Equal(t, codes.InvalidArgument, status.Code(err))
			return
		}
		require.Len(t, out.GetStatuses(), len(req.GetDescriptors()))
		_, err = proto.Marshal(out)
		require.NoError(t, err)
	})
}

// usual is a request of one descriptor that meets a rule.
func usual() *pb.RateLimitRequest {
	return &pb.RateLimitRequest{Domain: "d", Descriptors: []*commonpb.RateLimitDescriptor{descriptor("user", "alice")}}
}

// The three are the answer: the message, its list and what is in the list.
func TestShouldRateLimitAllocatesItsAnswerOnly(t *testing.T) {
	service, req := overMemory(t), usual()
	servicetest.Allocations(t, 3, func() {
		if _, err := service.ShouldRateLimit(context.Background(), req); err != nil {
			t.Error(err)
		}
	})
}

func BenchmarkServe(b *testing.B) {
	service, req := overMemory(b), usual()
	b.ReportAllocs()
	for b.Loop() {
		if _, err := service.ShouldRateLimit(context.Background(), req); err != nil {
			b.Fatal(err)
		}
	}
}
