package servicetest

import (
	"net"
	"sync"
	"testing"

	"github.com/stretchr/testify/require"
)

// Accept has serve serve each connection to a free port of loopback, whose address it
// returns, on a goroutine of its own, and closes the connection behind that. With the test
// it takes no more, and waits for those that are served: their clients are to end first.
func Accept(t testing.TB, serve func(net.Conn)) (address string) {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	var serving sync.WaitGroup
	serving.Go(func() { // ends with the listener; the clean-up waits for it
		for {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			serving.Go(func() { // ends with the connection; the clean-up waits for it
				defer conn.Close()
				serve(conn)
			})
		}
	})
	t.Cleanup(func() {
		_ = l.Close() // nothing waits for what a close could report
		serving.Wait()
	})
	return l.Addr().String()
}
