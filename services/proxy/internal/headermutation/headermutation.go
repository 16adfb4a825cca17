// Package headermutation is the lists of header fields to add and to remove
// that stand in routes, virtual hosts and route configurations, and that
// filters may have (envoy.config.core.v3.HeaderValueOption). Package route
// reads them once; the connection manager's chain and the router apply them to
// the heads of a request and its response. It knows no route and no level.
package headermutation

import (
	"errors"
	"fmt"
	"strings"
	"sync"

	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"

	"github.com/weirproxy/weir/services/proxy/internal/format"
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

// Mutations is what is done to one head. It is immutable.
type Mutations struct {
	remove []string
	add    []option
}

// option is one field to add.
type option struct {
	name   string
	action corev3.HeaderValueOption_HeaderAppendAction
	// keepEmpty adds the field though its value is empty.
	keepEmpty bool
	value     *format.Template
}

// Parse reads the fields to add, which lie at the path addAt, and those to
// remove, at removeAt. What frames a message can be removed, but not added, other
// than te: trailers, which servers of gRPC want. That a list has at most 1,000 entries
// is held by the messages' own rules. Faults go to report; the result is nil if nothing
// is to be done.
func Parse(add []*corev3.HeaderValueOption, addAt strict.Path, remove []string, removeAt strict.Path, report *strict.Report) *Mutations {
	m := &Mutations{}
	for i, name := range remove {
		name, err := fieldName(name)
		if err != nil {
			report.Add(removeAt.Index(i), "%v", err)
		}
		m.remove = append(m.remove, name)
	}
	for i, o := range add {
		at := addAt.Index(i)
		name, err := fieldName(o.GetHeader().GetKey())
		if err != nil && o.GetHeader().GetKey() != "" {
			report.Add(at.Field("header").Field("key"), "%v", err)
		}
		if message.Framing(name) && (name != "te" || o.GetHeader().GetValue() != "trailers") {
			report.Add(at.Field("header").Field("key"), "%q is part of a message's framing and can't be added", name)
		}
		value, err := parseValue(o.GetHeader().GetValue())
		if err != nil {
			report.Add(at.Field("header").Field("value"), "format %q: %v", o.GetHeader().GetValue(), err)
		}
		m.add = append(m.add, option{name, o.GetAppendAction(), o.GetKeepEmptyValue(), value})
	}
	if m.remove == nil && m.add == nil {
		return nil
	}
	return m
}

// fieldName is a name in lower case. Who wants another host, path or method has
// rewrites for that.
func fieldName(name string) (string, error) {
	name = strings.ToLower(name)
	switch {
	case strings.HasPrefix(name, ":"), name == "host":
		return "", fmt.Errorf("%q is not to be changed here: hosts and paths have fields of their own", name)
	case !format.HeaderName(name):
		return "", fmt.Errorf("%q is no name of a header", name)
	}
	return name, nil
}

// parseValue reads a value, of which the messages' own rules have told if it has a line
// end or a zero byte.
func parseValue(text string) (*format.Template, error) {
	if strings.ContainsAny(text, "\x00\r\n") {
		return nil, nil
	}
	for i, c := range []byte(text) {
		if c < ' ' && c != '\t' || c == 0x7f {
			return nil, fmt.Errorf("column %d: a header cannot hold the character %#02x", i+1, c)
		}
	}
	if text != strings.Trim(text, " \t") {
		return nil, errors.New("a header's value neither begins nor ends with a space")
	}
	return format.Parse(text, format.Header)
}

// pending is the fields of one list with their values, since these are all
// made before any is set.
type pending struct {
	values []byte
	fields []field
}

// field is an option with the place of its value.
type field struct {
	option     *option
	start, end int
}

var spare = sync.Pool{New: func() any { return &pending{} }}

// Apply changes the head h. Removals come first, then the values of all
// fields are made, then fields are overwritten, and then added. A nil
// Mutations changes nothing.
func (m *Mutations) Apply(h *message.Headers, f *format.Facts) {
	if m == nil {
		return
	}
	for _, name := range m.remove {
		h.Remove(name)
	}
	if len(m.add) == 0 {
		return
	}
	p := spare.Get().(*pending)
	p.values, p.fields = p.values[:0], p.fields[:0]
	for i := range m.add {
		o := &m.add[i]
		start := len(p.values)
		p.values = o.value.Append(p.values, f)
		if len(p.values) > start || o.keepEmpty {
			if o.wanted(h) {
				p.fields = append(p.fields, field{o, start, len(p.values)})
			}
		}
	}
	for _, added := range p.fields {
		if o := added.option; o.overwrites() {
			h.Remove(o.name)
			h.AddBytes(o.name, p.values[added.start:added.end])
		}
	}
	for _, added := range p.fields {
		if o := added.option; !o.overwrites() {
			appendField(h, o.name, p.values[added.start:added.end])
		}
	}
	spare.Put(p)
}

// wanted says whether the field is set, by what the head has before any is.
func (o *option) wanted(h *message.Headers) bool {
	switch o.action {
	case corev3.HeaderValueOption_ADD_IF_ABSENT:
		return !h.Has(o.name)
	case corev3.HeaderValueOption_OVERWRITE_IF_EXISTS:
		return h.Has(o.name)
	}
	return true
}

func (o *option) overwrites() bool {
	return o.action == corev3.HeaderValueOption_OVERWRITE_IF_EXISTS_OR_ADD || o.action == corev3.HeaderValueOption_OVERWRITE_IF_EXISTS
}

// joined are the fields that Envoy keeps on one line: a further value follows a
// comma, without a space.
var joined = map[string]bool{
	"accept": true, "content-type": true, "grpc-accept-encoding": true, "location": true, "user-agent": true, "via": true,
	"x-forwarded-for": true, "x-forwarded-host": true, "x-forwarded-port": true, "x-forwarded-proto": true, "x-request-id": true,
}

// appendField adds a field beside those of the same name, or joins it to them, where an
// empty value adds nothing.
func appendField(h *message.Headers, name string, value []byte) {
	switch {
	case !joined[name]:
		h.AddBytes(name, value)
	case len(value) > 0 || !h.Has(name):
		h.Join(name, ",", value)
	}
}
