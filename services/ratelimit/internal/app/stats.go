package app

import (
	"runtime/metrics"

	"github.com/prometheus/client_golang/prometheus"
)

// newGCShare makes the metric of what share of the processors' time garbage
// collection takes, which the collector of Go's own metrics leaves out. Like
// runtime.MemStats' GCCPUFraction it is that since the start, as it was when
// the last collection ended, but the program need not be stopped to read it.
func newGCShare() prometheus.Collector {
	return prometheus.NewGaugeFunc(prometheus.GaugeOpts{
		Name: "ratelimit_process_gc_cpu_ratio",
		Help: "Share of the processors' time since the start that garbage collection took, but for what it did while they were idle.",
	}, gcShare)
}

func gcShare() float64 {
	seconds := []metrics.Sample{
		{Name: "/cpu/classes/gc/total:cpu-seconds"},
		{Name: "/cpu/classes/gc/mark/idle:cpu-seconds"},
		{Name: "/cpu/classes/total:cpu-seconds"},
	}
	metrics.Read(seconds)
	all := seconds[2].Value.Float64()
	if all == 0 {
		return 0 // nothing was collected yet
	}
	return (seconds[0].Value.Float64() - seconds[1].Value.Float64()) / all
}
