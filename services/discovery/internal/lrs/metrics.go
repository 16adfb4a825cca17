package lrs

import (
	"cmp"
	"maps"
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
			Name: "discovery_lrs_streams_refused_total", Help: "Streams of load reports refused, or ended, because there were too many, or the client may not be the node."}),
		tooLarge: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "discovery_lrs_reports_too_large_total", Help: "Load reports that would have been more than is remembered."}),
	}
	registerer.MustRegister(m.streams, m.reports, m.refused, m.tooLarge, &collector{server: s})
	return m
}

// maxSeries is how many clusters have metrics of their own at most, those with
// the most requests: their names are the clients'.
const maxSeries = 1000

// maxPlaces is how many localities, and how many hosts, of those clusters have.
const maxPlaces = 2000

// collector tells the load of each cluster at the time of a scrape.
type collector struct{ server *Server }

var (
	clustersDesc = prometheus.NewDesc("discovery_lrs_clusters",
		"Clusters that clients report; the 1000 with the most requests have the metrics below.", nil, nil)
	requestsDesc = prometheus.NewDesc("discovery_lrs_requests_per_second",
		"Requests a second that clients report of a cluster, by what became of them.", []string{"cluster", "outcome"}, nil)
	localityDesc = prometheus.NewDesc("discovery_lrs_locality_requests_per_second",
		"Requests a second that clients report of a cluster's locality, by what became of them; of 2000 localities at most.",
		[]string{"cluster", "region", "zone", "sub_zone", "outcome"}, nil)
	endpointDesc = prometheus.NewDesc("discovery_lrs_endpoint_requests_per_second",
		"Requests a second that clients report of a host of a cluster, by what became of them, if they are asked for hosts; of 2000 hosts at most.",
		[]string{"cluster", "address", "outcome"}, nil)
	inProgressDesc = prometheus.NewDesc("discovery_lrs_requests_in_progress",
		"Requests in progress that clients report of a cluster.", []string{"cluster"}, nil)
)

func (c *collector) Describe(descs chan<- *prometheus.Desc) {
	descs <- clustersDesc
	descs <- requestsDesc
	descs <- inProgressDesc
	descs <- localityDesc
	descs <- endpointDesc
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
	collectPlaces(loads[:min(len(loads), maxSeries)], gauge)
}

// collectPlaces tells the load of localities and hosts, of the clusters with the
// most requests first. A host that is in two localities has the load of both.
func collectPlaces(loads []ClusterLoad, gauge func(*prometheus.Desc, float64, ...string)) {
	outcomes := func(desc *prometheus.Desc, r Rates, labels ...string) {
		gauge(desc, r.Issued, append(labels, "issued")...)
		gauge(desc, r.Successful, append(labels, "successful")...)
		gauge(desc, r.Failed, append(labels, "failed")...)
	}
	localities, hosts := 0, 0
	for _, l := range loads {
		byAddress := map[string]Rates{}
		for _, locality := range l.Localities {
			if localities++; localities <= maxPlaces {
				outcomes(localityDesc, locality.Rates, l.Cluster, locality.Region, locality.Zone, locality.SubZone)
			}
			for _, e := range locality.Endpoints {
				rates := byAddress[e.Address]
				rates.add(e.Rates)
				byAddress[e.Address] = rates
			}
		}
		for _, address := range slices.Sorted(maps.Keys(byAddress)) {
			if hosts++; hosts <= maxPlaces {
				outcomes(endpointDesc, byAddress[address], l.Cluster, address)
			}
		}
	}
}
