//go:build unix

package http2

import (
	"errors"
	"io"
	"net"
	"syscall"
)

// rawConn is the socket of a connection that is nothing but a socket. What wraps
// one is left alone, since it may do more when it reads.
func rawConn(conn net.Conn) syscall.RawConn {
	var raw syscall.RawConn
	switch conn := conn.(type) {
	case *net.TCPConn:
		raw, _ = conn.SyscallConn()
	case *net.UnixConn:
		raw, _ = conn.SyscallConn()
	}
	return raw
}

// fillSocket reads into the buffer, which it has only once there is something to
// read.
func (r *reader) fillSocket() (int, error) {
	err := r.c.raw.Read(r.readFD)
	if err == nil {
		err = r.readErr
	}
	if err != nil {
		return 0, err
	}
	return r.readN, nil
}

// readSocket tries to read, and says whether that is done: if not, there is
// nothing to read yet, and it is called again when there is.
func (r *reader) readSocket(fd uintptr) bool {
	r.ensure(false)
	for {
		n, err := syscall.Read(int(fd), r.buf[r.end:])
		switch {
		case errors.Is(err, syscall.EINTR):
			continue
		case errors.Is(err, syscall.EAGAIN):
			if r.start == r.end {
				r.release()
			}
			return false
		case err == nil && n == 0:
			err = io.EOF
		}
		r.readN, r.readErr = max(n, 0), err
		return true
	}
}

// writeSocket writes what the socket takes at once, and says how much that was.
func (w *writer) writeSocket(fd uintptr) bool {
	for {
		n, err := syscall.Write(int(fd), w.trying)
		switch {
		case errors.Is(err, syscall.EINTR):
			continue
		case errors.Is(err, syscall.EAGAIN):
			w.tried, w.tryErr = 0, nil
		default:
			w.tried, w.tryErr = max(n, 0), err
		}
		return true
	}
}
