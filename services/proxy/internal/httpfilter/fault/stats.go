package fault

import (
	"sync"

	"github.com/weirproxy/weir/services/proxy/internal/stats"
)

// mostDownstreams bounds the clusters that faults are counted by: the names are
// the clients' to choose.
const mostDownstreams = 128

// faultStats are the metrics below http.<stat_prefix>.fault, by Envoy's names.
type faultStats struct {
	scope                                 *stats.Scope
	delays, aborts, rateLimited, overflow *stats.Counter
	active                                *stats.Gauge

	mu          sync.Mutex
	downstreams map[string]*downstream
}

// downstream are the faults of the requests from one cluster.
type downstream struct{ delays, aborts *stats.Counter }

func newStats(scope *stats.Scope) *faultStats {
	return &faultStats{
		scope:       scope,
		delays:      scope.Counter("delays_injected"),
		aborts:      scope.Counter("aborts_injected"),
		rateLimited: scope.Counter("response_rl_injected"),
		overflow:    scope.Counter("faults_overflow"),
		active:      scope.Gauge("active_faults"),
		downstreams: map[string]*downstream{},
	}
}

// begin counts an active fault, unless there are as many as there may be; a
// few more may come at the same time.
func (s *faultStats) begin(most uint64) bool {
	if uint64(s.active.Value()) >= most {
		return false
	}
	s.active.Add(1)
	return true
}

func (s *faultStats) delayed(cluster []byte) {
	s.delays.Inc()
	if d := s.downstream(cluster); d != nil {
		d.delays.Inc()
	}
}

func (s *faultStats) aborted(cluster []byte) {
	s.aborts.Inc()
	if d := s.downstream(cluster); d != nil {
		d.aborts.Inc()
	}
}

// downstream are the counters of a cluster, nil if it has no name or there are
// too many already.
func (s *faultStats) downstream(cluster []byte) *downstream {
	if len(cluster) == 0 {
		return nil
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	d := s.downstreams[string(cluster)]
	if d == nil && len(s.downstreams) < mostDownstreams {
		scope := s.scope.Tagged("envoy_fault_downstream_cluster", string(cluster))
		d = &downstream{scope.Counter("delays_injected"), scope.Counter("aborts_injected")}
		s.downstreams[string(cluster)] = d
	}
	return d
}
