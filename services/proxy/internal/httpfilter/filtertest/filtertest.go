// Package filtertest runs one HTTP filter in a real chain, before a stand-in
// for the upstream, in one call. The tests of filters use it; requests and
// responses are texts, so that a case reads like the exchange that it is:
//
//	got := filtertest.Run(t, config, filtertest.Exchange{Request: "GET /a\nx-user: ann"})
//	require.Equal(t, "GET /a\nhost: a.example\nx-user: ann", got.Forwarded)
//
// It checks no framing: that is the codec's.
package filtertest

import (
	"errors"
	"fmt"
	"io"
	"net/netip"
	"strconv"
	"strings"
	"testing"
	"time"

	routev3 "github.com/envoyproxy/go-control-plane/envoy/config/route/v3"
	"github.com/stretchr/testify/require"
	"google.golang.org/protobuf/reflect/protoregistry"

	"github.com/weirproxy/weir/services/proxy/internal/coreconfig"
	"github.com/weirproxy/weir/services/proxy/internal/descriptor"
	"github.com/weirproxy/weir/services/proxy/internal/hashpolicy"
	"github.com/weirproxy/weir/services/proxy/internal/headermutation"
	"github.com/weirproxy/weir/services/proxy/internal/httpfilter"
	"github.com/weirproxy/weir/services/proxy/internal/layeredruntime"
	"github.com/weirproxy/weir/services/proxy/internal/matcher"
	"github.com/weirproxy/weir/services/proxy/internal/message"
	"github.com/weirproxy/weir/services/proxy/internal/route"
	"github.com/weirproxy/weir/services/proxy/internal/stats"
	"github.com/weirproxy/weir/services/proxy/internal/stream"
	"github.com/weirproxy/weir/services/proxy/internal/strict"
	"github.com/weirproxy/weir/services/proxy/internal/tokenbucket"
)

// Parse checks a filter's typed_config in YAML, as the proxy does with a file.
// The config is for use only if the report has no faults.
func Parse(t testing.TB, factory httpfilter.Factory, yaml string) (httpfilter.Config, *strict.Report) {
	t.Helper()
	kind, err := protoregistry.GlobalTypes.FindMessageByName(factory.ConfigType())
	require.NoError(t, err)
	schema, err := strict.NewSchema(append(shared(), factory.Fields())...)
	require.NoError(t, err)
	m := kind.New().Interface()
	report := strict.Load("config.yaml", []byte(yaml), m, schema)
	if report.Err() != nil {
		return nil, report
	}
	return factory.Parse(m, "", report), report
}

// Name is that of the filter in the chain of Run, by which routes configure it.
const Name = "test"

// ParseRoutes checks a RouteConfiguration in YAML, whose routes may configure
// filters of the factory. The table is for use only if the report has no faults.
func ParseRoutes(t testing.TB, factory httpfilter.Factory, yaml string) (*route.Table, *strict.Report) {
	t.Helper()
	schema, err := strict.NewSchema(append(shared(), factory.Fields(), route.Fields(), route.FilterFields())...)
	require.NoError(t, err)
	m := &routev3.RouteConfiguration{}
	report := strict.Load("routes.yaml", []byte(yaml), m, schema)
	if report.Err() != nil {
		return nil, report
	}
	return route.ParseFor(httpfilter.RouteParser([]httpfilter.Factory{factory}), m, "", report), report
}

// MustParseRoutes is ParseRoutes of a configuration that has no faults.
func MustParseRoutes(t testing.TB, factory httpfilter.Factory, yaml string) *route.Table {
	t.Helper()
	table, report := ParseRoutes(t, factory, yaml)
	require.NoError(t, report.Err())
	return table
}

// shared are the fields of messages that several filters have.
func shared() []strict.Fields {
	return []strict.Fields{
		coreconfig.Fields(), descriptor.Fields(), headermutation.Fields(), hashpolicy.Fields(), matcher.Fields(), tokenbucket.Fields(),
	}
}

// Measure gives a config with metrics of its own a scope for them, "http.test".
// The returned function lists those that are not 0, by their names in it.
func Measure(config httpfilter.Config) (counts func() map[string]int) {
	registry := stats.NewRegistry()
	httpfilter.NewChain([]httpfilter.Config{config}).Measure(registry.Scope("http.test"))
	return func() map[string]int { return Counts(registry, "http.test.") }
}

// Counts lists the metrics of a registry that are not 0, with prefix cut off.
func Counts(registry *stats.Registry, prefix string) map[string]int {
	all := map[string]int{}
	registry.Each(func(m stats.Metric) {
		if m.Value != 0 {
			all[strings.TrimPrefix(m.Name, prefix)] = int(m.Value)
		}
	})
	return all
}

// MustParse is Parse of a config that has no faults.
func MustParse(t testing.TB, factory httpfilter.Factory, yaml string) httpfilter.Config {
	t.Helper()
	config, report := Parse(t, factory, yaml)
	require.NoError(t, report.Err())
	return config
}

// Exchange is one request and what the upstream answers.
type Exchange struct {
	// Request is a head, "GET /a", with a header field "name: value" on each
	// further line. Host is a.example unless it is among them.
	Request string
	// Body is the request's, chunk by chunk.
	Body []string
	// Response is the upstream's head, "200" and header fields; empty is "200". There is
	// none once the stream has expired.
	Response string
	// ResponseBody is the upstream's body, chunk by chunk.
	ResponseBody []string
	// Routes, if set, has the route of the request.
	Routes *route.Table
	// Runtime, if set, has the values that hold for the stream.
	Runtime *layeredruntime.Snapshot
	// Prepare, if set, changes the stream before the filters get it: its route,
	// its cluster, the client's address, which is 192.0.2.1 otherwise.
	Prepare func(*stream.Stream)
}

// Result is what came out at both ends of the chain.
type Result struct {
	// Forwarded is the request as the upstream got it: head, and after an empty
	// line the body if there is one. Empty if a filter replied.
	Forwarded string
	// Response is what went to the client, in the same form: "200\nx-a: b"; "0" if it has
	// left.
	Response string
}

// Run takes an exchange through a chain of the filter and the upstream.
func Run(t testing.TB, config httpfilter.Config, e Exchange) Result {
	t.Helper()
	up := &upstream{t: t, exchange: &e}
	s := &stream.Stream{Context: t.Context(), Start: time.Now(), ClientAddress: netip.MustParseAddr("192.0.2.1"), Runtime: e.Runtime}
	s.Facts.Reset(&s.Request, &s.Response, nil)
	s.Facts.Start = s.Start
	e.request(t, &s.Request)
	if e.Routes != nil {
		s.Route = e.Routes.Match(route.Input{Request: &s.Request, ClientAddress: s.ClientAddress, Random: s.Random, Runtime: s.Runtime})
	}
	if e.Prepare != nil {
		e.Prepare(s)
	}

	var run httpfilter.Run
	run.Begin(httpfilter.NewChainOf([]httpfilter.Entry{{Name: Name, Config: config}, {Name: "upstream", Config: up}}))
	run.Exchange(s)
	response := strconv.Itoa(s.Response.Status) + show(&s.Response.Headers) + read(t, s.Response.Body)
	run.End(s)
	return Result{Forwarded: up.got, Response: response}
}

// upstream is the terminal filter: it pulls the request and answers.
type upstream struct {
	t        testing.TB
	exchange *Exchange
	got      string
}

// NewFilter implements httpfilter.Config.
func (u *upstream) NewFilter() httpfilter.Filter { return u }

// Forward implements httpfilter.Terminal.
func (u *upstream) Forward(s *stream.Stream) *httpfilter.Reply {
	r := &s.Request
	u.got = fmt.Sprintf("%s %s\nhost: %s%s%s", r.Method, r.Path, r.Authority, show(&r.Headers), read(u.t, r.Body))
	if why := s.Expired(); why != nil {
		return httpfilter.Expired(s, why)
	}
	u.exchange.response(u.t, &s.Response)
	return nil
}

func (e *Exchange) request(t testing.TB, m *message.Request) {
	line, rest, _ := strings.Cut(e.Request, "\n")
	method, path, ok := strings.Cut(line, " ")
	require.True(t, ok, "request line %q is no method and path", line)
	m.Method, m.Path, m.Authority = []byte(method), []byte(path), []byte("a.example")
	addFields(t, &m.Headers, rest)
	if host, ok := m.Headers.Get("host"); ok {
		m.Authority = host
		m.Headers.Remove("host")
	}
	m.Body, m.BodyLength = body(e.Body)
}

func (e *Exchange) response(t testing.TB, m *message.Response) {
	line, rest, _ := strings.Cut(e.Response, "\n")
	if line == "" {
		line = "200"
	}
	status, err := strconv.Atoi(line)
	require.NoError(t, err)
	m.Status = status
	addFields(t, &m.Headers, rest)
	m.Body, m.BodyLength = body(e.ResponseBody)
}

func addFields(t testing.TB, h *message.Headers, text string) {
	for line := range strings.Lines(text) {
		name, value, ok := strings.Cut(strings.TrimSuffix(line, "\n"), ": ")
		require.True(t, ok, "header line %q is no name and value", line)
		h.Add(name, value)
	}
}

// show writes each field on a line of its own.
func show(h *message.Headers) string {
	var b strings.Builder
	for i := range h.Len() {
		name, value := h.At(i)
		fmt.Fprintf(&b, "\n%s: %s", name, value)
	}
	return b.String()
}

// read pulls a body to its end; what it returns begins with an empty line if
// there is a body.
func read(t testing.TB, b message.Body) string {
	if b == nil {
		return ""
	}
	text := "\n\n"
	for {
		chunk, err := b.Next()
		if errors.Is(err, io.EOF) {
			return text
		}
		require.NoError(t, err)
		text += string(chunk)
	}
}

// body makes a body of chunks, and its length.
func body(list []string) (message.Body, int64) {
	if len(list) == 0 {
		return nil, 0
	}
	return (*chunks)(&list), int64(len(strings.Join(list, "")))
}

// chunks is a message.Body of what is left of it.
type chunks []string

// Next implements message.Body.
func (c *chunks) Next() ([]byte, error) {
	if len(*c) == 0 {
		return nil, io.EOF
	}
	chunk := []byte((*c)[0])
	*c = (*c)[1:]
	return chunk, nil
}

// Ready implements message.Body.
func (c *chunks) Ready() bool { return true }
