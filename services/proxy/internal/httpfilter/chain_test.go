package httpfilter_test

import (
	"bytes"
	"errors"
	"io"
	"strings"
	"testing"

	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	routev3 "github.com/envoyproxy/go-control-plane/envoy/config/route/v3"
	"github.com/stretchr/testify/require"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/anypb"
	"google.golang.org/protobuf/types/known/wrapperspb"

	"github.com/weirproxy/weir/internal/servicetest"
	"github.com/weirproxy/weir/services/proxy/internal/httpfilter"
	"github.com/weirproxy/weir/services/proxy/internal/message"
	"github.com/weirproxy/weir/services/proxy/internal/route"
	"github.com/weirproxy/weir/services/proxy/internal/stream"
	"github.com/weirproxy/weir/services/proxy/internal/strict"
)

func TestMain(m *testing.M) { servicetest.Main(m) }

// trace is what the filters of a test did, in order.
type trace []string

func (t *trace) add(name, step string) { *t = append(*t, name+" "+step) }

// heads has the steps for heads alone.
type heads struct {
	name  string
	trace *trace
	reply *httpfilter.Reply
}

func (f *heads) NewFilter() httpfilter.Filter { return f }
func (f *heads) RequestHead(*stream.Stream) *httpfilter.Reply {
	f.trace.add(f.name, "request")
	return f.reply
}
func (f *heads) ResponseHead(*stream.Stream) { f.trace.add(f.name, "response") }
func (f *heads) Done(*stream.Stream)         { f.trace.add(f.name, "done") }

// bodies marks each chunk with its name, and drops those that are "drop".
type bodies struct{ name string }

func (f *bodies) NewFilter() httpfilter.Filter { return f }
func (f *bodies) RequestBody(_ *stream.Stream, chunk []byte) ([]byte, error) {
	return f.mark(chunk)
}
func (f *bodies) ResponseBody(_ *stream.Stream, chunk []byte) ([]byte, error) {
	return f.mark(chunk)
}
func (f *bodies) mark(chunk []byte) ([]byte, error) {
	if string(chunk) == "drop" {
		return nil, nil
	}
	return append(bytes.Clone(chunk), f.name...), nil
}

// failing refuses each request body.
type failing struct{}

func (f failing) NewFilter() httpfilter.Filter { return f }
func (failing) RequestBody(*stream.Stream, []byte) ([]byte, error) {
	return nil, errors.New("too much")
}

// echo is a terminal filter that reads the request's body and sends it back.
type echo struct{ trace *trace }

func (f *echo) NewFilter() httpfilter.Filter { return f }
func (f *echo) Forward(s *stream.Stream) *httpfilter.Reply {
	f.trace.add("echo", "forward")
	s.Response.Status = 200
	if s.Request.Body == nil {
		return nil
	}
	var text []string
	for {
		chunk, err := s.Request.Body.Next()
		if errors.Is(err, io.EOF) {
			s.Response.Body = message.NewBytes([]byte(strings.Join(text, ",")))
			return nil
		}
		if err != nil {
			return &httpfilter.Reply{Status: 400, Body: err.Error()}
		}
		text = append(text, string(chunk))
	}
}

// chunks is a body in pieces.
type chunks []string

func (c *chunks) Ready() bool { return true }
func (c *chunks) Next() ([]byte, error) {
	if len(*c) == 0 {
		return nil, io.EOF
	}
	chunk := (*c)[0]
	*c = (*c)[1:]
	return []byte(chunk), nil
}

// exchange runs one request through a chain and returns the response's body.
func exchange(t *testing.T, s *stream.Stream, configs ...httpfilter.Config) string {
	t.Helper()
	run := &httpfilter.Run{}
	run.Begin(httpfilter.NewChain(configs))
	run.Exchange(s)
	body := ""
	for s.Response.Body != nil {
		chunk, err := s.Response.Body.Next()
		if err != nil {
			require.ErrorIs(t, err, io.EOF)
			break
		}
		body += string(chunk)
	}
	run.End(s)
	return body
}

func TestStepsRunInOrderAndBack(t *testing.T) {
	var got trace
	exchange(t, &stream.Stream{}, &heads{"a", &got, nil}, &heads{"b", &got, nil}, &echo{&got})
	require.Equal(t, trace{"a request", "b request", "echo forward", "b response", "a response", "b done", "a done"}, got)
}

func TestReplyEndsTheRequestAndPassesThoseThatSawIt(t *testing.T) {
	var got trace
	s := &stream.Stream{}
	s.Request.Method = []byte("GET")
	reply := &httpfilter.Reply{Status: 429, Headers: []httpfilter.Header{{Name: "x-a", Value: "b"}}, Body: "slow down"}
	body := exchange(t, s, &heads{"a", &got, nil}, &heads{"b", &got, reply}, &heads{"c", &got, nil}, &echo{&got})
	require.Equal(t, trace{"a request", "b request", "b response", "a response", "b done", "a done"}, got)
	require.Equal(t, 429, s.Response.Status)
	require.Equal(t, "slow down", body)
	require.EqualValues(t, 9, s.Response.BodyLength)
	kind, _ := s.Response.Headers.Get("content-type")
	require.Equal(t, "text/plain", string(kind))
	added, _ := s.Response.Headers.Get("x-a")
	require.Equal(t, "b", string(added))
}

// left is a terminal filter whose client leaves while it waits for the upstream.
type left struct{ trace *trace }

func (f *left) NewFilter() httpfilter.Filter { return f }
func (f *left) Forward(s *stream.Stream) *httpfilter.Reply {
	f.trace.add("router", "forward")
	s.Expire(&stream.Expiry{Details: "it left"})
	return httpfilter.Expired(s, s.Expired())
}

func TestNoStepSeesAReplyToAClientThatHasLeft(t *testing.T) {
	t.Run("by the terminal filter", func(t *testing.T) {
		var got trace
		s := &stream.Stream{}
		exchange(t, s, &heads{"a", &got, nil}, &left{&got})
		require.Equal(t, trace{"a request", "router forward", "a done"}, got)
		require.Zero(t, s.Response.Headers.Len())
		require.Equal(t, "it left", s.Facts.Details)
	})
	t.Run("by another", func(t *testing.T) {
		var got trace
		s := &stream.Stream{}
		s.Expire(&stream.Expiry{})
		exchange(t, s, &heads{"a", &got, &httpfilter.Reply{Status: 503}}, &left{&got})
		require.Equal(t, trace{"a request", "a done"}, got)
	})
}

func TestAReplyToAStreamThatIsOutOfTimeSaysThat(t *testing.T) {
	var got trace
	s := &stream.Stream{}
	s.Expire(&stream.Expiry{Status: 504, Text: "stream timeout", Details: "stream_idle_timeout"})
	body := exchange(t, s, &heads{"a", &got, &httpfilter.Reply{Status: 500}}, &left{&got})
	require.Equal(t, trace{"a request", "a response", "a done"}, got)
	require.Equal(t, 504, s.Response.Status)
	require.Equal(t, "stream timeout", body)
	require.Equal(t, "stream_idle_timeout", s.Facts.Details)
}

// counting counts the filters that were taken.
type counting struct {
	heads
	taken int
}

func (f *counting) NewFilter() httpfilter.Filter {
	f.taken++
	return f
}

func TestAFilterThatTheRequestDoesNotReachIsNotTaken(t *testing.T) {
	var got trace
	reached, beyond := &counting{heads: heads{"a", &got, nil}}, &counting{heads: heads{"c", &got, nil}}
	chain := httpfilter.NewChain([]httpfilter.Config{reached, &heads{"b", &got, &httpfilter.Reply{Status: 429}}, beyond, &echo{&got}})
	before := *reached
	run, s := &httpfilter.Run{}, &stream.Stream{}
	run.Begin(chain)
	run.Exchange(s)
	run.End(s)
	require.Equal(t, before.taken+1, reached.taken)
	require.Equal(t, before.taken, beyond.taken)
}

// routed is a filter that routes can configure, by the name of what they get.
type routed struct {
	heads
	routes map[any]*heads
}

func (f *routed) NewRouteFilter(own any) httpfilter.Filter {
	if filter := f.routes[own]; filter != nil {
		return filter
	}
	return nil
}

func TestRoutesConfigureFiltersByTheirNames(t *testing.T) {
	var got trace
	tuned := &routed{heads{"a", &got, nil}, map[any]*heads{"tuned": {"a tuned", &got, nil}}}
	chain := httpfilter.NewChainOf([]httpfilter.Entry{
		{Name: "a", Config: tuned}, {Name: "off", Disabled: true, Config: &heads{"off", &got, nil}}, {Name: "end", Config: &echo{&got}},
	})
	table := route.ParseFor(func(m proto.Message, _ strict.Path, _ *strict.Report) (any, bool) {
		return m.(*wrapperspb.StringValue).GetValue(), true
	}, &routev3.RouteConfiguration{VirtualHosts: []*routev3.VirtualHost{{Domains: []string{"*"}, Routes: []*routev3.Route{
		perFilter(t, "/plain", nil),
		perFilter(t, "/tuned", map[string]proto.Message{"a": wrapperspb.String("tuned"), "off": &routev3.FilterConfig{Config: &anypb.Any{}}}),
		perFilter(t, "/aside", map[string]proto.Message{"a": wrapperspb.String("aside")}),
		perFilter(t, "/out", map[string]proto.Message{"a": &routev3.FilterConfig{Disabled: true}, "end": &routev3.FilterConfig{Disabled: true}}),
	}}}}, "", &strict.Report{})
	for path, want := range map[string]trace{
		"/plain": {"a request", "echo forward", "a response", "a done"},
		"/tuned": {"a tuned request", "off request", "echo forward", "off response", "a tuned response", "off done", "a tuned done"},
		"/aside": {"echo forward"},
		"/out":   {"echo forward"}, // the last one gets the response, whatever a route says
		"/none":  {"a request", "echo forward", "a response", "a done"},
	} {
		got = nil
		s := &stream.Stream{}
		s.Request.Method, s.Request.Authority, s.Request.Path = []byte("GET"), []byte("x"), []byte(path)
		s.Route = table.Match(route.Input{Request: &s.Request})
		run := &httpfilter.Run{}
		run.Begin(chain)
		run.Exchange(s)
		run.End(s)
		require.Equal(t, want, got, path)
	}
}

// perFilter is a route with a typed_per_filter_config.
func perFilter(t *testing.T, path string, configs map[string]proto.Message) *routev3.Route {
	r := &routev3.Route{
		Match:                &routev3.RouteMatch{PathSpecifier: &routev3.RouteMatch_Path{Path: path}},
		TypedPerFilterConfig: map[string]*anypb.Any{},
	}
	for name, m := range configs {
		packed, err := anypb.New(m)
		require.NoError(t, err)
		r.TypedPerFilterConfig[name] = packed
	}
	return r
}

func TestReplyToHEADHasAHeadAlone(t *testing.T) {
	var got trace
	s := &stream.Stream{}
	s.Request.Method = []byte("HEAD")
	require.Empty(t, exchange(t, s, &heads{"a", &got, &httpfilter.Reply{Status: 400, Body: "text"}}, &echo{&got}))
	require.True(t, s.Response.Bodiless)
	require.EqualValues(t, 4, s.Response.BodyLength)
}

// routeThatAdds gives a stream a route that adds a field to its response.
func routeThatAdds(t *testing.T, s *stream.Stream, name, value string, action corev3.HeaderValueOption_HeaderAppendAction) {
	table := route.ParseFor(nil, &routev3.RouteConfiguration{
		VirtualHosts: []*routev3.VirtualHost{{Domains: []string{"*"}, Routes: []*routev3.Route{perFilter(t, "/", nil)}}},
		ResponseHeadersToAdd: []*corev3.HeaderValueOption{{
			Header: &corev3.HeaderValue{Key: name, Value: value}, AppendAction: action,
		}},
	}, "", &strict.Report{})
	s.Route = table.Match(route.Input{Request: &s.Request})
}

// TestContentTypeOfAReply has the route say what a reply's body is, as if the reply did not.
func TestContentTypeOfAReply(t *testing.T) {
	const add, absent, overwrite = corev3.HeaderValueOption_APPEND_IF_EXISTS_OR_ADD, corev3.HeaderValueOption_ADD_IF_ABSENT, corev3.HeaderValueOption_OVERWRITE_IF_EXISTS
	for _, c := range []struct {
		action corev3.HeaderValueOption_HeaderAppendAction
		body   string
		typed  string // content-type of the request
		want   string
	}{
		{add, "<p>", "", "text/html"},
		{absent, "<p>", "", "text/html"},
		{overwrite, "<p>", "", "text/plain"},
		{add, "", "", ""},
		{add, "<p>", "application/grpc", "application/grpc"},
	} {
		s := &stream.Stream{}
		s.Request.Method, s.Request.Path, s.Request.Authority = []byte("GET"), []byte("/"), []byte("h")
		if c.typed != "" {
			s.Request.Headers.Add("content-type", c.typed)
		}
		routeThatAdds(t, s, "content-type", "text/html", c.action)
		(&httpfilter.Reply{Status: 200, Body: c.body}).Fill(s)
		got, _ := s.Response.Headers.Get("content-type")
		require.Equal(t, c.want, string(got), "%v of %q to %q", c.action, c.body, c.typed)
	}
}

func TestBodiesPassTheFiltersInOrderAndBack(t *testing.T) {
	s := &stream.Stream{}
	s.Request.Body = &chunks{"x", "drop", "y"}
	var got trace
	body := exchange(t, s, &bodies{"1"}, &bodies{"2"}, &echo{&got})
	require.Equal(t, "x12,y1221", body)
}

func TestFilterThatFailsOnABodyBreaksTheRequestOff(t *testing.T) {
	s := &stream.Stream{}
	s.Request.Method = []byte("POST")
	s.Request.Body = &chunks{"x"}
	var got trace
	exchange(t, s, failing{}, &echo{&got})
	require.Equal(t, 400, s.Response.Status)
}

func TestBodyThatNoFilterLooksAtIsLeftAlone(t *testing.T) {
	s := &stream.Stream{}
	body := &chunks{"x"}
	s.Request.Body = body
	var got trace
	run := &httpfilter.Run{}
	run.Begin(httpfilter.NewChain([]httpfilter.Config{&heads{"a", &got, nil}, &echo{&got}}))
	run.Exchange(s)
	require.Same(t, body, s.Request.Body)
}

// trailing looks at trailers alone.
type trailing struct {
	name  string
	trace *trace
}

func (f *trailing) NewFilter() httpfilter.Filter { return f }
func (f *trailing) RequestTrailers(s *stream.Stream) {
	f.trace.add(f.name, "request trailers")
	s.Request.Trailers.Add("x-"+f.name, "1")
}
func (f *trailing) ResponseTrailers(*stream.Stream) { f.trace.add(f.name, "response trailers") }

func TestTrailersComeOnceBehindTheBodies(t *testing.T) {
	var steps trace
	chain := httpfilter.NewChain([]httpfilter.Config{&trailing{"a", &steps}, &bodies{"b"}, &trailing{"c", &steps}, &echo{&steps}})
	var s stream.Stream
	s.Request.Body = message.NewBytes([]byte("text"))
	var run httpfilter.Run
	run.Begin(chain)
	run.Exchange(&s)
	require.Equal(t, 2, s.Request.Trailers.Len())
	for range 2 {
		for {
			if _, err := s.Response.Body.Next(); err != nil {
				require.ErrorIs(t, err, io.EOF)
				break
			}
		}
	}
	run.End(&s)
	require.Equal(t, trace{"echo forward", "a request trailers", "c request trailers", "c response trailers", "a response trailers"}, steps)
}
