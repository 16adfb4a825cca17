// Package xds takes rules from a control plane: over one aggregated stream
// (ADS) in the state-of-the-world protocol it asks for all resources of the
// type RateLimitConfig, one a domain, and hands each new set of rules on. Each
// response is the whole set: what it does not hold any more is gone. app starts
// it in place of the watch of a directory. Whatever the control plane sends, it
// keeps the last good rules of every domain, and while the control plane is
// away it keeps them all; it never stops the service.
//
// A response of which a part is bad is applied and refused at once: its good
// domains are in force, those of bad resources stay as they were, and a NACK
// tells the control plane everything that is wrong. The protocol only says
// that a NACK leaves the version unaccepted, and Envoy does likewise with its
// own resources: one team's slip must not hold back the rules of all others.
package xds

import (
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"sync"
	"time"

	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	"google.golang.org/grpc"
	"google.golang.org/grpc/metadata"

	"github.com/weirproxy/weir/services/ratelimit/internal/limitsource"
)

// Options says which control plane is asked, and how. Server and Backoff are
// required.
type Options struct {
	limitsource.Options
	// Server is the control plane's address, "host:port", or a target in
	// another form that gRPC knows.
	Server string
	// NodeID and NodeMetadata, "key=value,key=value", tell the control plane
	// who asks.
	NodeID, NodeMetadata string
	// Headers, "name:value,name:value", go with each stream.
	Headers string
	// TLS is nil for plain text.
	TLS *TLS
	// ConnectRetry is the time between tries to connect, made longer or shorter as
	// those of Backoff are, which is the wait after a stream was lost.
	ConnectRetry time.Duration
	Backoff      Backoff
	// MaxMessage is the largest response that is read, in bytes; 0 stands for
	// 64 MiB.
	MaxMessage int
}

// Backoff says how long to wait before the next of several tries: Initial, then
// twice as long each time, up to Max.
type Backoff struct {
	Initial, Max time.Duration
	// Spread, from 0 to 1, is the share of a wait by which it is lengthened or
	// shortened at random, so that many clients do not come back at once.
	Spread float64
}

// after is the wait after the n-th failure in a row, n from 0.
func (b Backoff) after(n int) time.Duration {
	wait := b.Initial
	for ; n > 0 && wait < b.Max; n-- {
		wait *= 2
	}
	return b.spread(min(wait, b.Max))
}

func (b Backoff) spread(wait time.Duration) time.Duration {
	return time.Duration(float64(wait) * (1 + b.Spread*(2*rand.Float64()-1)))
}

// Source is the client of one control plane. Run is called once, and alone calls
// Take and Domains; the other methods may be called from any goroutine.
type Source struct {
	*limitsource.InForce
	options Options
	node    *corev3.Node
	headers metadata.MD
	stats   *stats
	// dial opens a channel to the control plane for one stream.
	dial func() (grpc.ClientConnInterface, io.Closer, error)

	// The next group belongs to Run.
	version string // accepted last
	// refusedAt is when the last NACK went out.
	refusedAt time.Time

	mu   sync.Mutex
	away error // why there is no stream; nil while there is one
}

// New makes a source that does nothing until Run. The error says which of the
// options cannot be read.
func New(o Options) (*Source, error) {
	if o.MaxMessage == 0 {
		o.MaxMessage = 64 << 20
	}
	s := &Source{options: o, stats: newStats(o.Metrics), away: errors.New("not connected yet")}
	s.InForce = limitsource.NewInForce(o.Options, s.silent)
	s.dial = s.open
	var errs [3]error
	s.node = &corev3.Node{Id: o.NodeID, UserAgentName: "ratelimit"}
	s.node.Metadata, errs[0] = parseMetadata(o.NodeMetadata)
	s.headers, errs[1] = parseHeaders(o.Headers)
	if o.TLS != nil {
		_, errs[2] = o.TLS.config()
	}
	if err := errors.Join(errs[:]...); err != nil {
		return nil, err
	}
	return s, nil
}

// silent says why there were no rules yet. That the control plane has no rules
// is a state like others: they are in force as soon as it says so.
func (s *Source) silent() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.away != nil {
		return fmt.Errorf("control plane %s: %w", s.options.Server, s.away)
	}
	return fmt.Errorf("control plane %s sent none yet", s.options.Server)
}

// setAway notes that there is a stream, or why there is none.
func (s *Source) setAway(err error) {
	s.mu.Lock()
	s.away = err
	s.mu.Unlock()
	if err == nil {
		s.stats.connected.Set(1)
	} else {
		s.stats.connected.Set(0)
	}
}

// Run keeps a stream open until ctx ends, and then returns nil. What it waits
// before the next stream begins anew when the control plane was there.
func (s *Source) Run(ctx context.Context) error {
	told := false // its loss was logged
	for losses := 0; ; {
		end := s.stream(ctx)
		if end.steady {
			losses, told = 0, false
		}
		wait := s.options.Backoff.spread(s.options.ConnectRetry)
		if end.opened {
			wait = s.options.Backoff.after(losses)
			losses++
		}
		if !told && ctx.Err() == nil {
			s.options.Log.Warn("control plane is away, the rules stay", "server", s.options.Server, "error", end.err)
			told = true
		}
		select {
		case <-time.After(wait):
		case <-ctx.Done():
			return nil
		}
	}
}
