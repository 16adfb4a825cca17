package rls

import (
	"context"
	"sync"
	"testing"

	commonpb "github.com/envoyproxy/go-control-plane/envoy/extensions/common/ratelimit/v3"
	pb "github.com/envoyproxy/go-control-plane/envoy/service/ratelimit/v3"
	typepb "github.com/envoyproxy/go-control-plane/envoy/type/v3"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/stretchr/testify/require"
	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/structpb"
	"google.golang.org/protobuf/types/known/wrapperspb"

	"github.com/weirproxy/weir/services/ratelimit/internal/limiter"
	"github.com/weirproxy/weir/services/ratelimit/internal/limits"
)

// passed is the status of a rule with that metadata.
func passed(t testing.TB, metadata string) limiter.Status {
	out := &structpb.Struct{}
	require.NoError(t, protojson.Unmarshal([]byte(metadata), out))
	return limiter.Status{Rule: &limits.Rule{Metadata: out}}
}

func TestDynamicMetadataTellsOfTheRequestAndTheRules(t *testing.T) {
	overriding := descriptor("c", "d", "e", "")
	overriding.Limit = &commonpb.RateLimitDescriptor_RateLimitOverride{RequestsPerUnit: 7, Unit: typepb.RateLimitUnit_HOUR}
	overriding.HitsAddend = wrapperspb.UInt64(0)
	bare := descriptor()
	bare.Limit = &commonpb.RateLimitDescriptor_RateLimitOverride{Unit: 7, UnitMultiplier: wrapperspb.UInt32(1)}
	over := passed(t, `{"over": true}`)
	over.Over = true
	l := &scripted{answer: limiter.Answer{Statuses: []limiter.Status{
		passed(t, `{"tier": "gold", "team": {"name": "a", "inner": {"x": 1}}, "list": [1], "kind": {"a": 1}}`),
		over,
		passed(t, `{"tier": "tin", "team": {"name": "b", "room": 2, "inner": {"x": 2, "y": 3}}, "list": [2], "kind": 1, "more": null}`),
		{Rule: &limits.Rule{}}, {},
	}}}
	service := New(Options{Limiter: l, DynamicMetadata: true, Metrics: prometheus.NewRegistry()})
	for range 2 { // the second time after the rules' own could have been changed
		out, err := ask(t.Context(), t, service, &pb.RateLimitRequest{Domain: "d", HitsAddend: 3, Descriptors: []*commonpb.RateLimitDescriptor{
			descriptor("a", "b"), overriding, bare,
		}})
		require.Nil(t, err)
		text, jsonErr := protojson.Marshal(out.GetDynamicMetadata())
		require.NoError(t, jsonErr)
		require.JSONEq(t, `{
			"domain": "d", "hitsAddend": 3,
			"descriptors": [
				{"entries": ["a=b"]},
				{"entries": ["c=d", "e="], "limit": "requests_per_unit:7 unit:HOUR", "hitsAddend": 0},
				{"entries": [], "limit": "unit:WEEK unit_multiplier:{value:1}"}],
			"metadata": {
				"tier": "gold", "list": [1], "kind": {"a": 1}, "more": null,
				"team": {"name": "a", "room": 2, "inner": {"x": 1, "y": 3}}}}`, string(text))
	}
}

func TestDynamicMetadataLeavesOutWhatTheRequestDoesNotSet(t *testing.T) {
	service := New(Options{Limiter: &scripted{}, DynamicMetadata: true, Metrics: prometheus.NewRegistry()})
	out, err := ask(t.Context(), t, service, usual())
	require.Nil(t, err)
	text, jsonErr := protojson.Marshal(out.GetDynamicMetadata())
	require.NoError(t, jsonErr)
	require.JSONEq(t, `{"domain": "d", "descriptors": [{"entries": ["user=alice"]}]}`, string(text))
}

// fixed is a Limiter that gives all callers the same answer.
type fixed limiter.Answer

func (f *fixed) Check(_ context.Context, _ *limiter.Request, answer *limiter.Answer) error {
	*answer = limiter.Answer(*f)
	return nil
}

func TestRulesKeepTheirMetadataWhateverRequestsMeetThemTogether(t *testing.T) {
	statuses := []limiter.Status{passed(t, `{"a": {"b": {"c": 1}}}`), passed(t, `{"a": {"b": {"d": 2}}, "e": {}}`)}
	before := []proto.Message{proto.Clone(statuses[0].Rule.Metadata), proto.Clone(statuses[1].Rule.Metadata)}
	service := New(Options{
		Limiter: &fixed{Statuses: statuses}, DynamicMetadata: true, Metrics: prometheus.NewRegistry(),
	})
	var all sync.WaitGroup
	for range 4 {
		// Ends after its requests; the test waits for it below.
		all.Go(func() {
			for range 100 {
				if _, err := service.ShouldRateLimit(t.Context(), V3, encode(t, usual()), nil); err != nil {
					t.Error(err)
				}
			}
		})
	}
	all.Wait()
	for i := range before {
		require.True(t, proto.Equal(before[i], statuses[i].Rule.Metadata))
	}
}
