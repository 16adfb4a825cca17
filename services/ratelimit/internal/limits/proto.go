package limits

import (
	"fmt"
	"maps"
	"math"
	"slices"

	pb "github.com/envoyproxy/go-control-plane/ratelimit/config/ratelimit/v3"
	"google.golang.org/protobuf/encoding/protowire"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/structpb"
)

// Resource is an xDS resource, and the name by which faults call it.
type Resource struct {
	Name   string
	Config *pb.RateLimitConfig
}

// ParseProtos reads the xDS resources of one domain, under the same rules as
// ParseFiles does files. The error is a *ParseError; its places, like those of
// the rules, are paths in a resource. It keeps parts of the configs, which must
// not change any more.
func (p *Parser) ParseProtos(resources []Resource) (*Domain, error) {
	b := builder{Parser: p, domain: &Domain{}}
	for _, resource := range resources {
		r := protoReader{builder: &b, file: "resource " + resource.Name}
		r.refuseUnknown("", resource.Config)
		r.nameDomain(r.text("domain", resource.Config.GetDomain()))
		r.readDescriptors("descriptors", resource.Config.GetDescriptors(), b.top())
	}
	return b.finish()
}

// protoReader is the reading of one resource.
type protoReader struct {
	*builder
	file string
}

func (r *protoReader) at(path string) Place { return Place{File: r.file, Path: path} }

// text is a field that is there unless it is empty.
func (r *protoReader) text(path, value string) given[string] {
	return given[string]{value: value, at: r.at(path), set: value != ""}
}

// readDescriptors puts a list of descriptors below parent.
func (r *protoReader) readDescriptors(path string, list []*pb.RateLimitDescriptor, parent spot) {
	if len(list) == 0 || r.tooDeep(parent, r.at(path)) {
		return
	}
	for i, m := range list {
		path := fmt.Sprintf("%s[%d]", path, i)
		r.refuseUnknown(path, m)
		d := descriptor{
			at:             r.at(path),
			key:            r.text(path+".key", m.GetKey()),
			value:          r.text(path+".value", m.GetValue()),
			shadowMode:     m.GetShadowMode(),
			quotaMode:      m.GetQuotaMode(),
			detailedMetric: m.GetDetailedMetric(),
			metadata:       r.readMetadata(path+".metadata", m.GetMetadata()),
			limit:          r.readRateLimit(path+".rate_limit", m.GetRateLimit()),
		}
		r.readDescriptors(path+".descriptors", m.GetDescriptors(), r.descriptor(parent, &d))
	}
}

func (r *protoReader) readRateLimit(path string, m *pb.RateLimitPolicy) *rateLimit {
	if m == nil {
		return nil
	}
	r.refuseUnknown(path, m)
	unit := given[Unit]{value: Unit(m.GetUnit()), at: r.at(path + ".unit"), set: m.GetUnit() != 0}
	limit := &rateLimit{
		at:        r.at(path),
		unit:      unit,
		requests:  given[uint32]{value: m.GetRequestsPerUnit(), at: r.at(path + ".requests_per_unit"), set: true},
		unlimited: m.GetUnlimited(),
		name:      m.GetName(),
	}
	for i, other := range m.GetReplaces() {
		path := fmt.Sprintf("%s.replaces[%d]", path, i)
		r.refuseUnknown(path, other)
		limit.replaces = append(limit.replaces, r.text(path, other.GetName()))
	}
	return limit
}

// readMetadata returns m if answers can hold it, nil if it is empty.
func (r *protoReader) readMetadata(path string, m *structpb.Struct) *structpb.Struct {
	if len(m.GetFields()) == 0 {
		return nil
	}
	r.checkValue(path, structpb.NewStructValue(m), 0)
	return m
}

// checkValue adds a fault for what JSON has no word for.
func (r *protoReader) checkValue(path string, v *structpb.Value, depth int) {
	if depth > maxDepth {
		r.add(r.at(path), "metadata nests deeper than %d", maxDepth)
		return
	}
	switch kind := v.GetKind().(type) {
	case nil:
		r.add(r.at(path), "metadata has no value here")
	case *structpb.Value_NumberValue:
		if math.IsNaN(kind.NumberValue) || math.IsInf(kind.NumberValue, 0) {
			r.add(r.at(path), "metadata cannot hold %v", kind.NumberValue)
		}
	case *structpb.Value_ListValue:
		for i, element := range kind.ListValue.GetValues() {
			r.checkValue(fmt.Sprintf("%s[%d]", path, i), element, depth+1)
		}
	case *structpb.Value_StructValue:
		fields := kind.StructValue.GetFields()
		for _, name := range slices.Sorted(maps.Keys(fields)) {
			r.checkValue(path+"."+name, fields[name], depth+1)
		}
	}
}

// refuseUnknown adds a fault for what a message of a later version has and this
// one would leave out.
func (r *protoReader) refuseUnknown(path string, m proto.Message) {
	unknown := m.ProtoReflect().GetUnknown()
	if len(unknown) == 0 {
		return
	}
	number, _, _ := protowire.ConsumeTag(unknown)
	r.add(r.at(path), "field %d of %s is unknown", number, m.ProtoReflect().Descriptor().FullName())
}
