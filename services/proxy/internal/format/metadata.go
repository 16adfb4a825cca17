package format

import (
	"encoding/json"
	"fmt"
	"strings"

	"google.golang.org/protobuf/types/known/structpb"
)

// dynamicMetadata makes DYNAMIC_METADATA(namespace:key:…).
func dynamicMetadata(argument string) (operator, error) {
	path := strings.Split(argument, ":")
	find := func(f *Facts) *structpb.Value { return findMetadata(f.DynamicMetadata[path[0]], path[1:]) }
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
	}, nil
}

// metadata makes METADATA(type:namespace:key:…). Only dynamic metadata is kept;
// that of routes and hosts is not known.
func metadata(argument string) (operator, error) {
	kind, rest, _ := strings.Cut(argument, ":")
	switch kind {
	case "DYNAMIC":
		return dynamicMetadata(rest)
	case "CLUSTER", "ROUTE", "UPSTREAM_HOST", "LISTENER", "VIRTUAL_HOST", "LISTENER_FILTER_CHAIN":
		return operator{write: missing}, nil
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
