package fault

import (
	"time"

	"github.com/weirproxy/weir/services/proxy/internal/message"
	"github.com/weirproxy/weir/services/proxy/internal/stream"
)

// slicesPerSecond is in how many parts the rate of a second is let through.
const slicesPerSecond = 16

// slowBody lets a body through at a rate: a slice, then a wait for as long as
// the slice is to take.
type slowBody struct {
	stream *stream.Stream
	inner  message.Body
	rest   []byte // of the chunk that was read last
	slice  int    // most bytes at once
	rate   uint64 // bytes per second
	next   time.Time
}

func newSlowBody(s *stream.Stream, kib uint64) *slowBody {
	rate := kib << 10
	return &slowBody{stream: s, inner: s.Response.Body, rate: rate, slice: int(min(rate/slicesPerSecond, 1<<20))}
}

// Next implements message.Body.
func (b *slowBody) Next() ([]byte, error) {
	if len(b.rest) == 0 {
		chunk, err := b.inner.Next()
		if err != nil {
			return nil, err
		}
		b.rest = chunk
	}
	now := time.Now()
	if wait := b.next.Sub(now); wait > 0 {
		timer := time.NewTimer(wait)
		defer timer.Stop()
		select {
		case now = <-timer.C:
		case <-b.stream.Context.Done():
			return nil, b.stream.Context.Err()
		}
	}
	chunk := b.rest[:min(len(b.rest), b.slice)]
	b.rest = b.rest[len(chunk):]
	b.next = now.Add(time.Duration(uint64(len(chunk)) * uint64(time.Second) / b.rate))
	return chunk, nil
}

// Ready implements message.Body.
func (b *slowBody) Ready() bool {
	return (len(b.rest) > 0 || b.inner.Ready()) && !time.Now().Before(b.next)
}
