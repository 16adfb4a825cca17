package matcher

import (
	"errors"
	"regexp"
	"regexp/syntax"
	"strconv"
	"strings"

	matcherv3 "github.com/envoyproxy/go-control-plane/envoy/type/matcher/v3"

	"github.com/weirproxy/weir/services/proxy/internal/strict"
)

// A regular expression that has to match the whole text stands between these.
const before, after = `\A(?:`, `)\z`

// nothing is what a faulty regular expression becomes.
var nothing = regexp.MustCompile(`\z\A.`)

// ParseRegex makes a regular expression, which is to match a whole text, of a
// RegexMatcher at the path at. Faults go to report.
func ParseRegex(m *matcherv3.RegexMatcher, at strict.Path, report *strict.Report) *regexp.Regexp {
	if compile(m.GetRegex(), at.Field("regex"), report) == nil {
		return nothing
	}
	return regexp.MustCompile(before + m.GetRegex() + after)
}

// compile returns nil, and reports why, if text is no regular expression. The
// syntax is RE2's, as in Envoy.
func compile(text string, at strict.Path, report *strict.Report) *regexp.Regexp {
	regex, err := regexp.Compile(text)
	if err == nil {
		_, err = regexp.Compile(before + text + after) // which is larger and deeper
	}
	if err == nil {
		return regex
	}
	why := err.Error()
	if fault, ok := errors.AsType[*syntax.Error](err); ok {
		why = fault.Code.String()
	}
	report.Add(at, "%q is no regular expression: %s", text, why)
	return nil
}

// unanchored is the text that ParseRegex got.
func unanchored(regex *regexp.Regexp) string {
	return strings.TrimSuffix(strings.TrimPrefix(regex.String(), before), after)
}

// Substitution is a RegexMatchAndSubstitute: it replaces every match of a
// regular expression.
type Substitution struct {
	pattern *regexp.Regexp
	// template has the groups in the form of regexp.Expand.
	template []byte
	text     string
}

// ParseSubstitution makes a Substitution of a message at the path at; nil
// stays nil. Faults go to report; the result is for use only if there are none.
func ParseSubstitution(m *matcherv3.RegexMatchAndSubstitute, at strict.Path, report *strict.Report) *Substitution {
	if m == nil {
		return nil
	}
	s := &Substitution{text: m.GetSubstitution()}
	if s.pattern = compile(m.GetPattern().GetRegex(), at.Field("pattern").Field("regex"), report); s.pattern == nil {
		return nil
	}
	at = at.Field("substitution")
	for i := 0; i < len(s.text); i++ {
		switch c := s.text[i]; {
		case c == '$':
			s.template = append(s.template, "$$"...)
		case c != '\\':
			s.template = append(s.template, c)
		case i+1 < len(s.text) && s.text[i+1] == '\\':
			s.template = append(s.template, c)
			i++
		case i+1 < len(s.text) && '0' <= s.text[i+1] && s.text[i+1] <= '9':
			i++
			if group := int(s.text[i] - '0'); group > s.pattern.NumSubexp() {
				report.Add(at, "%q: \\%d is no group of the pattern, which has %d", s.text, group, s.pattern.NumSubexp())
			}
			s.template = append(s.template, "${"+s.text[i:i+1]+"}"...)
		default:
			report.Add(at, "%q: a \\ stands before a digit or another \\", s.text)
		}
	}
	return s
}

// Replace returns text with every match replaced; it is the caller's, and text
// stays as it is. It allocates.
func (s *Substitution) Replace(text []byte) []byte { return s.pattern.ReplaceAll(text, s.template) }

// String is the substitution in words.
func (s *Substitution) String() string {
	return "each " + s.pattern.String() + " becomes " + strconv.Quote(s.text)
}
