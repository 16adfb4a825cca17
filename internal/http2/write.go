package http2

import (
	"errors"
	"os"
	"runtime"
	"sync"
	"time"
)

const (
	// flushSize is how much is gathered before it is written without being asked.
	flushSize = 16 << 10
	// roomSize is how much may wait for the socket before streams that have DATA
	// wait too.
	roomSize = 64 << 10
	// keepBuffer is the most memory that a buffer may have to be used again.
	keepBuffer = 128 << 10
	// flushRounds is how often a stream writes what others gathered meanwhile.
	flushRounds = 4
)

// writeBuffers are shared by all connections: one has a buffer only while
// something waits to be written.
var writeBuffers = sync.Pool{New: func() any { return &buffer{make([]byte, 0, 4<<10)} }}

type buffer struct{ b []byte }

// writer gathers frames and writes them. Who adds frames holds the connection's
// mutex; who writes them does not.
type writer struct {
	buf     []byte  // frames that nobody writes yet
	memory  *buffer // of buf, nil while it is empty
	flight  []byte  // what is left of the frames that are being written
	flown   []byte  // all of them
	flying  *buffer // of flown
	frames  int     // that wait, or are being written
	control int     // of them, those that answer or reset
	// How many of both are being written.
	inFlight, controlInFlight int
	// flushing says that a goroutine writes; idle is told when it ended.
	flushing bool
	idle     sync.Cond
	err      error // of the socket

	// What writeSocket works with.
	trying  []byte
	tried   int
	tryErr  error
	writeFD func(fd uintptr) bool
}

// writing returns the buffer, to append frames to and to put back. With mu held.
func (c *Conn) writing() []byte {
	if c.w.memory == nil {
		c.w.memory = writeBuffers.Get().(*buffer)
		c.w.buf = c.w.memory.b[:0]
	}
	return c.w.buf
}

func (b *buffer) release(memory []byte) {
	if cap(memory) <= keepBuffer {
		b.b = memory[:0]
		writeBuffers.Put(b)
	}
}

// wroteControl counts a frame that answers or resets. With mu held.
func (c *Conn) wroteControl() error {
	c.w.frames++
	c.w.control++
	return c.countOutbound()
}

// room is how many bytes of DATA may be gathered. With mu held.
func (c *Conn) room() int { return roomSize - len(c.w.buf) }

// flush writes what was gathered, if nobody does so already. It does not wait
// for the socket: what that does not take at once is left to a goroutine. With
// mu held, which it lets go meanwhile.
func (c *Conn) flush() {
	w := &c.w
	switch {
	case w.flushing:
		return
	case w.err != nil: // nobody takes it
		w.buf, w.memory, w.frames, w.control = nil, nil, 0, 0
		return
	case len(w.buf) == 0:
		c.afterFlush()
		return
	}
	w.flushing = true
	if c.raw == nil {
		// Ends once all is written, or the socket failed.
		go c.writeAll()
		return
	}
	if c.running > 1 || c.client && len(c.streams) > 1 {
		// Others may be about to write too: one system call for all is cheaper.
		c.mu.Unlock()
		runtime.Gosched()
		c.mu.Lock()
	}
	for round := 0; len(w.buf) > 0; round++ {
		if round == flushRounds {
			go c.writeAll() // as above
			return
		}
		c.takeOff()
		c.mu.Unlock()
		w.trying = w.flight
		if w.writeFD == nil {
			w.writeFD = w.writeSocket
		}
		err := c.raw.Write(w.writeFD)
		w.trying = nil
		c.mu.Lock()
		if err == nil {
			err = w.tryErr
		}
		if err != nil {
			c.failWrite(err)
			return
		}
		if w.flight = w.flight[w.tried:]; len(w.flight) > 0 {
			go c.writeAll() // as above
			return
		}
		c.landed()
	}
	c.afterFlush()
}

// afterFlush is for what waits until all is written. With mu held.
func (c *Conn) afterFlush() {
	c.w.flushing = false
	c.w.idle.Broadcast()
	if c.finishing && len(c.streams) == 0 && c.err == nil {
		if c.peerReason != nil {
			c.end(c.peerReason)
		} else {
			c.end(ErrClosed)
		}
		_ = c.net.SetReadDeadline(longAgo) // has the goroutine that reads see it, and close
	}
}

// writeAll writes all that waits, and waits for the socket to take it.
func (c *Conn) writeAll() {
	w := &c.w
	c.mu.Lock()
	defer c.mu.Unlock()
	for len(w.flight) > 0 || len(w.buf) > 0 {
		if len(w.flight) == 0 {
			c.takeOff()
		}
		c.mu.Unlock()
		n, err := c.writeSome(w.flight)
		c.mu.Lock()
		w.flight = w.flight[n:]
		if err != nil {
			c.failWrite(err)
			return
		}
		if len(w.flight) == 0 {
			c.landed()
		}
	}
	c.afterFlush()
}

// writeSome writes flight, if need be for as long as WriteTimeout between any
// two parts of it.
func (c *Conn) writeSome(flight []byte) (int, error) {
	if c.options.WriteTimeout > 0 {
		flight = flight[:min(len(flight), flushSize)]
		c.mu.Lock()
		if c.err == nil { // else linger has set one
			_ = c.net.SetWriteDeadline(time.Now().Add(c.options.WriteTimeout))
		}
		c.mu.Unlock()
	}
	return c.net.Write(flight)
}

// takeOff makes of what was gathered what is being written. With mu held.
func (c *Conn) takeOff() {
	w := &c.w
	w.flight, w.flown, w.flying = w.buf, w.buf, w.memory
	w.buf, w.memory = nil, nil
	w.inFlight, w.controlInFlight = w.frames, w.control
	c.wakeBlocked()
}

// landed gives the memory of what was written back. With mu held.
func (c *Conn) landed() {
	w := &c.w
	c.sent.Add(uint64(len(w.flown) - len(w.flight)))
	if w.flying != nil {
		w.flying.release(w.flown)
		w.flying = nil
	}
	w.flight, w.flown = nil, nil
	w.frames -= w.inFlight
	w.control -= w.controlInFlight
	w.inFlight, w.controlInFlight = 0, 0
}

// failWrite ends the connection since the socket failed. A client's may have something
// of its server in it, which was there before it closed: that is read first, as long as
// Linger. With mu held.
func (c *Conn) failWrite(err error) {
	c.landed()
	c.w.err = err
	c.w.flushing = false
	c.flush()
	c.w.idle.Broadcast()
	if !c.client || c.err != nil || errors.Is(err, os.ErrDeadlineExceeded) {
		c.end(err)
		_ = c.net.Close() // ends the goroutine that reads
		return
	}
	c.draining = true
	for _, s := range c.streams {
		s.failSend(err)
	}
	_ = c.net.SetReadDeadline(time.Now().Add(c.options.Linger))
}
