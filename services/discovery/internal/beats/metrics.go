package beats

import "github.com/prometheus/client_golang/prometheus"

// metrics are those of all streams.
type metrics struct {
	streams, hosts    prometheus.Gauge
	messages, refused prometheus.Counter
}

func newMetrics(registerer prometheus.Registerer) *metrics {
	m := &metrics{
		streams: prometheus.NewGauge(prometheus.GaugeOpts{
			Name: "discovery_beat_streams", Help: "Streams of heartbeats open now."}),
		hosts: prometheus.NewGauge(prometheus.GaugeOpts{
			Name: "discovery_beat_stream_hosts", Help: "Hosts attached to streams of heartbeats now."}),
		messages: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "discovery_beat_stream_messages_total", Help: "Messages answered on streams of heartbeats."}),
		refused: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "discovery_beat_streams_refused_total", Help: "Streams of heartbeats ended because there were too many, or too many hosts on one."}),
	}
	registerer.MustRegister(m.streams, m.hosts, m.messages, m.refused)
	return m
}
