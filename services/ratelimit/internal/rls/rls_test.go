package rls

import (
	"context"
	"errors"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	commonpb "github.com/envoyproxy/go-control-plane/envoy/extensions/common/ratelimit/v3"
	v2pb "github.com/envoyproxy/go-control-plane/envoy/service/ratelimit/v2"
	pb "github.com/envoyproxy/go-control-plane/envoy/service/ratelimit/v3"
	typepb "github.com/envoyproxy/go-control-plane/envoy/type/v3"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil"
	"github.com/stretchr/testify/require"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/wrapperspb"

	"github.com/weirproxy/weir/internal/servicetest"
	lyftpb "github.com/weirproxy/weir/proto/ratelimit/lyft"
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
	ctx    context.Context
	answer limiter.Answer
	err    error
}

func (s *scripted) Check(ctx context.Context, req *limiter.Request, answer *limiter.Answer) error {
	s.ctx = ctx
	s.asked.Domain = req.Domain
	s.asked.Descriptors = nil
	for _, d := range req.Descriptors { // since req is pooled
		d.Entries = append([]limits.Entry(nil), d.Entries...)
		s.asked.Descriptors = append(s.asked.Descriptors, d)
	}
	*answer = s.answer
	return s.err
}

func newService(l Limiter) *Service {
	return New(Options{Limiter: l, JSONTimeout: time.Minute, Metrics: prometheus.NewRegistry()})
}

// descriptor makes a descriptor of pairs of keys and values.
func descriptor(kv ...string) *commonpb.RateLimitDescriptor {
	d := &commonpb.RateLimitDescriptor{}
	for i := 0; i < len(kv); i += 2 {
		d.Entries = append(d.Entries, &commonpb.RateLimitDescriptor_Entry{Key: kv[i], Value: kv[i+1]})
	}
	return d
}

// encode is the bytes of a message.
func encode(t testing.TB, m proto.Message) string {
	text, err := proto.Marshal(m)
	require.NoError(t, err)
	return string(text)
}

// ask has service answer req in version 3.
func ask(ctx context.Context, t testing.TB, service *Service, req *pb.RateLimitRequest) (*pb.RateLimitResponse, *Error) {
	const before = "what was in the buffer before"
	text, fault := service.ShouldRateLimit(ctx, V3, encode(t, req), []byte(before))
	require.True(t, strings.HasPrefix(string(text), before))
	if fault != nil {
		require.Equal(t, before, string(text))
		return nil, fault
	}
	out := &pb.RateLimitResponse{}
	require.NoError(t, proto.Unmarshal(text[len(before):], out))
	return out, nil
}

func TestARequestReachesTheLimiterWhole(t *testing.T) {
	s := &scripted{}
	withHits := descriptor("a", "b")
	withHits.HitsAddend = wrapperspb.UInt64(0)
	withHits.IsNegativeHits = true
	overriding := descriptor("c", "d", "e", "f")
	overriding.Limit = &commonpb.RateLimitDescriptor_RateLimitOverride{
		RequestsPerUnit: 7, Unit: typepb.RateLimitUnit_HOUR, UnitMultiplier: wrapperspb.UInt32(2),
	}
	service := newService(s)
	for range 2 { // the second time in used memory
		_, err := ask(t.Context(), t, service, &pb.RateLimitRequest{
			Domain: "d", HitsAddend: 3, Descriptors: []*commonpb.RateLimitDescriptor{withHits, overriding, descriptor()},
		})
		require.Nil(t, err)
		require.Equal(t, "d", s.asked.Domain)
		require.Len(t, s.asked.Descriptors, 3)
		require.Equal(t, limiter.Descriptor{Entries: []limits.Entry{{Key: "a", Value: "b"}}, Refund: true}, s.asked.Descriptors[0])
		require.Equal(t, limiter.Descriptor{
			Entries: []limits.Entry{{Key: "c", Value: "d"}, {Key: "e", Value: "f"}}, Hits: 3,
			Override: limits.Rate{Requests: 7, Unit: limits.Hour, Multiplier: 2}, HasOverride: true,
		}, s.asked.Descriptors[1])
		require.Equal(t, limiter.Descriptor{Hits: 3}, s.asked.Descriptors[2])

		// A request of another shape leaves nothing of itself behind.
		_, err = ask(t.Context(), t, service, &pb.RateLimitRequest{
			Domain: "x", Descriptors: []*commonpb.RateLimitDescriptor{overriding, overriding, overriding},
		})
		require.Nil(t, err)
		require.Equal(t, uint64(1), s.asked.Descriptors[0].Hits, "hits_addend 0 counts one")
	}
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
	request := func(domain string, descriptors ...*commonpb.RateLimitDescriptor) string {
		return encode(t, &pb.RateLimitRequest{Domain: domain, Descriptors: descriptors})
	}
	good := descriptor("a", "b")
	for _, c := range []struct {
		name, message, want string
	}{
		{"no_domain", request("", good), "domain: empty"},
		{"no_descriptors", request("d"), "descriptors: empty"},
		{"override_without_unit", request("d", good, override(0, nil)), "descriptors[1].limit: unit 0 is not a unit"},
		{"override_of_an_unknown_unit", request("d", override(99, nil)), "descriptors[0].limit: unit 99 is not a unit"},
		{"override_of_the_unit_after_the_last", request("d", override(8, nil)), "descriptors[0].limit: unit 8 is not a unit"},
		{"override_without_unit_and_entries", "\x0a\x01d\x12\x02\x12\x00", "descriptors[0].limit: unit 0 is not a unit"},
		{"override_of_a_negative_unit", request("d", override(-1, nil)), "descriptors[0].limit: unit -1 is not a unit"},
		{"override_in_a_domain_without_rules", request("unknown", override(0, nil)), "descriptors[0].limit: unit 0 is not a unit"},
		{"override_times_nothing", request("d", override(1, wrapperspb.UInt32(0))), "descriptors[0].limit: unit_multiplier 0 makes no window"},
		{"override_times_too_much", request("d", override(6, wrapperspb.UInt32(101))), "descriptors[0].limit: 101 × YEAR is longer than 100 years"},
		{"absurd_hits", request("d", hits(1<<63)), "descriptors[0].hits_addend: 9223372036854775808 is above 4294967295"},
		{"no_protobuf", "\x0a", "not a protobuf message"},
		{"a_reserved_type", "\x0f", "not a protobuf message"},
		{"a_domain_that_is_no_text", "\x0a\x01\xff", `domain: not UTF-8: "\xff"`},
		{"a_descriptor_that_breaks_off", "\x12\x01\x0a", "descriptors[0]: not a protobuf message"},
		{"an_entry_that_breaks_off", "\x12\x03\x0a\x01\x0a", "descriptors[0].entries[0]: not a protobuf message"},
		{"a_key_that_is_no_text", "\x12\x05\x0a\x03\x0a\x01\xff", `descriptors[0].entries[0].key: not UTF-8: "\xff"`},
		{"a_value_that_is_no_text", "\x12\x07\x0a\x00\x0a\x03\x12\x01\xff", `descriptors[0].entries[1].value: not UTF-8: "\xff"`},
		{"a_limit_that_breaks_off", "\x12\x03\x12\x01\x08", "descriptors[0].limit: not a protobuf message"},
		{"a_multiplier_that_breaks_off", "\x12\x05\x12\x03\x1a\x01\x08", "descriptors[0].limit: not a protobuf message"},
		{"hits_that_break_off", "\x12\x03\x1a\x01\x08", "descriptors[0].hits_addend: not a protobuf message"},
		{"too_many_descriptors", strings.Repeat("\x12\x00", MaxDescriptors+1), "descriptors[10000]: more than 10000 descriptors"},
	} {
		t.Run(c.name, func(t *testing.T) {
			service := newService(&scripted{err: errors.New("asked")})
			_, err := service.ShouldRateLimit(t.Context(), V3, c.message, nil)
			require.Equal(t, &Error{InvalidArgument, c.want}, err)
			require.Equal(t, 1.0, testutil.ToFloat64(service.stats.badRequests))
		})
	}
}

func TestARequestOfMoreDescriptorsThanWantedIsRefused(t *testing.T) {
	s := New(Options{Limiter: &scripted{}, MaxDescriptors: 2, Metrics: prometheus.NewRegistry()})
	_, err := s.ShouldRateLimit(t.Context(), V3, "\x0a\x01d"+strings.Repeat("\x12\x00", 2), nil)
	require.Nil(t, err)
	_, err = s.ShouldRateLimit(t.Context(), V3, "\x0a\x01d"+strings.Repeat("\x12\x00", 3), nil)
	require.Equal(t, &Error{InvalidArgument, "descriptors: 3 are more than 2"}, err)
}

func TestTooManyEntriesAreRefusedOverAllDescriptors(t *testing.T) {
	full := strings.Repeat("\x0a\x00", 50) // entries
	message := strings.Repeat("\x12\x64"+full, maxEntries/50)
	s := &scripted{}
	_, err := newService(s).ShouldRateLimit(t.Context(), V3, "\x0a\x01d"+message, nil)
	require.Nil(t, err)
	_, err = newService(s).ShouldRateLimit(t.Context(), V3, "\x0a\x01d"+message+"\x12\x02\x0a\x00", nil)
	require.Equal(t, &Error{InvalidArgument, "descriptors[2000].entries[0]: more than 100000 entries in all"}, err)
}

func TestAStoreThatDoesNotAnswerIsUnavailable(t *testing.T) {
	service := newService(&scripted{err: errors.New("no answer")})
	_, err := ask(t.Context(), t, service, usual())
	require.Equal(t, &Error{Unavailable, "the hits could not be counted, since the store fails"}, err)
	require.Equal(t, 1.0, testutil.ToFloat64(service.stats.storeErrors))
}

// late is a context whose deadline has passed though it does not say so yet.
type late struct{ context.Context }

func (late) Deadline() (time.Time, bool) { return time.Now().Add(-time.Microsecond), true }

func TestACallerWhoDidNotWaitIsToldSo(t *testing.T) {
	ended, cancel := context.WithTimeout(t.Context(), 0)
	defer cancel()
	gone, cancel := context.WithCancel(t.Context())
	cancel()
	for _, c := range []struct {
		name string
		ctx  context.Context
		want Error
	}{
		{"deadline", ended, Error{DeadlineExceeded, "the hits were not counted within the time of the call"}},
		{"deadline_that_the_store_noticed_first", late{t.Context()}, Error{DeadlineExceeded, "the hits were not counted within the time of the call"}},
		{"cancel", gone, Error{Canceled, "the caller left before the hits were counted"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			_, err := ask(c.ctx, t, newService(&scripted{err: errors.New("no answer")}), usual())
			require.Equal(t, &c.want, err)
		})
	}
}

func TestACallBeforeTheFirstRulesIsUnavailable(t *testing.T) {
	service := newService(limiter.New(limiter.Options{Metrics: prometheus.NewRegistry()}))
	_, err := ask(t.Context(), t, service, usual())
	require.Equal(t, &Error{Unavailable, "no rules are loaded"}, err)
	require.Equal(t, "no rules are loaded", err.Error())
	require.Equal(t, 1.0, testutil.ToFloat64(service.stats.noRules))
	require.Zero(t, testutil.ToFloat64(service.stats.storeErrors))
}

func TestResponseTimesAreThoseOfAllCallsWhateverTheirAnswer(t *testing.T) {
	ended, cancel := context.WithTimeout(t.Context(), 0)
	defer cancel()
	for _, c := range []struct {
		name string
		ctx  context.Context
		err  error
		req  *pb.RateLimitRequest
		want float64 // milliseconds
	}{
		{"an_answer", t.Context(), nil, usual(), 3},
		{"a_store_that_does_not_answer", t.Context(), errors.New("no answer"), usual(), 3},
		{"a_caller_who_did_not_wait", ended, errors.New("no answer"), usual(), 3},
		{"no_rules", t.Context(), limiter.ErrNoRules, usual(), 3},
		{"a_malformed_request", t.Context(), nil, &pb.RateLimitRequest{}, 0},
	} {
		t.Run(c.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				reg := prometheus.NewRegistry()
				service := New(Options{Limiter: slow{c.err}, Metrics: reg})
				_, _ = ask(c.ctx, t, service, c.req)
				families, err := reg.Gather()
				require.NoError(t, err)
				for _, f := range families {
					if f.GetName() == "ratelimit_service_response_time_seconds" {
						require.Equal(t, uint64(1), f.GetMetric()[0].GetHistogram().GetSampleCount())
						require.InDelta(t, c.want, 1000*f.GetMetric()[0].GetHistogram().GetSampleSum(), 1e-9)
						return
					}
				}
				t.Error("no response times")
			})
		})
	}
}

// slow is a Limiter that takes three milliseconds of a bubble's time to answer
// err.
type slow struct{ err error }

func (s slow) Check(context.Context, *limiter.Request, *limiter.Answer) error {
	time.Sleep(3 * time.Millisecond)
	return s.err
}

// blocking is a Limiter that says when it is asked, and waits to be let go.
type blocking struct{ asked, letGo chan struct{} }

func (b *blocking) Check(context.Context, *limiter.Request, *limiter.Answer) error {
	b.asked <- struct{}{}
	<-b.letGo
	return nil
}

func TestRequestsAreCountedByVersionAndWhileTheyLast(t *testing.T) {
	b := &blocking{make(chan struct{}), make(chan struct{})}
	service := newService(b)
	done, message := make(chan struct{}), encode(t, usual())
	// Ends when the limiter lets go; the test waits for it below.
	go func() {
		defer close(done)
		_, _ = service.ShouldRateLimit(context.Background(), Lyft, message, nil)
	}()
	<-b.asked
	require.Equal(t, int64(1), service.stats.inFlight.Load())
	require.Equal(t, 1.0, testutil.ToFloat64(service.stats.requests[Lyft]))
	require.Zero(t, testutil.ToFloat64(service.stats.requests[V3]))
	close(b.letGo)
	<-done
	require.Zero(t, service.stats.inFlight.Load())
}

// spans is a Tracer that keeps what it was told.
type spans struct {
	key  any
	text []string
}

func (s *spans) Begin(ctx context.Context) (context.Context, func(string, bool, *Error)) {
	return context.WithValue(ctx, s.key, "traced"), func(domain string, over bool, err *Error) {
		line := domain
		if over {
			line += " over"
		}
		if err != nil {
			line += " " + err.Text
		}
		s.text = append(s.text, line)
	}
}

func TestATracerFollowsEachRequest(t *testing.T) {
	type key struct{}
	tracer, l := &spans{key: key{}}, &scripted{answer: limiter.Answer{Over: true}}
	service := New(Options{Limiter: l, Tracer: tracer, Metrics: prometheus.NewRegistry()})
	_, err := ask(t.Context(), t, service, usual())
	require.Nil(t, err)
	require.Equal(t, "traced", l.ctx.Value(key{}))
	_, err = ask(t.Context(), t, service, &pb.RateLimitRequest{Domain: "e"})
	require.NotNil(t, err)
	require.Equal(t, []string{"d over", "e descriptors: empty"}, tracer.text)
}

// overMemory is a limiter over rules and a memory store.
func overMemory(t testing.TB) *limiter.Limiter {
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
	return l
}

// seeds are requests that a fuzzer begins with.
func seeds(f *testing.F) {
	overriding := descriptor("user", "alice")
	overriding.Limit = &commonpb.RateLimitDescriptor_RateLimitOverride{RequestsPerUnit: 1, Unit: typepb.RateLimitUnit_YEAR, UnitMultiplier: wrapperspb.UInt32(9)}
	for _, req := range []*pb.RateLimitRequest{
		{},
		{Domain: "d", Descriptors: []*commonpb.RateLimitDescriptor{descriptor("user", "alice"), descriptor()}},
		{Domain: "d", HitsAddend: 4294967295, Descriptors: []*commonpb.RateLimitDescriptor{overriding, overriding}},
		{Domain: "d", Descriptors: []*commonpb.RateLimitDescriptor{{HitsAddend: wrapperspb.UInt64(1 << 63), IsNegativeHits: true}}},
	} {
		f.Add([]byte(encode(f, req)))
	}
	for _, text := range []string{
		"\x0a\x01d\x0a\x01e", // a field twice
		"\x12\x0e\x12\x04\x08\x01\x1a\x00\x12\x06\x10\x02\x1a\x02\x08\x05", // a message twice
		"\x12\x0c\x12\x0a\x10\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01",     // a unit of -1
		"\x08\x01\x0d\x01\x02\x03\x04\x10\x05\x1a\x00",                     // known numbers of other types
		"\x23\x08\x01\x2b\x2c\x24\x21\x01\x02\x03\x04\x05\x06\x07\x08",     // groups
		"\x18\x80\x80\x80\x80\x80\x80\x80\x80\x80\x02",                     // more than 64 bits
		"\x98\x80\x00\x07", // a tag that is longer than need be
	} {
		f.Add([]byte(text))
	}
}

// FuzzShouldRateLimit has a service with everything on answer any bytes, in
// each version.
func FuzzShouldRateLimit(f *testing.F) {
	seeds(f)
	service := New(Options{
		Limiter: overMemory(f), Headers: &Headers{Limit: "limit", Remaining: "remaining", Reset: "reset"},
		DynamicMetadata: true, Metrics: prometheus.NewRegistry(),
	})
	messages := map[Version]struct{ in, out proto.Message }{
		V3:   {&pb.RateLimitRequest{}, &pb.RateLimitResponse{}},
		V2:   {&v2pb.RateLimitRequest{}, &v2pb.RateLimitResponse{}},
		Lyft: {&lyftpb.RateLimitRequest{}, &lyftpb.RateLimitResponse{}},
	}
	f.Fuzz(func(t *testing.T, text []byte) {
		for v, m := range messages {
			answer, err := service.ShouldRateLimit(context.Background(), v, string(text), nil)
			if err != nil {
				require.Equal(t, InvalidArgument, err.Code)
				require.NotEmpty(t, err.Text)
				continue
			}
			in, out := m.in.ProtoReflect().New(), m.out.ProtoReflect().New()
			require.NoError(t, proto.Unmarshal(text, in.Interface()))
			require.NoError(t, proto.Unmarshal(answer, out.Interface()))
			descriptors := in.Get(in.Descriptor().Fields().ByName("descriptors")).List()
			statuses := out.Get(out.Descriptor().Fields().ByName("statuses")).List()
			require.Equal(t, descriptors.Len(), statuses.Len())
		}
	})
}

// usual is a request of one descriptor that meets a rule.
func usual() *pb.RateLimitRequest {
	return &pb.RateLimitRequest{Domain: "d", Descriptors: []*commonpb.RateLimitDescriptor{descriptor("user", "alice")}}
}

// four is a request of four.
func four() *pb.RateLimitRequest {
	return &pb.RateLimitRequest{Domain: "d", Descriptors: []*commonpb.RateLimitDescriptor{
		descriptor("user", "alice"), descriptor("user", "bob"), descriptor("user", "carol"), descriptor("user", "dan", "path", "/pay"),
	}}
}

// The one is the message, which becomes a string.
func TestShouldRateLimitAllocatesTheMessageOnly(t *testing.T) {
	for name, req := range map[string]*pb.RateLimitRequest{"one_descriptor": usual(), "four": four()} {
		t.Run(name, func(t *testing.T) {
			service, text := newService(overMemory(t)), []byte(encode(t, req))
			var dst []byte
			servicetest.Allocations(t, 1, func() {
				var err *Error
				if dst, err = service.ShouldRateLimit(context.Background(), V3, string(text), dst[:0]); err != nil {
					t.Error(err)
				}
			})
		})
	}
}

func BenchmarkServe(b *testing.B) {
	for name, req := range map[string]*pb.RateLimitRequest{"1": usual(), "4": four()} {
		b.Run("descriptors="+name, func(b *testing.B) {
			service, text := newService(overMemory(b)), []byte(encode(b, req))
			var dst []byte
			b.ReportAllocs()
			for b.Loop() {
				var err *Error
				if dst, err = service.ShouldRateLimit(context.Background(), V3, string(text), dst[:0]); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}
