//go:build !unix

package http2

import (
	"net"
	"syscall"
)

// Here sockets are read and written as other connections are.
func rawConn(net.Conn) syscall.RawConn { return nil }

func (r *reader) fillSocket() (int, error) { return 0, nil }

func (r *reader) readSocket(uintptr) bool { return true }

func (w *writer) writeSocket(uintptr) bool { return true }
