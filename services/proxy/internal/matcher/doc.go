// Package matcher holds Envoy's conditions on requests: string matchers
// (envoy.type.matcher.v3), and the matchers of header fields and query
// parameters (envoy.config.route.v3). Whatever part of the configuration has
// such a message parses it here, once, and asks the result for each request.
// It decides nothing about the request, changes nothing, and matching
// allocates nothing.
package matcher

import "github.com/weirproxy/weir/services/proxy/internal/strict"

// Fields are the supported fields of the messages that the package reads.
func Fields() strict.Fields {
	return strict.Fields{
		"envoy.type.matcher.v3.StringMatcher":           {"exact", "prefix", "suffix", "contains", "safe_regex", "ignore_case"},
		"envoy.type.matcher.v3.RegexMatcher":            {"regex"},
		"envoy.type.matcher.v3.RegexMatchAndSubstitute": {"pattern", "substitution"},
		"envoy.type.v3.Int64Range":                      {"start", "end"},
		"envoy.type.v3.FractionalPercent":               {"numerator", "denominator"},
		"envoy.config.core.v3.RuntimeFractionalPercent": {"default_value", "runtime_key"},
		"envoy.config.route.v3.HeaderMatcher": {
			"name", "string_match", "range_match", "present_match", "invert_match", "treat_missing_header_as_empty",
		},
		"envoy.config.route.v3.QueryParameterMatcher": {"name", "string_match", "present_match"},
	}
}
