// Package outlier finds the hosts of a cluster that fail more than others do
// (Envoy's outlier detection, envoy.config.cluster.v3.OutlierDetection) and
// ejects them for a time. Package upstream reports how each attempt ended to the
// Monitor of its host; the cluster is told by a callback which hosts are ejected.
// The package picks no host, sends nothing and knows no other package's hosts: any
// comparable value is one.
package outlier

import (
	"cmp"
	"context"
	"log/slog"
	"math"
	"math/rand/v2"
	"slices"
	"sync"
	"time"

	"github.com/weirproxy/weir/services/proxy/internal/coreconfig"
	"github.com/weirproxy/weir/services/proxy/internal/stats"
)

// Kind is a way to be an outlier.
type Kind int

// The kinds; the first three are rows of failures.
const (
	Consecutive5xx Kind = iota
	ConsecutiveGatewayFailure
	ConsecutiveLocalOriginFailure
	SuccessRate
	LocalOriginSuccessRate
	FailurePercentage
	LocalOriginFailurePercentage

	kinds            = 7
	consecutiveKinds = 3
)

// kindNames are Envoy's, as they stand in the names of its counters.
var kindNames = [kinds]string{
	"consecutive_5xx", "consecutive_gateway_failure", "consecutive_local_origin_failure",
	"success_rate", "local_origin_success_rate", "failure_percentage", "local_origin_failure_percentage",
}

// String is Envoy's name.
func (k Kind) String() string { return kindNames[k] }

// Options is what a Detector works with.
type Options[K comparable] struct {
	// Changed is told of each ejection and of its end, in their order and never
	// two at once. No lock is held meanwhile, and the host may have left the
	// cluster. It runs on the goroutine of a request or of Run.
	Changed func(host K, ejected bool)
	// Scope is the cluster's: the counters are below outlier_detection.
	Scope *stats.Scope
	// Log gets a line for each ejection and its end, and, at level debug, for each
	// outlier that is not ejected by choice. Name is what a host is called there.
	Log  *slog.Logger
	Name func(host K) string
	// Random is a random number from 0 to below n; nil is a good one.
	Random func(n int64) int64
}

// Detector watches the hosts of one cluster.
type Detector[K comparable] struct {
	config  *Config
	options Options[K]
	stats   *detectorStats

	mu       sync.Mutex
	monitors map[K]*Monitor[K]
	ejected  int
	warned   string
	// rounds are what the last rounds of success rates came to: of the hosts' own
	// results, and of reaching them.
	rounds [2]Thresholds

	// changes are not yet told; telling says that a goroutine is at it.
	changes []change[K]
	telling bool
}

// change is one thing to tell Changed.
type change[K comparable] struct {
	host    K
	ejected bool
}

// Thresholds are what a round of success rates came to, in percent; −1 each if
// there were too few hosts to compare.
type Thresholds struct{ Average, Ejection float64 }

// noThresholds are those of a round that did not take place.
var noThresholds = Thresholds{-1, -1}

// New makes a detector without hosts. Run it, or nobody is ever let back.
func New[K comparable](config *Config, options Options[K]) *Detector[K] {
	if options.Random == nil {
		options.Random = rand.Int64N
	}
	return &Detector[K]{
		config: config, options: options, stats: newStats(options.Scope.Scope("outlier_detection")),
		monitors: map[K]*Monitor[K]{}, rounds: [2]Thresholds{noThresholds, noThresholds},
	}
}

// SetHosts says which hosts the cluster has now. Those that stay keep what is
// known of them. It calls nothing back, so that a cluster may hold its own lock.
func (d *Detector[K]) SetHosts(hosts []K) {
	d.mu.Lock()
	defer d.mu.Unlock()
	stays := make(map[K]*Monitor[K], len(hosts))
	for _, host := range hosts {
		m := d.monitors[host]
		if m == nil {
			m = &Monitor[K]{detector: d, host: host}
		}
		stays[host] = m
	}
	for host, m := range d.monitors {
		if stays[host] == nil {
			m.gone = true
			if m.ejected {
				d.countEjected(-1)
			}
		}
	}
	d.monitors = stays
	if warning := d.config.Warning(len(stays)); warning != d.warned {
		if d.warned = warning; warning != "" {
			d.options.Log.Warn("outlier detection can eject no host", "why", warning)
		}
	}
}

// Add makes a host one of the cluster's before SetHosts lists it, and returns its
// Monitor, which the caller keeps with the host, so that it has one from its first
// request on. On a nil Detector it returns nil, which takes reports and does nothing.
func (d *Detector[K]) Add(host K) *Monitor[K] {
	if d == nil {
		return nil
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	m := d.monitors[host]
	if m == nil {
		m = &Monitor[K]{detector: d, host: host}
		d.monitors[host] = m
	}
	return m
}

// Run does a round each interval until ctx ends. Then the detector has no hosts any
// more: those that it has ejected are not counted among the cluster's, which may go on
// with another detector.
func (d *Detector[K]) Run(ctx context.Context) {
	defer d.SetHosts(nil)
	ticker := time.NewTicker(d.config.Interval)
	defer ticker.Stop()
	for {
		select {
		case now := <-ticker.C:
			d.round(now)
		case <-ctx.Done():
			return
		}
	}
}

// HealthCheckPassed ends the host's ejection, if it is configured so. It is
// called for each active check that a healthy host passes.
func (d *Detector[K]) HealthCheckPassed(host K) {
	if !d.config.UnejectOnHealthCheck {
		return
	}
	d.mu.Lock()
	if m := d.monitors[host]; m != nil && m.ejected {
		d.uneject(m, "active health check passed")
	}
	d.unlockAndTell()
}

// Thresholds are those of the last rounds of success rates: of the hosts' own
// results, and of reaching them.
func (d *Detector[K]) Thresholds() (external, local Thresholds) {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.rounds[0], d.rounds[1]
}

// consecutive takes up a row of failures.
func (d *Detector[K]) consecutive(m *Monitor[K], kind Kind) {
	d.mu.Lock()
	if !m.gone && !m.ejected {
		d.detected(m, kind, time.Now())
		// A host that could not be ejected is found again by a row as long.
		m.consecutive[kind].Store(0)
	}
	d.unlockAndTell()
}

// round ends an interval. Steps:
//
//  1. hosts whose ejection is over come back; the others' past ejections count
//     for less;
//  2. the results of the interval are taken;
//  3. hosts are compared by success rate and by failure percentage.
func (d *Detector[K]) round(now time.Time) {
	d.mu.Lock()
	for _, m := range d.monitors {
		d.checkForUneject(m, now)
	}
	d.rounds[0] = d.compare(now, SuccessRate, FailurePercentage, func(m *Monitor[K]) *tally { return &m.external })
	if d.config.Split {
		d.rounds[1] = d.compare(now, LocalOriginSuccessRate, LocalOriginFailurePercentage, func(m *Monitor[K]) *tally { return &m.local })
	}
	d.unlockAndTell()
}

func (d *Detector[K]) checkForUneject(m *Monitor[K], now time.Time) {
	if !m.ejected {
		m.backoff = max(0, m.backoff-1)
		return
	}
	if now.Sub(m.since) >= coreconfig.Sum(min(d.config.BaseEjectionTime*time.Duration(m.backoff), d.config.MaxEjectionTime), m.jitter) {
		d.uneject(m, "ejection time is over")
	}
}

// compare finds the outliers among the hosts that are not ejected, by one of
// their tallies.
func (d *Detector[K]) compare(now time.Time, byRate, byFailures Kind, of func(*Monitor[K]) *tally) Thresholds {
	type sample struct {
		m    *Monitor[K]
		rate float64
	}
	var rates, failures []sample
	c := d.config
	for _, m := range d.monitors {
		t := of(m)
		total, rate := t.take()
		if m.ejected || total < min(c.SuccessRate.Volume, c.FailurePercentage.Volume) || total == 0 {
			t.keep(-1)
			continue
		}
		t.keep(rate)
		if total >= c.SuccessRate.Volume {
			rates = append(rates, sample{m, rate})
		}
		if total >= c.FailurePercentage.Volume {
			failures = append(failures, sample{m, rate})
		}
	}
	// The worst first, since the cap may not let all of them go.
	worst := func(a, b sample) int { return cmp.Compare(a.rate, b.rate) }
	slices.SortFunc(rates, worst)
	slices.SortFunc(failures, worst)
	found := noThresholds
	if len(rates) > 0 && len(rates) >= int(c.SuccessRate.Hosts) {
		values := make([]float64, len(rates))
		for i, s := range rates {
			values[i] = s.rate
		}
		found = thresholds(values, c.StdevFactor)
		for _, s := range rates {
			if s.rate < found.Ejection {
				d.detected(s.m, byRate, now)
			}
		}
	}
	if len(failures) > 0 && len(failures) >= int(c.FailurePercentage.Hosts) {
		for _, s := range failures {
			if !s.m.ejected && 100-s.rate >= c.FailureThreshold {
				d.detected(s.m, byFailures, now)
			}
		}
	}
	return found
}

// thresholds is the rule of success rates: an outlier is below the mean by more
// than factor times the population's standard deviation.
func thresholds(rates []float64, factor float64) Thresholds {
	n, sum, squares := float64(len(rates)), 0.0, 0.0
	for _, r := range rates {
		sum += r
	}
	mean := sum / n
	for _, r := range rates {
		squares += (r - mean) * (r - mean)
	}
	return Thresholds{mean, mean - factor*math.Sqrt(squares/n)}
}

// detected counts an outlier and ejects it if the cap and the chance allow.
func (d *Detector[K]) detected(m *Monitor[K], kind Kind, now time.Time) {
	d.stats.detected(kind)
	if !d.config.allows(d.ejected, len(d.monitors)) {
		d.stats.overflow.Inc()
		return
	}
	d.stats.within(kind)
	if d.options.Random(100) >= int64(d.config.Enforcing[kind]) {
		d.options.Log.Debug("outlier is not ejected, as configured", "host", d.options.Name(m.host), "kind", kind.String())
		return
	}
	d.stats.enforced(kind)
	d.countEjected(1)
	m.ejected, m.since, m.jitter = true, now, 0
	if d.config.Jitter > 0 {
		m.jitter = time.Duration(d.options.Random(int64(min(d.config.Jitter, math.MaxInt64-1)) + 1))
	}
	// It stops to grow once one more would not make the ejection longer.
	if time.Duration(m.backoff)*d.config.BaseEjectionTime < coreconfig.Sum(d.config.MaxEjectionTime, d.config.BaseEjectionTime) {
		m.backoff++
	}
	m.instances++
	d.options.Log.Info("host ejected", "host", d.options.Name(m.host), "kind", kind.String(), "ejections", m.instances)
	d.changes = append(d.changes, change[K]{m.host, true})
}

func (d *Detector[K]) uneject(m *Monitor[K], why string) {
	m.ejected = false
	m.resetConsecutive()
	d.countEjected(-1)
	d.options.Log.Info("host is back after its ejection", "host", d.options.Name(m.host), "why", why)
	d.changes = append(d.changes, change[K]{m.host, false})
}

func (d *Detector[K]) countEjected(by int) {
	d.ejected += by
	d.stats.active.Add(int64(by)) // another detector may count there too
}

// unlockAndTell gives the lock back and then tells of all changes, unless
// another goroutine is telling: then it will tell of these too. The lock is not
// held meanwhile, since whoever is told may hold one while it waits for ours.
func (d *Detector[K]) unlockAndTell() {
	if d.telling {
		d.mu.Unlock()
		return
	}
	for len(d.changes) > 0 {
		d.telling = true
		changes := d.changes
		d.changes = nil
		d.mu.Unlock()
		for _, c := range changes {
			d.options.Changed(c.host, c.ejected)
		}
		d.mu.Lock()
		d.telling = false
	}
	d.mu.Unlock()
}
