package format

import (
	"encoding/json"
	"fmt"
	"strings"

	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	"google.golang.org/protobuf/types/known/structpb"
)

// dynamicMetadata makes DYNAMIC_METADATA(namespace:key:…).
func dynamicMetadata(argument string) (operator, error) {
	return metadataOf(strings.Split(argument, ":"), func(f *Facts) map[string]*structpb.Struct { return f.DynamicMetadata }), nil
}

// metadataOf makes the operator of what lies at a path, a namespace and keys, in the
// metadata that from takes from the facts.
func metadataOf(path []string, from func(*Facts) map[string]*structpb.Struct) operator {
	find := func(f *Facts) *structpb.Value { return findMetadata(from(f)[path[0]], path[1:]) }
	return operator{
		foreign: true,
		write: func(b []byte, f *Facts) ([]byte, bool) {
			v := find(f)
			if text, ok := v.GetKind().(*structpb.Value_StringValue); ok {
				return append(b, text.StringValue...), true
			}
			return appendValue(b, v)
		},
		json: func(b []byte, f *Facts) ([]byte, bool) { return appendValue(b, find(f)) },
	}
}

// configured is where the metadata of the configuration is, by its type. Listeners
// have none.
var configured = map[string]func(*Facts) *corev3.Metadata{
	"ROUTE":         func(f *Facts) *corev3.Metadata { return f.RouteMetadata },
	"VIRTUAL_HOST":  func(f *Facts) *corev3.Metadata { return f.VirtualHostMetadata },
	"CLUSTER":       func(f *Facts) *corev3.Metadata { return f.ClusterMetadata },
	"UPSTREAM_HOST": func(f *Facts) *corev3.Metadata { return f.HostMetadata },
	"LISTENER":      func(*Facts) *corev3.Metadata { return nil },
	"LISTENER_FILTER_CHAIN": func(f *Facts) *corev3.Metadata {
		if f.Connection == nil {
			return nil
		}
		return f.Connection.ChainMetadata
	},
}

// configuredAs makes the operator of metadata of a type, which is one of configured.
func configuredAs(kind string, path []string) operator {
	metadata := configured[kind]
	return metadataOf(path, func(f *Facts) map[string]*structpb.Struct { return metadata(f).GetFilterMetadata() })
}

// upstreamMetadata makes UPSTREAM_METADATA(namespace:key:…), or the same in the form
// of a list of JSON, as headers had it once.
func upstreamMetadata(argument string) (operator, error) {
	path := strings.Split(argument, ":")
	if strings.HasPrefix(argument, "[") {
		if err := json.Unmarshal([]byte(argument), &path); err != nil || len(path) == 0 {
			return operator{}, fmt.Errorf("%s is no list of a namespace and keys", argument)
		}
	}
	return configuredAs("UPSTREAM_HOST", path), nil
}

// clusterMetadata makes CLUSTER_METADATA(namespace:key:…).
func clusterMetadata(argument string) (operator, error) {
	return configuredAs("CLUSTER", strings.Split(argument, ":")), nil
}

// metadata makes METADATA(type:namespace:key:…).
func metadata(argument string) (operator, error) {
	kind, rest, _ := strings.Cut(argument, ":")
	switch {
	case kind == "DYNAMIC":
		return dynamicMetadata(rest)
	case configured[kind] != nil:
		return configuredAs(kind, strings.Split(rest, ":")), nil
	}
	return operator{}, fmt.Errorf("%q is no type of metadata", kind)
}

// findMetadata follows keys from a struct; nil if they lead nowhere.
func findMetadata(s *structpb.Struct, keys []string) *structpb.Value {
	if s == nil {
		return nil
	}
	v := structpb.NewStructValue(s)
	for _, key := range keys {
		v = v.GetStructValue().GetFields()[key]
	}
	return v
}

// appendValue appends a value as JSON.
func appendValue(b []byte, v *structpb.Value) ([]byte, bool) {
	if v == nil {
		return b, false
	}
	text, err := json.Marshal(v.AsInterface())
	return append(b, text...), err == nil
}
