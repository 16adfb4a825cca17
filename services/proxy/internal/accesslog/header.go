package accesslog

import (
	"bytes"
	"regexp"
	"strconv"
	"strings"

	routev3 "github.com/envoyproxy/go-control-plane/envoy/config/route/v3"
	matcherv3 "github.com/envoyproxy/go-control-plane/envoy/type/matcher/v3"

	"github.com/weirproxy/weir/services/proxy/internal/format"
	"github.com/weirproxy/weir/services/proxy/internal/strict"
)

// parseHeader makes the filter of a HeaderMatcher that lies at the path at. Each
// value of a repeated field is matched by itself, and any of them is enough.
func parseHeader(m *routev3.HeaderMatcher, at strict.Path, report *strict.Report) filter {
	name, invert := strings.ToLower(m.GetName()), m.GetInvertMatch()
	var match func(value []byte) bool
	switch kind := m.GetHeaderMatchSpecifier().(type) {
	case nil:
		return func(f *format.Facts) bool { return present(f, name) != invert }
	case *routev3.HeaderMatcher_PresentMatch:
		return func(f *format.Facts) bool { return (present(f, name) == kind.PresentMatch) != invert }
	case *routev3.HeaderMatcher_StringMatch:
		match = parseString(kind.StringMatch, at.Field("string_match"), report)
	case *routev3.HeaderMatcher_RangeMatch:
		match = func(value []byte) bool {
			n, err := strconv.ParseInt(string(value), 10, 64)
			return err == nil && n >= kind.RangeMatch.GetStart() && n < kind.RangeMatch.GetEnd()
		}
	}
	if match == nil {
		return nil // the schema's walk has said so
	}
	return func(f *format.Facts) bool {
		there, found := false, false
		eachValue(f, name, func(value []byte) {
			there = true
			found = found || match(value)
		})
		if !there {
			if !m.GetTreatMissingHeaderAsEmpty() {
				return false
			}
			found = match(nil)
		}
		return found != invert
	}
}

func present(f *format.Facts, name string) (there bool) {
	eachValue(f, name, func([]byte) { there = true })
	return there
}

// eachValue calls yield with each value of a request header.
func eachValue(f *format.Facts, name string, yield func(value []byte)) {
	r := f.Request
	if r == nil {
		return
	}
	var one []byte
	switch name {
	case ":method":
		one = r.Method
	case ":path":
		one = r.Path
	case ":authority", "host":
		one = r.Authority
	case ":scheme":
		one = []byte("http")
	default:
		for i := range r.Headers.Len() {
			if n, value := r.Headers.At(i); string(n) == name {
				yield(value)
			}
		}
		return
	}
	if len(one) > 0 {
		yield(one)
	}
}

func parseString(m *matcherv3.StringMatcher, at strict.Path, report *strict.Report) func([]byte) bool {
	fold := func(text string) string { return text }
	see := func(value []byte) []byte { return value }
	if m.GetIgnoreCase() {
		fold, see = strings.ToLower, bytes.ToLower
	}
	switch kind := m.GetMatchPattern().(type) {
	case *matcherv3.StringMatcher_Exact:
		want := fold(kind.Exact)
		return func(value []byte) bool { return string(see(value)) == want }
	case *matcherv3.StringMatcher_Prefix:
		want := []byte(fold(kind.Prefix))
		return func(value []byte) bool { return bytes.HasPrefix(see(value), want) }
	case *matcherv3.StringMatcher_Suffix:
		want := []byte(fold(kind.Suffix))
		return func(value []byte) bool { return bytes.HasSuffix(see(value), want) }
	case *matcherv3.StringMatcher_Contains:
		want := []byte(fold(kind.Contains))
		return func(value []byte) bool { return bytes.Contains(see(value), want) }
	case *matcherv3.StringMatcher_SafeRegex:
		// The whole value is to match; ignore_case does not concern it.
		expression, err := regexp.Compile(`\A(?:` + kind.SafeRegex.GetRegex() + `)\z`)
		if err != nil {
			report.Add(at.Field("safe_regex").Field("regex"), "%q: %v", kind.SafeRegex.GetRegex(), err)
			return nil
		}
		return expression.Match
	}
	return nil // the schema's walk has said so
}
