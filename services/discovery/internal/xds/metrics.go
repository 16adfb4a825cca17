package xds

import (
	"github.com/prometheus/client_golang/prometheus"

	"github.com/weirproxy/weir/services/discovery/internal/resources"
)

// metrics are the server's, with every child resolved.
type metrics struct {
	streams    map[streamKind]prometheus.Gauge
	refused    prometheus.Counter
	aged       prometheus.Counter
	slow       prometheus.Counter
	slowNow    prometheus.Gauge
	dropped    prometheus.Counter
	requests   prometheus.Counter
	stale      prometheus.Counter
	unserved   prometheus.Counter
	responses  perType
	bytes      perType
	acks       perType
	nacks      perType
	updates    perType
	unbuilt    prometheus.Counter
	duplicates prometheus.Gauge
	waiting    prometheus.Gauge
	dirty      prometheus.Gauge
	dirtySets  prometheus.Gauge
	debounce   prometheus.Histogram
	marked     prometheus.Histogram
	pushed     prometheus.Histogram
	ackLag     prometheus.Histogram
}

// perType is a counter for each type of resource.
type perType [resources.Types]prometheus.Counter

// streamKind is what streams are counted by.
type streamKind struct {
	only  resources.Type
	delta bool
}

// labels are those of a kind of streams.
func (k streamKind) labels() (typ, variant string) {
	typ, variant = "ads", "sotw"
	if k.only != allTypes {
		typ = k.only.String()
	}
	if k.delta {
		variant = "delta"
	}
	return typ, variant
}

// opened counts a stream, or by -1 that it is closed.
func (m *metrics) opened(only resources.Type, delta bool, n float64) {
	m.streams[streamKind{only, delta}].Add(n)
}

func newMetrics(registerer prometheus.Registerer) *metrics {
	counter := func(name, help string) prometheus.Counter {
		c := prometheus.NewCounter(prometheus.CounterOpts{Name: name, Help: help})
		registerer.MustRegister(c)
		return c
	}
	gauge := func(name, help string) prometheus.Gauge {
		g := prometheus.NewGauge(prometheus.GaugeOpts{Name: name, Help: help})
		registerer.MustRegister(g)
		return g
	}
	byType := func(name, help string) (counters perType) {
		vector := prometheus.NewCounterVec(prometheus.CounterOpts{Name: name, Help: help}, []string{"type"})
		registerer.MustRegister(vector)
		for t := range resources.Types {
			counters[t] = vector.WithLabelValues(t.String())
		}
		return counters
	}
	histogram := func(name, help string, buckets ...float64) prometheus.Histogram {
		h := prometheus.NewHistogram(prometheus.HistogramOpts{Name: name, Help: help, Buckets: buckets})
		registerer.MustRegister(h)
		return h
	}
	m := &metrics{
		streams:    map[streamKind]prometheus.Gauge{},
		refused:    counter("discovery_xds_streams_refused_total", "Streams refused, or ended, because there were too many, or too many names on one, or the client may not be the node."),
		aged:       counter("discovery_xds_streams_aged_total", "Streams ended because they were as old as they may be."),
		slow:       counter("discovery_xds_slow_total", "Responses that were unanswered for long."),
		slowNow:    gauge("discovery_xds_slow_streams", "Streams with a response that has been unanswered for long."),
		dropped:    counter("discovery_xds_streams_dropped_total", "Streams ended because a response was unanswered, or no request came, for too long."),
		requests:   counter("discovery_xds_requests_total", "Requests read from streams."),
		stale:      counter("discovery_xds_stale_requests_total", "Requests that answer an earlier response than the last."),
		unserved:   counter("discovery_xds_unserved_requests_total", "Requests for types that this server does not have."),
		responses:  byType("discovery_xds_responses_total", "Responses sent."),
		bytes:      byType("discovery_xds_response_bytes_total", "Bytes of the responses sent on streams, without their frames."),
		acks:       byType("discovery_xds_acks_total", "Responses that the client took."),
		nacks:      byType("discovery_xds_nacks_total", "Responses that the client refused."),
		updates:    byType("discovery_xds_updates_total", "Resources that became other than they were."),
		unbuilt:    counter("discovery_xds_unbuilt_total", "Resources that could not be made."),
		duplicates: gauge("discovery_xds_duplicate_endpoints", "Hosts left out now because another has the same address."),
		waiting:    gauge("discovery_xds_debounced_services", "Services whose changes wait for others."),
		dirty:      gauge("discovery_xds_dirty_streams", "Streams with something yet to be sent, as of the last second."),
		dirtySets:  gauge("discovery_xds_dirty_resources", "Resources that streams have yet to look at or to send, of all streams together, as of the last second."),
		debounce: histogram("discovery_xds_debounce_seconds", "Time from a service's change to its being marked for sending.",
			.05, .1, .15, .2, .3, .5, .75, 1, 1.5, 2),
		marked: histogram("discovery_xds_mark_seconds", "Time to mark all streams that are shown a service that changed.",
			.00001, .0001, .00025, .0005, .001, .0025, .005, .01, .025, .05, .1),
		pushed: histogram("discovery_xds_push_seconds", "Time from a service's change to a response with it being written.",
			.05, .1, .15, .2, .3, .5, .75, 1, 1.5, 2, 3, 5, 10, 30),
		ackLag: histogram("discovery_xds_ack_seconds", "Time from a response to the client's answer.",
			.001, .0025, .005, .01, .025, .05, .1, .25, .5, 1, 5, 15, 60),
	}
	vector := prometheus.NewGaugeVec(prometheus.GaugeOpts{
		Name: "discovery_xds_streams", Help: "xDS streams open now."}, []string{"type", "variant"})
	registerer.MustRegister(vector)
	for _, service := range services {
		for _, delta := range [...]bool{false, true} {
			k := streamKind{service.only, delta}
			m.streams[k] = vector.WithLabelValues(k.labels())
		}
	}
	return m
}
