// Package healthcheck is the HTTP filter that answers health checks of the proxy
// itself (envoy.extensions.filters.http.health_check.v3.HealthCheck): by itself,
// or by what the upstream behind it answers. It checks no host: that is package
// cluster/healthcheck.
package healthcheck

import (
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	healthcheckv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/http/health_check/v3"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"

	"github.com/weirproxy/weir/services/proxy/internal/coreconfig"
	"github.com/weirproxy/weir/services/proxy/internal/format"
	"github.com/weirproxy/weir/services/proxy/internal/httpfilter"
	"github.com/weirproxy/weir/services/proxy/internal/matcher"
	"github.com/weirproxy/weir/services/proxy/internal/stats"
	"github.com/weirproxy/weir/services/proxy/internal/stream"
	"github.com/weirproxy/weir/services/proxy/internal/strict"
)

// Factory makes health check filters. It implements httpfilter.Factory.
type Factory struct {
	// ServiceName is the cluster of the proxy's node: what it calls itself in
	// answers to health checks. Empty sends no name.
	ServiceName string
	// Failing says whether the proxy is to fail its health checks: it drains, or
	// an operator said so. Nil is never.
	Failing func() bool
	// Healthy says how many hosts of the cluster of that name there are, and how
	// many of them are healthy or degraded; ok is false if there is no such
	// cluster.
	Healthy func(cluster string) (healthy, hosts int, ok bool)
}

// ConfigType implements httpfilter.Factory.
func (Factory) ConfigType() protoreflect.FullName {
	return (&healthcheckv3.HealthCheck{}).ProtoReflect().Descriptor().FullName()
}

// Fields implements httpfilter.Factory.
func (f Factory) Fields() strict.Fields {
	return strict.Fields{
		f.ConfigType():          {"pass_through_mode", "cache_time", "cluster_min_healthy_percentages", "headers"},
		"envoy.type.v3.Percent": {"value"},
	}
}

// Parse implements httpfilter.Factory. That pass_through_mode is there is held
// by the message's own rules.
func (f Factory) Parse(message proto.Message, at strict.Path, report *strict.Report) httpfilter.Config {
	m, ok := message.(*healthcheckv3.HealthCheck)
	if !ok {
		report.Add(at, "is a %T, not a %s", message, f.ConfigType())
		return nil
	}
	c := &config{
		factory: f, passThrough: m.GetPassThroughMode().GetValue(),
		headers: matcher.ParseHeaders(m.GetHeaders(), at.Field("headers"), report),
		cache:   coreconfig.Duration(m.GetCacheTime(), 0, at.Field("cache_time"), report),
	}
	if c.factory.Failing == nil {
		c.factory.Failing = func() bool { return false }
	}
	if c.cache > 0 && !c.passThrough {
		report.Add(at.Field("cache_time"), "only answers of an upstream are kept: use pass_through_mode")
	}
	if len(m.GetClusterMinHealthyPercentages()) > 0 && c.passThrough {
		report.Add(at.Field("cluster_min_healthy_percentages"), "in pass_through_mode the upstream says how it is")
	}
	for name, percent := range m.GetClusterMinHealthyPercentages() {
		c.clusters = append(c.clusters, minimum{name, int(percent.GetValue())})
	}
	slices.SortFunc(c.clusters, func(a, b minimum) int { return strings.Compare(a.cluster, b.cluster) })
	return c
}

// config is the filter's configuration for one chain. It makes the filters of
// streams, and keeps the upstream's last answer for all of them.
type config struct {
	factory     Factory
	passThrough bool
	headers     []matcher.Header
	cache       time.Duration // 0: none
	clusters    []minimum
	counts      counts

	last  atomic.Pointer[answer] // nil before the first
	spare sync.Pool              // of *filter
}

// counts are the filter's metrics, by Envoy's names: the checks that it answered by
// itself, how, and why so. Degraded answers, which Envoy counts too, are none here.
type counts struct {
	answered, ok, failed, kept *stats.Counter
	notFound, empty, unhealthy *stats.Counter
}

// Measure implements httpfilter.Measured.
func (c *config) Measure(scope *stats.Scope) {
	scope = scope.Scope("health_check")
	c.counts = counts{
		answered: scope.Counter("request_total"), ok: scope.Counter("ok"), failed: scope.Counter("failed"),
		kept: scope.Counter("cached_response"), notFound: scope.Counter("failed_cluster_not_found"),
		empty: scope.Counter("failed_cluster_empty"), unhealthy: scope.Counter("failed_cluster_unhealthy"),
	}
}

// minimum is the whole percentage of a cluster's hosts that must be healthy.
type minimum struct {
	cluster string
	percent int
}

// answer is a status of the upstream, and when it came.
type answer struct {
	status int
	at     time.Time
}

// NewFilter implements httpfilter.Config.
func (c *config) NewFilter() httpfilter.Filter {
	if f, ok := c.spare.Get().(*filter); ok {
		return f
	}
	return &filter{config: c}
}

// filter is the filter of one stream.
type filter struct {
	config *config
	// check says that the request is a health check; forwarded, that the upstream
	// was asked for an answer to keep.
	check, forwarded bool
}

// RequestHead implements httpfilter.RequestHead. Steps:
//
//  1. a request that is no health check passes;
//  2. a proxy that is to fail answers 503;
//  3. in pass-through mode the request goes on, unless an answer is kept;
//  4. otherwise it is answered by the health of the clusters.
func (f *filter) RequestHead(s *stream.Stream) *httpfilter.Reply {
	c := f.config
	for i := range c.headers {
		if !c.headers[i].Match(&s.Request) {
			return nil
		}
	}
	f.check, s.Facts.HealthCheck = true, true
	switch {
	case c.factory.Failing():
		return c.answered(s, 503, "health_check_failed")
	case !c.passThrough:
		return c.judge(s)
	case c.cache == 0:
		return nil
	}
	if last := c.last.Load(); last != nil && time.Since(last.at) < c.cache {
		c.counts.kept.Inc()
		return c.answered(s, last.status, "health_check_cached")
	}
	f.forwarded = true
	return nil
}

// answered is the answer to a health check, and counts and notes it for access logs;
// details say why by Envoy's names.
func (c *config) answered(s *stream.Stream, status int, details string) *httpfilter.Reply {
	s.Facts.Details = details
	c.counts.answered.Inc()
	if status < 200 || status > 299 {
		c.counts.failed.Inc()
		s.Facts.Flags |= format.FailedLocalHealthCheck
	} else {
		c.counts.ok.Inc()
	}
	return &httpfilter.Reply{Status: status}
}

// judge is what the health of the clusters comes to.
func (c *config) judge(s *stream.Stream) *httpfilter.Reply {
	if len(c.clusters) == 0 {
		return c.answered(s, 200, "health_check_ok")
	}
	for _, m := range c.clusters {
		healthy, hosts, ok := c.factory.Healthy(m.cluster)
		switch {
		case !ok:
			c.counts.notFound.Inc()
			return c.answered(s, 503, "health_check_failed_no_cluster_found")
		case m.percent > 0 && hosts == 0: // which is well if none is asked for
			c.counts.empty.Inc()
			return c.answered(s, 503, "health_check_failed_cluster_empty")
		case 100*healthy < m.percent*hosts:
			c.counts.unhealthy.Inc()
			return c.answered(s, 503, "health_check_failed_cluster_unhealthy")
		}
	}
	return c.answered(s, 200, "health_check_ok_cluster_healthy")
}

// ResponseHead implements httpfilter.ResponseHead.
func (f *filter) ResponseHead(s *stream.Stream) {
	c := f.config
	if f.forwarded {
		c.last.Store(&answer{s.Response.Status, time.Now()})
	}
	if f.check {
		s.Response.Headers.Set("x-envoy-upstream-healthchecked-cluster", c.factory.ServiceName)
	}
	// On every response, so that clients learn of it before their next check.
	if c.factory.Failing() {
		s.Response.Headers.Set("x-envoy-immediate-health-check-fail", "true")
	}
}

// Done implements httpfilter.Done.
func (f *filter) Done(*stream.Stream) {
	f.check, f.forwarded = false, false
	f.config.spare.Put(f)
}
