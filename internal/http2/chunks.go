package http2

import (
	"slices"
	"sync"
)

// chunks is a body as far as it was received and not read: a queue of buffers
// from a pool. One that was taken belongs to the reader until done.
type chunks struct {
	first, last *chunk
	current     *chunk // that was taken
}

type chunk struct {
	buf  []byte // as far as it is filled
	pool *sync.Pool
	next *chunk
}

// The sizes of buffers: what a peer makes us hold is no more than four times
// what it sent, but for the smallest.
var chunkPools = [...]sync.Pool{chunkPool(1 << 10), chunkPool(4 << 10), chunkPool(16 << 10)}

func chunkPool(size int) sync.Pool {
	return sync.Pool{New: func() any { return &chunk{buf: make([]byte, 0, size)} }}
}

// newChunk is a buffer for n bytes, or as many as the largest holds.
func newChunk(n int) *chunk {
	i := 0
	for size := 1 << 10; n > size && i < len(chunkPools)-1; size <<= 2 {
		i++
	}
	c := chunkPools[i].Get().(*chunk)
	c.pool = &chunkPools[i]
	return c
}

func (c *chunk) release() {
	c.buf, c.next = c.buf[:0], nil
	c.pool.Put(c)
}

// put adds a copy of p.
func (q *chunks) put(p []byte) {
	for len(p) > 0 {
		if q.last == nil || len(q.last.buf) == cap(q.last.buf) {
			c := newChunk(len(p))
			if q.last == nil {
				q.first = c
			} else {
				q.last.next = c
			}
			q.last = c
		}
		c := q.last
		n := min(len(p), cap(c.buf)-len(c.buf))
		c.buf = append(c.buf, p[:n]...)
		p = p[n:]
	}
}

// take takes the first chunk out; nil if there is none. What was taken before
// must be done.
func (q *chunks) take() []byte {
	c := q.first
	if c == nil {
		return nil
	}
	if q.first = c.next; q.first == nil {
		q.last = nil
	}
	q.current = c
	return slices.Clip(c.buf)
}

// done gives back what was taken, and returns its length.
func (q *chunks) done() int {
	c := q.current
	if c == nil {
		return 0
	}
	n := len(c.buf)
	q.current = nil
	c.release()
	return n
}

// drop forgets what was not taken, and returns its length.
func (q *chunks) drop() int {
	n := 0
	for q.first != nil {
		c := q.first
		q.first = c.next
		n += len(c.buf)
		c.release()
	}
	q.last = nil
	return n
}
