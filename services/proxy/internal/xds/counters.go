package xds

import (
	"hash/fnv"
	"time"

	"github.com/weirproxy/weir/services/proxy/internal/stats"
)

// scopeOf is where Envoy counts the updates of a type as such; nil for others:
// assignments are counted by their clusters, routes by their names.
func scopeOf(root *stats.Registry, typeURL string) *stats.Scope {
	switch typeURL {
	case ClusterType:
		return root.Scope("cluster_manager").Scope("cds")
	case ListenerType:
		return root.Scope("listener_manager").Scope("lds")
	default:
		return nil
	}
}

// counters are the update counters of one type; nil where scopeOf is.
type counters struct {
	attempt, success, failure, rejected, initFetchTimeout *stats.Counter
	// time is that of the last accepted update, in milliseconds since 1970.
	time *stats.Gauge
	// version is a hash of the version accepted last.
	version *stats.Gauge
}

func newCounters(root *stats.Registry, typeURL string) *counters {
	scope := scopeOf(root, typeURL)
	if scope == nil {
		return nil
	}
	return &counters{
		attempt: scope.Counter("update_attempt"), success: scope.Counter("update_success"),
		failure: scope.Counter("update_failure"), rejected: scope.Counter("update_rejected"),
		initFetchTimeout: scope.Counter("init_fetch_timeout"),
		time:             scope.Gauge("update_time"), version: scope.Gauge("version"),
	}
}

// began counts the first attempt; each end of one begins the next.
func (c *counters) began() {
	if c != nil {
		c.attempt.Inc()
	}
}

// took counts a response that was accepted at now, or refused by err.
func (c *counters) took(now time.Time, version string, err error) {
	switch {
	case c == nil:
		return
	case err != nil:
		c.rejected.Inc()
	default:
		c.success.Inc()
		c.time.Set(now.UnixMilli())
		c.version.Set(VersionHash(version))
	}
	c.attempt.Inc()
}

// failed counts a stream that broke or could not be opened, or a file that could
// not be read.
func (c *counters) failed() {
	if c != nil {
		c.failure.Inc()
		c.attempt.Inc()
	}
}

func (c *counters) gaveUp() {
	if c != nil {
		c.initFetchTimeout.Inc()
	}
}

// VersionHash is a version as a gauge shows it: two that are alike are the same
// version. It is never negative.
func VersionHash(version string) int64 {
	h := fnv.New64a()
	_, _ = h.Write([]byte(version)) // never fails
	return int64(h.Sum64() >> 1)
}
