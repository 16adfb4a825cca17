package grpcserver

import (
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"syscall"
	"time"
)

// ListenUnix opens a unix socket at path, with mode as its permissions: who
// may write to it may connect. It takes the place of a socket that nobody
// listens on any more, but of nothing else. The error names path and GRPC_UDS,
// the variable that moves it. Closing the listener removes the socket.
func ListenUnix(path string, mode fs.FileMode) (net.Listener, error) {
	fault := func(err error) error { return fmt.Errorf("listen on GRPC_UDS=%s: %w", path, err) }
	if err := removeStale(path); err != nil {
		return nil, fault(err)
	}
	l, err := net.Listen("unix", path)
	if err != nil {
		return nil, fault(err)
	}
	if err := os.Chmod(path, mode); err != nil {
		_ = l.Close()
		return nil, fault(err)
	}
	return l, nil
}

// removeStale removes the socket at path if it is one that refuses connections.
func removeStale(path string) error {
	info, err := os.Lstat(path)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return nil
	case err != nil:
		return err
	case info.Mode().Type() != fs.ModeSocket:
		return errors.New("there is a file, and it is no socket")
	}
	c, err := net.DialTimeout("unix", path, time.Second)
	switch {
	case err == nil:
		_ = c.Close()
		return errors.New("the socket is in use")
	case !errors.Is(err, syscall.ECONNREFUSED):
		return fmt.Errorf("is the socket that is there in use? %w", err)
	}
	return os.Remove(path)
}
