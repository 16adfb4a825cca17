package rls

import (
	"errors"
	"strings"
	"testing"

	pb "github.com/envoyproxy/go-control-plane/envoy/service/ratelimit/v3"
	"github.com/stretchr/testify/require"
	"google.golang.org/protobuf/proto"

	"github.com/weirproxy/weir/services/ratelimit/internal/limiter"
	"github.com/weirproxy/weir/services/ratelimit/internal/limits"
)

// want is what decode should make of in: the reading of protobuf's own decoder.
func want(in *pb.RateLimitRequest) *call {
	c := &call{addend: in.GetHitsAddend()}
	c.request.Domain = in.GetDomain()
	for _, d := range in.GetDescriptors() {
		out := limiter.Descriptor{Hits: d.GetHitsAddend().GetValue(), Refund: d.GetIsNegativeHits(), HasOverride: d.GetLimit() != nil}
		for _, e := range d.GetEntries() {
			out.Entries = append(out.Entries, limits.Entry{Key: e.GetKey(), Value: e.GetValue()})
		}
		set := own{hits: d.GetHitsAddend() != nil, multiplier: d.GetLimit().GetUnitMultiplier() != nil}
		if l := d.GetLimit(); l != nil {
			out.Override = limits.Rate{Requests: l.GetRequestsPerUnit(), Unit: limits.Unit(l.GetUnit()), Multiplier: 1}
			if set.multiplier {
				out.Override.Multiplier = l.GetUnitMultiplier().GetValue()
			}
		}
		c.request.Descriptors = append(c.request.Descriptors, out)
		c.own = append(c.own, set)
	}
	return c
}

// FuzzDecode compares the decoder with protobuf's: for any bytes, either both
// refuse them or both read the same.
func FuzzDecode(f *testing.F) {
	seeds(f)
	used := &call{}
	f.Fuzz(func(t *testing.T, text []byte) { requireSameReading(t, used, text) })
}

// requireSameReading has used and protobuf read text.
func requireSameReading(t *testing.T, used *call, text []byte) {
	in := &pb.RateLimitRequest{}
	refused := proto.Unmarshal(text, in)
	err := used.decode(string(text), &dialects[V3])
	if errors.Is(err, errTooManyDescriptors) || errors.Is(err, errTooManyEntries) {
		return // the one liberty that is taken
	}
	require.Equal(t, refused != nil, err != nil, "protobuf: %v, decode: %v", refused, err)
	if err != nil {
		return
	}
	w := want(in)
	require.Equal(t, w.request.Domain, used.request.Domain)
	require.Equal(t, w.addend, used.addend)
	require.Len(t, used.request.Descriptors, len(w.request.Descriptors))
	for i := range w.request.Descriptors {
		got := used.request.Descriptors[i]
		require.Len(t, got.Entries, len(w.request.Descriptors[i].Entries))
		if len(got.Entries) == 0 {
			got.Entries = nil
		}
		require.Equal(t, w.request.Descriptors[i], got)
		require.Equal(t, w.own[i], used.own[i])
	}
}

func TestGroupsMayNestAsDeepAsForProtobuf(t *testing.T) {
	for _, depth := range []int{1, maxGroups, maxGroups + 1, maxGroups + 2, maxGroups + 3} {
		requireSameReading(t, &call{}, []byte(strings.Repeat("\x23", depth)+strings.Repeat("\x24", depth)))
	}
}

func TestOlderVersionsKnowNoLimitsAndHitsOfDescriptors(t *testing.T) {
	req := usual()
	text := encode(t, req) + "\x12\x10\x12\x02\x08\x01\x1a\x02\x08\x07\x20\x01\x0a\x04\x0a\x02ab"
	for _, v := range []Version{V2, Lyft} {
		t.Run(v.String(), func(t *testing.T) {
			s := &scripted{}
			_, err := newService(s).ShouldRateLimit(t.Context(), v, text, nil)
			require.Nil(t, err)
			require.Equal(t, []limiter.Descriptor{
				{Entries: []limits.Entry{{Key: "user", Value: "alice"}}, Hits: 1},
				{Entries: []limits.Entry{{Key: "ab"}}, Hits: 1},
			}, s.asked.Descriptors)
		})
	}
}

func BenchmarkDecode(b *testing.B) {
	for name, req := range map[string]*pb.RateLimitRequest{"1": usual(), "4": four()} {
		text := encode(b, req)
		b.Run("own/descriptors="+name, func(b *testing.B) {
			c := &call{}
			b.ReportAllocs()
			for b.Loop() {
				if err := c.decode(text, &dialects[V3]); err != nil {
					b.Fatal(err)
				}
			}
		})
		b.Run("protobuf/descriptors="+name, func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				if err := proto.Unmarshal([]byte(text), &pb.RateLimitRequest{}); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}
