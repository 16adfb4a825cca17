package directory

import "github.com/prometheus/client_golang/prometheus"

// stats counts what could not be read.
type stats struct{ unread prometheus.Counter }

func newStats(reg prometheus.Registerer) *stats {
	s := &stats{unread: prometheus.NewCounter(prometheus.CounterOpts{
		Name: "ratelimit_service_config_unread",
		Help: "Files and directories that a load could not read.",
	})}
	reg.MustRegister(s.unread)
	return s
}
