package xds

import "github.com/prometheus/client_golang/prometheus"

// metrics are the server's, with every child resolved.
type metrics struct {
	streams    prometheus.Gauge
	refused    prometheus.Counter
	requests   prometheus.Counter
	stale      prometheus.Counter
	unserved   prometheus.Counter
	responses  [kinds]prometheus.Counter
	acks       [kinds]prometheus.Counter
	nacks      [kinds]prometheus.Counter
	updates    [kinds]prometheus.Counter
	unbuilt    prometheus.Counter
	duplicates prometheus.Counter
	debounce   prometheus.Histogram
}

func newMetrics(registerer prometheus.Registerer) *metrics {
	counter := func(name, help string) prometheus.Counter {
		c := prometheus.NewCounter(prometheus.CounterOpts{Name: name, Help: help})
		registerer.MustRegister(c)
		return c
	}
	perKind := func(name, help string) (counters [kinds]prometheus.Counter) {
		vector := prometheus.NewCounterVec(prometheus.CounterOpts{Name: name, Help: help}, []string{"type"})
		registerer.MustRegister(vector)
		for k := range kinds {
			counters[k] = vector.WithLabelValues(k.String())
		}
		return counters
	}
	m := &metrics{
		streams: prometheus.NewGauge(prometheus.GaugeOpts{
			Name: "discovery_xds_streams", Help: "xDS streams open now."}),
		refused:    counter("discovery_xds_streams_refused_total", "Streams refused because there were too many."),
		requests:   counter("discovery_xds_requests_total", "Requests read from streams."),
		stale:      counter("discovery_xds_stale_requests_total", "Requests ignored because a later response was on its way."),
		unserved:   counter("discovery_xds_unserved_requests_total", "Requests for types that this server does not have."),
		responses:  perKind("discovery_xds_responses_total", "Responses sent."),
		acks:       perKind("discovery_xds_acks_total", "Responses that the client took."),
		nacks:      perKind("discovery_xds_nacks_total", "Responses that the client refused."),
		updates:    perKind("discovery_xds_updates_total", "Resources that became other than they were."),
		unbuilt:    counter("discovery_xds_unbuilt_total", "Services whose resources could not be made."),
		duplicates: counter("discovery_xds_duplicate_endpoints_total", "Hosts left out because another has the same address."),
		debounce: prometheus.NewHistogram(prometheus.HistogramOpts{
			Name: "discovery_xds_debounce_seconds", Help: "Time from a service's change to its being sent.",
			Buckets: []float64{.05, .1, .15, .2, .3, .5, .75, 1, 1.5, 2}}),
	}
	registerer.MustRegister(m.streams, m.debounce)
	return m
}
