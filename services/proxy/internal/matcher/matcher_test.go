package matcher_test

import (
	"fmt"
	"testing"

	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	routev3 "github.com/envoyproxy/go-control-plane/envoy/config/route/v3"
	matcherv3 "github.com/envoyproxy/go-control-plane/envoy/type/matcher/v3"
	typev3 "github.com/envoyproxy/go-control-plane/envoy/type/v3"
	"github.com/stretchr/testify/require"
	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/proto"

	"github.com/weirproxy/weir/internal/servicetest"
	"github.com/weirproxy/weir/services/proxy/internal/layeredruntime/runtimetest"
	"github.com/weirproxy/weir/services/proxy/internal/matcher"
	"github.com/weirproxy/weir/services/proxy/internal/message"
	"github.com/weirproxy/weir/services/proxy/internal/strict"
)

func TestMain(m *testing.M) { servicetest.Main(m) }

func read(t testing.TB, text string, into proto.Message) {
	t.Helper()
	require.NoError(t, protojson.Unmarshal([]byte(text), into))
}

func TestString(t *testing.T) {
	for config, c := range map[string]struct {
		words   string
		yes, no []string
	}{
		`{"exact": "aB"}`:                         {`is "aB"`, []string{"aB"}, []string{"ab", "aBc", "", "xaB"}},
		`{"exact": "aB", "ignore_case": true}`:    {`is "ab" in any case`, []string{"aB", "Ab"}, []string{"abc", ""}},
		`{"exact": ""}`:                           {`is ""`, []string{""}, []string{"a"}},
		`{"prefix": "ab"}`:                        {`begins with "ab"`, []string{"ab", "abc"}, []string{"a", "", "xab", "Ab"}},
		`{"prefix": "Ab", "ignore_case": true}`:   {`begins with "ab" in any case`, []string{"aB", "ABc"}, []string{"a"}},
		`{"suffix": "ab"}`:                        {`ends with "ab"`, []string{"ab", "xab"}, []string{"b", "abc"}},
		`{"suffix": "ab", "ignore_case": true}`:   {`ends with "ab" in any case`, []string{"xAB"}, []string{"abx"}},
		`{"contains": "ab"}`:                      {`contains "ab"`, []string{"ab", "xaby"}, []string{"a", "axb", "AB"}},
		`{"contains": "aB", "ignore_case": true}`: {`contains "ab" in any case`, []string{"xAby", "AB"}, []string{"a", "axb", ""}},
		`{"safe_regex": {"regex": "a|ab+"}}`:      {`matches a|ab+`, []string{"a", "abb"}, []string{"xa", "ax", "", "abba"}},
		`{"safe_regex": {"regex": "a.c"}}`:        {`matches a.c`, []string{"abc"}, []string{"a\nc"}},
	} {
		m := &matcherv3.StringMatcher{}
		read(t, config, m)
		report := &strict.Report{}
		s := matcher.ParseString(m, "", report)
		require.NoError(t, report.Err())
		require.Equal(t, c.words, s.String())
		for _, text := range c.yes {
			require.True(t, s.Match([]byte(text)), "%s matches %q", config, text)
		}
		for _, text := range c.no {
			require.False(t, s.Match([]byte(text)), "%s does not match %q", config, text)
		}
	}
}

func request(t testing.TB, fields ...string) *message.Request {
	t.Helper()
	r := &message.Request{Method: []byte("GET"), Authority: []byte("a.example"), Path: []byte("/p?q=1")}
	for i := 0; i < len(fields); i += 2 {
		r.Headers.Add(fields[i], fields[i+1])
	}
	return r
}

func TestHeader(t *testing.T) {
	none := []string{}
	one := func(value string) []string { return []string{"x-a", value} }
	for _, c := range []struct {
		name, config, words string
		fields              []string
		want                bool
	}{
		{"a text", `{"string_match": {"exact": "b"}}`, `header x-a is "b"`, one("b"), true},
		{"another text", `{"string_match": {"exact": "b"}}`, "", one("c"), false},
		{"a missing field matches no text", `{"string_match": {"exact": ""}}`, "", none, false},
		{"nor does it inverted", `{"string_match": {"exact": "b"}, "invert_match": true}`, `not: header x-a is "b"`, none, false},
		{"unless it is taken for an empty one", `{"string_match": {"exact": "b"}, "invert_match": true, "treat_missing_header_as_empty": true}`,
			`not: header x-a is "b", a missing one being empty`, none, true},
		{"which can match", `{"string_match": {"safe_regex": {"regex": "^$"}}, "treat_missing_header_as_empty": true}`, "", none, true},
		{"inverted", `{"string_match": {"exact": "b"}, "invert_match": true}`, "", one("c"), true},
		{"one of several", `{"string_match": {"exact": "b"}}`, "", []string{"x-a", "c", "x-a", "b"}, true},
		{"they are not joined", `{"string_match": {"exact": "c,b"}}`, "", []string{"x-a", "c", "x-a", "b"}, false},
		{"inverted, none of several", `{"string_match": {"exact": "b"}, "invert_match": true}`, "", []string{"x-a", "c", "x-a", "b"}, false},
		{"present", `{"present_match": true}`, "header x-a is there", one(""), true},
		{"not present", `{"present_match": true}`, "", none, false},
		{"absent", `{"present_match": false}`, "header x-a is missing", none, true},
		{"not absent", `{"present_match": false}`, "", one("b"), false},
		{"present, inverted", `{"present_match": true, "invert_match": true}`, "header x-a is missing", none, true},
		{"absent, inverted", `{"present_match": false, "invert_match": true}`, "header x-a is there", one("b"), true},
		{"without a condition it has to be there", `{}`, "header x-a is there", one("b"), true},
		{"present as an empty one", `{"present_match": true, "treat_missing_header_as_empty": true}`, "header x-a is there, a missing one being empty", none, true},
		{"and so never absent", `{"present_match": false, "treat_missing_header_as_empty": true}`, "", none, false},
		{"nor present and inverted", `{"present_match": true, "invert_match": true, "treat_missing_header_as_empty": true}`, "", none, false},
		{"or not, inverted", `{"invert_match": true}`, "", one("b"), false},
		{"a range begins with its start", `{"range_match": {"start": -10, "end": 0}}`, "header x-a is a number from -10 and below 0", one("-10"), true},
		{"and ends before its end", `{"range_match": {"start": -10, "end": 0}}`, "", one("0"), false},
		{"within", `{"range_match": {"start": -10, "end": 0}}`, "", one("-1"), true},
		{"no number", `{"range_match": {"start": -10, "end": 0}}`, "", one("-1somestring"), false},
		{"a fraction", `{"range_match": {"start": 0, "end": 20}}`, "", one("10.9"), false},
		{"a plus", `{"range_match": {"start": 0, "end": 20}}`, "", one("+7"), true},
		{"too large", `{"range_match": {"start": 0, "end": "9223372036854775807"}}`, "", one("9223372036854775808"), false},
		{"the least", `{"range_match": {"start": "-9223372036854775808", "end": 0}}`, "", one("-9223372036854775808"), true},
		{"no range for a missing field", `{"range_match": {"start": 0, "end": 10}, "invert_match": true}`, "", none, false},
		{"an empty one is out of range", `{"range_match": {"start": 0, "end": 10}, "invert_match": true, "treat_missing_header_as_empty": true}`, "", none, true},
		{"the method", `{"name": ":method", "string_match": {"exact": "GET"}}`, `header :method is "GET"`, none, true},
		{"the path with its query", `{"name": ":path", "string_match": {"exact": "/p?q=1"}}`, "", none, true},
		{"the authority", `{"name": ":authority", "string_match": {"suffix": ".example"}}`, "", none, true},
		{"which is Host", `{"name": "Host", "string_match": {"suffix": ".example"}}`, "", none, true},
		{"the scheme", `{"name": ":scheme", "string_match": {"exact": "http"}}`, "", none, true},
		{"the scheme of the client", `{"name": ":scheme", "string_match": {"exact": "https"}}`, "", []string{"x-forwarded-proto", "https"}, true},
	} {
		t.Run(c.name, func(t *testing.T) {
			m := &routev3.HeaderMatcher{}
			read(t, c.config, m)
			if m.GetName() == "" {
				m.Name = "X-A"
			}
			report := &strict.Report{}
			headers := matcher.ParseHeaders([]*routev3.HeaderMatcher{m}, "", report)
			require.NoError(t, report.Err())
			require.Equal(t, c.want, headers[0].Match(request(t, c.fields...)))
			if c.words != "" {
				require.Equal(t, c.words, headers[0].String())
			}
		})
	}
}

func TestQueryParameter(t *testing.T) {
	for _, c := range []struct {
		config, words string
		yes, no       []string
	}{
		{`{"name": "a", "string_match": {"exact": "1"}}`, `query parameter a is "1"`,
			[]string{"/?a=1", "/?b=2&a=1", "/?a=1&a=2"}, []string{"/", "/?a", "/?a=2&a=1", "/?ba=1", "/?a=%31", "/a=1"}},
		{`{"name": "a", "string_match": {"exact": ""}}`, "", []string{"/?a", "/?a="}, []string{"/", "/?"}},
		{`{"name": "a", "present_match": true}`, "query parameter a is there", []string{"/?a", "/?&a=1", "/?a=b?c"}, []string{"/?b", "/?A", "/"}},
		{`{"name": "a", "present_match": false}`, "query parameter a is missing", []string{"/?b", "/"}, []string{"/?a"}},
		{`{"name": "a"}`, "query parameter a is there", []string{"/?a"}, []string{"/"}},
		{`{"name": "a", "string_match": {"contains": "="}}`, "", []string{"/?a=b=c"}, []string{"/?a=b"}},
	} {
		m := &routev3.QueryParameterMatcher{}
		read(t, c.config, m)
		report := &strict.Report{}
		p := matcher.ParseQueryParameters([]*routev3.QueryParameterMatcher{m}, "", report)[0]
		require.NoError(t, report.Err())
		if c.words != "" {
			require.Equal(t, c.words, p.String())
		}
		for _, path := range c.yes {
			require.True(t, p.Match([]byte(path)), "%s matches %s", c.config, path)
		}
		for _, path := range c.no {
			require.False(t, p.Match([]byte(path)), "%s does not match %s", c.config, path)
		}
	}
}

// TestSubstitution has the examples of RouteAction.regex_rewrite first.
func TestSubstitution(t *testing.T) {
	for _, c := range []struct{ pattern, substitution, text, want string }{
		{"^/service/([^/]+)(/.*)$", `\2/instance/\1`, "/service/foo/v1/api", "/v1/api/instance/foo"},
		{"one", "two", "/xxx/one/yyy/one/zzz", "/xxx/two/yyy/two/zzz"},
		{"^(.*?)one(.*)$", `\1two\2`, "/xxx/one/yyy/one/zzz", "/xxx/two/yyy/one/zzz"},
		{"(?i)/xxx/", "/yyy/", "/aaa/XxX/bbb", "/aaa/yyy/bbb"},
		{"b", `[\0]`, "abc", "a[b]c"},
		{"b", `\\1$1${x}`, "abc", `a\1$1${x}c`},
		{"(b)", `\12`, "abc", "ab2c"},
		{"x", "y", "abc", "abc"},
		{"b*", "-", "abc", "-a-c-"},
	} {
		report := &strict.Report{}
		s := matcher.ParseSubstitution(&matcherv3.RegexMatchAndSubstitute{
			Pattern: &matcherv3.RegexMatcher{Regex: c.pattern}, Substitution: c.substitution,
		}, "", report)
		require.NoError(t, report.Err())
		require.Equal(t, c.want, string(s.Replace([]byte(c.text))), c.pattern)
	}
	require.Nil(t, matcher.ParseSubstitution(nil, "", &strict.Report{}))
}

func TestFaultsNameTheirPlace(t *testing.T) {
	report := &strict.Report{}
	substitution := func(pattern, text string) *matcherv3.RegexMatchAndSubstitute {
		return &matcherv3.RegexMatchAndSubstitute{Pattern: &matcherv3.RegexMatcher{Regex: pattern}, Substitution: text}
	}
	var headers []*routev3.HeaderMatcher
	for _, text := range []string{"fine", "a(", ")(", "a{1001}"} {
		m := &routev3.HeaderMatcher{}
		read(t, `{"name": "a", "string_match": {"safe_regex": {"regex": "`+text+`"}}}`, m)
		headers = append(headers, m)
	}
	for _, text := range []string{
		`{"name": ":status"}`, `{"name": "A b"}`, `{"name": ":protocol"}`, `{"name": "a", "range_match": {"start": 5, "end": 5}}`,
		`{"name": "a", "string_match": {"safe_regex": {"regex": "a"}, "ignore_case": true}}`,
	} {
		m := &routev3.HeaderMatcher{}
		read(t, text, m)
		headers = append(headers, m)
	}
	matcher.ParseHeaders(headers, "headers", report)
	require.Equal(t, "x-a", matcher.ParseName("X-A", "name", report))
	require.Equal(t, ":path", matcher.ParseName(":path", "name", report))
	require.Empty(t, matcher.ParseName("", "name", report))
	matcher.ParseName("x:", "name", report)
	matcher.ParseSubstitution(substitution("[", "x"), "a", report)
	matcher.ParseSubstitution(substitution("x", `\1`), "b", report)
	matcher.ParseSubstitution(substitution("(x)", `\`), "c", report)
	matcher.ParseSubstitution(substitution("(x)", `\n`), "d", report)
	require.EqualError(t, report.Err(), `a.pattern.regex: "[" is no regular expression: missing closing ]
b.substitution: "\\1": \1 is no group of the pattern, which has 0
c.substitution: "\\": a \ stands before a digit or another \
d.substitution: "\\n": a \ stands before a digit or another \
headers[1].string_match.safe_regex.regex: "a(" is no regular expression: missing closing )
headers[2].string_match.safe_regex.regex: ")(" is no regular expression: unexpected )
headers[3].string_match.safe_regex.regex: "a{1001}" is no regular expression: invalid repeat count
headers[5].name: "a b" is no name of a header
headers[6].name: ":protocol" is no pseudo header of a request: those are :authority, :method, :path, :scheme
headers[7].range_match: [5, 5) has no number
headers[8].string_match.ignore_case: has no effect on safe_regex: use (?i) in the expression
name: "x:" is no name of a header`)
}

func TestFraction(t *testing.T) {
	for _, c := range []struct {
		config string
		random uint64
		want   bool
		words  string
	}{
		{`{"numerator": 25}`, 24, true, "25/100"},
		{`{"numerator": 25}`, 25, false, "25/100"},
		{`{"numerator": 25}`, 124, true, "25/100"},
		{`{"numerator": 25, "denominator": "TEN_THOUSAND"}`, 124, false, "25/10000"},
		{`{"numerator": 25, "denominator": "MILLION"}`, 1_000_024, true, "25/1000000"},
		{`{"numerator": 200}`, 99, true, "200/100"},
		{`{}`, 0, false, "0/100"},
	} {
		m := &typev3.FractionalPercent{}
		read(t, c.config, m)
		f := matcher.ParseFraction(m)
		require.Equal(t, c.want, f.Has(c.random), c.config)
		require.Equal(t, c.words, f.String())
	}
	require.False(t, matcher.ParseRuntimeFraction(nil).Has(0, nil))
}

func TestTheRuntimeSetsAFraction(t *testing.T) {
	values := runtimetest.Values(t, `{"none": 0, "all": 100, "some": {"numerator": 5, "denominator": "MILLION"}, "word": "no share"}`)
	for _, c := range []struct {
		key, words  string
		few, plenty bool // has a request of 10, and one of 90
	}{
		{"", "50/100", true, false},
		{"unset", `50/100 (or the runtime's "unset")`, true, false},
		{"word", `50/100 (or the runtime's "word")`, true, false},
		{"none", `50/100 (or the runtime's "none")`, false, false},
		{"all", `50/100 (or the runtime's "all")`, true, true},
		{"some", `50/100 (or the runtime's "some")`, false, false},
	} {
		m := &corev3.RuntimeFractionalPercent{}
		read(t, fmt.Sprintf(`{"default_value": {"numerator": 50}, "runtime_key": %q}`, c.key), m)
		f := matcher.ParseRuntimeFraction(m)
		require.Equal(t, c.few, f.Has(10, values), c.key)
		require.Equal(t, c.plenty, f.Has(90, values), c.key)
		require.True(t, f.Has(10, nil))
		require.Equal(t, c.words, f.String())
		servicetest.Allocations(t, 0, func() { f.Has(10, values) })
	}
}

func TestMatchingAllocatesNothing(t *testing.T) {
	var list []*routev3.HeaderMatcher
	for _, config := range []string{
		`{"name": "x-a", "string_match": {"contains": "ALU", "ignore_case": true}}`,
		`{"name": "x-a", "string_match": {"safe_regex": {"regex": "[a-z]+"}}}`,
		`{"name": "x-n", "range_match": {"start": 1, "end": 10}}`,
		`{"name": ":scheme", "string_match": {"exact": "http"}}`,
	} {
		m := &routev3.HeaderMatcher{}
		read(t, config, m)
		list = append(list, m)
	}
	headers := matcher.ParseHeaders(list, "", &strict.Report{})
	parameters := matcher.ParseQueryParameters([]*routev3.QueryParameterMatcher{{Name: "q"}}, "", &strict.Report{})
	r := request(t, "x-a", "value", "x-n", "7")
	servicetest.Allocations(t, 0, func() {
		for i := range headers {
			if !headers[i].Match(r) {
				t.Fatal(headers[i].String())
			}
		}
		if !parameters[0].Match(r.Path) {
			t.Fatal("the parameter is there")
		}
	})
}

func FuzzParameter(f *testing.F) {
	for _, path := range []string{"/", "/?a", "/?a=1&b=2", "?&&=&a==", "/?a=%zz#x"} {
		f.Add([]byte(path), "a")
	}
	f.Fuzz(func(t *testing.T, path []byte, name string) {
		value, ok := matcher.Parameter(path, name)
		require.False(t, !ok && value != nil, "a value of no parameter")
		require.NotContains(t, string(value), "&")
	})
}
