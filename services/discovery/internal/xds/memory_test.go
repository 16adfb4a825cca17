package xds

import (
	"fmt"
	"runtime"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/weirproxy/weir/services/discovery/internal/resources"
)

// TestAStreamAtRestTakesLittleMemory holds the state of a stream that has the
// assignments of 50 services, of 1,000, to so many bytes. What gRPC keeps of a
// stream and a connection, and the stacks of both, come to it.
func TestAStreamAtRestTakesLittleMemory(t *testing.T) {
	const streams, services, most = 1000, 1000, 4000
	for _, delta := range []bool{false, true} {
		t.Run(variant(delta), func(t *testing.T) {
			h := newTestHub(t)
			h.open(&h.loaded)
			for i := range services {
				h.hosts(serviceName(i), "10.0.0.1:80")
			}
			names := make([][]string, streams)
			for i := range names {
				for k := range 50 {
					names[i] = append(names[i], serviceName(i*7+k*13))
				}
			}
			open := make([]*stream, streams)
			first := heap()
			for i := range open {
				open[i] = subscribed(t, h, delta, 1, names[i]...)[0]
			}
			each := (int64(heap()) - int64(first)) / streams // which may be less, by what was there before
			t.Logf("%d bytes for each stream", each)
			require.Less(t, each, int64(most))
			runtime.KeepAlive(open)
			for _, s := range open {
				require.Len(t, s.subscriptions[resources.Endpoints].names, 50)
			}
		})
	}
}

func serviceName(i int) string { return fmt.Sprint("service-", i%1000) }

// heap is how many bytes of the heap are in use, without garbage.
func heap() uint64 {
	runtime.GC()
	runtime.GC()
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return m.HeapAlloc
}
