package servicetest

import (
	"net/netip"
	"runtime"
	"syscall"
	"testing"

	"github.com/stretchr/testify/require"
)

// FreeAddress returns an address of loopback, "127.0.0.1:port", for a program
// that cannot listen on port 0. Nobody listens there but who is told of it: the
// port stays bound, without listening, until the test ends, so that the system
// gives it to no one who asks for a free one. A program can listen there all
// the same if it sets SO_REUSEADDR, as Go, Redis and nginx do. Other systems
// than Linux would not let it; there the port is only free for the moment.
func FreeAddress(t testing.TB) string {
	t.Helper()
	syscall.ForkLock.RLock() // no program that is started meanwhile inherits it
	socket, err := syscall.Socket(syscall.AF_INET, syscall.SOCK_STREAM, 0)
	if err == nil {
		syscall.CloseOnExec(socket)
	}
	syscall.ForkLock.RUnlock()
	require.NoError(t, err)
	release := func() { _ = syscall.Close(socket) } // it is ours: no error can come
	if runtime.GOOS == "linux" {
		t.Cleanup(release)
	} else {
		defer release()
	}
	require.NoError(t, syscall.SetsockoptInt(socket, syscall.SOL_SOCKET, syscall.SO_REUSEADDR, 1))
	require.NoError(t, syscall.Bind(socket, &syscall.SockaddrInet4{Addr: [4]byte{127, 0, 0, 1}}))
	bound, err := syscall.Getsockname(socket)
	require.NoError(t, err)
	address := bound.(*syscall.SockaddrInet4)
	return netip.AddrPortFrom(netip.AddrFrom4(address.Addr), uint16(address.Port)).String()
}
