package matcher

import (
	"bytes"
	"fmt"
	"regexp"

	matcherv3 "github.com/envoyproxy/go-control-plane/envoy/type/matcher/v3"

	"github.com/weirproxy/weir/services/proxy/internal/strict"
)

// String is a StringMatcher: a condition on one text.
type String struct {
	kind  kind
	text  []byte // in lower case if fold
	fold  bool   // ignore_case, of ASCII letters
	regex *regexp.Regexp
}

type kind int

const (
	exact kind = iota
	prefix
	suffix
	contains
	safeRegex
)

// ParseString makes a String of a message that must be there, at the path at.
// Faults go to report; the result is for use only if there are none.
func ParseString(m *matcherv3.StringMatcher, at strict.Path, report *strict.Report) *String {
	s := &String{fold: m.GetIgnoreCase()}
	switch p := m.GetMatchPattern().(type) {
	case *matcherv3.StringMatcher_Exact:
		s.text = []byte(p.Exact)
	case *matcherv3.StringMatcher_Prefix:
		s.kind, s.text = prefix, []byte(p.Prefix)
	case *matcherv3.StringMatcher_Suffix:
		s.kind, s.text = suffix, []byte(p.Suffix)
	case *matcherv3.StringMatcher_Contains:
		s.kind, s.text = contains, []byte(p.Contains)
	case *matcherv3.StringMatcher_SafeRegex:
		s.kind = safeRegex
		if s.fold {
			report.Add(at.Field("ignore_case"), "has no effect on safe_regex: use (?i) in the expression")
		}
		s.regex = ParseRegex(p.SafeRegex, at.Field("safe_regex"), report)
	}
	if s.fold {
		s.text = bytes.ToLower(s.text)
	}
	return s
}

// Match says whether the condition holds for value.
func (s *String) Match(value []byte) bool {
	n := len(s.text)
	switch s.kind {
	case exact:
		return len(value) == n && s.equal(value)
	case prefix:
		return len(value) >= n && s.equal(value[:n])
	case suffix:
		return len(value) >= n && s.equal(value[len(value)-n:])
	case contains:
		if !s.fold {
			return bytes.Contains(value, s.text)
		}
		for i := 0; i+n <= len(value); i++ {
			if s.equal(value[i : i+n]) {
				return true
			}
		}
		return false
	default:
		return s.regex.Match(value)
	}
}

// equal compares texts of the same length.
func (s *String) equal(value []byte) bool {
	if s.fold {
		return EqualFold(s.text, value)
	}
	return bytes.Equal(s.text, value)
}

// EqualFold says whether value is lowered but for the case of ASCII letters;
// lowered has no upper-case ones.
func EqualFold[T string | []byte](lowered T, value []byte) bool {
	if len(lowered) != len(value) {
		return false
	}
	for i := range len(value) {
		if Lower(value[i]) != lowered[i] {
			return false
		}
	}
	return true
}

// Lower is the lower case of an ASCII letter, and any other byte itself.
func Lower(c byte) byte {
	if 'A' <= c && c <= 'Z' {
		return c + 'a' - 'A'
	}
	return c
}

// String is the condition in words, to follow on what it is about.
func (s *String) String() string {
	verb := [...]string{exact: "is", prefix: "begins with", suffix: "ends with", contains: "contains", safeRegex: "matches"}[s.kind]
	text := string(s.text)
	if s.kind == safeRegex {
		return verb + " " + unanchored(s.regex)
	}
	if s.fold {
		return fmt.Sprintf("%s %q in any case", verb, text)
	}
	return fmt.Sprintf("%s %q", verb, text)
}
