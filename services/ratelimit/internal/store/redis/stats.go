package redis

import (
	"errors"

	"github.com/prometheus/client_golang/prometheus"
)

// stats is what the store shows of its exchanges with Redis.
type stats struct {
	errors *prometheus.CounterVec
	kinds  [len(faultNames)]prometheus.Counter
	time   *prometheus.HistogramVec
	calls  *prometheus.HistogramVec
	opened prometheus.Counter
	closed prometheus.Counter
}

// shardStats is the part of it that belongs to one server.
type shardStats struct {
	time, calls prometheus.Observer
}

// fault is a kind of error.
type fault int

const (
	timeoutFault fault = iota
	connectionFault
	replyFault
	breakerFault
)

var faultNames = [...]string{"timeout", "connection", "reply", "breaker"}

func newStats(reg prometheus.Registerer, s *Store) *stats {
	t := &stats{
		errors: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "ratelimit_redis_errors_total",
			Help: "Calls that Redis answered with an error (reply), not in time (timeout) or not at all (connection), or that were not sent since it had failed for long (breaker); none that its caller cancelled.",
		}, []string{"kind"}),
		time: prometheus.NewHistogramVec(prometheus.HistogramOpts{
			Name:    "ratelimit_redis_batch_seconds",
			Help:    "Time from sending a batch to its last reply.",
			Buckets: []float64{.0001, .00025, .0005, .001, .0025, .005, .01, .025, .05, .1},
		}, []string{"node"}),
		calls: prometheus.NewHistogramVec(prometheus.HistogramOpts{
			Name:    "ratelimit_redis_batch_calls",
			Help:    "Requests whose commands were sent together.",
			Buckets: []float64{1, 2, 4, 8, 16, 32, 64, 128},
		}, []string{"node"}),
		opened: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "ratelimit_redis_connections_opened_total",
			Help: "Connections opened.",
		}),
		closed: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "ratelimit_redis_connections_closed_total",
			Help: "Connections closed here, whatever for.",
		}),
	}
	for i, name := range faultNames {
		t.kinds[i] = t.errors.WithLabelValues(name)
	}
	reg.MustRegister(t.errors, t.time, t.calls, t.opened, t.closed, &collector{
		store: s,
		inFlight: prometheus.NewDesc("ratelimit_redis_calls_in_flight",
			"Calls that wait for a server or are under way to it.", []string{"node"}, nil),
		broken: prometheus.NewDesc("ratelimit_redis_breaker_open",
			"1 while calls fail at once since the server has failed for long, else 0.", []string{"node"}, nil),
		connections: prometheus.NewDesc("ratelimit_redis_connections",
			"Connections that are open.", nil, nil),
		idle: prometheus.NewDesc("ratelimit_redis_connections_idle",
			"Connections that are open and not in use.", nil, nil),
	})
	return t
}

func (t *stats) of(node string) shardStats {
	return shardStats{time: t.time.WithLabelValues(node), calls: t.calls.WithLabelValues(node)}
}

// forget drops what was counted of a server that has left.
func (t *stats) forget(node string) {
	t.time.DeleteLabelValues(node)
	t.calls.DeleteLabelValues(node)
}

func (t *stats) failed(kind fault) { t.kinds[kind].Inc() }

// kindOf is the kind of an error of a call or of an operation. What is of no
// other kind counts as no answer.
func kindOf(err error) fault {
	if _, refused := errors.AsType[*refusedError](err); refused {
		return breakerFault
	}
	if answered(err) {
		return replyFault
	}
	type slow interface {
		error
		Timeout() bool
	}
	if e, ok := errors.AsType[slow](err); ok && e.Timeout() {
		return timeoutFault
	}
	return connectionFault
}

// collector reads what the store and its driver know when they are asked.
type collector struct {
	store                               *Store
	inFlight, broken, connections, idle *prometheus.Desc
}

// Describe names the metrics.
func (c *collector) Describe(to chan<- *prometheus.Desc) {
	for _, d := range []*prometheus.Desc{c.inFlight, c.broken, c.connections, c.idle} {
		to <- d
	}
}

// Collect reads them.
func (c *collector) Collect(to chan<- prometheus.Metric) {
	s := c.store
	gauge := func(d *prometheus.Desc, value float64, labels ...string) {
		to <- prometheus.MustNewConstMetric(d, prometheus.GaugeValue, value, labels...)
	}
	for _, h := range s.all() {
		gauge(c.inFlight, float64(h.flying()), h.name)
		broken := 0.0
		if h.breaker.open.Load() != nil {
			broken = 1
		}
		gauge(c.broken, broken, h.name)
	}
	if s.nodes != nil && !s.nodes.ready() {
		return // the driver would go and ask for it
	}
	pool := s.client.PoolStats()
	gauge(c.connections, float64(pool.TotalConns))
	gauge(c.idle, float64(pool.IdleConns))
}
