package connpool

import (
	"context"
	"crypto/sha1"
	"encoding/base64"
	"errors"
	"io"
	"net"
	"net/netip"
	"slices"
	"sync"
	"time"

	"github.com/weirproxy/weir/internal/http2"
	"github.com/weirproxy/weir/services/proxy/internal/cluster/breaker"
	"github.com/weirproxy/weir/services/proxy/internal/http1"
	"github.com/weirproxy/weir/services/proxy/internal/message"
)

// shared is a connection of HTTP/2, which many exchanges use at once.
type shared struct {
	client           *http2.Client
	id               uint64
	local            netip.AddrPort
	began, connected time.Time

	// Guarded by the pool's mutex.
	users int // exchanges that have taken it, and may have opened a stream
	// requests is how many have taken it so far. With the last that may, it is no
	// longer among the pool's, and ends with its users.
	requests uint32
	finished bool // the pool ends it
}

// connecting is a connect on its way, for all who wait for it.
type connecting struct {
	done chan struct{} // closed at its end
	made *shared
	err  error
}

// waitShared returns a stream's worth of a connection: of the first that has room,
// or of a new one, for which all who come meanwhile wait too; or, if limits has no
// more connections, once there is room again. The first connection of a pool is made
// whatever the limits.
func (p *Pool) waitShared(ctx context.Context, limits *breaker.Set) (*Conn, error) {
	for overflowed := false; ; {
		p.mu.Lock()
		if c, reused := p.takeShared(); c != nil {
			p.mu.Unlock()
			return p.exchange(c, reused), nil
		}
		wait, own := p.connecting, false
		if wait == nil {
			if own = p.mayOpen(limits); !own {
				w := p.enqueue()
				p.mu.Unlock()
				if !overflowed {
					overflowed = true
					p.overflow()
				}
				select {
				case <-w:
					continue
				case <-ctx.Done():
					p.withdraw(w)
					return nil, ctx.Err()
				}
			}
			wait = &connecting{done: make(chan struct{})}
			p.connecting = wait
			// Ends with the connect, which is bounded in time.
			go p.connectShared(wait, limits)
		}
		p.mu.Unlock()
		select {
		case <-wait.done:
		case <-ctx.Done():
			return nil, ctx.Err()
		}
		err := wait.err
		if err == nil {
			err = p.closedAtOnce(wait.made)
		}
		switch {
		case err == nil: // if it is used up or closed, another one is made
		case own:
			return nil, err
		default:
			return nil, &EjectedError{err}
		}
	}
}

// closedAtOnce is why a connection ended that was made, if its host is to blame: no
// exchange has taken it, and the pool has not closed it.
func (p *Pool) closedAtOnce(c *shared) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	if c.requests > 0 || c.finished {
		return nil
	}
	return c.client.Err()
}

// takeShared takes a stream of a connection that has room. With mu held.
func (p *Pool) takeShared() (c *shared, reused bool) {
	for i := 0; i < len(p.shared); {
		c := p.shared[i]
		capacity := min(c.client.Capacity(), p.most)
		switch {
		case capacity == 0: // it takes no more
			p.shared = slices.Delete(p.shared, i, i+1)
			c.client.Finish()
			continue
		case c.users < capacity:
			reused = c.requests > 0
			c.users++
			c.requests++
			if p.isWorn(c) {
				p.shared = slices.Delete(p.shared, i, i+1)
			}
			return c, reused
		}
		i++
	}
	return nil, false
}

// connectShared makes a connection, and lets those know who wait for it.
func (p *Pool) connectShared(wait *connecting, limits *breaker.Set) {
	defer close(wait.done)
	c := &shared{began: time.Now()}
	dialer := net.Dialer{Timeout: p.options.ConnectTimeout}
	conn, err := dialer.Dial("tcp", *p.address.Load())
	c.connected = time.Now()
	p.mu.Lock()
	defer p.mu.Unlock()
	p.connecting = nil
	if err != nil {
		wait.err = err
		p.leaveLocked(limits)
		return
	}
	c.id, c.local = p.made.Add(1), conn.LocalAddr().(*net.TCPAddr).AddrPort()
	c.client = http2.NewClient(conn, p.options.HTTP2)
	p.shared, wait.made = append(p.shared, c), c
	p.awaitExpiry() // who waits for it may be gone
	p.options.Opened(c.connected.Sub(c.began))
	// Ends with the connection.
	go func() {
		<-c.client.Done()
		p.mu.Lock()
		if i := slices.Index(p.shared, c); i >= 0 {
			p.shared = slices.Delete(p.shared, i, i+1)
		}
		p.mu.Unlock()
		p.options.Closed(time.Since(c.connected))
		p.leave(limits)
	}()
}

// closeShared ends the connections that had no stream since before a time, and
// returns since when that is so of another one; the zero time is of none. The lock
// is held.
func (p *Pool) closeShared(now, before time.Time) (oldest time.Time) {
	p.shared = slices.DeleteFunc(p.shared, func(c *shared) bool {
		open, since := c.client.Streams()
		switch {
		case c.users > 0: // of whom the last one has us come again
			return false
		case open > 0: // it is about to end
			since = now
		}
		if since.After(before) {
			oldest = first(oldest, since)
			return false
		}
		p.countExpired()
		c.finish()
		return true
	})
	return oldest
}

// first is the earlier of two times, of which the zero time is none.
func first(a, b time.Time) time.Time {
	if a.IsZero() || b.Before(a) {
		return b
	}
	return a
}

// exchange makes a Conn of a connection that was taken.
func (p *Pool) exchange(c *shared, reused bool) *Conn {
	conn, ok := p.spare.Get().(*Conn)
	if !ok {
		x := &exchange{}
		conn = &Conn{exchange: x, transport: x, Reader: x, Writer: x, pool: p}
	}
	conn.exchange.shared = c
	conn.Reused, conn.ID, conn.Local, conn.Began, conn.Connected = reused, c.id, c.local, c.began, c.connected
	return conn
}

// put gives a connection back that an exchange has used.
func (p *Pool) put(c *shared) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if c.users--; c.users == 0 && (p.closed || p.isWorn(c)) {
		c.finish()
		if p.isWorn(c) {
			p.wornOut()
		}
	}
	if c.users == 0 {
		p.awaitExpiry()
	}
	p.grantFirst(grant{})
}

// finish ends a connection that no exchange uses any more, or with the last one that
// does. The lock is held.
func (c *shared) finish() {
	c.finished = true
	c.client.Finish()
}

// isWorn says whether a connection carries no further request. The lock is held.
func (p *Pool) isWorn(c *shared) bool {
	return c.requests > 0 && c.requests == p.options.MaxRequests
}

// forgo takes back that an exchange has taken a connection for its request, which
// it does not send: another one may. It is still to be put.
func (p *Pool) forgo(c *shared) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.isWorn(c) {
		p.shared = append(p.shared, c) // even if it has ended: takeShared looks
	}
	c.requests--
}

// exchange is one stream: the request that is written to it, and the response that
// is read. It implements Reader, Writer and transport, and is the response's body.
type exchange struct {
	shared *shared

	// writing is held by whoever writes, who may not be who reads.
	writing sync.Mutex
	ended   bool  // the request was written to its end
	err     error // of what was written; it stays

	mu     sync.Mutex    // against the stream's end
	stream *http2.Stream // nil before WriteRequest and behind end
	cut    bool          // Close was called

	request   http2.Request
	head      http2.Head
	response  *message.Response
	tunnel    []byte // the protocol that the request wants to go on with
	accept    string // of a WebSocket: sec-websocket-accept
	sent      uint64 // streams
	delivered bool   // the body has come to its end
}

// errNoStream is what is returned before the request was written, and behind the end.
var errNoStream = net.ErrClosed

// WriteRequest implements Writer. It opens the stream, on which the head goes out
// at once if nothing follows it.
func (x *exchange) WriteRequest(m *message.Request) {
	x.writing.Lock()
	defer x.writing.Unlock()
	r := &x.request
	*r = http2.Request{Method: m.Method, Scheme: scheme(m), Authority: m.Authority, Path: m.Path}
	x.tunnel, x.accept = nil, ""
	if len(m.Upgrade) > 0 { // RFC 8441 §5
		x.tunnel = append(x.tunnel[:0], m.Upgrade...)
		r.Method, r.Protocol = methodConnect, m.Upgrade
		if key, ok := m.Headers.Get("sec-websocket-key"); ok {
			sum := sha1.Sum(append(append([]byte(nil), key...), webSocketGUID...))
			x.accept = base64.StdEncoding.EncodeToString(sum[:])
			m.Headers.Remove("sec-websocket-key")
		}
	}
	if m.BodyLength == message.Unknown {
		m.Headers.Remove("content-length")
	}
	x.ended = m.Body == nil && len(x.tunnel) == 0
	stream, err := x.shared.client.Open(r, &m.Headers, x.ended)
	if err != nil {
		x.err = &UnprocessedError{err}
		return
	}
	x.sent++
	x.mu.Lock()
	x.stream = stream
	cut := x.cut
	x.mu.Unlock()
	if cut {
		stream.Interrupt(errNoStream)
	}
}

var methodConnect = []byte("CONNECT")

// webSocketGUID is what the answer to a key is made with (RFC 6455 §1.3).
const webSocketGUID = "258EAFA5-E914-47DA-95CA-C5AB0DC85B11"

var schemes = [...][]byte{[]byte("http"), []byte("https")}

// scheme is what a client of HTTP/2 said, or a proxy in front of us, or that of
// our own connection.
func scheme(m *message.Request) []byte {
	if len(m.Scheme) > 0 {
		return m.Scheme
	}
	if v, ok := m.Headers.Get("x-forwarded-proto"); ok && string(v) == "https" {
		return schemes[1]
	}
	return schemes[0]
}

// WriteChunk implements Writer.
func (x *exchange) WriteChunk(chunk []byte) error {
	x.writing.Lock()
	defer x.writing.Unlock()
	if x.err == nil {
		x.err = x.write(chunk, false)
	}
	return x.err
}

// Finish implements Writer.
func (x *exchange) Finish(trailers *message.Headers) {
	x.writing.Lock()
	defer x.writing.Unlock()
	if x.err != nil || x.ended {
		return
	}
	x.ended = true
	if trailers == nil || trailers.Len() == 0 {
		x.err = x.write(nil, true)
		return
	}
	if s := x.open(); s != nil {
		x.err = failure(s.WriteTrailers(trailers))
	}
}

func (x *exchange) write(chunk []byte, end bool) error {
	s := x.open()
	if s == nil {
		return errNoStream
	}
	return failure(s.WriteData(chunk, end))
}

// Flush implements Writer.
func (x *exchange) Flush() error {
	x.writing.Lock()
	defer x.writing.Unlock()
	if x.err != nil {
		return x.err
	}
	s := x.open()
	if s == nil {
		return errNoStream
	}
	if !x.ended { // the end has sent all
		x.err = failure(s.Flush())
	}
	return x.err
}

func (x *exchange) open() *http2.Stream {
	x.mu.Lock()
	defer x.mu.Unlock()
	return x.stream
}

// statusLimit is one more than the highest status that the proxy knows.
const statusLimit = 600

// ReadHead implements Reader.
func (x *exchange) ReadHead(m *message.Response, method []byte) (keepAlive bool, err error) {
	s := x.open()
	if s == nil {
		return false, errNoStream
	}
	if err := s.ReadHead(&x.head); err != nil {
		return false, failure(err)
	}
	h := &x.head
	if h.Status >= statusLimit {
		return false, &http1.ProtocolError{Status: 400, Detail: "a status above 599"}
	}
	m.Headers.Swap(&h.Fields)
	m.Status, m.Body = h.Status, nil
	if m.Status < 200 {
		m.BodyLength, m.Bodiless = 0, true
		return false, nil
	}
	if len(x.tunnel) > 0 && m.Status < 300 {
		x.switched(m)
		return true, nil
	}
	m.Bodiless = m.Status == 204 || m.Status == 304 || string(method) == "HEAD"
	m.BodyLength = h.ContentLength
	switch {
	case h.End && !m.Bodiless:
		m.BodyLength = 0
	case m.BodyLength < 0:
		m.BodyLength = message.Unknown
	case m.BodyLength == 0 && !h.End: // trailers may follow
		m.BodyLength = message.Unknown
	}
	if m.Status == 204 {
		m.Headers.Remove("content-length")
	}
	if !h.End && !m.Bodiless {
		x.response, m.Body = m, x
	}
	return true, nil
}

// switched makes of the answer to an extended CONNECT what HTTP/1 has for it.
func (x *exchange) switched(m *message.Response) {
	m.Status = 101
	m.Headers.Set("upgrade", string(x.tunnel))
	if x.accept != "" {
		m.Headers.Set("sec-websocket-accept", x.accept)
	}
	x.response = m
}

// Tunnel implements Reader.
func (x *exchange) Tunnel() message.Body { return x }

// Buffered implements Reader: nothing that was sent beyond a response can be taken
// for the next one here.
func (x *exchange) Buffered() bool { return false }

// Next implements message.Body.
func (x *exchange) Next() ([]byte, error) {
	s := x.open()
	if s == nil {
		return nil, errNoStream
	}
	chunk, err := s.Next()
	if errors.Is(err, io.EOF) {
		if !x.delivered && s.ReadTrailers(&x.head.Fields) {
			x.response.Trailers.Swap(&x.head.Fields)
		}
		x.delivered = true
		return nil, io.EOF
	}
	return chunk, failure(err)
}

// Ready implements message.Body.
func (x *exchange) Ready() bool {
	s := x.open()
	return s == nil || s.Ready()
}

// SetReadDeadline implements transport.
func (x *exchange) SetReadDeadline(at time.Time) error {
	x.mu.Lock()
	defer x.mu.Unlock()
	if x.stream != nil {
		x.stream.SetDeadline(at)
	}
	return nil
}

// Close implements transport: it lets go of whoever reads or writes, and tells the
// server. Others may call it.
func (x *exchange) Close() error {
	x.mu.Lock()
	defer x.mu.Unlock()
	x.cut = true
	if x.stream != nil {
		x.stream.Interrupt(errNoStream)
		x.stream.Reset(http2.Cancel)
	}
	return nil
}

// end takes the stream out of use, once nobody writes any more.
func (x *exchange) end() {
	s := x.open()
	if s != nil {
		s.Interrupt(errNoStream)
	}
	x.writing.Lock()
	defer x.writing.Unlock()
	x.mu.Lock()
	x.stream = nil
	x.mu.Unlock()
	if s != nil {
		s.Close()
	}
	x.err = errNoStream
}

// reset makes the exchange fit for another request.
func (x *exchange) reset() {
	x.shared, x.response, x.err = nil, nil, nil
	x.cut, x.ended, x.delivered, x.sent = false, false, false, 0
	x.request = http2.Request{}
}

// failure says what the end of a stream is to those who know no HTTP/2.
func failure(err error) error {
	if err == nil {
		return nil
	}
	if e, ok := errors.AsType[*http2.StreamError](err); ok {
		switch {
		case e.Remote && e.Code == http2.RefusedStream:
			return &UnprocessedError{err}
		case e.Remote:
			return &ResetError{err}
		case e.Code == http2.Cancel: // by Close
			return errNoStream
		}
		return &http1.ProtocolError{Status: 400, Detail: e.Error()}
	}
	if e, ok := errors.AsType[*http2.ConnectionError](err); ok && !e.Remote {
		return &http1.ProtocolError{Status: 400, Detail: e.Error()}
	}
	return err
}
