// Package redis keeps counters in a Redis server, so that several replicas of
// the service share them. limiter calls it through its Store interface. It
// holds no count of its own, repeats no command that may have been carried out,
// and waits no longer than its timeout.
package redis

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/url"
	"slices"
	"strings"
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
	// URL is redis://user:password@host:port/db, rediss:// for TLS,
	// unix:///path, or host:port.
	URL string
	// Timeout bounds the wait for the answer to an Apply or a Ping.
	Timeout time.Duration
	// Connections is how many batches may be under way at once.
	Connections int
	// ExpirationJitter bounds the random time by which counters outlive their
	// window, so that those of one window do not all expire at once.
	ExpirationJitter time.Duration
	Metrics          prometheus.Registerer
}

// Store is safe for use by many goroutines.
type Store struct {
	client  *goredis.Client
	timeout time.Duration
	jitter  time.Duration
	stats   *stats
	calls   sync.Pool

	queue   chan *call
	closing chan struct{}
	senders sync.WaitGroup
}

var _ limiter.Store = (*Store)(nil)

// New makes a store and starts its senders; Close ends them. It does not dial:
// a Redis that is away is seen by Ping and by Apply. The error is that of the
// URL, without the password in it.
func New(o Options) (*Store, error) {
	options, err := parseURL(o.URL)
	if err != nil {
		return nil, err
	}
	// A command that timed out may have been carried out: sent again, it would
	// count its hits twice.
	options.MaxRetries = -1
	options.DialerRetries = 1
	options.DialTimeout = max(o.Timeout, time.Second)
	options.ReadTimeout, options.WriteTimeout, options.PoolTimeout = o.Timeout, o.Timeout, o.Timeout
	options.ContextTimeoutEnabled = true
	// One more than the senders use, so that Ping does not wait for them.
	options.PoolSize, options.PipelinePoolSize = o.Connections+1, -1
	options.DisableIdentity = true
	options.MaintNotificationsConfig = &maintnotifications.Config{Mode: maintnotifications.ModeDisabled}

	s := &Store{
		client:  goredis.NewClient(options),
		timeout: o.Timeout,
		jitter:  o.ExpirationJitter,
		stats:   newStats(o.Metrics),
		queue:   make(chan *call, queued),
		closing: make(chan struct{}),
	}
	s.calls.New = func() any { return newCall() }
	for range o.Connections {
		// Ends when Close is called, which waits for it.
		s.senders.Go(s.send)
	}
	return s, nil
}

// Address is where a store of that URL looks for Redis, host:port or the path
// of a socket: what may be shown of the URL. It is "" if New refuses the URL.
func Address(text string) string {
	options, err := parseURL(text)
	if err != nil {
		return ""
	}
	return options.Addr
}

// parseURL reads Options.URL. Its errors quote nothing of an address that holds
// an @ in any place but where a URL has it, and never the user before it: both
// may be a password.
func parseURL(text string) (*goredis.Options, error) {
	shown := fmt.Sprintf("redis address %q", text)
	hidden := strings.Contains(text, "@")
	if hidden {
		shown = "redis address (not shown, for it may hold a password)"
	}
	scheme, rest, isURL := strings.Cut(text, "://")
	if !isURL {
		if _, _, err := net.SplitHostPort(text); err != nil || hidden {
			return nil, fmt.Errorf("%s is neither a URL nor host:port", shown)
		}
		return &goredis.Options{Addr: text}, nil
	}
	if !slices.Contains([]string{"redis", "rediss", "unix"}, strings.ToLower(scheme)) {
		return nil, fmt.Errorf("%s begins with none of redis://, rediss://, unix://", shown)
	}
	_, err := url.Parse(text)
	end := strings.IndexAny(rest+"/", "/?#") // of user and host
	if hidden && (err != nil || strings.Contains(rest[end:], "@")) {
		return nil, fmt.Errorf("%s is not a URL: in a user, password or path, what means something in URLs must be percent-encoded", shown)
	}
	options, err := goredis.ParseURL(text)
	if inURL, ok := errors.AsType[*url.Error](err); ok { // its text repeats the URL
		err = inURL.Err
	}
	if err != nil {
		return nil, fmt.Errorf("%s: %w", shown, err)
	}
	return options, nil
}

// Ping asks the server for a PONG.
func (s *Store) Ping(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, s.timeout)
	defer cancel()
	if err := s.client.Ping(ctx).Err(); err != nil {
		return fmt.Errorf("ping redis at %s: %w", s.client.Options().Addr, err)
	}
	return nil
}

// Close ends the senders and closes the connections.
func (s *Store) Close() error {
	close(s.closing)
	s.senders.Wait()
	return s.client.Close()
}
