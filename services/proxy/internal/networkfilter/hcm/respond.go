package hcm

import (
	"errors"
	"io"
	"net"
	"time"

	"github.com/weirproxy/weir/services/proxy/internal/http1"
	"github.com/weirproxy/weir/services/proxy/internal/message"
)

// respond writes the response, its body as it comes. An error means that the
// client did not get the whole of it, and that the connection is of no use any
// more. Behind a 101 the body is what the server says in the new protocol; its
// end leaves the client's own direction open.
func (c *connection) respond(closes bool) error {
	response, idle, now := &c.stream.Response, c.stream.IdleTimeout, time.Now()
	facts := &c.stream.Facts
	c.manager.finish(&c.stream)
	c.body.refuseContinue()
	c.watch.touch(now)
	c.manager.answering(&c.stream, response.Status == 101, c.lines, now)
	c.writes.Extend(now, idle)
	c.writer.WriteResponse(response, closes)
	for response.Body != nil {
		if !response.Body.Ready() {
			if err := c.writer.Flush(); err != nil {
				tellLost(facts, err)
				return err
			}
		}
		chunk, err := response.Body.Next()
		now = time.Now()
		c.watch.touch(now)
		c.writes.Extend(now, idle)
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			_ = c.writer.Flush() // what came before the break is the client's
			return err
		}
		if err := c.writer.WriteChunk(chunk); err != nil {
			tellLost(facts, err)
			return err
		}
		facts.AddSent(len(chunk))
	}
	c.writer.Finish(&response.Trailers)
	if err := c.writer.Flush(); err != nil {
		tellLost(facts, err)
		return err
	}
	c.manager.answeredWhole(facts)
	if response.Status == 101 {
		if half, ok := c.conn.(interface{ CloseWrite() error }); ok {
			return half.CloseWrite()
		}
		c.body.cutOff() // there is no half of it to close
	}
	return nil
}

// sendInterim passes an interim response of the upstream on.
func (c *connection) sendInterim(r *message.Response) error {
	now := time.Now()
	c.watch.touch(now)
	bare(r)
	c.body.interim.Lock() // a pull of the body may want to write a 100
	defer c.body.interim.Unlock()
	c.writes.Extend(now, c.stream.IdleTimeout)
	return c.writer.WriteInterim(r)
}

// bare takes out of an interim response what belongs to the upstream's hop.
func bare(r *message.Response) {
	r.Headers.Keep(func(name, _ []byte) bool { return !hopByHop(name) && string(name) != "content-length" })
}

// refuse answers a request whose head is malformed, or of a client that took
// too long over it, and gives the connection up.
func (c *connection) refuse(err error) bool {
	stats, facts := c.manager.stats, &c.stream.Facts
	r := refusal{text: err.Error() + "\n"}
	protocol, ok := errors.AsType[*message.ProtocolError](err)
	switch {
	case ok:
		stats.protocolErrors.Inc()
		stats.clientResets.Inc()
		r.status = protocol.Status
		tellMalformed(facts, protocol)
	case timedOut(err):
		why := c.manager.headLimit.why
		stats.countExpiry(why)
		r.status, r.text = why.Status, why.Text
		tellExpired(facts, why)
	default: // the client has closed, or the proxy has
		c.remote, c.broken = !errors.Is(err, net.ErrClosed), true
		stats.clientResets.Inc()
		tellLost(facts, err)
		c.manager.log(facts)
		return false
	}
	switch {
	case errors.Is(err, http1.ErrUnderscore):
		stats.rejectedUnderscores.Inc()
	case errors.Is(err, http1.ErrAbsoluteTarget):
		stats.notRelative.Inc()
	}
	c.body.begin(&message.Request{}) // of which nothing is known
	r.fill(&c.stream)
	stats.countAnswer(&c.stream, time.Now())
	err = c.respond(true)
	c.countBytes()
	c.manager.log(facts)
	if err == nil {
		c.linger()
	}
	return false
}
