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
		free := func() int {
			synctest.Wait()
			server.workers.mu.Lock()
			defer server.workers.mu.Unlock()
			return len(server.workers.free)
		}
		for range 3 {
			server.workers.run(conn.stream())
		}
		require.Zero(t, free())
		for range 3 {
			goOn <- true
		}
		require.Equal(t, 3, free())
		last := server.workers.free[2]
		for range 4 {
			time.Sleep(workerRest / 2)
			server.workers.run(conn.stream())
			goOn <- true
			require.LessOrEqual(t, free(), 3)
			require.Same(t, last, server.workers.free[len(server.workers.free)-1], "the one that was free last")
		}
		require.Equal(t, 1, free(), "the others had nothing to do")
		time.Sleep(3 * workerRest)
		require.Zero(t, free())
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
