package http2

import (
	"net"
	"sync"
	"time"
)

// Handler serves the streams of a connection.
type Handler interface {
	// ServeStream serves one stream, on a goroutine of its own: it may block.
	// When it returns the stream's use has ended, as by Close of a client's
	// stream, unless it called Park. If the response is not complete
	// by then, the stream is reset with INTERNAL_ERROR; if it is, and the request
	// is not, with NO_ERROR, as RFC 9113 §8.1 has it for who does not want the
	// rest.
	ServeStream(s *Stream)
}

// Server is what the connections of a server share: options, and goroutines for
// handlers.
type Server struct {
	config  config
	workers workers
}

// NewServer makes a Server.
func NewServer(options Options) *Server {
	s := &Server{}
	s.config.set(options)
	return s
}

// Conn makes the server's side of a connection, which must be served by Serve.
// What is done to it before, such as Drain, comes behind our preface.
func (s *Server) Conn(conn net.Conn, handler Handler) *Conn {
	c := &Conn{server: s, handler: handler}
	c.init(conn, &s.config, false)
	c.begin()
	return c
}

// Close ends the goroutines that wait for streams. Connections are to have ended
// before.
func (s *Server) Close() { s.workers.close() }

// Serve serves a server's connection on the calling goroutine: it reads frames
// and has the handler serve the streams, until the connection ends. Received is
// what was read from it before, if anything. It closes the connection, waits for
// the handlers, and returns what Err says.
func (c *Conn) Serve(received []byte) error {
	err := c.serve(received)
	c.mu.Lock()
	for c.running > 0 {
		c.w.idle.Wait()
	}
	c.mu.Unlock()
	return err
}

// workers are goroutines that serve streams, of all connections of a server. The
// one that was free last is used first, and those that nobody needed for a while
// end, so that a server in rest has none.
type workers struct {
	mu      sync.Mutex
	free    []*worker // the last one was used last
	closed  bool
	ticking bool
	timer   *time.Timer
	running sync.WaitGroup
}

type worker struct {
	streams chan *Stream
	freed   time.Time
}

// workerRest is how long a worker waits for a stream.
const workerRest = 5 * time.Second

// run has a stream served. It does not block.
func (w *workers) run(s *Stream) {
	w.mu.Lock()
	if n := len(w.free); n > 0 {
		free := w.free[n-1]
		w.free[n-1] = nil
		w.free = w.free[:n-1]
		w.mu.Unlock()
		free.streams <- s // has room for one
		return
	}
	w.mu.Unlock()
	w.running.Add(1)
	// Ends when it was free for a while, or with close, which waits for it.
	go w.serve(s)
}

func (w *workers) serve(s *Stream) {
	defer w.running.Done()
	var self *worker
	for s != nil {
		s.serve()
		if self == nil {
			self = &worker{streams: make(chan *Stream, 1)}
		}
		if !w.rest(self) {
			return
		}
		s = <-self.streams
	}
}

// serve calls the handler, and again as long as it parks the stream and there is
// something to read.
func (s *Stream) serve() {
	for {
		s.conn.handler.ServeStream(s)
		again, parked := s.park()
		switch {
		case parked:
			return
		case !again:
			s.finish(InternalError, NoError)
			return
		}
	}
}

// rest puts a worker with those that are free, unless nothing more comes.
func (w *workers) rest(self *worker) bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.closed {
		return false
	}
	self.freed = time.Now()
	w.free = append(w.free, self)
	if !w.ticking {
		w.ticking = true
		if w.timer == nil {
			w.timer = time.AfterFunc(workerRest, w.tick)
		} else {
			w.timer.Reset(workerRest)
		}
	}
	return true
}

// tick ends the workers that were free for long.
func (w *workers) tick() {
	w.mu.Lock()
	defer w.mu.Unlock()
	n := 0
	for n < len(w.free) && time.Since(w.free[n].freed) >= workerRest {
		close(w.free[n].streams)
		n++
	}
	rest := copy(w.free, w.free[n:])
	clear(w.free[rest:])
	w.free = w.free[:rest]
	if w.ticking = rest > 0; w.ticking {
		w.timer.Reset(workerRest)
	}
}

// close ends the workers that are free now and later, and waits for them.
func (w *workers) close() {
	w.mu.Lock()
	w.closed = true
	if w.timer != nil {
		w.timer.Stop()
	}
	for _, free := range w.free {
		close(free.streams)
	}
	w.free = nil
	w.mu.Unlock()
	w.running.Wait()
}
