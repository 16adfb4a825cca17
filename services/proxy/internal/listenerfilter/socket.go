package listenerfilter

import (
	"fmt"
	"io"
	"net"
	"os"
	"sync"
	"syscall"
)

// Socket is an accepted connection that listener filters look at. It belongs to the
// goroutine that runs them.
type Socket struct {
	Facts
	raw syscall.RawConn
	// buffer has what was peeked at last; nil before anything was.
	buffer []byte
}

// NewSocket makes a Socket of a connection, until Release.
func NewSocket(conn net.Conn) (*Socket, error) {
	asked, ok := conn.(syscall.Conn)
	if !ok {
		return nil, fmt.Errorf("look at a connection before it is read: a %T is no socket", conn)
	}
	raw, err := asked.SyscallConn()
	if err != nil {
		return nil, err
	}
	return &Socket{Facts: FactsOf(conn), raw: raw}, nil
}

// bufferSize is what most clients send at once fits in, in bytes.
const bufferSize = 4 << 10

// The buffers of no Socket: one that waits for its client's first byte has none.
var buffers = sync.Pool{New: func() any { return new([bufferSize]byte) }}

// Peek waits until n bytes or more have come, and returns them with those behind them
// that are there, as far as there is room for them. They stay where they are, for the
// next filter and for whom the connection is given to. The slice is good until the
// next Peek, and until Release.
//
// The error is io.EOF if the client has ended its direction before that, that of an
// expired deadline (os.ErrDeadlineExceeded) or of a connection that was closed here
// (net.ErrClosed), or what the kernel says.
func (s *Socket) Peek(n int) ([]byte, error) {
	var got int
	var failed error
	err := s.raw.Read(func(fd uintptr) (done bool) {
		got, failed = s.peek(int(fd), n)
		return failed != nil || got >= n
	})
	if err == nil {
		err = failed
	}
	if err != nil {
		return nil, err
	}
	return s.buffer[:got], nil
}

// peek fills the buffer with what is there, and says how much that is. It waits for
// nothing.
func (s *Socket) peek(fd, n int) (got int, err error) {
	s.hold(n)
	for ended := false; ; {
		got, _, err = syscall.Recvfrom(fd, s.buffer, syscall.MSG_PEEK|syscall.MSG_DONTWAIT)
		switch {
		case err == syscall.EINTR:
		case err == syscall.EAGAIN:
			s.Release()
			return 0, nil
		case err != nil:
			return 0, os.NewSyscallError("recvfrom", err)
		case got == 0, got < n && ended:
			return 0, io.EOF
		case got < n && hungUp(fd): // perhaps after more has come
			ended = true
		default:
			return got, nil
		}
	}
}

// hold sees to it that n bytes fit in the buffer.
func (s *Socket) hold(n int) {
	switch {
	case n <= len(s.buffer):
	case n <= bufferSize:
		s.buffer = buffers.Get().(*[bufferSize]byte)[:]
	default:
		s.Release()
		s.buffer = make([]byte, 2*n)
	}
}

// Release gives the buffer away, once no filter looks at the connection any more.
func (s *Socket) Release() {
	if len(s.buffer) == bufferSize {
		buffers.Put((*[bufferSize]byte)(s.buffer))
	}
	s.buffer = nil
}
