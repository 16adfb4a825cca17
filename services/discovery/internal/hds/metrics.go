package hds

import "github.com/prometheus/client_golang/prometheus"

// metrics are those of all checkers.
type metrics struct {
	checkers, hosts, unhealthy, suspended, rulesGood prometheus.Gauge
	reports, specifiers, verdicts, refused           prometheus.Counter
}

func newMetrics(registerer prometheus.Registerer) *metrics {
	gauge := func(name, help string) prometheus.Gauge {
		g := prometheus.NewGauge(prometheus.GaugeOpts{Name: name, Help: help})
		registerer.MustRegister(g)
		return g
	}
	counter := func(name, help string) prometheus.Counter {
		c := prometheus.NewCounter(prometheus.CounterOpts{Name: name, Help: help})
		registerer.MustRegister(c)
		return c
	}
	return &metrics{
		checkers:   gauge("discovery_hds_checkers", "Health checkers connected now."),
		hosts:      gauge("discovery_hds_checked_hosts", "Hosts that a health checker checks now."),
		unhealthy:  gauge("discovery_hds_unhealthy_hosts", "Hosts marked as unhealthy now."),
		suspended:  gauge("discovery_hds_suspended_services", "Services of which more hosts are found unhealthy than can be believed, so that none is marked."),
		rulesGood:  gauge("discovery_hds_rules_good", "1 while hosts are checked as the file of health checks says, 0 while that is bad and the one before it stays."),
		reports:    counter("discovery_hds_reports_total", "Reports of health checkers taken."),
		specifiers: counter("discovery_hds_specifiers_total", "Times that a health checker was told what to check."),
		verdicts:   counter("discovery_hds_verdicts_total", "Hosts that became unhealthy, or ceased to be, by what health checkers found."),
		refused:    counter("discovery_hds_streams_refused_total", "Health checkers refused because there were too many."),
	}
}
