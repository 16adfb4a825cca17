package adminapi

import (
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/types/known/anypb"
)

// redacted stands for a secret in a dump, as in Envoy's.
const redacted = "[redacted]"

// sensitive is the option by which Envoy's protos mark fields that hold secrets.
const sensitive = "udpa.annotations.sensitive"

// redact puts a placeholder in the place of every text and clears every other
// value of m that is secret: all of it, or what stands in fields that are marked
// so. Packed messages are looked into.
func redact(m protoreflect.Message, all bool) {
	if packed, ok := m.Interface().(*anypb.Any); ok {
		// One of a type that is not known cannot be shown either.
		_ = repack(packed, func(inner protoreflect.Message) error {
			redact(inner, all)
			return nil
		})
		return
	}
	m.Range(func(field protoreflect.FieldDescriptor, value protoreflect.Value) bool {
		secret := all || isSensitive(field)
		switch {
		case field.IsMap() && field.MapValue().Message() != nil:
			value.Map().Range(func(_ protoreflect.MapKey, v protoreflect.Value) bool {
				redact(v.Message(), secret)
				return true
			})
		case field.IsList() && field.Message() != nil:
			for i := range value.List().Len() {
				redact(value.List().Get(i).Message(), secret)
			}
		case !field.IsMap() && field.Message() != nil:
			redact(value.Message(), secret)
		case !secret:
		case field.Kind() == protoreflect.StringKind && field.Cardinality() != protoreflect.Repeated:
			m.Set(field, protoreflect.ValueOfString(redacted))
		case field.Kind() == protoreflect.BytesKind && field.Cardinality() != protoreflect.Repeated:
			m.Set(field, protoreflect.ValueOfBytes([]byte(redacted)))
		default:
			m.Clear(field)
		}
		return true
	})
}

func isSensitive(field protoreflect.FieldDescriptor) (marked bool) {
	field.Options().ProtoReflect().Range(func(option protoreflect.FieldDescriptor, value protoreflect.Value) bool {
		marked = option.FullName() == sensitive && value.Bool()
		return !marked
	})
	return marked
}
