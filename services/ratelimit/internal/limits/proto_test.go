package limits

import (
	"math"
	"testing"

	pb "github.com/envoyproxy/go-control-plane/ratelimit/config/ratelimit/v3"
	"github.com/stretchr/testify/require"
	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/encoding/protowire"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/structpb"
)

// parseResource parses a domain of one resource.
func parseResource(name string, config *pb.RateLimitConfig) (*Domain, error) {
	return newParser().ParseProtos([]Resource{{name, config}})
}

func TestParseProtosReadsEveryFieldOfAResource(t *testing.T) {
	metadata, err := structpb.NewStruct(map[string]any{"a": map[string]any{"b": 1}})
	require.NoError(t, err)
	d, err := parseResource("shop", &pb.RateLimitConfig{
		Name: "shop", Domain: "shop", Descriptors: []*pb.RateLimitDescriptor{
			{Key: "user", RateLimit: &pb.RateLimitPolicy{Unit: pb.RateLimitUnit_WEEK, RequestsPerUnit: 5}},
			{
				Key: "user", Value: "b*", ShadowMode: true, QuotaMode: true, DetailedMetric: true, Metadata: metadata,
				RateLimit: &pb.RateLimitPolicy{
					Unit: pb.RateLimitUnit_HOUR, Name: "b", Replaces: []*pb.RateLimitReplace{{Name: "x"}, {Name: "y"}},
				},
				Descriptors: []*pb.RateLimitDescriptor{{Key: "path", RateLimit: &pb.RateLimitPolicy{Unlimited: true}}},
			},
		},
	})
	require.NoError(t, err)
	var lines, places []string
	for _, r := range d.Rules {
		lines = append(lines, r.String())
		places = append(places, r.Place.String())
	}
	require.Equal(t, []string{
		"shop.user: unit=WEEK requests_per_unit=5, shadow_mode: false, quota_mode: false",
		`shop.user_b*: unit=HOUR requests_per_unit=0, shadow_mode: true, quota_mode: true, name: "b", replaces: ["x" "y"], with metadata`,
		"shop.user_b*.path: unlimited, shadow_mode: false, quota_mode: false",
	}, lines)
	require.Equal(t, []string{
		"resource shop: descriptors[0].rate_limit",
		"resource shop: descriptors[1].rate_limit",
		"resource shop: descriptors[1].descriptors[0].rate_limit",
	}, places)
	require.Equal(t, "resource shop: domain", d.Place.String())
	require.Same(t, d.Rules[1], d.Match([]Entry{{"user", "bob"}}))
	require.Equal(t, metadata.AsMap(), d.Rules[1].Metadata.AsMap())
	require.NotNil(t, d.Rules[1].byRequest)
}

func TestParseProtosMergesResourcesOfOneDomain(t *testing.T) {
	config := func(domain, key string) *pb.RateLimitConfig {
		return &pb.RateLimitConfig{Domain: domain, Descriptors: []*pb.RateLimitDescriptor{{
			Key: key, RateLimit: &pb.RateLimitPolicy{Unit: pb.RateLimitUnit_DAY, RequestsPerUnit: 1},
		}}}
	}
	d, err := newParser().ParseProtos([]Resource{{"one", config("d", "a")}, {"two", config("d", "b")}})
	require.NoError(t, err)
	require.NotNil(t, d.Match([]Entry{{"a", "x"}}))
	require.NotNil(t, d.Match([]Entry{{"b", "x"}}))
	_, err = newParser().ParseProtos([]Resource{{"one", config("d", "a")}, {"two", config("d", "a")}})
	require.EqualError(t, err, "resource two: descriptors[0]: the descriptor a is already given at resource one: descriptors[0]")
}

// later is a field that a later version of a message may have.
func later(m proto.Message, number protowire.Number) {
	m.ProtoReflect().SetUnknown(protowire.AppendVarint(protowire.AppendTag(nil, number, protowire.VarintType), 1))
}

func TestParseProtosRefuses(t *testing.T) {
	good := &pb.RateLimitPolicy{Unit: pb.RateLimitUnit_DAY, RequestsPerUnit: 1}
	unknown := &pb.RateLimitConfig{Domain: "d", Descriptors: []*pb.RateLimitDescriptor{{
		Key: "a", RateLimit: &pb.RateLimitPolicy{
			Unit: pb.RateLimitUnit_DAY, Replaces: []*pb.RateLimitReplace{{Name: "b"}},
		},
	}}}
	later(unknown, 9)
	later(unknown.Descriptors[0], 99)
	later(unknown.Descriptors[0].RateLimit, 6)
	later(unknown.Descriptors[0].RateLimit.Replaces[0], 2)
	deep := &pb.RateLimitDescriptor{Key: "a"}
	for range maxDepth {
		deep = &pb.RateLimitDescriptor{Key: "a", Descriptors: []*pb.RateLimitDescriptor{deep}}
	}
	for _, c := range []struct {
		name   string
		config *pb.RateLimitConfig
		want   string
	}{
		{"nothing", nil, "resource r: domain: the file names no domain"},
		{"a_domain_that_is_no_text", &pb.RateLimitConfig{Domain: "\xff"}, `resource r: domain: the domain "\xff" is not text`},
		{"all_at_once", &pb.RateLimitConfig{Domain: "d", Descriptors: []*pb.RateLimitDescriptor{
			nil,
			{Key: "a", RateLimit: good},
			{Key: "a", RateLimit: &pb.RateLimitPolicy{Unit: 99}},
			{Key: "b", RateLimit: &pb.RateLimitPolicy{RequestsPerUnit: 1}},
			{Key: "c", RateLimit: &pb.RateLimitPolicy{Unit: 1, Unlimited: true}},
			{Key: "d", Descriptors: []*pb.RateLimitDescriptor{{Value: "x"}, {
				Key: "y", RateLimit: &pb.RateLimitPolicy{
					Unit: 1, Name: "n", Replaces: []*pb.RateLimitReplace{{Name: "m"}, {Name: "n"}, nil},
				},
			}}},
		}}, `resource r: descriptors[0]: a descriptor has no key
resource r: descriptors[2]: the descriptor a stands twice in one list
resource r: descriptors[2].rate_limit.unit: unit 99 is not a unit
resource r: descriptors[3].rate_limit: a rate_limit has no unit
resource r: descriptors[4].rate_limit.unit: a rate_limit is unlimited or has a unit, not both
resource r: descriptors[5].descriptors[0]: a descriptor has no key
resource r: descriptors[5].descriptors[1].rate_limit.replaces[1]: replaces names the rule itself, "n"
resource r: descriptors[5].descriptors[1].rate_limit.replaces[2]: an entry of replaces has no name`},
		{"metadata_that_no_answer_can_hold", &pb.RateLimitConfig{Domain: "d", Descriptors: []*pb.RateLimitDescriptor{{
			Key: "a", Metadata: &structpb.Struct{Fields: map[string]*structpb.Value{
				"a": {},
				"b": structpb.NewNumberValue(math.NaN()),
				"c": structpb.NewListValue(&structpb.ListValue{Values: []*structpb.Value{structpb.NewNullValue(), nil}}),
				"d": structpb.NewStructValue(&structpb.Struct{Fields: map[string]*structpb.Value{"e": structpb.NewNumberValue(math.Inf(1))}}),
			}},
		}}}, `resource r: descriptors[0].metadata.a: metadata has no value here
resource r: descriptors[0].metadata.b: metadata cannot hold NaN
resource r: descriptors[0].metadata.c[1]: metadata has no value here
resource r: descriptors[0].metadata.d.e: metadata cannot hold +Inf`},
		{"fields_of_a_later_version", unknown, `resource r: field 9 of ratelimit.config.ratelimit.v3.RateLimitConfig is unknown
resource r: descriptors[0]: field 99 of ratelimit.config.ratelimit.v3.RateLimitDescriptor is unknown
resource r: descriptors[0].rate_limit: field 6 of ratelimit.config.ratelimit.v3.RateLimitPolicy is unknown
resource r: descriptors[0].rate_limit.replaces[0]: field 2 of ratelimit.config.ratelimit.v3.RateLimitReplace is unknown`},
	} {
		t.Run(c.name, func(t *testing.T) {
			_, err := parseResource("r", c.config)
			require.EqualError(t, err, c.want)
		})
	}
	_, err := parseResource("r", &pb.RateLimitConfig{Domain: "d", Descriptors: []*pb.RateLimitDescriptor{deep}})
	require.ErrorContains(t, err, ".descriptors: descriptors nest deeper than 64")

	value := structpb.NewNullValue()
	for range maxDepth {
		value = structpb.NewListValue(&structpb.ListValue{Values: []*structpb.Value{value}})
	}
	deep = &pb.RateLimitDescriptor{Key: "a", Metadata: &structpb.Struct{Fields: map[string]*structpb.Value{"a": value}}}
	_, err = parseResource("r", &pb.RateLimitConfig{Domain: "d", Descriptors: []*pb.RateLimitDescriptor{deep}})
	require.ErrorContains(t, err, "[0]: metadata nests deeper than 64")
}

// Whatever a control plane sends, reading it ends in faults or in rules.
func FuzzParseProtos(f *testing.F) {
	for _, config := range []*pb.RateLimitConfig{
		{},
		{Domain: "d", Descriptors: []*pb.RateLimitDescriptor{{Key: "a", Value: "*", RateLimit: &pb.RateLimitPolicy{Unit: 7, Name: "n"}}}},
		{Domain: "d", Descriptors: []*pb.RateLimitDescriptor{{Key: "a", Descriptors: []*pb.RateLimitDescriptor{{}, nil}}}},
	} {
		bytes, err := proto.Marshal(config)
		require.NoError(f, err)
		f.Add(bytes)
	}
	f.Fuzz(func(t *testing.T, bytes []byte) {
		var config pb.RateLimitConfig
		if proto.Unmarshal(bytes, &config) != nil {
			return
		}
		d, err := parseResource("r", &config)
		if err != nil {
			require.NotEmpty(t, err.Error())
			return
		}
		for _, r := range d.Rules {
			require.True(t, r.Unlimited || r.Limit.Window > 0)
			require.NotEmpty(t, r.String())
			if r.Metadata != nil {
				_, err := protojson.Marshal(r.Metadata)
				require.NoError(t, err)
			}
		}
	})
}
