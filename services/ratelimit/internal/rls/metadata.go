package rls

import (
	"fmt"
	"maps"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/structpb"

	"github.com/weirproxy/weir/services/ratelimit/internal/limiter"
	"github.com/weirproxy/weir/services/ratelimit/internal/limits"
)

// appendMetadata appends the message of the dynamic metadata, which says of the
// request and of the rules that it passed:
//
//	{domain, descriptors: [{entries: ["key=value"], limit, hitsAddend}],
//	 hitsAddend, metadata}
//
// What the request does not set is left out. limit is the descriptor's own, as
// text. metadata is that of all rules whose status is OK, but for unlimited ones.
func (c *call) appendMetadata(dst []byte) ([]byte, error) {
	descriptors := &structpb.ListValue{}
	for i := range c.request.Descriptors {
		descriptors.Values = append(descriptors.Values, structpb.NewStructValue(c.describe(i)))
	}
	out := map[string]*structpb.Value{
		"domain":      structpb.NewStringValue(c.request.Domain),
		"descriptors": structpb.NewListValue(descriptors),
	}
	if c.addend != 0 {
		out["hitsAddend"] = structpb.NewNumberValue(float64(c.addend))
	}
	if merged := mergeMetadata(c.answer.Statuses); len(merged) > 0 {
		out["metadata"] = structpb.NewStructValue(&structpb.Struct{Fields: merged})
	}
	return proto.MarshalOptions{Deterministic: true}.MarshalAppend(dst, &structpb.Struct{Fields: out})
}

// describe says what the request asks of descriptor i.
func (c *call) describe(i int) *structpb.Struct {
	d := &c.request.Descriptors[i]
	entries := &structpb.ListValue{}
	for _, e := range d.Entries {
		entries.Values = append(entries.Values, structpb.NewStringValue(e.Key+"="+e.Value))
	}
	out := map[string]*structpb.Value{"entries": structpb.NewListValue(entries)}
	if d.HasOverride {
		out["limit"] = structpb.NewStringValue(describeRate(d.Override, c.own[i].multiplier))
	}
	if c.own[i].hits {
		out["hitsAddend"] = structpb.NewNumberValue(float64(d.Hits))
	}
	return &structpb.Struct{Fields: out}
}

// describeRate is protobuf's text form of an override, in one line.
func describeRate(rate limits.Rate, multiplier bool) string {
	text := fmt.Sprintf("unit:%s", rate.Unit)
	if rate.Requests != 0 {
		text = fmt.Sprintf("requests_per_unit:%d %s", rate.Requests, text)
	}
	if multiplier {
		text = fmt.Sprintf("%s unit_multiplier:{value:%d}", text, rate.Multiplier)
	}
	return text
}

// mergeMetadata joins the metadata of the limits that statuses passed. Of a name
// that several have, the first value counts; maps of one name are joined in
// turn. The rules' own metadata is shared and never written to.
func mergeMetadata(statuses []limiter.Status) map[string]*structpb.Value {
	var out map[string]*structpb.Value
	for i := range statuses {
		if rule := statuses[i].Rule; rule != nil && !rule.Unlimited && !statuses[i].Over {
			out = join(out, rule.Metadata.GetFields())
		}
	}
	return out
}

// join returns a new map with what first has, and what only second has.
func join(first, second map[string]*structpb.Value) map[string]*structpb.Value {
	if len(second) == 0 {
		return first
	}
	out := maps.Clone(second)
	for name, value := range first {
		inner, other := value.GetStructValue(), second[name].GetStructValue()
		if inner != nil && other != nil {
			value = structpb.NewStructValue(&structpb.Struct{Fields: join(inner.GetFields(), other.GetFields())})
		}
		out[name] = value
	}
	return out
}
