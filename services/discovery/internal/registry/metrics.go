package registry

import "github.com/prometheus/client_golang/prometheus"

// metrics are the registry's, with every child resolved.
type metrics struct {
	hosts, services prometheus.Gauge
	checkIns        [3]prometheus.Counter // by Outcome
	deregistrations prometheus.Counter
	expiries        prometheus.Counter
	storeErrors     prometheus.Counter
}

func newMetrics(registerer prometheus.Registerer) *metrics {
	checkIns := prometheus.NewCounterVec(prometheus.CounterOpts{
		Name: "discovery_check_ins_total",
		Help: "Registrations and heartbeats taken, by what they did: new, changed or unchanged host.",
	}, []string{"outcome"})
	m := &metrics{
		hosts: prometheus.NewGauge(prometheus.GaugeOpts{
			Name: "discovery_hosts", Help: "Hosts registered now."}),
		services: prometheus.NewGauge(prometheus.GaugeOpts{
			Name: "discovery_services", Help: "Services known now, those without hosts included."}),
		deregistrations: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "discovery_deregistrations_total", Help: "Hosts taken out at their own wish."}),
		expiries: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "discovery_expiries_total", Help: "Hosts dropped because their TTL passed without a check-in."}),
		storeErrors: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "discovery_store_errors_total", Help: "Times the store did not take changes or beats."}),
	}
	m.checkIns = [3]prometheus.Counter{
		HostUnchanged: checkIns.WithLabelValues("unchanged"),
		HostChanged:   checkIns.WithLabelValues("changed"),
		HostNew:       checkIns.WithLabelValues("new"),
	}
	registerer.MustRegister(m.hosts, m.services, checkIns, m.deregistrations, m.expiries, m.storeErrors)
	return m
}
