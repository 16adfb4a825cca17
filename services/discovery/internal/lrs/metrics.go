package lrs

import (
	"cmp"
	"slices"

	"github.com/prometheus/client_golang/prometheus"
)

// metrics are those of all streams, and of the clusters that are reported.
type metrics struct {
	streams                    prometheus.Gauge
	reports, refused, tooLarge prometheus.Counter
}

func newMetrics(registerer prometheus.Registerer, s *Server) *metrics {
	m := &metrics{
		streams: prometheus.NewGauge(prometheus.GaugeOpts{
			Name: "discovery_lrs_streams", Help: "Streams of load reports open now."}),
		reports: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "discovery_lrs_reports_total", Help: "Load reports taken."}),
		refused: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "discovery_lrs_streams_refused_total", Help: "Streams of load reports refused because there were too many, or the client may not be the node."}),
		tooLarge: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "discovery_lrs_reports_too_large_total", Help: "Load reports that would have been more than is remembered."}),
	}
	registerer.MustRegister(m.streams, m.reports, m.refused, m.tooLarge, &collector{server: s})
	return m
}

// maxSeries is how many clusters have metrics of their own at most, those with
// the most requests: their names are the clients'.
const maxSeries = 1000

// collector tells the load of each cluster at the time of a scrape.
type collector struct{ server *Server }

var (
	clustersDesc = prometheus.NewDesc("discovery_lrs_clusters",
		"Clusters that clients report; the 1000 with the most requests have the metrics below.", nil, nil)
	requestsDesc = prometheus.NewDesc("discovery_lrs_requests_per_second",
		"Requests a second that clients report of a cluster, by what became of them.", []string{"cluster", "outcome"}, nil)
	inProgressDesc = prometheus.NewDesc("discovery_lrs_requests_in_progress",
		"Requests in progress that clients report of a cluster.", []string{"cluster"}, nil)
)

func (c *collector) Describe(descs chan<- *prometheus.Desc) {
	descs <- clustersDesc
	descs <- requestsDesc
	descs <- inProgressDesc
}

func (c *collector) Collect(metrics chan<- prometheus.Metric) {
	gauge := func(desc *prometheus.Desc, value float64, labels ...string) {
		metrics <- prometheus.MustNewConstMetric(desc, prometheus.GaugeValue, value, labels...)
	}
	loads := c.server.Loads()
	gauge(clustersDesc, float64(len(loads)))
	slices.SortStableFunc(loads, func(a, b ClusterLoad) int { return cmp.Compare(b.Issued, a.Issued) })
	for _, l := range loads[:min(len(loads), maxSeries)] {
		dropped := 0.0
		for _, rate := range l.Dropped {
			dropped += rate
		}
		gauge(requestsDesc, l.Issued, l.Cluster, "issued")
		gauge(requestsDesc, l.Successful, l.Cluster, "successful")
		gauge(requestsDesc, l.Failed, l.Cluster, "failed")
		gauge(requestsDesc, dropped, l.Cluster, "dropped")
		gauge(inProgressDesc, l.InProgress, l.Cluster)
	}
}
