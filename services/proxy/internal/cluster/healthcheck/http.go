package healthcheck

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"strconv"
	"time"

	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	typev3 "github.com/envoyproxy/go-control-plane/envoy/type/v3"

	"github.com/weirproxy/weir/internal/http2"
	"github.com/weirproxy/weir/services/proxy/internal/format"
	"github.com/weirproxy/weir/services/proxy/internal/headermutation"
	"github.com/weirproxy/weir/services/proxy/internal/http1"
	"github.com/weirproxy/weir/services/proxy/internal/matcher"
	"github.com/weirproxy/weir/services/proxy/internal/message"
	"github.com/weirproxy/weir/services/proxy/internal/strict"
)

// userAgent is Envoy's of its checks, which servers may know them by.
const userAgent = "Envoy/HC"

// The headers of answers that checks look at.
const (
	immediateFail = "x-envoy-immediate-health-check-fail"
	serviceHeader = "x-envoy-upstream-healthchecked-cluster"
)

const (
	// defaultResponseBuffer is Envoy's of HttpHealthCheck.response_buffer_size.
	defaultResponseBuffer = 1024
	// mostResponseBuffer is how much of a body is searched where it is to be all.
	mostResponseBuffer = 1 << 20
)

// checkLimits bounds the heads of answers, as those of other responses.
var checkLimits = http1.Limits{HeadBytes: 60 << 10, Headers: 100}

// httpCheck is a checked HttpHealthCheck.
type httpCheck struct {
	host, path, method  string
	headers             *headermutation.Mutations // of requests; nil for none
	send                []byte
	receive             [][]byte
	responseBuffer      int
	expected, retriable []statusRange
	service             *matcher.String // nil: any
	http2               bool
}

// statusRange is a range of statuses, without its end.
type statusRange struct{ start, end int64 }

func parseHTTP(m *corev3.HealthCheck_HttpHealthCheck, at strict.Path, report *strict.Report) *httpCheck {
	c := &httpCheck{
		host: m.GetHost(), path: m.GetPath(), method: "GET",
		headers: headermutation.Parse(m.GetRequestHeadersToAdd(), at.Field("request_headers_to_add"),
			m.GetRequestHeadersToRemove(), at.Field("request_headers_to_remove"), report),
		send:           parsePayload(m.GetSend(), at.Field("send"), report),
		receive:        parsePayloads(m.GetReceive(), at.Field("receive"), report),
		responseBuffer: defaultResponseBuffer,
		expected:       parseStatuses(m.GetExpectedStatuses(), at.Field("expected_statuses"), report),
		retriable:      parseStatuses(m.GetRetriableStatuses(), at.Field("retriable_statuses"), report),
	}
	if m.GetMethod() != corev3.RequestMethod_METHOD_UNSPECIFIED {
		c.method = m.GetMethod().String()
	}
	if len(c.send) > 0 && !takesBody[m.GetMethod()] {
		report.Add(at.Field("send"), "a %s has no body: use POST, PUT, PATCH or OPTIONS", c.method)
	}
	if c.path != "" && (c.path[0] != '/' || !plainTarget(c.path)) {
		report.Add(at.Field("path"), "%q is no path: it begins with / and has no spaces", c.path)
	}
	if len(c.expected) == 0 {
		c.expected = []statusRange{{200, 201}}
	}
	if size := m.GetResponseBufferSize(); size != nil {
		if c.responseBuffer = int(min(size.GetValue(), mostResponseBuffer)); c.responseBuffer == 0 {
			c.responseBuffer = mostResponseBuffer
		}
	}
	if codec := m.GetCodecClientType(); codec == typev3.CodecClientType_HTTP3 {
		report.Add(at.Field("codec_client_type"), "%s is not supported: use HTTP1 or HTTP2", codec)
	} else {
		c.http2 = codec == typev3.CodecClientType_HTTP2
	}
	if m.GetServiceNameMatcher() != nil {
		c.service = matcher.ParseString(m.GetServiceNameMatcher(), at.Field("service_name_matcher"), report)
	}
	return c
}

// takesBody are the methods of checks that may have a body.
var takesBody = map[corev3.RequestMethod]bool{
	corev3.RequestMethod_POST: true, corev3.RequestMethod_PUT: true, corev3.RequestMethod_PATCH: true, corev3.RequestMethod_OPTIONS: true,
}

// plainTarget says whether a path can stand in a request line.
func plainTarget(path string) bool {
	for _, c := range []byte(path) {
		if c <= ' ' || c == 0x7f || c == '#' {
			return false
		}
	}
	return true
}

func parseStatuses(list []*typev3.Int64Range, at strict.Path, report *strict.Report) (ranges []statusRange) {
	for i, m := range list {
		if m.GetStart() < 100 || m.GetEnd() > 600 || m.GetStart() >= m.GetEnd() {
			report.Add(at.Index(i), "[%d, %d) is no range of statuses: 100 ≤ start < end ≤ 600", m.GetStart(), m.GetEnd())
		}
		ranges = append(ranges, statusRange{m.GetStart(), m.GetEnd()})
	}
	return ranges
}

func has(ranges []statusRange, status int) bool {
	for _, r := range ranges {
		if r.start <= int64(status) && int64(status) < r.end {
			return true
		}
	}
	return false
}

func (c *httpCheck) newProber(h hostConfig) prober {
	p := &httpProber{check: c, hostConfig: h}
	r := &p.request
	r.Method, r.Path, r.Authority = []byte(c.method), []byte(c.path), []byte(h.name(c.host))
	r.BodyLength = int64(len(c.send))
	return p
}

// httpProber checks one host over HTTP/1.1, or HTTP/2.
type httpProber struct {
	hostConfig
	check    *httpCheck
	request  message.Request
	response message.Response
	body     []byte
	facts    format.Facts

	conn   net.Conn // kept from one check to the next; nil if there is none
	reader *http1.Reader
	writer *http1.Writer
	client *http2.Client // of HTTP/2; nil if there is no connection
}

// errUnseen says that a kept connection had been closed before the request.
var errUnseen = errors.New("the connection was closed before the answer")

// probe implements prober. A connection that was kept may have been closed
// meanwhile, which says nothing about the host: then a new one is tried.
func (p *httpProber) probe(ctx context.Context) result {
	p.makeHeaders()
	kept := p.conn != nil
	keep, err := p.exchange(ctx)
	if kept && errors.Is(err, errUnseen) && ctx.Err() == nil {
		p.close()
		keep, err = p.exchange(ctx)
	}
	if err != nil || !keep || !p.reuse {
		p.close()
	}
	if err != nil {
		return result{verdict: network, why: err.Error()}
	}
	return p.judge()
}

// makeHeaders makes those of the request that is to be sent.
func (p *httpProber) makeHeaders() {
	h, c, protocol := &p.request.Headers, p.check, "HTTP/1.1"
	if c.http2 {
		protocol = "HTTP/2"
	}
	p.tell(&p.facts, protocol)
	h.Reset()
	h.Add("user-agent", userAgent)
	c.headers.Apply(h, &p.facts)
	if c.http2 && len(c.send) > 0 { // of HTTP/1, the writer says so
		h.Set("content-length", strconv.Itoa(len(c.send)))
	}
}

// exchange sends the request and reads the whole answer. Keep says whether the
// connection can be used again.
func (p *httpProber) exchange(ctx context.Context) (keep bool, err error) {
	if p.check.http2 {
		return p.exchangeHTTP2(ctx)
	}
	if err := p.connect(ctx); err != nil {
		return false, err
	}
	// Whatever ends the check ends the wait for the network too.
	_ = p.conn.SetDeadline(time.Time{}) // fails only once closed, as the next write will
	conn := p.conn                      // which is given up by then, maybe
	stop := context.AfterFunc(ctx, func() { _ = conn.SetDeadline(time.Unix(1, 0)) })
	defer stop()
	p.writer.WriteRequest(&p.request)
	if len(p.check.send) > 0 {
		if err := p.writer.WriteChunk(p.check.send); err != nil {
			return false, fmt.Errorf("%w: %w", errUnseen, err)
		}
	}
	p.writer.Finish(nil)
	if err := p.writer.Flush(); err != nil {
		return false, fmt.Errorf("%w: %w", errUnseen, err)
	}
	keep, err = p.reader.ReadResponse(&p.response, p.request.Method)
	if errors.Is(err, io.EOF) {
		return false, errUnseen
	}
	if err != nil {
		return false, fmt.Errorf("read the answer: %w", err)
	}
	if err := p.readBody(); err != nil {
		return false, fmt.Errorf("read the answer's body: %w", err)
	}
	if !stop() { // the deadline is, or will be, that of the end
		return false, ctx.Err()
	}
	return keep && !p.reader.Buffered(), nil
}

func (p *httpProber) connect(ctx context.Context) error {
	if p.conn != nil {
		return nil
	}
	conn, err := p.dial(ctx, p.address)
	if err != nil {
		return fmt.Errorf("connect: %w", err)
	}
	p.conn, p.reader, p.writer = conn, http1.NewReader(conn, checkLimits), http1.NewWriter(conn)
	return nil
}

// readBody reads the body to its end and keeps what of it is to be searched.
func (p *httpProber) readBody() error {
	p.body = p.body[:0]
	for p.response.Body != nil {
		chunk, err := p.response.Body.Next()
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return err
		}
		p.keepBody(chunk)
	}
	return nil
}

// keepBody keeps what of a chunk is to be searched.
func (p *httpProber) keepBody(chunk []byte) {
	if len(p.check.receive) > 0 {
		p.body = append(p.body, chunk[:min(len(chunk), p.check.responseBuffer-len(p.body))]...)
	}
}

// judge is the verdict on the answer. Steps: its status, its body, and the name
// of the service that gave it.
func (p *httpProber) judge() result {
	status, c := p.response.Status, p.check
	if !has(c.expected, status) {
		r := result{verdict: failed, why: fmt.Sprintf("status %d", status), excluded: p.response.Headers.Has(immediateFail)}
		if has(c.retriable, status) {
			r.verdict = retriable
		}
		return r
	}
	if !hasBlocks(p.body, c.receive) {
		return result{verdict: failed, why: "the body has not what is to be received"}
	}
	if c.service != nil {
		p.stats.verifications.Inc()
		if name, _ := p.response.Headers.Get(serviceHeader); !c.service.Match(name) {
			return result{verdict: failed, why: fmt.Sprintf("%s %q is another service", serviceHeader, name)}
		}
	}
	return result{verdict: passed}
}

// close implements prober.
func (p *httpProber) close() {
	if p.client != nil {
		_ = p.client.Close() // as below; it waits for its reader
		p.client = nil
	} else if p.conn != nil {
		_ = p.conn.Close() // nobody waits for what it says
	}
	p.conn = nil
}
