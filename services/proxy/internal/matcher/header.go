package matcher

import (
	"fmt"
	"math"
	"slices"
	"strconv"
	"strings"

	routev3 "github.com/envoyproxy/go-control-plane/envoy/config/route/v3"
	"golang.org/x/net/http/httpguts"

	"github.com/weirproxy/weir/services/proxy/internal/message"
	"github.com/weirproxy/weir/services/proxy/internal/strict"
)

// Header is a HeaderMatcher: a condition on the fields of one name. Of several
// of them any may fulfil it; inverted, none may.
type Header struct {
	name string // lower case
	// One of these, or else presence is asked for: that there is a field, or
	// that there is none.
	value  *String
	ranged *Range
	absent bool

	invert         bool
	missingIsEmpty bool // treat_missing_header_as_empty
}

// Range is an Int64Range: whole numbers from Start up to, and without, End.
type Range struct{ Start, End int64 }

// ParseHeaders makes a Header of each message of a list at the path at. Faults
// go to report; the result is for use only if there are none.
func ParseHeaders(list []*routev3.HeaderMatcher, at strict.Path, report *strict.Report) []Header {
	var headers []Header
	for i, m := range list {
		headers = append(headers, ParseHeader(m, at.Index(i), report))
	}
	return headers
}

// ParseHeader is ParseHeaders for one message, at the path at.
func ParseHeader(m *routev3.HeaderMatcher, at strict.Path, report *strict.Report) Header {
	h := Header{name: status, invert: m.GetInvertMatch(), missingIsEmpty: m.GetTreatMissingHeaderAsEmpty()}
	if m.GetName() != status {
		h.name = ParseName(m.GetName(), at.Field("name"), report)
	}
	switch s := m.GetHeaderMatchSpecifier().(type) {
	case *routev3.HeaderMatcher_StringMatch:
		h.value = ParseString(s.StringMatch, at.Field("string_match"), report)
	case *routev3.HeaderMatcher_RangeMatch:
		h.ranged = &Range{s.RangeMatch.GetStart(), s.RangeMatch.GetEnd()}
		if h.ranged.Start >= h.ranged.End {
			report.Add(at.Field("range_match"), "[%d, %d) has no number", h.ranged.Start, h.ranged.End)
		}
	case *routev3.HeaderMatcher_PresentMatch:
		h.absent = !s.PresentMatch
	}
	return h
}

// ParseName reads the name, at the path at, of a header of requests to be looked at, and
// returns it in lower case. It may be that of a pseudo header, or be empty, as far as
// the messages' own rules let it. One that no request can have is a fault.
func ParseName(name string, at strict.Path, report *strict.Report) string {
	name = strings.ToLower(name)
	switch {
	case name == "", slices.Contains(pseudoHeaders, name):
	case strings.HasPrefix(name, ":"):
		report.Add(at, "%q is no pseudo header of a request: those are %s", name, strings.Join(pseudoHeaders, ", "))
	case !httpguts.ValidHeaderFieldName(name):
		report.Add(at, "%q is no name of a header", name)
	}
	return name
}

// pseudoHeaders are those of a request (RFC 9113 §8.3.1), and status is that of a
// response.
var pseudoHeaders = []string{":authority", ":method", ":path", ":scheme"}

const status = ":status"

// Match says whether the condition holds for the request. A missing field
// fulfils none but that of being absent, inverted or not, unless it is taken
// for an empty one, which is there.
func (h *Header) Match(r *message.Request) bool {
	if value, ok, pseudo := Pseudo(r, h.name); pseudo {
		return h.decide(ok, ok && h.holds(value))
	}
	return h.decide(h.look(&r.Headers))
}

// MatchResponse is Match for a response, whose status is the field ":status".
func (h *Header) MatchResponse(r *message.Response) bool {
	if h.name == status {
		var text [3]byte
		return h.decide(true, h.holds(strconv.AppendInt(text[:0], int64(r.Status), 10)))
	}
	return h.decide(h.look(&r.Headers))
}

// decide says whether the condition holds, if a field is there or not, and if
// one holds as it is before it is inverted.
func (h *Header) decide(there, holds bool) bool {
	switch {
	case h.value == nil && h.ranged == nil:
		return ((there || h.missingIsEmpty) != h.absent) != h.invert
	case there:
		return holds != h.invert
	case h.missingIsEmpty:
		return h.holds(nil) != h.invert
	}
	return false
}

// look says whether there is such a field, and whether one holds.
func (h *Header) look(fields *message.Headers) (there, holds bool) {
	for i := range fields.Len() {
		name, value := fields.At(i)
		if string(name) == h.name {
			if there = true; h.holds(value) {
				return true, true
			}
		}
	}
	return there, false
}

func (h *Header) holds(value []byte) bool {
	switch {
	case h.value != nil:
		return h.value.Match(value)
	case h.ranged != nil:
		n, ok := number(value)
		return ok && h.ranged.Start <= n && n < h.ranged.End
	}
	return true
}

// number reads the whole of text as a decimal number.
func number(text []byte) (n int64, ok bool) {
	negative := false
	if len(text) > 0 && (text[0] == '-' || text[0] == '+') {
		negative = text[0] == '-'
		text = text[1:]
	}
	if len(text) == 0 {
		return 0, false
	}
	for _, c := range text {
		digit := int64(c) - '0'
		// Counted below zero, where there is one number more.
		if digit < 0 || digit > 9 || n < (math.MinInt64+digit)/10 {
			return 0, false
		}
		n = n*10 - digit
	}
	if negative {
		return n, true
	}
	return -n, n != math.MinInt64
}

// String is the condition in words.
func (h *Header) String() string {
	text := fmt.Sprintf("header %s ", h.name)
	switch {
	case h.value != nil:
		text += h.value.String()
	case h.ranged != nil:
		text += fmt.Sprintf("is a number from %d and below %d", h.ranged.Start, h.ranged.End)
	case h.absent != h.invert:
		text += "is missing"
	default:
		text += "is there"
	}
	presence := h.value == nil && h.ranged == nil
	if h.missingIsEmpty {
		text += ", a missing one being empty"
	}
	if h.invert && !presence {
		return "not: " + text
	}
	return text
}

// Pseudo is the value of a pseudo header of a request (RFC 9113 §8.3.1), and
// whether it is there; host is :authority. Pseudo is false for any other name.
func Pseudo(r *message.Request, name string) (value []byte, ok, pseudo bool) {
	switch name {
	case ":path":
		return r.Path, len(r.Path) > 0, true
	case ":method":
		return r.Method, len(r.Method) > 0, true
	case ":authority", "host":
		return r.Authority, len(r.Authority) > 0, true
	case ":scheme":
		return r.URLScheme(), true, true
	}
	return nil, false, false
}

// Value is the value of the first field of that name, which may be a pseudo
// header's, and whether it is there.
func Value(r *message.Request, name string) ([]byte, bool) {
	if value, ok, pseudo := Pseudo(r, name); pseudo {
		return value, ok
	}
	return r.Headers.Get(name)
}
