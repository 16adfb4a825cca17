package limits

import (
	"math"

	"go.yaml.in/yaml/v3"
	"google.golang.org/protobuf/types/known/structpb"
)

// metadata returns the free map of a descriptor; nil for none, and for an
// empty one.
func (d *document) metadata(n *yaml.Node) *structpb.Struct {
	if n == nil || isNull(d.resolve(n)) {
		return nil
	}
	s := d.structure(n, 1)
	if len(s.GetFields()) == 0 {
		return nil
	}
	return s
}

// structure returns a mapping with any keys, or nil with a fault.
func (d *document) structure(n *yaml.Node, depth int) *structpb.Struct {
	at := d.at(n)
	n = d.resolve(n)
	if n.Kind != yaml.MappingNode {
		d.add(at, "metadata must be a mapping, not %s", kindOf(n))
		return nil
	}
	s := &structpb.Struct{Fields: make(map[string]*structpb.Value, len(n.Content)/2)}
	for i := 0; i+1 < len(n.Content); i += 2 {
		key := d.resolve(n.Content[i])
		switch {
		case key.Tag == "!!merge":
			d.add(d.at(n.Content[i]), "metadata: merging with << is not supported")
		case key.Kind != yaml.ScalarNode || key.Tag != "!!str":
			d.add(d.at(n.Content[i]), "a key of metadata must be text, not %s", kindOf(key))
		case s.Fields[key.Value] != nil:
			d.add(d.at(n.Content[i]), "metadata has the key %q twice", brief(key.Value))
		default:
			s.Fields[key.Value] = d.anyValue(n.Content[i+1], depth)
		}
	}
	return s
}

// anyValue returns a value of any kind that JSON has. For others it returns
// null, with a fault.
func (d *document) anyValue(n *yaml.Node, depth int) *structpb.Value {
	at := d.at(n)
	if depth > maxDepth {
		d.add(at, "metadata nests deeper than %d", maxDepth)
		return structpb.NewNullValue()
	}
	if d.exhausted(n) {
		return structpb.NewNullValue()
	}
	n = d.resolve(n)
	switch {
	case n.Kind == yaml.MappingNode:
		return structpb.NewStructValue(d.structure(n, depth+1))
	case n.Kind == yaml.SequenceNode:
		list := &structpb.ListValue{}
		for _, element := range n.Content {
			list.Values = append(list.Values, d.anyValue(element, depth+1))
		}
		return structpb.NewListValue(list)
	case isNull(n):
		return structpb.NewNullValue()
	case n.Tag == "!!str":
		return structpb.NewStringValue(n.Value)
	case n.Tag == "!!bool":
		var v bool
		if n.Decode(&v) == nil {
			return structpb.NewBoolValue(v)
		}
	case n.Tag == "!!int" || n.Tag == "!!float":
		var v float64
		if n.Decode(&v) == nil && !math.IsNaN(v) && !math.IsInf(v, 0) {
			return structpb.NewNumberValue(v)
		}
	}
	d.add(at, "metadata cannot hold %s; quote it to make it text", kindOf(n))
	return structpb.NewNullValue()
}
