package healthcheck

import "github.com/weirproxy/weir/services/proxy/internal/stats"

// checkerStats are the metrics below cluster.<name>.health_check, by Envoy's
// names.
type checkerStats struct {
	attempts, successes, failures    *stats.Counter
	passiveFailures, networkFailures *stats.Counter
	verifications                    *stats.Counter
	healthy                          *stats.Gauge
}

func newStats(scope *stats.Scope) *checkerStats {
	return &checkerStats{
		attempts:        scope.Counter("attempt"),
		successes:       scope.Counter("success"),
		failures:        scope.Counter("failure"),
		passiveFailures: scope.Counter("passive_failure"),
		networkFailures: scope.Counter("network_failure"),
		verifications:   scope.Counter("verify_cluster"),
		healthy:         scope.Gauge("healthy"),
	}
}

// count counts a result; network failures and passive ones are failures too.
func (s *checkerStats) count(v verdict) {
	if v == passed {
		s.successes.Inc()
		return
	}
	s.failures.Inc()
	switch v {
	case network, timedOut:
		s.networkFailures.Inc()
	case passive:
		s.passiveFailures.Inc()
	}
}
