package registry

import (
	"github.com/prometheus/client_golang/prometheus"

	"github.com/weirproxy/weir/services/discovery/internal/guard"
)

// metrics are the registry's, with every child resolved.
type metrics struct {
	hosts, services prometheus.Gauge
	checkIns        [3]prometheus.Counter // by Outcome
	deregistrations prometheus.Counter
	expiries        prometheus.Counter
	losses          prometheus.Counter
	storeErrors     prometheus.Counter

	guardHeld      [len(guard.Reasons)]prometheus.Gauge // as guard.Reasons
	guardSuspended [len(guard.Causes)]prometheus.Gauge  // as guard.Causes
	guardActs      *prometheus.CounterVec               // by guard.Reason or guard.Cause
	guardLifts     prometheus.Counter
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
		losses: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "discovery_losses_total", Help: "Hosts taken out because the stream that was their heartbeat broke."}),
		storeErrors: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "discovery_store_errors_total", Help: "Times the store did not take changes or beats."}),
	}
	m.checkIns = [3]prometheus.Counter{
		HostUnchanged: checkIns.WithLabelValues("unchanged"),
		HostChanged:   checkIns.WithLabelValues("changed"),
		HostNew:       checkIns.WithLabelValues("new"),
	}
	registerer.MustRegister(m.hosts, m.services, checkIns, m.deregistrations, m.expiries, m.losses, m.storeErrors)
	m.addGuard(registerer)
	return m
}

// addWaiting makes the metric of how many changes the Store has not taken.
func addWaiting(registerer prometheus.Registerer, waiting func() int) {
	registerer.MustRegister(prometheus.NewGaugeFunc(prometheus.GaugeOpts{
		Name: "discovery_store_waiting", Help: "Changes of hosts and settings that the store has not taken yet.",
	}, func() float64 { return float64(waiting()) }))
}

// addGuard makes the metrics of the guard.
func (m *metrics) addGuard(registerer prometheus.Registerer) {
	held := prometheus.NewGaugeVec(prometheus.GaugeOpts{
		Name: "discovery_guard_held_hosts",
		Help: "Hosts held though their TTL has passed, by what holds them.",
	}, []string{"guard"})
	suspended := prometheus.NewGaugeVec(prometheus.GaugeOpts{
		Name: "discovery_guard_suspended",
		Help: "1 while no host expires, or each has its TTL from the end of a trouble, by that trouble.",
	}, []string{"guard"})
	m.guardActs = prometheus.NewCounterVec(prometheus.CounterOpts{
		Name: "discovery_guard_acts_total",
		Help: "Times that a guard began to hold hosts, or to suspend expiry.",
	}, []string{"guard"})
	m.guardLifts = prometheus.NewCounter(prometheus.CounterOpts{
		Name: "discovery_guard_lifts_total", Help: "Times that an operator lifted the guards."})
	for i, why := range guard.Reasons {
		m.guardHeld[i] = held.WithLabelValues(why.String())
		m.guardActs.WithLabelValues(why.String())
	}
	for i, c := range guard.Causes {
		m.guardSuspended[i] = suspended.WithLabelValues(c.String())
		m.guardActs.WithLabelValues(c.String())
	}
	registerer.MustRegister(held, suspended, m.guardActs, m.guardLifts)
}

// watch shows what a guard does now.
func (m *metrics) watch(g *guard.Guard) {
	for i, why := range guard.Reasons {
		m.guardHeld[i].Set(float64(g.Held(why)))
	}
	for i, c := range guard.Causes {
		m.guardSuspended[i].Set(float64(truth(g.Suspended(c))))
	}
}
