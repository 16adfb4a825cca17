package route

import (
	"fmt"
	"regexp"
	"strings"

	routev3 "github.com/envoyproxy/go-control-plane/envoy/config/route/v3"

	"github.com/weirproxy/weir/services/proxy/internal/grpcwire"
	"github.com/weirproxy/weir/services/proxy/internal/matcher"
	"github.com/weirproxy/weir/services/proxy/internal/message"
	"github.com/weirproxy/weir/services/proxy/internal/pathindex"
	"github.com/weirproxy/weir/services/proxy/internal/strict"
)

// condition is something that a request has to fulfil for a route.
type condition interface {
	holds(q query) bool
	// String is the condition in words.
	String() string
}

// conditions reads a RouteMatch, the one of a virtual host's route of that
// number.
func (p *parser) conditions(m *routev3.RouteMatch, at strict.Path, number int) (path pathCondition, rest []condition) {
	switch s := m.GetPathSpecifier().(type) {
	case *routev3.RouteMatch_Path:
		path = pathCondition{kind: pathindex.Whole, text: s.Path}
	case *routev3.RouteMatch_Prefix:
		path = pathCondition{kind: pathindex.Prefix, text: s.Prefix}
	case *routev3.RouteMatch_PathSeparatedPrefix:
		path = pathCondition{kind: pathindex.Segments, text: s.PathSeparatedPrefix}
	case *routev3.RouteMatch_SafeRegex:
		path = pathCondition{kind: pathindex.Regex, regex: matcher.ParseRegex(s.SafeRegex, at.Field("safe_regex"), p.report), text: s.SafeRegex.GetRegex()}
	}
	if sensitive := m.GetCaseSensitive(); sensitive != nil && !sensitive.GetValue() && path.kind != pathindex.Regex {
		path.fold, path.text = true, lower(path.text)
	}
	// In the order of what they cost.
	if m.GetGrpc() != nil {
		rest = append(rest, isGRPC{})
	}
	if fraction := m.GetRuntimeFraction(); fraction != nil {
		rest = append(rest, isAmong{matcher.ParseRuntimeFraction(fraction), uint64(number)})
	}
	for _, h := range matcher.ParseHeaders(m.GetHeaders(), at.Field("headers"), p.report) {
		rest = append(rest, headerCondition{&h})
	}
	for _, q := range matcher.ParseQueryParameters(m.GetQueryParameters(), at.Field("query_parameters"), p.report) {
		rest = append(rest, parameterCondition{&q})
	}
	return path, rest
}

// pathCondition is what a path has to be, its query left out.
type pathCondition struct {
	kind  pathindex.Kind
	text  string // in lower case if fold
	fold  bool   // case_sensitive: false
	regex *regexp.Regexp
}

func (c *pathCondition) holds(q query) bool {
	n := len(c.text)
	switch c.kind {
	case pathindex.Whole:
		return len(q.path) == n && c.equal(q.path)
	case pathindex.Prefix:
		return len(q.path) >= n && c.equal(q.path[:n])
	case pathindex.Segments:
		return len(q.path) >= n && (len(q.path) == n || q.path[n] == '/') && c.equal(q.path[:n])
	default:
		return c.regex.Match(q.path)
	}
}

func (c *pathCondition) equal(path []byte) bool {
	if c.fold {
		return matcher.EqualFold(c.text, path)
	}
	return string(path) == c.text
}

// replaced is how many bytes of a path prefix_rewrite replaces; negative is all
// of it but the query.
func (c *pathCondition) replaced() int {
	if c.kind == pathindex.Prefix || c.kind == pathindex.Segments {
		return len(c.text)
	}
	return -1
}

// String implements condition.
func (c *pathCondition) String() string {
	text := map[pathindex.Kind]string{
		pathindex.Whole: "path is %q", pathindex.Prefix: "path begins with %q", pathindex.Segments: "path is %q or lies below it", pathindex.Regex: "path matches %s",
	}[c.kind]
	text = fmt.Sprintf(text, c.text)
	if c.fold {
		text += " in any case"
	}
	return text
}

// lower is text with ASCII letters in lower case.
func lower(text string) string {
	return strings.Map(func(r rune) rune {
		if 'A' <= r && r <= 'Z' {
			return r + 'a' - 'A'
		}
		return r
	}, text)
}

type headerCondition struct{ *matcher.Header }

func (c headerCondition) holds(q query) bool { return c.Match(q.request) }

type parameterCondition struct{ *matcher.QueryParameter }

func (c parameterCondition) holds(q query) bool { return c.Match(q.request.Path) }

// isGRPC holds for gRPC requests (RouteMatch.grpc).
type isGRPC struct{}

func (isGRPC) holds(q query) bool { return ofGRPC(q.request) }

func ofGRPC(request *message.Request) bool {
	value, _ := request.Headers.Get("content-type")
	return grpcwire.IsContentType(value)
}

// String implements condition.
func (isGRPC) String() string { return "is a gRPC request" }

// isAmong holds for a share of the requests (runtime_fraction).
type isAmong struct {
	matcher.RuntimeFraction
	// number sets the shares of different routes apart: each is one of all
	// requests, not of those that the routes before it let pass.
	number uint64
}

func (c isAmong) holds(q query) bool { return c.Has(mix(q.random, c.number+1), q.values) }

// String implements condition.
func (c isAmong) String() string {
	return "is among the " + c.RuntimeFraction.String() + " of runtime_fraction"
}

// mix makes a number of random that is as random and says nothing of those made
// with other salts (the finalizer of SplitMix64).
func mix(random, salt uint64) uint64 {
	z := random + salt*0x9e3779b97f4a7c15
	z = (z ^ z>>30) * 0xbf58476d1ce4e5b9
	z = (z ^ z>>27) * 0x94d049bb133111eb
	return z ^ z>>31
}
