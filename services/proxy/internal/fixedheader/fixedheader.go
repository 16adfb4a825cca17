// Package fixedheader reads the header fields that a configuration adds to
// messages (envoy.config.core.v3.HeaderValueOption) where their values are
// fixed. Health checks and filters that make messages of their own call it.
// Values with operators, such as %REQ(x)%, need a request and are refused.
package fixedheader

import (
	"strings"

	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	"golang.org/x/net/http/httpguts"

	"github.com/weirproxy/weir/services/proxy/internal/message"
	"github.com/weirproxy/weir/services/proxy/internal/strict"
)

// Fields are the supported fields of the messages that Parse reads.
func Fields() strict.Fields {
	return strict.Fields{
		"envoy.config.core.v3.HeaderValueOption": {"header", "append_action", "keep_empty_value"},
		"envoy.config.core.v3.HeaderValue":       {"key", "value"},
	}
}

// Header is one field to add.
type Header struct {
	// Name is in lower case.
	Name, Value string
	// Action says what becomes of fields of that name that are there.
	Action corev3.HeaderValueOption_HeaderAppendAction
}

// Parse reads a list that lies at the path at. A field with an empty value is
// left out unless keep_empty_value says otherwise.
func Parse(options []*corev3.HeaderValueOption, at strict.Path, report *strict.Report) []Header {
	var list []Header
	for i, option := range options {
		at := at.Index(i).Field("header")
		name := CheckName(option.GetHeader().GetKey(), at.Field("key"), report)
		if value := Value(option.GetHeader().GetValue(), at.Field("value"), report); value != "" || option.GetKeepEmptyValue() {
			list = append(list, Header{name, value, option.GetAppendAction()})
		}
	}
	return list
}

// Value returns what a value at the path at stands for, with % for each %%; one that
// has an operator or is malformed is a fault.
func Value(value string, at strict.Path, report *strict.Report) string {
	literal := strings.ReplaceAll(value, "%%", "%")
	switch {
	case strings.Contains(strings.ReplaceAll(value, "%%", ""), "%"):
		report.Add(at, "%q has an operator: only fixed values are supported here, with %%%% for a %%", value)
	case !httpguts.ValidHeaderFieldValue(literal):
		report.Add(at, "%q has a control character", value)
	}
	return literal
}

// CheckName returns a header's name in lower case; one that can't be changed or
// is malformed is a fault at the path at.
func CheckName(name string, at strict.Path, report *strict.Report) string {
	name = strings.ToLower(name)
	switch {
	case name == "" && report.Missing(at): // told already
	case name == "host" || strings.HasPrefix(name, ":"):
		report.Add(at, "%q can't be added or removed", name)
	case message.Framing(name):
		report.Add(at, "%q is part of a message's framing and can't be added or removed", name)
	case !httpguts.ValidHeaderFieldName(name):
		report.Add(at, "%q is no name of a header field", name)
	}
	return name
}

// Apply adds the headers to h, in their order.
func Apply(list []Header, h *message.Headers) {
	for i := range list {
		switch a := &list[i]; {
		case a.Action == corev3.HeaderValueOption_APPEND_IF_EXISTS_OR_ADD,
			a.Action == corev3.HeaderValueOption_ADD_IF_ABSENT && !h.Has(a.Name):
			h.Add(a.Name, a.Value)
		case a.Action == corev3.HeaderValueOption_OVERWRITE_IF_EXISTS_OR_ADD,
			a.Action == corev3.HeaderValueOption_OVERWRITE_IF_EXISTS && h.Has(a.Name):
			h.Set(a.Name, a.Value)
		}
	}
}
