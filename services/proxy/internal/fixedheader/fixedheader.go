// Package fixedheader checks names and values of header fields that stand in a
// configuration and are sent as they are, such as those of calls to control planes.
// Values with operators, such as %REQ(x)%, need a request and are refused: package
// headermutation has those.
package fixedheader

import (
	"strings"

	"golang.org/x/net/http/httpguts"

	"github.com/weirproxy/weir/services/proxy/internal/message"
	"github.com/weirproxy/weir/services/proxy/internal/strict"
)

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
