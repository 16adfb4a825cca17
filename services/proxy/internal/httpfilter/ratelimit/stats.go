package ratelimit

import (
	"maps"
	"sync"
	"sync/atomic"

	"github.com/weirproxy/weir/services/proxy/internal/cluster"
	"github.com/weirproxy/weir/services/proxy/internal/stats"
)

// counters are the filter's metrics under cluster.<name>.ratelimit., for the
// requests that are routed to one cluster.
type counters struct {
	scope                                     *stats.Scope // the cluster's
	ok, overLimit, failed, failureModeAllowed *stats.Counter
}

func newCounters(scope *stats.Scope) *counters {
	s := scope.Scope("ratelimit")
	return &counters{
		scope:              scope,
		ok:                 s.Counter("ok"),
		overLimit:          s.Counter("over_limit"),
		failed:             s.Counter("error"),
		failureModeAllowed: s.Counter("failure_mode_allowed"),
	}
}

// statsByCluster finds the counters of a cluster without a lock. The zero value
// has none yet.
type statsByCluster struct {
	mu sync.Mutex // orders those who add
	// known is by the cluster's name. The map is never changed, only replaced.
	known atomic.Pointer[map[string]*counters]
}

// of returns the counters of c. A cluster that was removed and came again has
// new ones.
func (s *statsByCluster) of(c *cluster.Cluster) *counters {
	if known := s.known.Load(); known != nil {
		if found := (*known)[c.Config.Name]; found != nil && found.scope == c.Stats.Scope {
			return found
		}
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	next := map[string]*counters{}
	if known := s.known.Load(); known != nil {
		next = maps.Clone(*known)
	}
	made := newCounters(c.Stats.Scope)
	next[c.Config.Name] = made
	s.known.Store(&next)
	return made
}
