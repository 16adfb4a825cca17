package rls

import (
	"errors"
	"fmt"

	commonpb "github.com/envoyproxy/go-control-plane/envoy/extensions/common/ratelimit/v3"
	pb "github.com/envoyproxy/go-control-plane/envoy/service/ratelimit/v3"

	"github.com/weirproxy/weir/services/ratelimit/internal/limiter"
	"github.com/weirproxy/weir/services/ratelimit/internal/limits"
)

// readRequest checks in and copies it into out, whose memory it reuses. The
// error names the field that is wrong and its value.
func readRequest(in *pb.RateLimitRequest, out *limiter.Request) error {
	if in.GetDomain() == "" {
		return errors.New("domain: empty")
	}
	if len(in.GetDescriptors()) == 0 {
		return errors.New("descriptors: empty")
	}
	out.Domain = in.GetDomain()
	out.Descriptors = resize(out.Descriptors, len(in.GetDescriptors()))
	hits := uint64(max(1, in.GetHitsAddend()))
	for i, d := range in.GetDescriptors() {
		if err := readDescriptor(d, hits, &out.Descriptors[i]); err != nil {
			return fmt.Errorf("descriptors[%d].%w", i, err)
		}
	}
	return nil
}

// readDescriptor reads one descriptor; hits is counted where it says nothing.
func readDescriptor(in *commonpb.RateLimitDescriptor, hits uint64, out *limiter.Descriptor) error {
	*out = limiter.Descriptor{Entries: out.Entries, Hits: hits}
	if in.GetIsNegativeHits() {
		return errors.New("is_negative_hits: not supported yet")
	}
	if own := in.GetHitsAddend(); own != nil {
		if own.GetValue() > limiter.MaxHits {
			return fmt.Errorf("hits_addend: %d is above %d", own.GetValue(), uint64(limiter.MaxHits))
		}
		out.Hits = own.GetValue()
	}
	out.HasOverride = in.GetLimit() != nil
	if out.HasOverride {
		out.Override = limits.Rate{
			Requests:   in.GetLimit().GetRequestsPerUnit(),
			Unit:       limits.Unit(in.GetLimit().GetUnit()),
			Multiplier: 1,
		}
		if m := in.GetLimit().GetUnitMultiplier(); m != nil {
			out.Override.Multiplier = m.GetValue()
		}
		if err := out.Override.Check(); err != nil {
			return fmt.Errorf("limit: %w", err)
		}
	}
	out.Entries = resize(out.Entries, len(in.GetEntries()))
	for i, e := range in.GetEntries() {
		out.Entries[i] = limits.Entry{Key: e.GetKey(), Value: e.GetValue()}
	}
	return nil
}

// resize returns s with n elements, whose contents are what they were before.
func resize[E any](s []E, n int) []E {
	if n <= cap(s) {
		return s[:n]
	}
	return append(s[:cap(s)], make([]E, n-cap(s))...)
}
