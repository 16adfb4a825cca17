package strict

import (
	"errors"
	"fmt"
	"strings"

	"go.yaml.in/yaml/v3"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/reflect/protoregistry"
	"google.golang.org/protobuf/types/known/anypb"
)

// typePrefix is the only authority of type URLs.
const typePrefix = "type.googleapis.com/"

// extensionPackages begin the names of what Envoy puts into Anys.
const extensionPackages = "envoy.extensions."

// any fills m, an Any, from a mapping with "@type" and the fields of that
// type.
func (l *loader) any(n *yaml.Node, m protoreflect.Message, at Path) bool {
	if n.Kind != yaml.MappingNode {
		return l.fault(n, at, "want a mapping with @type, got %s", describe(n))
	}
	var url *yaml.Node
	var rest []entry
	for _, e := range l.entries(n, at) {
		if e.key.Value == "@type" {
			url = target(e.value)
		} else {
			rest = append(rest, e)
		}
	}
	if url == nil || url.Kind != yaml.ScalarNode || null(url) {
		return l.fault(n, at, "@type is missing: it names the type, as in %q", typePrefix+"envoy.…")
	}
	t, err := l.schema.find(url.Value)
	if err != nil {
		return l.fault(url, at, "%v", err)
	}
	content := t.New()
	l.fields(rest, content, at)
	l.validate(content.Interface(), at)
	packed, err := proto.MarshalOptions{Deterministic: true, AllowPartial: true}.Marshal(content.Interface())
	if err != nil {
		return l.fault(n, at, "%v", err)
	}
	into := m.Interface().(*anypb.Any)
	into.TypeUrl, into.Value = url.Value, packed
	return true
}

// find is the extension that a type URL names, if the schema has it.
func (s *Schema) find(url string) (protoreflect.MessageType, error) {
	t, err := findType(url)
	if err != nil {
		return nil, fmt.Errorf("%w; supported are: %s", err, strings.Join(s.extensions, ", "))
	}
	name := t.Descriptor().FullName()
	extension := strings.HasPrefix(string(name), extensionPackages)
	if _, ok := s.messages[name]; !ok || !extension {
		return nil, fmt.Errorf("type %s is not supported; supported are: %s", name, strings.Join(s.extensions, ", "))
	}
	return t, nil
}

func findType(url string) (protoreflect.MessageType, error) {
	name, ok := strings.CutPrefix(url, typePrefix)
	if !ok {
		return nil, fmt.Errorf("type URL %s does not begin with %s", quote(url), typePrefix)
	}
	t, err := protoregistry.GlobalTypes.FindMessageByName(protoreflect.FullName(name))
	if err != nil {
		return nil, fmt.Errorf("unknown type %s", quote(name))
	}
	return t, nil
}

// Unpack is the message inside an Any. The error says which type could not be
// read.
func Unpack(packed *anypb.Any) (proto.Message, error) {
	if packed == nil {
		return nil, errors.New("unpack: there is no Any")
	}
	t, err := findType(packed.GetTypeUrl())
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
