// Package healthcheck asks the hosts of a cluster, again and again, whether
// they are well (Envoy's active health checks, envoy.config.core.v3.HealthCheck):
// over HTTP/1.1, HTTP/2, TCP or gRPC. The cluster says which hosts there are and is
// told by a callback how they are; the package picks no host and knows no other
// package's hosts: any comparable value is one.
//
// Each host has a goroutine that waits, checks and tells. It is one at a time
// for its host, so that what is told of a host is in order.
package healthcheck

import (
	"context"
	"errors"
	"log/slog"
	"net"
	"net/netip"
	"sync"
	"time"

	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"

	"github.com/weirproxy/weir/services/proxy/internal/format"
	"github.com/weirproxy/weir/services/proxy/internal/stats"
)

// Options is what a Checker works with.
type Options[K comparable] struct {
	// Cluster is the cluster's name: the host header and the authority of checks
	// where the configuration has none.
	Cluster string
	// Changed is told of the first result of each host, and from then on when its
	// health is another: of one host in order, of several at the same time. It
	// may be called for a host that has just gone. Before its first result a
	// host's health is Initial; a round of all hosts is over when each was told
	// of once.
	Changed func(host K, health Health)
	// Passed, if set, is called after each check that a healthy host passed, as
	// outlier.Detector.HealthCheckPassed is to be.
	Passed func(host K)
	// Metadata is that of a host, for headers of checks; nil is none of any.
	Metadata func(host K) *corev3.Metadata
	// Used says whether the cluster has had traffic.
	Used func() bool
	// Scope is the cluster's: the counters are below health_check.
	Scope *stats.Scope
	// Log gets a line when a host's health changes.
	Log *slog.Logger
	// Dial connects to an address, "ip:port"; nil is by TCP.
	Dial func(ctx context.Context, address string) (net.Conn, error)
}

// Checker checks the hosts of one cluster.
type Checker[K comparable] struct {
	config  *Config
	options Options[K]
	stats   *checkerStats

	context context.Context // ends with Close
	stop    context.CancelFunc
	running sync.WaitGroup // the goroutines of hosts

	mu    sync.Mutex
	hosts map[K]*Host[K]
}

// New makes a checker without hosts. Close it.
func New[K comparable](config *Config, options Options[K]) *Checker[K] {
	if options.Metadata == nil {
		options.Metadata = func(K) *corev3.Metadata { return nil }
	}
	if options.Dial == nil {
		options.Dial = func(ctx context.Context, address string) (net.Conn, error) {
			return (&net.Dialer{}).DialContext(ctx, "tcp", address)
		}
	}
	c := &Checker[K]{config: config, options: options, stats: newStats(options.Scope.Scope("health_check")), hosts: map[K]*Host[K]{}}
	c.context, c.stop = context.WithCancel(context.Background())
	return c
}

// SetHosts says which hosts the cluster has now. Checks of new ones begin at
// once, those of others end; one whose Target is another begins anew, and keeps
// what was told of it until there is a result. It neither blocks nor calls
// back, so that a cluster may hold its own lock. Hosts with Endpoint.Disabled
// are not checked and nothing is told of them.
func (c *Checker[K]) SetHosts(targets map[K]Target) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.context.Err() != nil {
		return
	}
	moved := map[K]*Host[K]{}
	for key, h := range c.hosts {
		if target, stays := targets[key]; !stays || target != h.target {
			h.stop()
			delete(c.hosts, key)
			moved[key] = h
		}
	}
	for key, target := range targets {
		if c.hosts[key] != nil || target.Endpoint.Disabled {
			continue
		}
		h := &Host[K]{checker: c, key: key, target: target, failing: make(chan struct{}, 1), ended: make(chan struct{}), progress: progress{health: Initial}}
		var ctx context.Context
		ctx, h.stop = context.WithCancel(c.context)
		c.hosts[key] = h
		before := moved[key]
		// Close waits for it; it ends with its host, or with Close.
		c.running.Go(func() {
			defer close(h.ended)
			if before != nil {
				<-before.ended // or it could tell of the old target after us
			}
			h.run(ctx)
		})
	}
}

// Host is the check of one host, for its passive part; nil if the host is not
// checked. The caller may keep it with the host.
func (c *Checker[K]) Host(key K) *Host[K] {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.hosts[key]
}

// Close ends all checks and waits until they have ended. Whoever calls it holds
// no lock that Changed or Passed take.
func (c *Checker[K]) Close() {
	c.mu.Lock()
	c.stop()
	clear(c.hosts)
	c.mu.Unlock()
	c.running.Wait()
}

// Host is one host that is checked.
type Host[K comparable] struct {
	checker *Checker[K]
	key     K
	target  Target
	stop    context.CancelFunc
	failing chan struct{} // asks for a passive failure
	ended   chan struct{} // closed when its goroutine ends

	// The rest is its goroutine's.
	progress progress
}

// FailPassively makes the host failed, and excluded, until its next good check:
// an answer to a request bore x-envoy-immediate-health-check-fail. It may be
// called from any goroutine, does not block, and does nothing on nil.
func (h *Host[K]) FailPassively() {
	if h == nil {
		return
	}
	select {
	case h.failing <- struct{}{}:
	default: // asked already
	}
}

// prober checks one host; one goroutine uses it.
type prober interface {
	// probe checks once. It ends soon after ctx does.
	probe(ctx context.Context) result
	// close ends the connection that is kept, if any.
	close()
}

// hostConfig is what a prober is made with.
type hostConfig struct {
	address string // ip:port
	// name is the authority of checks.
	name func(configured string) string
	// host is where the host's traffic goes, metadata what the configuration says of it.
	host     netip.AddrPort
	metadata func() *corev3.Metadata
	dial     func(ctx context.Context, address string) (net.Conn, error)
	reuse    bool
	stats    *checkerStats
}

// tell makes f what is known of a check that begins, for the headers that it has: there
// is no request of a client's.
func (h *hostConfig) tell(f *format.Facts, protocol string) {
	f.Reset(nil, nil, nil)
	f.Start, f.Protocol = time.Now(), protocol
	f.UpstreamHost, f.HostMetadata = h.host, h.metadata()
}

// run checks the host until ctx ends.
func (h *Host[K]) run(ctx context.Context) {
	c := h.checker
	prober := c.config.check.newProber(hostConfig{
		address: c.config.address(h.target).String(), name: h.name, dial: c.options.Dial, host: h.target.Address,
		metadata: func() *corev3.Metadata { return c.options.Metadata(h.key) },
		reuse:    c.config.ReuseConnection, stats: c.stats,
	})
	defer prober.close()
	defer h.leave()
	timer := time.NewTimer(below(c.config.InitialJitter))
	defer timer.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-h.failing:
			h.record(result{verdict: passive, why: "x-envoy-immediate-health-check-fail in an answer to a request", excluded: true})
			continue
		case <-timer.C:
		}
		c.stats.attempts.Inc()
		r := h.probe(ctx, prober)
		if ctx.Err() != nil {
			return
		}
		done := h.record(r)
		if c.options.Passed != nil && r.verdict == passed && !h.progress.health.Failed {
			c.options.Passed(h.key)
		}
		timer.Reset(c.config.wait(r.verdict, done, c.options.Used()))
	}
}

// probe does one check inside its timeout.
func (h *Host[K]) probe(ctx context.Context, p prober) result {
	ctx, cancel := context.WithTimeout(ctx, h.checker.config.Timeout)
	defer cancel()
	r := p.probe(ctx)
	if r.verdict == network && errors.Is(ctx.Err(), context.DeadlineExceeded) {
		r.verdict, r.why = timedOut, "no answer within "+h.checker.config.Timeout.String()
	}
	return r
}

// record takes in a result, counts it and tells of a change.
func (h *Host[K]) record(r result) step {
	c, before := h.checker, h.progress.health
	done := h.progress.record(r, c.config)
	c.stats.count(r.verdict)
	now := h.progress.health
	if before.Failed != now.Failed {
		c.stats.healthy.Add(map[bool]int64{true: -1, false: 1}[now.Failed])
	}
	if before == now {
		return done
	}
	if before.Failed != now.Failed || before.Pending {
		level, text := slog.LevelInfo, "host is healthy"
		if now.Failed {
			level, text = slog.LevelWarn, "host is unhealthy"
		}
		c.options.Log.Log(context.Background(), level, text, "host", c.config.address(h.target), "why", r.why)
	}
	c.options.Changed(h.key, now)
	return done
}

// leave takes the host out of what is counted.
func (h *Host[K]) leave() {
	if !h.progress.health.Failed {
		h.checker.stats.healthy.Add(-1)
	}
}

// name is the authority of the host's checks: the endpoint's, or what is
// configured, or the cluster's name.
func (h *Host[K]) name(configured string) string {
	switch {
	case h.target.Endpoint.Hostname != "":
		return h.target.Endpoint.Hostname
	case configured != "":
		return configured
	}
	return h.checker.options.Cluster
}
