// Package rls speaks the rate limit service in its three versions, as bytes of
// protobuf and as JSON over HTTP. A transport such as grpcserver hands it each
// request's message; it checks the message, has the limiter answer it and
// writes the answer's message or a status code. It decides nothing itself and
// knows neither a store nor gRPC.
package rls

import (
	"cmp"
	"context"
	"log/slog"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/weirproxy/weir/services/ratelimit/internal/limiter"
	"github.com/weirproxy/weir/services/ratelimit/internal/limits"
)

// Limiter answers checked requests; *limiter.Limiter is the one there is.
type Limiter interface {
	// Check answers req into answer. Its error is limiter.ErrNoRules, or that
	// of a store that does not answer. It keeps nothing of req.
	Check(ctx context.Context, req *limiter.Request, answer *limiter.Answer) error
}

// Tracer follows requests.
type Tracer interface {
	// Begin is called before a request is read. The limiter gets the context
	// that comes back; end is called once, with the domain as far as the message
	// could be read, whether the answer was over, and the error that was
	// answered in its place, or nil.
	Begin(ctx context.Context) (traced context.Context, end func(domain string, over bool, err *Error))
}

// Options says how a service answers. Limiter, JSONTimeout and Metrics are
// required.
type Options struct {
	Limiter Limiter
	// Headers, if set, are sent with each answer that a limit was applied in.
	Headers *Headers
	// DynamicMetadata describes the request, and the rules that it passed, in
	// answers of version 3.
	DynamicMetadata bool
	// MaxDescriptors is how many descriptors a request may have; 0 is
	// MaxDescriptors, the most there may be.
	MaxDescriptors int
	// JSONTimeout bounds the time that a request over HTTP waits for the
	// store, since HTTP carries no deadline.
	JSONTimeout time.Duration
	// Tracer may be nil.
	Tracer Tracer
	// Log is told why the store does not answer; nil is nobody.
	Log     *slog.Logger
	Metrics prometheus.Registerer
}

// Headers are the names of the headers by which Envoy tells a client how it
// stands.
type Headers struct {
	// Limit has the requests per unit, Remaining what is left of them, Reset
	// the seconds until there are all again.
	Limit, Remaining, Reset string
}

// Service is the rate limit service. It is safe for use by many goroutines.
type Service struct {
	options Options
	calls   sync.Pool
	stats   *stats
	outages outages
}

// New makes a service.
func New(o Options) *Service {
	o.MaxDescriptors = cmp.Or(o.MaxDescriptors, MaxDescriptors)
	s := &Service{options: o, stats: newStats(o.Metrics), outages: outages{log: cmp.Or(o.Log, slog.New(slog.DiscardHandler))}}
	s.calls.New = func() any { return &call{} }
	return s
}

// call is the memory of one request, pooled.
type call struct {
	request limiter.Request
	answer  limiter.Answer
	// addend is the request's own hits_addend.
	addend uint32
	// own is beside request.Descriptors: what else the message says of each.
	own []own
	// entries is where the entries of all descriptors lie.
	entries []limits.Entry
}

// own is which fields of a descriptor its message sets.
type own struct{ hits, multiplier bool }

// The largest call that is kept for another request, so that a huge request
// does not hold its memory for good.
const (
	keptDescriptors = 64
	keptEntries     = 512
)

// release gives c back to the pool, and lets go of the message.
func (s *Service) release(c *call) {
	if cap(c.request.Descriptors) > keptDescriptors || cap(c.entries) > keptEntries || cap(c.answer.Statuses) > keptDescriptors {
		return
	}
	c.request.Domain = ""
	clear(c.request.Descriptors)
	clear(c.entries)
	s.calls.Put(c)
}
