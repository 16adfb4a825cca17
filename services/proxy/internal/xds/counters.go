package xds

import (
	"time"

	"github.com/cespare/xxhash/v2"

	"github.com/weirproxy/weir/services/proxy/internal/coreconfig"
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

// Updates count what comes of a subscription, by Envoy's names. Nil ones count
// nothing.
type Updates struct {
	attempts, successes, failures, rejections, initFetchTimeouts *stats.Counter
	// time is that of the last accepted update, in milliseconds since 1970.
	time *stats.Gauge
	// version is the XXH64 of the version accepted last, and text the version.
	version  *stats.Gauge
	text     *stats.Text
	duration *stats.Histogram // of taking an update into use
}

// NewUpdates makes those of a subscription in scope; nil if that is nil.
func NewUpdates(scope *stats.Scope) *Updates {
	if scope == nil {
		return nil
	}
	return &Updates{
		attempts: scope.Counter("update_attempt"), successes: scope.Counter("update_success"),
		failures: scope.Counter("update_failure"), rejections: scope.Counter("update_rejected"),
		initFetchTimeouts: scope.Counter("init_fetch_timeout"),
		time:              scope.Gauge("update_time"), version: scope.Gauge("version"),
		text: scope.Text("version_text"), duration: scope.Histogram("update_duration"),
	}
}

// Began counts the first attempt at a stream, of which each end of one begins the
// next. A file has one each time that it is read.
func (u *Updates) Began(source coreconfig.Source) {
	if u != nil && source.Path == "" {
		u.attempts.Inc()
	}
}

// Took counts an update that was accepted, and began to be taken into use at a time.
func (u *Updates) Took(version string, began time.Time) {
	if u == nil {
		return
	}
	now := time.Now()
	u.attempts.Inc()
	u.successes.Inc()
	u.time.Set(now.UnixMilli())
	u.version.Set(int64(xxhash.Sum64String(version)))
	u.text.Set(version)
	u.duration.Record(now.Sub(began))
}

// Failure is why no update was taken; 0 is none.
type Failure int

const (
	// Away is that a stream broke or could not be opened, or a file could not be read.
	Away Failure = iota + 1
	// Refused is that an update came, and was not accepted.
	Refused
)

// Failed counts an update that failed.
func (u *Updates) Failed(why Failure) {
	if u == nil {
		return
	}
	u.attempts.Inc()
	if why == Refused {
		u.rejections.Inc()
	} else {
		u.failures.Inc()
	}
}

// GaveUp counts that nothing came within the initial fetch timeout.
func (u *Updates) GaveUp() {
	if u != nil {
		u.attempts.Inc()
		u.initFetchTimeouts.Inc()
	}
}
