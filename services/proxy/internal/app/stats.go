package app

import (
	"math"
	"runtime"
	"runtime/debug"
	"runtime/metrics"
	"strconv"
	"time"

	adminv3 "github.com/envoyproxy/go-control-plane/envoy/admin/v3"

	"github.com/weirproxy/weir/services/proxy/internal/stats"
)

// The samples of the runtime that serverStats reads, in bytes.
const (
	heapObjects = iota
	heapUnused
	heapFree
	heapReleased
	allMemory
)

// serverStats are the metrics of the process under server., by Envoy's names.
type serverStats struct {
	uptime, live, state         *stats.Gauge
	allocated, heap, physical   *stats.Gauge
	concurrency, epoch, parents *stats.Gauge
	connections                 *stats.Gauge
	initialization              *stats.Histogram
}

// newServerStats makes the metrics of a, which are brought up to date when someone
// reads them.
func (a *App) newServerStats() *serverStats {
	scope := a.registry.Scope("server")
	s := &serverStats{
		uptime: scope.Gauge("uptime"), live: scope.Gauge("live"), state: scope.Gauge("state"),
		allocated: scope.Gauge("memory_allocated"), heap: scope.Gauge("memory_heap_size"), physical: scope.Gauge("memory_physical_size"),
		concurrency: scope.Gauge("concurrency"), epoch: scope.Gauge("hot_restart_epoch"), parents: scope.Gauge("parent_connections"),
		connections:    scope.Gauge("total_connections"),
		initialization: scope.Histogram("initialization_time_ms"),
	}
	s.epoch.Set(0) // there is no hot restart
	s.parents.Set(0)
	scope.Gauge("version").Set(revision())
	scope.Gauge("days_until_first_cert_expiring").Set(noCertificate)
	a.registry.BeforeRead(func() { s.refresh(a) })
	return s
}

// noCertificate is the days until a certificate expires where there is none, as Envoy
// tells it.
const noCertificate = math.MaxUint32

// revision is the number that Envoy makes of the revision that a binary is of: its
// first six digits. It is 0 for a binary that does not know its own.
func revision() int64 {
	info, ok := debug.ReadBuildInfo()
	if !ok {
		return 0
	}
	for _, setting := range info.Settings {
		if setting.Key == "vcs.revision" {
			return numberOf(setting.Value)
		}
	}
	return 0
}

// numberOf is that of a revision in hexadecimal digits; 0 is that it is none.
func numberOf(revision string) int64 {
	n, err := strconv.ParseInt(revision[:min(len(revision), 6)], 16, 64)
	if err != nil {
		return 0
	}
	return n
}

func (s *serverStats) refresh(a *App) {
	s.connections.Set(a.listeners.Connections())
	state, live := a.stateName(), int64(0)
	if state == stateLive {
		live = 1
	}
	s.state.Set(int64(adminv3.ServerInfo_State_value[state]))
	s.live.Set(live)
	s.uptime.Set(int64(time.Since(a.started).Seconds()))
	s.concurrency.Set(int64(runtime.GOMAXPROCS(0)))
	samples := []metrics.Sample{
		heapObjects: {Name: "/memory/classes/heap/objects:bytes"}, heapUnused: {Name: "/memory/classes/heap/unused:bytes"},
		heapFree: {Name: "/memory/classes/heap/free:bytes"}, heapReleased: {Name: "/memory/classes/heap/released:bytes"},
		allMemory: {Name: "/memory/classes/total:bytes"},
	}
	metrics.Read(samples)
	bytes := func(i int) int64 { return int64(samples[i].Value.Uint64()) }
	s.allocated.Set(bytes(heapObjects))
	s.heap.Set(bytes(heapObjects) + bytes(heapUnused) + bytes(heapFree))
	s.physical.Set(bytes(allMemory) - bytes(heapReleased))
}
