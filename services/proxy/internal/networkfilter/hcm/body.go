package hcm

import (
	"errors"
	"io"
	"sync"
	"sync/atomic"
	"time"

	"github.com/weirproxy/weir/services/proxy/internal/format"
	"github.com/weirproxy/weir/services/proxy/internal/message"
)

// requestBody is the body of the request as the filters pull it. It answers
// "Expect: 100-continue" when the first of them wants the body, so that a
// request which a filter refuses need not send it.
type requestBody struct {
	connection *connection
	inner      message.Body
	wanted     atomic.Bool // somebody has asked for it, and may be pulling
	remaining  int64       // bytes to come, negative if that is not known
	ended      atomic.Bool // nothing of inner is to come any more, but its io.EOF
	broken     atomic.Bool // the client left within it
	malformed  atomic.Bool // it broke the protocol
	tunnel     bool        // it is no body before a 101

	// interim orders what a pull does to the client's connection against what
	// the connection's own goroutine does at the same time.
	interim sync.Mutex
	expects bool // a 100, before the first byte
}

// begin takes over the body of the request that was just read.
func (b *requestBody) begin(r *message.Request) {
	b.inner, b.expects = r.Body, r.ExpectContinue && r.Body != nil
	b.remaining, b.tunnel = r.BodyLength, len(r.Upgrade) > 0
	b.wanted.Store(false)
	b.broken.Store(false)
	b.malformed.Store(false)
	b.ended.Store(r.Body == nil)
	if r.Body != nil {
		r.Body = b
	}
}

// Next implements message.Body.
func (b *requestBody) Next() ([]byte, error) {
	b.wanted.Store(true)
	if err := b.sendContinue(); err != nil {
		return nil, err
	}
	return b.pull()
}

// pull takes the next chunk of inner, and notes that it did, or how that failed.
func (b *requestBody) pull() ([]byte, error) {
	chunk, err := b.inner.Next()
	now, facts := time.Now(), &b.connection.stream.Facts
	b.connection.watch.touch(now)
	facts.AddReceived(len(chunk))
	// Known by its length already, since a server answers what it has the whole of.
	b.remaining -= int64(len(chunk))
	if (b.remaining == 0 || errors.Is(err, io.EOF)) && !b.ended.Swap(true) {
		facts.Mark(format.RequestEnd, now)
	}
	if err != nil && !errors.Is(err, io.EOF) {
		b.fail(err)
	}
	return chunk, err
}

// fail notes how the body broke off.
func (b *requestBody) fail(err error) {
	if _, malformed := errors.AsType[*message.ProtocolError](err); !malformed {
		b.broken.Store(true)
		// A timeout is our own doing. And the client may have ended its own direction
		// alone, early, and take the whole of a response that has begun; behind the end
		// of its request the watch takes that for its leaving.
		if !timedOut(err) {
			b.connection.stream.ExpireUnanswered(leaving(err))
		}
	} else if !b.malformed.Swap(true) {
		b.connection.manager.stats.protocolErrors.Inc()
	}
}

// Ready implements message.Body. Who asks may go on to pull, in a goroutine of
// its own.
func (b *requestBody) Ready() bool {
	b.wanted.Store(true)
	return b.inner.Ready()
}

// cutOff lets go whoever still waits for the body, whose connection is of no
// use any more.
func (b *requestBody) cutOff() {
	b.interim.Lock()
	defer b.interim.Unlock()
	b.connection.reads.Set(time.Unix(1, 0))
}

func (b *requestBody) sendContinue() error {
	b.interim.Lock()
	defer b.interim.Unlock()
	if !b.expects {
		return nil
	}
	b.expects = false
	if b.inner.Ready() { // the client did not wait
		return nil
	}
	b.connection.writes.Extend(time.Now(), b.connection.stream.IdleTimeout)
	return b.connection.writer.WriteContinue()
}

// refuseContinue makes sure that no 100 follows the final response.
func (b *requestBody) refuseContinue() {
	b.interim.Lock()
	defer b.interim.Unlock()
	b.expects = false
}

// finished says whether the body was pulled to its end.
func (b *requestBody) finished() bool { return b.ended.Load() }

// settle says, before the response is written, whether the connection can
// carry another request after it: if the body has come to its end. One that
// nobody wanted is dropped if it is here already.
func (b *requestBody) settle() bool {
	if b.tunnel && !b.wanted.Load() { // no 101 came: what follows is a request
		b.ended.Store(true)
	}
	if b.wanted.Load() || b.expects { // nobody changes expects who does not want the body
		return b.finished()
	}
	for !b.finished() && b.inner.Ready() {
		if _, err := b.pull(); err != nil {
			break
		}
	}
	return b.finished()
}
