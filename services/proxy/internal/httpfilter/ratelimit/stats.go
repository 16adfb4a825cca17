package ratelimit

import (
	"github.com/weirproxy/weir/services/proxy/internal/cluster"
	"github.com/weirproxy/weir/services/proxy/internal/stats"
)

// counters are the filter's metrics under cluster.<name>.ratelimit., for the
// requests that are routed to one cluster.
type counters struct {
	ok, overLimit, failed, failureModeAllowed *stats.Counter
}

// countersKey is what a cluster keeps its counters under.
type countersKey struct{}

// countersOf returns the counters of a cluster, which has none before the first
// request that is limited.
func countersOf(c *cluster.Cluster) *counters {
	found, ok := c.Stats.Others.Load(countersKey{})
	if !ok {
		// Two that come here at once make the same.
		found, _ = c.Stats.Others.LoadOrStore(countersKey{}, newCounters(c.Stats.Scope))
	}
	return found.(*counters)
}

func newCounters(cluster *stats.Scope) *counters {
	s := cluster.Scope("ratelimit")
	return &counters{
		ok:                 s.Counter("ok"),
		overLimit:          s.Counter("over_limit"),
		failed:             s.Counter("error"),
		failureModeAllowed: s.Counter("failure_mode_allowed"),
	}
}
