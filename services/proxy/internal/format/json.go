package format

import (
	"encoding/json"
	"maps"
	"slices"

	"google.golang.org/protobuf/types/known/structpb"

	"github.com/weirproxy/weir/services/proxy/internal/strict"
)

// node appends one value of a JSON format, or returns false if it is to be left
// out.
type node func(b []byte, f *Facts) (_ []byte, there bool)

// parser makes nodes of the values of a json_format.
type parser struct {
	style  Style
	report *strict.Report
}

// value makes the node of a value that lies at the path at.
func (p *parser) value(v *structpb.Value, at strict.Path) node {
	switch kind := v.GetKind().(type) {
	case *structpb.Value_StructValue:
		return p.object(kind.StructValue, at)
	case *structpb.Value_ListValue:
		return p.list(kind.ListValue, at)
	case *structpb.Value_StringValue:
		return p.text(kind.StringValue, at)
	case *structpb.Value_NumberValue, *structpb.Value_BoolValue:
		text, err := json.Marshal(v.AsInterface())
		if err != nil {
			p.report.Add(at, "%v", err)
		}
		return func(b []byte, _ *Facts) ([]byte, bool) { return append(b, text...), true }
	default:
		return func(b []byte, _ *Facts) ([]byte, bool) { return p.style.null(b) }
	}
}

// null appends what stands for a value that is not known.
func (s Style) null(b []byte) ([]byte, bool) {
	if s == LogOmitting {
		return b, false
	}
	return append(b, "null"...), true
}

// object makes an object, whose keys are sorted: a struct keeps no order.
func (p *parser) object(s *structpb.Struct, at strict.Path) node {
	type member struct {
		key string // with its quotes and the colon
		node
	}
	var members []member
	for _, key := range slices.Sorted(maps.Keys(s.GetFields())) {
		quoted := `"` + string(escapeJSON([]byte(key), 0)) + `":`
		members = append(members, member{quoted, p.value(s.GetFields()[key], at.Key(key))})
	}
	return func(b []byte, f *Facts) ([]byte, bool) {
		b = append(b, '{')
		inside := len(b)
		for _, m := range members {
			before := len(b)
			if before > inside {
				b = append(b, ',')
			}
			var there bool
			if b, there = m.node(append(b, m.key...), f); !there {
				b = b[:before]
			}
		}
		return append(b, '}'), true
	}
}

func (p *parser) list(l *structpb.ListValue, at strict.Path) node {
	var nodes []node
	for i, v := range l.GetValues() {
		nodes = append(nodes, p.value(v, at.Index(i)))
	}
	return func(b []byte, f *Facts) ([]byte, bool) {
		b = append(b, '[')
		inside := len(b)
		for _, n := range nodes {
			before := len(b)
			if before > inside {
				b = append(b, ',')
			}
			var there bool
			if b, there = n(b, f); !there {
				b = b[:before]
			}
		}
		return append(b, ']'), true
	}
}

// text makes the node of a text with operators. One that is an operator and
// nothing else has its value's type; the others are strings.
func (p *parser) text(text string, at strict.Path) node {
	t, err := Parse(text, p.style)
	if err != nil {
		p.report.Add(at, "format %q: %v", text, err)
		return nil
	}
	if len(t.parts) == 1 && t.parts[0].literal == "" && t.parts[0].write != nil {
		return p.single(&t.parts[0].operator)
	}
	return func(b []byte, f *Facts) ([]byte, bool) {
		b = append(b, '"')
		start := len(b)
		for i := range t.parts {
			part := &t.parts[i]
			b = append(b, part.literal...)
			if part.write == nil {
				continue
			}
			var known bool
			if b, known = part.value(b, f); !known {
				b = append(b, p.style.missing()...)
			}
		}
		return append(escapeJSON(b, start), '"'), true
	}
}

func (p *parser) single(o *operator) node {
	return func(b []byte, f *Facts) ([]byte, bool) {
		b, known := o.typed(b, f)
		if !known {
			return p.style.null(b)
		}
		return b, true
	}
}

// typed appends the value as JSON of its type.
func (o *operator) typed(b []byte, f *Facts) ([]byte, bool) {
	start := len(b)
	write := o.value
	quoted := o.json == nil && !o.number
	switch {
	case o.json != nil:
		write = o.json
	case quoted:
		b = append(b, '"')
	}
	b, known := write(b, f)
	if !known {
		return b[:start], false
	}
	if quoted {
		b = append(escapeJSON(b, start+1), '"')
	}
	return b, true
}
