package protoyaml

import (
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"regexp"
	"strconv"
	"strings"
	"unicode/utf8"

	"go.yaml.in/yaml/v3"
	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/types/known/structpb"
)

// number is what JSON calls one: YAML's other forms (010, 0x1f, 1_000, 1:30)
// are read differently by different readers and refused.
var number = regexp.MustCompile(`^-?(?:0|[1-9][0-9]*)(?:\.[0-9]+)?(?:[eE][+-]?[0-9]+)?$`)

const quotedStyles = yaml.SingleQuotedStyle | yaml.DoubleQuotedStyle | yaml.LiteralStyle | yaml.FoldedStyle

// oldBool says whether n is a bare word that was a bool before YAML 1.2, and
// still is one for Envoy.
func oldBool(n *yaml.Node) bool {
	if n.Style&(quotedStyles|yaml.TaggedStyle) != 0 {
		return false
	}
	switch strings.ToLower(n.Value) {
	case "y", "n", "yes", "no", "on", "off":
		return true
	}
	return false
}

// scalar reads n as a value of fd's kind.
func (f *File) scalar(n *yaml.Node, fd protoreflect.FieldDescriptor, path Path) (v protoreflect.Value, ok bool) {
	ok = f.enter(n, path, func(n *yaml.Node) bool {
		if n.Kind != yaml.ScalarNode {
			return f.fault(n, path, "want a %s, got %s", kindName(fd), f.describe(n))
		}
		quoted := n.Style&quotedStyles != 0
		switch tag := n.ShortTag(); {
		case fd.Kind() == protoreflect.StringKind && (tag == "!!int" || tag == "!!float" || tag == "!!bool"):
			return f.fault(n, path, "want a string, got %s: put it in quotes", f.tell("the bare "+n.Value))
		case fd.Kind() == protoreflect.StringKind && oldBool(n):
			return f.fault(n, path, "want a string, got %s, which some readers take for a bool: put it in quotes", f.tell("the bare "+n.Value))
		case fd.Kind() == protoreflect.BoolKind && quoted:
			return f.fault(n, path, "want a bool, got the string %s: leave out the quotes", f.quote(n.Value))
		}
		var err error
		if v, err = f.parseScalar(n.Value, fd); err != nil {
			return f.fault(n, path, "%v", err)
		}
		return true
	})
	return v, ok
}

// parseScalar reads text as a value of fd's kind.
func (f *File) parseScalar(text string, fd protoreflect.FieldDescriptor) (protoreflect.Value, error) {
	wrong := fmt.Errorf("%s is not a %s", f.quote(text), kindName(fd))
	switch fd.Kind() {
	case protoreflect.BoolKind:
		switch text {
		case "true", "True", "TRUE":
			return protoreflect.ValueOfBool(true), nil
		case "false", "False", "FALSE":
			return protoreflect.ValueOfBool(false), nil
		}
		return protoreflect.Value{}, fmt.Errorf("%w: want true or false", wrong)
	case protoreflect.StringKind:
		if !utf8.ValidString(text) {
			return protoreflect.Value{}, fmt.Errorf("%w: it is not UTF-8", wrong)
		}
		return protoreflect.ValueOfString(text), nil
	case protoreflect.BytesKind:
		text = strings.NewReplacer("-", "+", "_", "/").Replace(strings.TrimRight(text, "="))
		b, err := base64.RawStdEncoding.DecodeString(text)
		if err != nil {
			return protoreflect.Value{}, fmt.Errorf("%w: want base64", wrong)
		}
		return protoreflect.ValueOfBytes(b), nil
	case protoreflect.EnumKind:
		return f.parseEnum(text, fd.Enum())
	}
	if !number.MatchString(text) {
		return protoreflect.Value{}, fmt.Errorf("%w: want a plain decimal number", wrong)
	}
	switch fd.Kind() {
	case protoreflect.Int32Kind, protoreflect.Sint32Kind, protoreflect.Sfixed32Kind:
		i, err := parseInt(text, 32)
		return protoreflect.ValueOfInt32(int32(i)), orRange(err, wrong)
	case protoreflect.Int64Kind, protoreflect.Sint64Kind, protoreflect.Sfixed64Kind:
		i, err := parseInt(text, 64)
		return protoreflect.ValueOfInt64(i), orRange(err, wrong)
	case protoreflect.Uint32Kind, protoreflect.Fixed32Kind:
		u, err := parseUint(text, 32)
		return protoreflect.ValueOfUint32(uint32(u)), orRange(err, wrong)
	case protoreflect.Uint64Kind, protoreflect.Fixed64Kind:
		u, err := parseUint(text, 64)
		return protoreflect.ValueOfUint64(u), orRange(err, wrong)
	case protoreflect.FloatKind:
		x, err := strconv.ParseFloat(text, 32)
		return protoreflect.ValueOfFloat32(float32(x)), orRange(err, wrong)
	case protoreflect.DoubleKind:
		x, err := strconv.ParseFloat(text, 64)
		return protoreflect.ValueOfFloat64(x), orRange(err, wrong)
	}
	return protoreflect.Value{}, wrong
}

// orRange puts what the reader of numbers said into our words.
func orRange(err, wrong error) error {
	switch {
	case errors.Is(err, strconv.ErrRange):
		return fmt.Errorf("%w: it is out of range", wrong)
	case err != nil:
		return wrong
	}
	return nil
}

// parseInt reads whole numbers, also those written as 1e3 or 1.0.
func parseInt(text string, bits int) (int64, error) {
	if f, ok := wholeFloat(text); ok {
		text = strconv.FormatInt(int64(f), 10)
	}
	return strconv.ParseInt(text, 10, bits)
}

func parseUint(text string, bits int) (uint64, error) {
	if f, ok := wholeFloat(text); ok {
		text = strconv.FormatInt(int64(f), 10)
	}
	if strings.HasPrefix(text, "-") && text != "-0" {
		return 0, strconv.ErrRange
	}
	return strconv.ParseUint(strings.TrimPrefix(text, "-"), 10, bits)
}

// wholeFloat reads a number with point or exponent that is whole and exact.
func wholeFloat(text string) (float64, bool) {
	if !strings.ContainsAny(text, ".eE") {
		return 0, false
	}
	f, err := strconv.ParseFloat(text, 64)
	return f, err == nil && f == math.Trunc(f) && math.Abs(f) < 1<<53
}

// parseEnum takes a value's name, or its number.
func (f *File) parseEnum(text string, enum protoreflect.EnumDescriptor) (protoreflect.Value, error) {
	values := enum.Values()
	if v := values.ByName(protoreflect.Name(text)); v != nil {
		return protoreflect.ValueOfEnum(v.Number()), nil
	}
	if i, err := strconv.ParseInt(text, 10, 32); err == nil && number.MatchString(text) {
		if v := values.ByNumber(protoreflect.EnumNumber(i)); v != nil {
			return protoreflect.ValueOfEnum(v.Number()), nil
		}
	}
	names := make([]string, values.Len())
	for i := range names {
		names[i] = string(values.Get(i).Name())
	}
	return protoreflect.Value{}, fmt.Errorf("%s is not a %s: want %s", f.quote(text), enum.FullName(), strings.Join(names, ", "))
}

func kindName(fd protoreflect.FieldDescriptor) string {
	if fd.Kind() == protoreflect.EnumKind {
		return string(fd.Enum().FullName())
	}
	return fd.Kind().String()
}

// seconds matches the form of a Duration.
var seconds = regexp.MustCompile(`^-?[0-9]+(\.[0-9]{1,9})?s$`)

// wellKnown fills one of protobuf's own messages, which have forms of their
// own in JSON.
func (f *File) wellKnown(n *yaml.Node, m protoreflect.Message, path Path) bool {
	name := m.Descriptor().FullName()
	switch name {
	case "google.protobuf.Struct", "google.protobuf.ListValue", "google.protobuf.Value":
		v, ok := f.plain(n, path)
		if !ok {
			return false
		}
		return f.setPlain(n, m, v, path)
	case "google.protobuf.Empty":
		if n.Kind != yaml.MappingNode || len(f.entries(n, path)) > 0 {
			return f.fault(n, path, "want {}, got %s", f.describe(n))
		}
		return true
	case "google.protobuf.Duration", "google.protobuf.Timestamp", "google.protobuf.FieldMask":
		if n.Kind != yaml.ScalarNode {
			return f.fault(n, path, "want a %s, got %s", name.Name(), f.describe(n))
		}
		text, _ := json.Marshal(n.Value)
		if err := protojson.Unmarshal(text, m.Interface()); err != nil {
			hint := ""
			switch {
			case name.Name() == "Duration" && seconds.MatchString(n.Value):
				return f.fault(n, path, "%s is out of range: a Duration is at most 315576000000s, some 10,000 years", f.quote(n.Value))
			case name.Name() == "Duration":
				hint = `: want seconds, as in "0.25s"`
			}
			return f.fault(n, path, "%s is not a %s%s", f.quote(n.Value), name.Name(), hint)
		}
		return true
	}
	// The wrappers: a message with the one field value.
	fd := m.Descriptor().Fields().ByName("value")
	if fd == nil || fd.IsList() || fd.IsMap() || fd.Message() != nil || m.Descriptor().Fields().Len() != 1 {
		return f.fault(n, path, "%s cannot be written in a file", name)
	}
	v, ok := f.scalar(n, fd, path)
	if ok {
		m.Set(fd, v)
	}
	return ok
}

// setPlain copies a plain value into a Struct, ListValue or Value.
func (f *File) setPlain(n *yaml.Node, m protoreflect.Message, v *structpb.Value, path Path) bool {
	switch into := m.Interface().(type) {
	case *structpb.Value:
		into.Kind = v.GetKind()
		return true
	case *structpb.Struct:
		if v.GetStructValue() != nil {
			into.Fields = v.GetStructValue().GetFields()
			return true
		}
	case *structpb.ListValue:
		if v.GetListValue() != nil {
			into.Values = v.GetListValue().GetValues()
			return true
		}
	}
	return f.fault(n, path, "want a %s, got %s", m.Descriptor().Name(), f.describe(n))
}

// plain reads a value without a schema: what stands in metadata.
func (f *File) plain(n *yaml.Node, path Path) (*structpb.Value, bool) {
	var v *structpb.Value
	ok := f.enter(n, path, func(n *yaml.Node) bool {
		switch n.Kind {
		case yaml.MappingNode:
			fields := map[string]*structpb.Value{}
			for _, e := range f.entries(n, path) {
				at := path.Key(e.Key)
				f.place(at, e.key)
				if field, ok := f.plain(e.Value, at); ok {
					fields[e.Key] = field
				}
			}
			v = structpb.NewStructValue(&structpb.Struct{Fields: fields})
			return true
		case yaml.SequenceNode:
			items := &structpb.ListValue{}
			for i, item := range n.Content {
				at := path.Index(i)
				f.place(at, item)
				if value, ok := f.plain(item, at); ok {
					items.Values = append(items.Values, value)
				}
			}
			v = structpb.NewListValue(items)
			return true
		}
		if oldBool(n) {
			return f.fault(n, path, "some readers take %s for a bool: put it in quotes", f.tell("the bare "+n.Value))
		}
		switch n.ShortTag() {
		case "!!null":
			v = structpb.NewNullValue()
		case "!!bool":
			v = structpb.NewBoolValue(strings.EqualFold(n.Value, "true"))
		case "!!int", "!!float":
			x, err := strconv.ParseFloat(n.Value, 64)
			if err != nil || !number.MatchString(n.Value) {
				return f.fault(n, path, "%s is not a plain decimal number: write one, or put it in quotes", f.tell(n.Value))
			}
			v = structpb.NewNumberValue(x)
		default:
			v = structpb.NewStringValue(n.Value)
		}
		return true
	})
	return v, ok
}
