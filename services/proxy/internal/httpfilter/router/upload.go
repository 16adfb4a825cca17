package router

import (
	"errors"
	"io"
	"time"

	"github.com/weirproxy/weir/services/proxy/internal/connpool"
	"github.com/weirproxy/weir/services/proxy/internal/format"
	"github.com/weirproxy/weir/services/proxy/internal/stream"
)

// sendReady sends the head, and what of the body is here already up to a
// buffer's size, so that small requests go out in one write. It says whether
// that was all.
func (a *attempt) sendReady(s *stream.Stream) (ended bool, err error) {
	const most = 16 << 10
	ended = a.body == nil
	for sent := 0; !ended && sent < most && a.body.Ready(); {
		chunk, err := a.body.Next()
		if errors.Is(err, io.EOF) {
			ended = true
			break
		}
		if err != nil {
			return false, &clientError{err}
		}
		sent += len(chunk)
		a.noteReceived(s)
		if err := a.Conn.Writer.WriteChunk(chunk); err != nil {
			return false, err
		}
		a.countSent(chunk)
	}
	if ended && len(s.Request.Upgrade) == 0 { // of one for an upgrade only the head is over
		a.Conn.Writer.Finish(&s.Request.Trailers)
	}
	return ended, a.Conn.Writer.Flush()
}

// upload sends the rest of the body as it comes. The response is read at the
// same time, since a server may answer before it has read the request.
func (a *attempt) upload(s *stream.Stream, conn *connpool.Conn) {
	err := a.sendRest(s, conn)
	client, broken := errors.AsType[*clientError](err)
	switch {
	case err == nil && a.tunnel:
		conn.CloseWrite() // the other direction may go on
	case err == nil:
		a.await(s, conn)
	case broken:
		// The upstream must not take what it got for the whole request; the
		// close ends the wait for its response too.
		a.brokenOff.Store(client)
		_ = conn.Close()
	}
	a.uploaded <- err == nil
}

func (a *attempt) sendRest(s *stream.Stream, conn *connpool.Conn) error {
	body, idle := a.body, a.router.limits.tryIdle
	for {
		if !body.Ready() {
			if err := conn.Writer.Flush(); err != nil {
				return err
			}
		}
		chunk, err := body.Next()
		if errors.Is(err, io.EOF) {
			// Before it goes out, since the response may be here before Flush returns.
			a.router.noteWhole(time.Now())
			conn.Writer.Finish(&s.Request.Trailers)
			return conn.Writer.Flush()
		}
		if err != nil {
			return &clientError{err}
		}
		a.noteReceived(s)
		if idle > 0 && !a.tunnel { // which may stand still
			a.bound(conn, time.Now())
		}
		if err := conn.Writer.WriteChunk(chunk); err != nil {
			return err
		}
		a.countSent(chunk)
	}
}

// noteReceived bounds the rest of the exchange once all of the client's request is here,
// which its codec may know before the end is pulled: what holds that up is an upstream that
// takes nothing.
func (a *attempt) noteReceived(s *stream.Stream) {
	if a.received || a.tunnel {
		return
	}
	if _, a.received = s.Facts.Since(format.RequestEnd); a.received {
		now := time.Now()
		a.router.noteWhole(now)
		a.bound(a.Conn, now)
	}
}

// countSent counts what went out of the body, if that is logged.
func (a *attempt) countSent(chunk []byte) {
	if a.router.log != nil {
		a.bodySent.Add(int64(len(chunk)))
	}
}

// clientError is a request body that broke off or was malformed.
type clientError struct{ error }

func (e *clientError) Unwrap() error { return e.error }

// await bounds the rest of the exchange: the whole request went out.
func (a *attempt) await(s *stream.Stream, conn *connpool.Conn) {
	now := time.Now()
	s.Facts.Mark(format.UpstreamRequestEnd, now)
	a.router.noteWhole(now)
	a.bound(conn, now)
}

// startTunnel sends what the client has for the new protocol beside what the
// server has. Each direction ends by itself; Done waits for this one.
func (a *attempt) startTunnel(s *stream.Stream) {
	_ = a.Conn.SetReadDeadline(a.streamEnd()) // the route's timeout was for the answer
	a.body, a.uploading = s.Request.Body, true
	go a.upload(s, a.Conn)
}
