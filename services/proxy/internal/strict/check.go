package strict

import (
	"errors"
	"fmt"
	"strings"

	"google.golang.org/protobuf/encoding/protowire"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/types/known/anypb"

	"github.com/weirproxy/weir/internal/protoyaml"
)

// maxAnys bounds Anys inside Anys.
const maxAnys = 32

// Check holds a message that came by xDS against the schema and the generated
// validators, inside its Anys too. The message is at the path at, which the
// caller chooses so that faults name the resource.
func Check(message proto.Message, at Path, schema *Schema, report *Report) {
	c := checker{schema: schema, report: report}
	c.whole(message, at)
}

type checker struct {
	schema *Schema
	report *Report
	anys   int
	// in is the field being looked at, of a message in the field outer; nil is none.
	in, outer protoreflect.FieldDescriptor
}

// whole checks a message that stands by itself: at the root or in an Any.
func (c *checker) whole(m proto.Message, at Path) {
	c.message(m.ProtoReflect(), at)
	c.report.Validate(m, at, c.schema)
}

func (c *checker) message(m protoreflect.Message, at Path) {
	c.unknown(m.GetUnknown(), at)
	if packed, ok := m.Interface().(*anypb.Any); ok {
		c.any(packed, at)
		return
	}
	if protoyaml.WellKnown(m.Descriptor().FullName()) {
		return
	}
	optional := protoyaml.IsOptional(m)
	m.Range(func(fd protoreflect.FieldDescriptor, v protoreflect.Value) bool {
		if !c.schema.Supports(fd) {
			c.report.RefuseField(at, fd, "%s", c.schema.WhyNot(fd))
			return true
		}
		c.report.Warn(at.Field(string(fd.Name())), c.schema.Warning(fd))
		if optional && protoyaml.IsExtension(fd) {
			if _, err := c.schema.Find(v.Message().Interface().(*anypb.Any).GetTypeUrl()); err != nil {
				return true // whoever reads it leaves it out
			}
		}
		if protoyaml.IsExtension(fd) && c.schema.TakesEmptyAny(fd) && proto.Size(v.Message().Interface()) == 0 {
			return true
		}
		c.field(fd, v, at.Field(string(fd.Name())))
		return true
	})
}

func (c *checker) field(fd protoreflect.FieldDescriptor, v protoreflect.Value, at Path) {
	in, outer := c.in, c.outer
	c.in, c.outer = fd, in
	defer func() { c.in, c.outer = in, outer }()
	switch {
	case fd.IsList():
		for i := range v.List().Len() {
			if c.schema.firstKnown[fd.FullName()] && !c.known(v.List().Get(i).Message()) {
				continue
			}
			c.value(fd, v.List().Get(i), at.Index(i))
		}
	case fd.IsMap():
		v.Map().Range(func(k protoreflect.MapKey, v protoreflect.Value) bool {
			c.value(fd.MapValue(), v, at.Key(k.String()))
			return true
		})
	default:
		c.value(fd, v, at)
	}
}

func (c *checker) value(fd protoreflect.FieldDescriptor, v protoreflect.Value, at Path) {
	switch {
	case fd.Message() != nil:
		c.message(v.Message(), at)
	case fd.Kind() == protoreflect.EnumKind && fd.Enum().Values().ByNumber(v.Enum()) == nil:
		c.report.Refuse(at, "%d is not a %s", v.Enum(), fd.Enum().FullName())
	}
}

func (c *checker) any(packed *anypb.Any, at Path) {
	if _, err := c.schema.FindFor(packed.GetTypeUrl(), c.in, c.outer); err != nil {
		c.report.Refuse(at, "%v", err)
		return
	}
	if c.anys++; c.anys > maxAnys {
		c.report.Add(at, "an Any inside more than %d others", maxAnys)
		c.anys--
		return
	}
	defer func() { c.anys-- }()
	m, err := Unpack(packed)
	if err != nil {
		c.report.Refuse(at, "%v", err)
		return
	}
	c.whole(m, at)
}

// known says whether all Anys in m are of supported types.
func (c *checker) known(m protoreflect.Message) (all bool) {
	if packed, ok := m.Interface().(*anypb.Any); ok {
		_, err := c.schema.Find(packed.GetTypeUrl())
		return err == nil
	}
	all = true
	m.Range(func(fd protoreflect.FieldDescriptor, v protoreflect.Value) bool {
		if fd.Message() != nil && !fd.IsList() && !fd.IsMap() {
			all = c.known(v.Message())
		}
		return all
	})
	return all
}

// unknown reports the numbers of fields that the linked protos do not have.
func (c *checker) unknown(b protoreflect.RawFields, at Path) {
	told := map[protowire.Number]bool{}
	for len(b) > 0 {
		number, _, n := protowire.ConsumeField(b)
		if n < 0 {
			c.report.Add(at, "malformed unknown fields")
			return
		}
		if !told[number] {
			told[number] = true
			c.report.Add(at, "unknown field number %d", number)
		}
		b = b[n:]
	}
}

// Unpack is the message inside an Any. The error says which type could not be
// read.
func Unpack(packed *anypb.Any) (proto.Message, error) {
	if packed == nil {
		return nil, errors.New("unpack: there is no Any")
	}
	t, err := protoyaml.FindType(packed.GetTypeUrl())
	if err != nil {
		return nil, fmt.Errorf("unpack: %w", err)
	}
	m := t.New().Interface()
	if err := proto.Unmarshal(packed.GetValue(), m); err != nil {
		// The library varies its spaces from build to build.
		text := strings.ReplaceAll(err.Error(), "\u00a0", " ")
		return nil, fmt.Errorf("unpack %s: %s", t.Descriptor().FullName(), text)
	}
	return m, nil
}
