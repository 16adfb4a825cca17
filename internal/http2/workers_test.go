package http2

import (
	"net"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"
)

type waiting chan bool

func (w waiting) ServeStream(*Stream) { <-w }

// TestWorkersAreUsedAgainAndEnd has three streams at once, then one after the
// other, then none.
func TestWorkersAreUsedAgainAndEnd(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		near, far := net.Pipe()
		defer near.Close()
		server := NewServer(Options{})
		defer server.Close()
		goOn := make(waiting)
		conn := server.Conn(far, goOn)
		free := func() (n int, last *worker) {
			synctest.Wait()
			server.workers.mu.Lock()
			defer server.workers.mu.Unlock()
			if n = len(server.workers.free); n > 0 {
				last = server.workers.free[n-1]
			}
			return n, last
		}
		for range 3 {
			server.workers.run(conn.stream())
		}
		n, _ := free()
		require.Zero(t, n)
		for range 3 {
			goOn <- true
		}
		n, first := free()
		require.Equal(t, 3, n)
		for range 4 {
			time.Sleep(workerRest / 2)
			server.workers.run(conn.stream())
			goOn <- true
			_, last := free()
			require.Same(t, first, last, "the one that was free last")
		}
		n, _ = free()
		require.Equal(t, 1, n, "the others had nothing to do")
		time.Sleep(3 * workerRest)
		n, _ = free()
		require.Zero(t, n)
	})
}

// stream is one that needs no peer.
func (c *Conn) stream() *Stream {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.running++
	s := c.open(c.nextID)
	c.nextID += 2
	s.localEnded, s.remoteEnded = true, true
	return s
}
