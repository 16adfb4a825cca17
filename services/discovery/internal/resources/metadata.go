package resources

import (
	"encoding/json"
	"strings"
	"unicode/utf8"

	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/types/known/structpb"

	"github.com/weirproxy/weir/services/discovery/internal/registry"
)

// LoadBalancer is the filter namespace in which Envoy's load balancers look.
const LoadBalancer = "envoy.lb"

// The keys of metadata that are not names of tags. A tag of such a name in the
// same namespace gives way to them.
const (
	canaryKey     = "canary"
	revisionKey   = "revision"
	staleKey      = "stale"
	instanceIDKey = "instance_id"
)

// remarks is what many hosts of a service say alike of themselves.
type remarks struct {
	saysCanary, canary bool
	revision           string
	stale              bool
}

// metadataOf is what an endpoint says of its host beside its address; nil for
// nothing. What the host did not say is left out.
func (s *endpoints) metadataOf(v *registry.View) *corev3.Metadata {
	r := remarks{revision: v.Host.Revision, stale: v.Stale}
	if canary := v.Host.Tags.Canary; canary != nil {
		r.saysCanary, r.canary = true, *canary
	}
	namespace := s.maker.options.TagNamespace
	if namespace != "" {
		if fields := tagFields(&v.Host.Tags); len(fields) > 0 {
			return r.metadata(namespace, fields)
		}
	}
	made, ok := s.metadata[r]
	if !ok {
		made = r.metadata("", nil)
		s.metadata[r] = made
	}
	return made
}

// metadata is remarks and, in a namespace, the fields of tags, which may be none.
func (r remarks) metadata(namespace string, tags map[string]*structpb.Value) *corev3.Metadata {
	balancing := map[string]*structpb.Value{}
	namespaces := map[string]*structpb.Struct{}
	switch {
	case namespace == LoadBalancer:
		balancing = tags
	case len(tags) > 0:
		namespaces[namespace] = &structpb.Struct{Fields: tags}
	}
	if r.saysCanary {
		balancing[canaryKey] = structpb.NewBoolValue(r.canary)
	}
	if r.revision != "" {
		balancing[revisionKey] = structpb.NewStringValue(r.revision)
	}
	if r.stale {
		balancing[staleKey] = structpb.NewBoolValue(true)
	}
	if len(balancing) > 0 {
		namespaces[LoadBalancer] = &structpb.Struct{Fields: balancing}
	}
	if len(namespaces) == 0 {
		return nil
	}
	return &corev3.Metadata{FilterMetadata: namespaces}
}

// tagFields is a host's tags as fields of metadata. Region and zone are not among
// them: they are the locality.
func tagFields(tags *registry.Tags) map[string]*structpb.Value {
	fields := make(map[string]*structpb.Value, len(tags.Other)+1)
	for _, tag := range tags.Other {
		if value := tagValue(tag.Value); value != nil {
			fields[tag.Name] = value
		}
	}
	if tags.InstanceID != "" {
		fields[instanceIDKey] = structpb.NewStringValue(tags.InstanceID)
	}
	return fields
}

// maxTagDepth is how deep a tag may be nested that is sent. Clients read
// messages to a depth of 100, of which one level of a tag takes up to three;
// and one that is too deep would cost them the whole response.
const maxTagDepth = 16

// tagValue is a tag's JSON as metadata; nil if it has no such form, as a number
// beyond a double's range, or is nested too deep: then it is not sent, since it
// must not cost the other hosts anything.
func tagValue(raw json.RawMessage) *structpb.Value {
	if text, ok := plainString(raw); ok {
		return structpb.NewStringValue(text)
	}
	if depth(raw) > maxTagDepth {
		return nil
	}
	value := &structpb.Value{}
	if protojson.Unmarshal(raw, value) != nil {
		return nil
	}
	return value
}

// tagText is a tag as a subset's name gives it: a string without its quotes,
// anything else as it stands in JSON.
func tagText(raw json.RawMessage) string {
	if text, ok := plainString(raw); ok {
		return text
	}
	var text string
	if json.Unmarshal(raw, &text) == nil {
		return text
	}
	return string(raw)
}

// plainString returns a JSON string that is written without escapes, as most
// tags are.
func plainString(raw json.RawMessage) (string, bool) {
	if len(raw) < 2 || raw[0] != '"' {
		return "", false
	}
	text := string(raw[1 : len(raw)-1])
	return text, !strings.Contains(text, `\`) && utf8.ValidString(text)
}

// depth is how deep lists and objects of valid JSON are nested.
func depth(raw json.RawMessage) int {
	deepest, here := 0, 0
	quoted := false
	for i := 0; i < len(raw); i++ {
		switch c := raw[i]; {
		case quoted && c == '\\':
			i++
		case c == '"':
			quoted = !quoted
		case quoted:
		case c == '{' || c == '[':
			here++
			deepest = max(deepest, here)
		case c == '}' || c == ']':
			here--
		}
	}
	return deepest
}
