package strict

import (
	"google.golang.org/protobuf/encoding/protowire"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/types/known/anypb"
)

// maxAnys bounds Anys inside Anys.
const maxAnys = 32

// Check holds a message that came by xDS against the schema and the generated
// validators, inside its Anys too. The message is at the path at, which the
// caller chooses so that faults name the resource.
func Check(message proto.Message, at Path, schema *Schema, report *Report) {
	c := checker{walk: walk{schema, report}}
	c.whole(message, at)
}

type checker struct {
	walk
	anys int
}

// whole checks a message that stands by itself: at the root or in an Any.
func (c *checker) whole(m proto.Message, at Path) {
	c.message(m.ProtoReflect(), at)
	c.validate(m, at)
}

func (c *checker) message(m protoreflect.Message, at Path) {
	c.unknown(m.GetUnknown(), at)
	if packed, ok := m.Interface().(*anypb.Any); ok {
		c.any(packed, at)
		return
	}
	if wellKnown(m.Descriptor().FullName()) {
		return
	}
	m.Range(func(fd protoreflect.FieldDescriptor, v protoreflect.Value) bool {
		path := at.Field(string(fd.Name()))
		if !c.schema.supports(fd) {
			c.report.add(path, "not supported")
			c.refuseField(at, fd)
			return true
		}
		c.field(fd, v, path)
		return true
	})
}

func (c *checker) field(fd protoreflect.FieldDescriptor, v protoreflect.Value, at Path) {
	switch {
	case fd.IsList():
		for i := range v.List().Len() {
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
		c.report.add(at, "%d is not a %s", v.Enum(), fd.Enum().FullName())
		c.report.settle(at)
	}
}

func (c *checker) any(packed *anypb.Any, at Path) {
	refuse := func(err error) {
		c.report.add(at, "%v", err)
		c.report.settle(at)
	}
	if _, err := c.schema.find(packed.GetTypeUrl()); err != nil {
		refuse(err)
		return
	}
	if c.anys++; c.anys > maxAnys {
		c.report.add(at, "an Any inside more than %d others", maxAnys)
		c.anys--
		return
	}
	defer func() { c.anys-- }()
	m, err := Unpack(packed)
	if err != nil {
		refuse(err)
		return
	}
	c.whole(m, at)
}

// unknown reports the numbers of fields that the linked protos do not have.
func (c *checker) unknown(b protoreflect.RawFields, at Path) {
	told := map[protowire.Number]bool{}
	for len(b) > 0 {
		number, _, n := protowire.ConsumeField(b)
		if n < 0 {
			c.report.add(at, "malformed unknown fields")
			return
		}
		if !told[number] {
			told[number] = true
			c.report.add(at, "unknown field number %d", number)
		}
		b = b[n:]
	}
}
