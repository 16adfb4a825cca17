package cluster

import (
	"errors"
	"net"
	"strconv"
	"sync"
	"sync/atomic"
	"time"

	"github.com/weirproxy/weir/internal/http2"
	"github.com/weirproxy/weir/services/proxy/internal/cluster/outlier"
	"github.com/weirproxy/weir/services/proxy/internal/codecstats"
	"github.com/weirproxy/weir/services/proxy/internal/connpool"
	"github.com/weirproxy/weir/services/proxy/internal/stats"
	"github.com/weirproxy/weir/services/proxy/internal/xds"
)

// Bounds of the heads of upstream responses, unless the cluster has others: the
// fields (HttpProtocolOptions.max_headers_count), and the bytes of each version of
// HTTP (max_response_headers_kb), as Envoy has them.
const (
	defaultHeaders        = 100
	defaultHTTP1HeadBytes = 80 << 10
	defaultHTTP2HeadBytes = 60 << 10
)

// Stats are a cluster's metrics under cluster.<name>., by Envoy's names.
type Stats struct {
	// Scope is where other packages put theirs, such as the rate-limit filter.
	Scope *stats.Scope
	// Others holds the handles that they took from it, each under a key of a
	// type of its own, so that they go with the cluster.
	Others sync.Map

	ConnectionsTotal, ConnectFailures  *stats.Counter
	connectionsHTTP1, connectionsHTTP2 *stats.Counter
	ConnectionsActive                  *stats.Gauge
	RequestsTotal, RequestsCompleted   *stats.Counter
	RequestsActive                     *stats.Gauge
	RequestTimeouts                    *stats.Counter
	RequestResends, NoHealthyHost      *stats.Counter
	ActiveOverflow                     *stats.Counter
	// ClosesAnnounced are connections whose servers said that they close them, by
	// "connection: close" or GOAWAY.
	ClosesAnnounced                    *stats.Counter
	ProtocolErrors                     *stats.Counter
	PerTryTimeouts, PerTryIdleTimeouts *stats.Counter
	StreamsOutlived                    *stats.Counter
	// Pending are requests that waited for a connection, as a new one does. Of them
	// overflowed who found too many others, and were ejected for whom none came.
	PendingTotal, PendingOverflow *stats.Counter
	PendingEjected                *stats.Counter
	PendingActive                 *stats.Gauge
	cancelled                     *stats.Counter // requests that waited no longer
	connectTimeouts               *stats.Counter
	// destroyed are connections that ended, and of them destroyedActive those whose end
	// broke a request off.
	destroyed, destroyedActive endings
	received, sent             *stats.Counter // bytes
	// Streams of HTTP/2 that either side reset.
	resetsReceived, resetsSent *stats.Counter
	connectionLimits           []*stats.Counter // by connpool.Limit
	// Retries are all that began. RetryAbandoned counts requests that could not be
	// sent again for the length of their bodies.
	Retries, RetrySuccess, RetryOverflow   *stats.Counter
	RetryLimitExceeded, RetryAbandoned     *stats.Counter
	BackoffExponential, BackoffRateLimited *stats.Counter
	updateAttempts, updates                *stats.Counter
	updateEmpty, assignmentsCached         *stats.Counter
	// assignments are the updates of EDS; nil without it.
	assignments                        *xds.Updates
	warming                            *stats.Gauge
	updateFailures, updateNoRebuild    *stats.Counter
	membershipChanges                  *stats.Counter
	membershipTotal, membershipHealthy *stats.Gauge
	membershipDegraded                 *stats.Gauge
	membershipExcluded, maxHostWeight  *stats.Gauge
	panics, dropped, maintained        *stats.Counter
	// defaultSockets are hosts that have the cluster's transport socket, as all have.
	defaultSockets *stats.Counter
	// RequestTime is from the end of the client's request to that of the upstream's
	// response.
	RequestTime                   *stats.Histogram
	connectTime, connectionLength *stats.Histogram
	connectionRequests            *stats.Histogram // how many each carried

	statuses statusCounters
	groups
	// retried are the responses in whose place there was another attempt; nil
	// before the first.
	retried atomic.Pointer[statusCounters]
}

// statusCounters count responses by status.
type statusCounters struct {
	scope     *stats.Scope
	completed *stats.Counter
	classes   [6]*stats.Counter
	codes     [6]atomic.Pointer[classCodes] // by class; nil before its first response
}

// classCodes are the counters of the statuses of one class, by their last two digits;
// nil before the first.
type classCodes [100]atomic.Pointer[stats.Counter]

func newStatusCounters(scope *stats.Scope) *statusCounters {
	c := &statusCounters{}
	c.init(scope)
	return c
}

func (c *statusCounters) init(scope *stats.Scope) {
	c.scope, c.completed = scope, scope.Counter("upstream_rq_completed")
	for class := 1; class < len(c.classes); class++ {
		c.classes[class] = c.counter(strconv.Itoa(class) + "xx")
	}
}

// newStats makes the metrics of a cluster in scope, for a proxy in a zone, which may
// be empty.
func newStats(scope *stats.Scope, zone string) *Stats {
	s := &Stats{
		Scope:              scope,
		ConnectionsTotal:   scope.Counter("upstream_cx_total"),
		connectionsHTTP1:   scope.Counter("upstream_cx_http1_total"),
		connectionsHTTP2:   scope.Counter("upstream_cx_http2_total"),
		ConnectFailures:    scope.Counter("upstream_cx_connect_fail"),
		connectTimeouts:    scope.Counter("upstream_cx_connect_timeout"),
		ConnectionsActive:  scope.Gauge("upstream_cx_active"),
		RequestsTotal:      scope.Counter("upstream_rq_total"),
		RequestsActive:     scope.Gauge("upstream_rq_active"),
		RequestTimeouts:    scope.Counter("upstream_rq_timeout"),
		resetsReceived:     scope.Counter("upstream_rq_rx_reset"),
		resetsSent:         scope.Counter("upstream_rq_tx_reset"),
		cancelled:          scope.Counter("upstream_rq_cancelled"),
		ClosesAnnounced:    scope.Counter("upstream_cx_close_notify"),
		destroyed:          newEndings(scope, ""),
		destroyedActive:    newEndings(scope, "_with_active_rq"),
		received:           scope.Counter("upstream_cx_rx_bytes_total"),
		sent:               scope.Counter("upstream_cx_tx_bytes_total"),
		assignmentsCached:  scope.Counter("assignment_use_cached"),
		warming:            scope.Gauge("warming_state"),
		RequestResends:     scope.Counter("upstream_rq_resend"),
		ProtocolErrors:     scope.Counter("upstream_cx_protocol_error"),
		PendingTotal:       scope.Counter("upstream_rq_pending_total"),
		PendingOverflow:    scope.Counter("upstream_rq_pending_overflow"),
		PendingEjected:     scope.Counter("upstream_rq_pending_failure_eject"),
		PendingActive:      scope.Gauge("upstream_rq_pending_active"),
		PerTryTimeouts:     scope.Counter("upstream_rq_per_try_timeout"),
		PerTryIdleTimeouts: scope.Counter("upstream_rq_per_try_idle_timeout"),
		StreamsOutlived:    scope.Counter("upstream_rq_max_duration_reached"),
		Retries:            scope.Counter("upstream_rq_retry"),
		RetrySuccess:       scope.Counter("upstream_rq_retry_success"),
		RetryOverflow:      scope.Counter("upstream_rq_retry_overflow"),
		RetryLimitExceeded: scope.Counter("upstream_rq_retry_limit_exceeded"),
		RetryAbandoned:     scope.Counter("retry_or_shadow_abandoned"),
		BackoffExponential: scope.Counter("upstream_rq_retry_backoff_exponential"),
		BackoffRateLimited: scope.Counter("upstream_rq_retry_backoff_ratelimited"),
		NoHealthyHost:      scope.Counter("upstream_cx_none_healthy"),
		ActiveOverflow:     scope.Counter("upstream_rq_active_overflow"),
		updateAttempts:     scope.Counter("update_attempt"),
		updates:            scope.Counter("update_success"),
		updateEmpty:        scope.Counter("update_empty"),
		updateFailures:     scope.Counter("update_failure"),
		updateNoRebuild:    scope.Counter("update_no_rebuild"),
		membershipChanges:  scope.Counter("membership_change"),
		membershipTotal:    scope.Gauge("membership_total"),
		membershipHealthy:  scope.Gauge("membership_healthy"),
		membershipDegraded: scope.Gauge("membership_degraded"),
		membershipExcluded: scope.Gauge("membership_excluded"),
		maxHostWeight:      scope.Gauge("max_host_weight"),
		panics:             scope.Counter("lb_healthy_panic"),
		RequestTime:        scope.Histogram("upstream_rq_time"),
		connectTime:        scope.Histogram("upstream_cx_connect_ms"),
		connectionLength:   scope.Histogram("upstream_cx_length_ms"),
		connectionRequests: scope.Histogram("upstream_rq_per_cx"),
		dropped:            scope.Counter("upstream_rq_drop_overload"),
		maintained:         scope.Counter("upstream_rq_maintenance_mode"),
		defaultSockets:     scope.Counter("default.total_match_count"),
	}
	s.connectionLimits = []*stats.Counter{
		connpool.MaxRequests:    scope.Counter("upstream_cx_max_requests"),
		connpool.IdleTimeout:    scope.Counter("upstream_cx_idle_timeout"),
		connpool.MaxDuration:    scope.Counter("upstream_cx_max_duration_reached"),
		connpool.MaxConnections: scope.Counter("upstream_cx_overflow"),
		connpool.MaxPools:       scope.Counter("upstream_cx_pool_overflow"),
	}
	s.statuses.init(scope)
	s.groups.init(zone)
	s.RequestsCompleted = s.statuses.completed
	return s
}

// countHTTP2 are these options for connections that are counted below
// cluster.<name>.http2.
func (s *Stats) countHTTP2(options http2.Options) *http2.ClientOptions {
	codec := codecstats.NewHTTP2(s.Scope.Scope("http2"))
	s.connectionLimits[connpool.KeepaliveTimeout] = codec.KeepaliveTimeouts
	options.OnFlood, options.OnStreams, options.OnTooLarge = codec.CountFlood, codec.CountStreams, codec.CountTooLarge
	options.OnStreamError = func(e *http2.StreamError) {
		codec.CountStreamError(e)
		s.countReset(e)
	}
	options.OnGoAway = func(remote bool) {
		if remote {
			s.ClosesAnnounced.Inc()
		} else {
			codec.CountGoAway()
		}
	}
	return http2.NewClientOptions(options)
}

// countReset counts a request whose stream was reset, unless the server has refused it.
func (s *Stats) countReset(e *http2.StreamError) {
	switch {
	case !e.Remote:
		s.resetsSent.Inc()
	case e.Code != http2.RefusedStream:
		s.resetsReceived.Inc()
	}
}

// endings count connections by who has ended them.
type endings struct{ all, local, remote *stats.Counter }

// newEndings makes those whose names end so.
func newEndings(scope *stats.Scope, which string) endings {
	return endings{
		scope.Counter("upstream_cx_destroy" + which), scope.Counter("upstream_cx_destroy_local" + which),
		scope.Counter("upstream_cx_destroy_remote" + which),
	}
}

func (e *endings) count(remote bool) {
	e.all.Inc()
	if remote {
		e.remote.Inc()
	} else {
		e.local.Inc()
	}
}

// counter is upstream_rq_<code>, which Prometheus knows with the code as a
// label.
func (c *statusCounters) counter(code string) *stats.Counter {
	if code[1] == 'x' {
		return c.scope.CounterAs("upstream_rq_"+code, "upstream_rq_xx", stats.Label{Name: "envoy_response_code_class", Value: code[:1]})
	}
	return c.scope.CounterAs("upstream_rq_"+code, "upstream_rq", stats.Label{Name: "envoy_response_code", Value: code})
}

// count counts a response, unless it is codeless also by its status.
func (c *statusCounters) count(status int, codeless bool) {
	c.completed.Inc()
	if codeless {
		return
	}
	codes := c.codes[status/100].Load()
	if codes == nil {
		c.codes[status/100].CompareAndSwap(nil, &classCodes{})
		codes = c.codes[status/100].Load()
	}
	counter := codes[status%100].Load()
	if counter == nil { // two that come here at once get the same counter
		counter = c.counter(strconv.Itoa(status))
		codes[status%100].Store(counter)
	}
	counter.Inc()
	c.classes[status/100].Inc()
}

// CountRetried counts a response of the upstream in whose place there is another
// attempt, below cluster.<name>.retry, unless it is codeless also by its status.
func (s *Stats) CountRetried(status int, codeless bool) {
	c := s.retried.Load()
	if c == nil { // of two that come here at once both have the same counters
		c = newStatusCounters(s.Scope.Scope("retry"))
		s.retried.Store(c)
	}
	c.count(status, codeless)
}

// connections count those to a host, of one version of HTTP. They implement
// connpool.Stats.
type connections struct {
	cluster *Stats
	host    *Host
	version *stats.Counter // of all that were begun
}

// Began implements connpool.Stats.
func (c *connections) Began() {
	c.version.Inc()
	c.cluster.ConnectionsTotal.Inc()
	c.cluster.ConnectionsActive.Add(1)
	c.host.Stats.ConnectionsTotal.Add(1)
	c.host.Stats.ConnectionsActive.Add(1)
}

// Unmade implements connpool.Stats.
func (c *connections) Unmade(remote bool) {
	c.cluster.ConnectionsActive.Add(-1)
	c.host.Stats.ConnectionsActive.Add(-1)
	c.cluster.destroyed.count(remote)
}

// Opened implements connpool.Stats.
func (c *connections) Opened(connect time.Duration) {
	c.cluster.connectTime.Record(connect)
}

// Failed implements connpool.Stats.
func (c *connections) Failed(cause error) {
	if network, ok := errors.AsType[net.Error](cause); ok && network.Timeout() {
		c.cluster.connectTimeouts.Inc()
	}
	c.cluster.ConnectFailures.Inc()
	c.host.Stats.ConnectFailures.Add(1)
	c.host.Outlier.ReportLocal(outlier.ConnectFailed)
}

// Closed implements connpool.Stats. What the end of a connection of HTTP/2 breaks off
// counts as Envoy counts it, as requests that lost their connection.
func (c *connections) Closed(end connpool.End) {
	s := c.cluster
	s.connectionLength.Record(end.Age)
	s.connectionRequests.RecordNumber(end.Requests)
	s.ConnectionsActive.Add(-1)
	c.host.Stats.ConnectionsActive.Add(-1)
	s.destroyed.count(end.Remote)
	if end.Active > 0 {
		s.destroyedActive.count(end.Remote)
	}
	if c.version == s.connectionsHTTP2 {
		s.PendingEjected.Add(uint64(end.Active))
	}
}

// Moved implements connpool.Stats.
func (c *connections) Moved(received, sent uint64) {
	c.cluster.received.Add(received)
	c.cluster.sent.Add(sent)
}

// Cancelled implements connpool.Stats.
func (c *connections) Cancelled() { c.cluster.cancelled.Inc() }

// Met implements connpool.Stats.
func (c *connections) Met(limit connpool.Limit) { c.cluster.connectionLimits[limit].Inc() }

// updateStats count changes of the hosts of all clusters, below cluster_manager.
type updateStats struct {
	// applied took effect at once, outOfWindow among them those that could have been
	// merged, but came too late for that (update_merge_window).
	applied, outOfWindow *stats.Counter
	// merged took effect together, as the window was over, and cancelled earlier,
	// with one that was applied.
	merged, cancelled *stats.Counter
}

func newUpdateStats(scope *stats.Scope) *updateStats {
	return &updateStats{
		applied:     scope.Counter("cluster_updated"),
		outOfWindow: scope.Counter("update_out_of_merge_window"),
		merged:      scope.Counter("cluster_updated_via_merge"),
		cancelled:   scope.Counter("update_merge_cancelled"),
	}
}

// membership tells of a snapshot. Changed says that hosts came or went.
func (s *Stats) membership(set *HostSet, changed bool) {
	members := make([]*Member, len(set.Members))
	heaviest := uint32(0)
	for i := range set.Members {
		members[i] = &set.Members[i]
		heaviest = max(heaviest, members[i].Weight)
	}
	l := count(members)
	s.membershipTotal.Set(int64(l.hosts))
	s.membershipHealthy.Set(int64(l.healthy))
	s.membershipDegraded.Set(int64(l.degraded))
	s.membershipExcluded.Set(int64(l.excluded))
	s.maxHostWeight.Set(int64(heaviest))
	if changed {
		s.membershipChanges.Inc()
	}
}
