package matcher

import (
	"bytes"
	"fmt"

	routev3 "github.com/envoyproxy/go-control-plane/envoy/config/route/v3"

	"github.com/weirproxy/weir/services/proxy/internal/strict"
)

// QueryParameter is a QueryParameterMatcher: a condition on the first
// parameter of a name, as it is written, %-escapes and all.
type QueryParameter struct {
	name  string
	value *String // nil: that there is one is asked for, or that there is none
	// absent is set for present_match: false.
	absent bool
}

// ParseQueryParameters makes a QueryParameter of each message of a list at the
// path at. Faults go to report; the result is for use only if there are none.
func ParseQueryParameters(list []*routev3.QueryParameterMatcher, at strict.Path, report *strict.Report) []QueryParameter {
	var parameters []QueryParameter
	for i, m := range list {
		p := QueryParameter{name: m.GetName()}
		switch s := m.GetQueryParameterMatchSpecifier().(type) {
		case *routev3.QueryParameterMatcher_StringMatch:
			p.value = ParseString(s.StringMatch, at.Index(i).Field("string_match"), report)
		case *routev3.QueryParameterMatcher_PresentMatch:
			p.absent = !s.PresentMatch
		}
		parameters = append(parameters, p)
	}
	return parameters
}

// Match says whether the condition holds for the query of a path.
func (p *QueryParameter) Match(path []byte) bool {
	value, ok := Parameter(path, p.name)
	if p.value == nil {
		return ok != p.absent
	}
	return ok && p.value.Match(value)
}

// String is the condition in words.
func (p *QueryParameter) String() string {
	switch {
	case p.value != nil:
		return fmt.Sprintf("query parameter %s %s", p.name, p.value)
	case p.absent:
		return fmt.Sprintf("query parameter %s is missing", p.name)
	}
	return fmt.Sprintf("query parameter %s is there", p.name)
}

// Parameter is the value of the first query parameter of that name in a path,
// as it is written, and whether there is one. The value of "?a" is empty.
func Parameter(path []byte, name string) ([]byte, bool) {
	_, query, _ := bytes.Cut(path, []byte{'?'})
	for len(query) > 0 {
		var pair []byte
		pair, query, _ = bytes.Cut(query, []byte{'&'})
		if key, value, _ := bytes.Cut(pair, []byte{'='}); string(key) == name {
			return value, true
		}
	}
	return nil, false
}
