package httpfilter

import (
	"errors"
	"io"
	"slices"
	"sync"
	"unique"

	"github.com/weirproxy/weir/services/proxy/internal/message"
	"github.com/weirproxy/weir/services/proxy/internal/route"
	"github.com/weirproxy/weir/services/proxy/internal/stats"
	"github.com/weirproxy/weir/services/proxy/internal/stream"
)

// Entry is a configured filter in its place in a chain.
type Entry struct {
	// Name is the filter's in http_filters, by which routes configure it.
	Name string
	// Disabled leaves the filter out, except for routes that configure it.
	Disabled bool
	Config   Config
}

// Chain is the configured filters of one http_connection_manager, in order.
type Chain struct {
	links []link
	// Whether any filter has a step for that body or its trailers, so that
	// bodies which no filter looks at pass by untouched.
	requestBody, responseBody bool
}

// link is an Entry, ready for requests.
type link struct {
	name     route.FilterName
	disabled bool
	config   Config
	routed   RouteConfigured // nil: its config is the same on every route
	terminal bool
}

// filter takes the filter for a request of that route, which may be nil; the
// result is nil if the request is to go without. The terminal filter no request
// goes without.
func (l *link) filter(r *route.Route) Filter {
	own := r.FilterConfig(l.name)
	switch {
	case l.terminal:
	case own == nil && l.disabled, own != nil && own.Disabled:
		return nil
	case own != nil && own.Config != nil && l.routed != nil:
		return l.routed.NewRouteFilter(own.Config)
	}
	return l.config.NewFilter()
}

// NewChain makes a chain of filters without names.
func NewChain(configs []Config) *Chain {
	var entries []Entry
	for _, config := range configs {
		entries = append(entries, Entry{Config: config})
	}
	return NewChainOf(entries)
}

// NewChainOf makes a chain of at least one entry, of which the last makes a
// Terminal. The caller has checked that.
func NewChainOf(entries []Entry) *Chain {
	c := &Chain{}
	for _, entry := range entries {
		filter := entry.Config.NewFilter()
		l := link{name: unique.Make(entry.Name), disabled: entry.Disabled, config: entry.Config}
		l.routed, _ = entry.Config.(RouteConfigured)
		_, l.terminal = filter.(Terminal)
		c.links = append(c.links, l)
		switch filter.(type) {
		case RequestBody, RequestTrailers:
			c.requestBody = true
		}
		switch filter.(type) {
		case ResponseBody, ResponseTrailers:
			c.responseBody = true
		}
	}
	return c
}

// Measure gives the filters that have metrics of their own the scope of their
// http_connection_manager. It is called once, before the chain is used; a nil
// chain has none.
func (c *Chain) Measure(scope *stats.Scope) {
	if c == nil {
		return
	}
	for i := range c.links {
		if m, ok := c.links[i].config.(Measured); ok {
			m.Measure(scope)
		}
	}
}

// Run is the chain at work on one stream after another.
type Run struct {
	chain *Chain
	// filters are those that the request reached: they get the response.
	filters []Filter
	// step is held during each step that can come from two goroutines.
	step     sync.Mutex
	request  body
	response body
}

// Begin makes the run that of a new stream.
func (r *Run) Begin(chain *Chain) { r.chain, r.filters = chain, r.filters[:0] }

// Exchange takes the request through the filters to the terminal one and the
// response's head back through them. Afterwards s.Response has its final head,
// and its body is there to be pulled. Steps:
//
//  1. request heads, in order, until one replies;
//  2. the terminal filter forwards, and pulls the request's body through the
//     filters;
//  3. the route's changes to the response's headers, then response heads, in
//     reverse order, of those that saw the request.
//
// A reply to a stream that is out of time by then says that and nothing else. If its client
// has left nobody gets it: no step sees it, and s.Response is of no use.
func (r *Run) Exchange(s *stream.Stream) {
	reply := r.requestHeads(s)
	if reply == nil {
		if r.chain.requestBody && s.Request.Body != nil {
			r.request = body{run: r, s: s, inner: s.Request.Body}
			s.Request.Body = &r.request
		}
		reply = r.filters[len(r.filters)-1].(Terminal).Forward(s)
	}
	if reply != nil {
		why := s.Expired()
		if why.ClientLeft() {
			return
		}
		if why != nil {
			reply = Expired(s, why)
		}
		reply.Fill(s)
	} else {
		s.MutateResponse()
	}
	r.step.Lock()
	defer r.step.Unlock()
	for _, filter := range slices.Backward(r.filters) {
		if f, ok := filter.(ResponseHead); ok {
			f.ResponseHead(s)
		}
	}
	if r.chain.responseBody && s.Response.Body != nil {
		r.response = body{run: r, s: s, inner: s.Response.Body, response: true}
		s.Response.Body = &r.response
	}
}

// requestHeads takes each filter as the request reaches it, so that none is
// taken whose Done step would not come.
func (r *Run) requestHeads(s *stream.Stream) *Reply {
	for i := range r.chain.links {
		filter := r.chain.links[i].filter(s.Route)
		if filter == nil {
			continue
		}
		r.filters = append(r.filters, filter)
		if f, ok := filter.(RequestHead); ok {
			if reply := f.RequestHead(s); reply != nil {
				return reply
			}
		}
	}
	return nil
}

// End calls the filters' Done steps, of those that saw the request: the last
// one's first, since it may still be sending the request and waits for the end
// of that; then nothing goes on beside the others.
func (r *Run) End(s *stream.Stream) {
	for _, filter := range slices.Backward(r.filters) {
		if f, ok := filter.(Done); ok {
			f.Done(s)
		}
	}
}

// Fill makes the stream's response of the reply, with the route's changes to its headers:
// a HEAD gets its head alone, and so does whoever gets a 204 or a 304; a request of gRPC
// gets a status of gRPC.
func (reply *Reply) Fill(s *stream.Stream) {
	m, grpc := &s.Response, IsGRPC(&s.Request)
	var words grpcWords
	if grpc {
		reply, words = reply.grpc()
	}
	head := string(s.Request.Method) == "HEAD"
	m.Status = reply.Status
	m.Headers.Reset()
	m.Trailers.Reset()
	for _, h := range reply.Headers {
		m.Headers.Add(h.Name, h.Value)
	}
	s.MutateResponse()
	if grpc {
		words.tell(&m.Headers, head)
	} else {
		reply.tellType(&m.Headers)
	}
	m.Body, m.BodyLength, m.Bodiless = nil, int64(len(reply.Body)), head || m.Status == 204 || m.Status == 304
	if reply.Body != "" && !m.Bodiless {
		m.Body = message.NewBytes([]byte(reply.Body))
	}
}

// tellType sees to the content-type of a reply whose headers the route has changed: what
// it says of a body stands in the place of text/plain, as in Envoy, and of no body it
// says nothing.
func (reply *Reply) tellType(h *message.Headers) {
	switch {
	case reply.Body == "":
		h.Remove("content-type")
	case !h.Has("content-type"):
		h.Add("content-type", "text/plain")
	}
}

// body pulls a body through the filters: the request's in their order, the
// response's in reverse.
type body struct {
	run      *Run
	s        *stream.Stream
	inner    message.Body
	response bool
	ended    bool // the steps for trailers are done
}

// Next implements message.Body.
func (b *body) Next() ([]byte, error) {
	for {
		chunk, err := b.inner.Next()
		if errors.Is(err, io.EOF) {
			b.trailers()
		}
		if err != nil {
			return nil, err
		}
		if chunk, err = b.steps(chunk); err != nil || len(chunk) > 0 {
			return chunk, err
		}
	}
}

// Ready implements message.Body.
func (b *body) Ready() bool { return b.inner.Ready() }

// trailers takes the trailers through the filters, once.
func (b *body) trailers() {
	if b.ended {
		return
	}
	b.ended = true
	b.run.step.Lock()
	defer b.run.step.Unlock()
	last := len(b.run.filters) - 1
	for i := range b.run.filters {
		if b.response {
			if f, ok := b.run.filters[last-i].(ResponseTrailers); ok {
				f.ResponseTrailers(b.s)
			}
		} else if f, ok := b.run.filters[i].(RequestTrailers); ok {
			f.RequestTrailers(b.s)
		}
	}
}

// steps takes one chunk through the filters that saw the request's head, until
// nothing is left of it.
func (b *body) steps(chunk []byte) (_ []byte, err error) {
	b.run.step.Lock()
	defer b.run.step.Unlock()
	last := len(b.run.filters) - 1
	for i := 0; i <= last && len(chunk) > 0 && err == nil; i++ {
		if b.response {
			if f, ok := b.run.filters[last-i].(ResponseBody); ok {
				chunk, err = f.ResponseBody(b.s, chunk)
			}
		} else if f, ok := b.run.filters[i].(RequestBody); ok {
			chunk, err = f.RequestBody(b.s, chunk)
		}
	}
	return chunk, err
}
