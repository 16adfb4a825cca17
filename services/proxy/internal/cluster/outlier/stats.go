package outlier

import "github.com/weirproxy/weir/services/proxy/internal/stats"

// detectorStats are the metrics below cluster.<name>.outlier_detection, by
// Envoy's names.
type detectorStats struct {
	detections, enforcements [kinds]*stats.Counter // ejections_detected_<kind>, ejections_enforced_<kind>
	enforcedTotal, overflow  *stats.Counter
	active                   *stats.Gauge
	// Older names that Envoy still counts.
	total, consecutive5xx, successRate *stats.Counter
}

func newStats(scope *stats.Scope) *detectorStats {
	s := &detectorStats{
		enforcedTotal:  scope.Counter("ejections_enforced_total"),
		overflow:       scope.Counter("ejections_overflow"),
		active:         scope.Gauge("ejections_active"),
		total:          scope.Counter("ejections_total"),
		consecutive5xx: scope.Counter("ejections_consecutive_5xx"),
		successRate:    scope.Counter("ejections_success_rate"),
	}
	for kind, name := range kindNames {
		s.detections[kind] = scope.Counter("ejections_detected_" + name)
		s.enforcements[kind] = scope.Counter("ejections_enforced_" + name)
	}
	return s
}

// detected counts an outlier, ejected or not.
func (s *detectorStats) detected(kind Kind) {
	s.detections[kind].Inc()
	switch kind {
	case Consecutive5xx:
		s.consecutive5xx.Inc()
	case SuccessRate:
		s.successRate.Inc()
	}
}

// within counts an outlier that the cap lets be ejected.
func (s *detectorStats) within(kind Kind) {
	if kind == Consecutive5xx || kind == SuccessRate {
		s.total.Inc()
	}
}

// enforced counts an ejection.
func (s *detectorStats) enforced(kind Kind) {
	s.enforcements[kind].Inc()
	s.enforcedTotal.Inc()
}
