package hcm_test

import (
	"bufio"
	"io"
	"net"
	"net/http"
	"runtime"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/weirproxy/weir/internal/servicetest"
)

// TestIdleConnectionsTakeLittleMemory counts the heap of connections that had a
// request each. Their clients' ends are in it, with less than 1 kB; the 4 kB of each
// goroutine's stack are not, which the runtime chooses.
func TestIdleConnectionsTakeLittleMemory(t *testing.T) {
	const connections, most = 500, 5 << 10
	p := start(t, cannedUpstream(t), config{})
	ask := func() net.Conn {
		conn, err := net.Dial("tcp", p.address)
		require.NoError(t, err)
		<-p.current
		t.Cleanup(func() { _ = conn.Close() })
		_, err = conn.Write(benchmarkRequest)
		require.NoError(t, err)
		answer, err := http.ReadResponse(bufio.NewReader(conn), nil)
		require.NoError(t, err)
		_, err = io.Copy(io.Discard, answer.Body)
		require.NoError(t, err)
		return conn
	}
	inUse := func() int {
		servicetest.Eventually(t, "nothing is under way", func() bool { return p.stat("http.test.downstream_rq_active") == 0 })
		var m runtime.MemStats
		for range 3 { // what pools keep goes with the second collection
			runtime.GC()
		}
		runtime.ReadMemStats(&m)
		return int(m.HeapAlloc)
	}
	ask()
	before := inUse()
	for range connections {
		ask()
	}
	require.Less(t, (inUse()-before)/connections, most, "bytes a connection")
}
