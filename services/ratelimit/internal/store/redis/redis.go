// Package redis keeps counters in a Redis server, one found by Sentinels, or a
// Cluster, so that several replicas of the service share them. limiter calls it
// through its Store interface. It holds no count of its own, repeats no command
// that may have been carried out, and waits no longer than its timeout.
package redis

import (
	"context"
	"maps"
	"slices"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	goredis "github.com/redis/go-redis/v9"
	"github.com/redis/go-redis/v9/maintnotifications"

	"github.com/weirproxy/weir/services/ratelimit/internal/limiter"
)

// Options says where Redis is and how it is used. URL, Timeout, Connections
// and Metrics are required.
type Options struct {
	// Type is single (as is ""), sentinel or cluster, in any letter case.
	Type string
	// URL is redis://user:password@host:port/db, rediss:// for TLS,
	// unix:///path, host:port, or the path of a socket. Of a cluster it is a
	// list of such addresses with commas between; with sentinels it is the name
	// of the master and then the host:port of each, with commas between.
	URL string
	// SocketType is tcp, unix or "". unix makes a URL without scheme a path,
	// even if it does not begin with a slash.
	SocketType string
	// Auth is "password" or "user:password", in place of what the URL has.
	// SentinelAuth is the same for the Sentinels.
	Auth, SentinelAuth string
	TLS                TLS
	// PoolOnEmpty must be WAIT or "": the only way there is.
	PoolOnEmpty string
	// Timeout bounds the wait for the answer to an Apply, and, in a Cluster, before
	// that the wait for its layout, until that is known for the first time. Ping
	// waits no longer for an answer either, but may have to dial first.
	Timeout time.Duration
	// Connections is how many batches may be under way to one server at most.
	// More than two are so only where whole batches wait.
	Connections int
	// ExpirationJitter bounds the random time by which counters outlive their
	// window, so that those of one window do not all expire at once.
	ExpirationJitter time.Duration
	// KeyPrefix is what all keys begin with, if anything: what has to be put
	// into a key for a Cluster stands behind it, and Ping asks for a key that
	// begins with it.
	KeyPrefix string
	// DomainTags keeps the counters of one domain in one slot of a Cluster, thus
	// on one of its servers, which a call that is one step needs. It matters in
	// a Cluster only; all that share it must agree.
	DomainTags bool
	Metrics    prometheus.Registerer
}

// Store is safe for use by many goroutines.
type Store struct {
	options Options
	place   *place
	client  goredis.UniversalClient
	nodes   *nodes // nil but in a Cluster
	one     *shard // nil in a Cluster
	given   *memo
	stats   *stats
	calls   sync.Pool

	// running ends with Close, and with it the probes.
	running context.Context
	stop    context.CancelFunc
	work    sync.WaitGroup // senders and probes
}

var _ limiter.Store = (*Store)(nil)

// New makes a store; Close ends it. It waits for nothing: a Redis that is away
// is seen by Ping and by Apply. The error is that of a setting, and begins with
// its name, that of envoyproxy/ratelimit without REDIS_ or REDIS_PERSECOND_.
func New(o Options) (*Store, error) {
	p, err := o.place()
	if err != nil {
		return nil, err
	}
	s := &Store{options: o, place: p, given: newMemo()}
	s.stats = newStats(o.Metrics, s)
	s.running, s.stop = context.WithCancel(context.Background())
	s.calls.New = func() any { return newCall() }
	switch u := s.universal(); p.kind {
	case cluster:
		client := goredis.NewClusterClient(u.Cluster())
		s.client, s.nodes = client, newNodes(s, client)
		s.work.Add(1)
		// Ends when the layout is known, or when Close is called, which waits
		// for it.
		go s.nodes.learn()
	case sentinel:
		client := goredis.NewFailoverClient(u.Failover())
		s.client, s.one = client, newShard(s, p.String(), client)
	default:
		client := goredis.NewClient(u.Simple())
		s.client, s.one = client, newShard(s, p.String(), client)
	}
	return s, nil
}

// universal is what all three kinds of client have in common.
func (s *Store) universal() *goredis.UniversalOptions {
	o, p := &s.options, s.place
	u := &goredis.UniversalOptions{
		Addrs: p.addresses, MasterName: p.master, DB: p.db,
		Username: p.username, Password: p.password,
		SentinelUsername: p.sentinelUsername, SentinelPassword: p.sentinelPassword,
		TLSConfig: p.tls,
		// A command that timed out may have been carried out: sent again, it
		// would count its hits twice.
		MaxRetries:    -1,
		DialerRetries: 1,
		DialTimeout:   max(o.Timeout, time.Second),
		ReadTimeout:   o.Timeout, WriteTimeout: o.Timeout, PoolTimeout: o.Timeout,
		ContextTimeoutEnabled: true,
		// Two more than the senders use, so that neither Ping nor a probe waits
		// for them.
		PoolSize: o.Connections + 2, PipelinePoolSize: -1,
		// Nothing is pushed, so nothing need be looked for.
		Protocol: 2, DisableIdentity: true,
		MaintNotificationsConfig: &maintnotifications.Config{Mode: maintnotifications.ModeDisabled},
	}
	u.Dialer = s.stats.counting(goredis.NewDialer(&goredis.Options{DialTimeout: u.DialTimeout, TLSConfig: p.tls}))
	return u
}

// all is the shards there are.
func (s *Store) all() []*shard {
	if s.nodes == nil {
		return []*shard{s.one}
	}
	return slices.Collect(maps.Values(*s.nodes.shards.Load()))
}

// Ping asks the server, or each master of a Cluster, whether it would take a
// command that writes. Servers that answer none of two in a row are not asked by
// Apply until they answer.
func (s *Store) Ping(ctx context.Context) error {
	if s.nodes != nil {
		return s.nodes.ping(ctx)
	}
	return s.one.ping(ctx)
}

// Close ends what the store runs and closes the connections. No Apply or Ping
// may run any more.
func (s *Store) Close() error {
	s.stop()
	s.work.Wait()
	return s.client.Close()
}
