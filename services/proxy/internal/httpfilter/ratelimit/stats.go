package ratelimit

import (
	"github.com/weirproxy/weir/services/proxy/internal/stats"
	"github.com/weirproxy/weir/services/proxy/internal/stream"
)

// counters are the filter's metrics under
// cluster.<name>.ratelimit[.<stat_prefix>]., for the requests that are routed to
// one cluster.
type counters struct {
	ok, overLimit, failed, failureModeAllowed *stats.Counter
	// notEnforced counts those over the limit that went on: Envoy doesn't tell.
	notEnforced *stats.Counter
}

// countersKey is what a cluster keeps counters under, by their stat_prefix.
type countersKey struct{ prefix string }

// count is the counters of the stream's cluster, which has none before the first
// request that is limited.
func (f *filter) count(s *stream.Stream) *counters {
	c := s.Cluster
	found, ok := c.Stats.Others.Load(f.config.counters)
	if !ok {
		prefix := f.config.counters.(countersKey).prefix
		// Two that come here at once make the same.
		found, _ = c.Stats.Others.LoadOrStore(f.config.counters, newCounters(c.Stats.Scope, prefix))
	}
	return found.(*counters)
}

func newCounters(cluster *stats.Scope, prefix string) *counters {
	s := cluster.Scope("ratelimit")
	if prefix != "" {
		s = s.Scope(prefix)
	}
	return &counters{
		ok:                 s.Counter("ok"),
		overLimit:          s.Counter("over_limit"),
		failed:             s.Counter("error"),
		failureModeAllowed: s.Counter("failure_mode_allowed"),
		notEnforced:        s.Counter("over_limit_not_enforced"),
	}
}
