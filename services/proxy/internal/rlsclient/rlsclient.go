// Package rlsclient asks rate-limit services over gRPC
// (envoy.service.ratelimit.v3). Filters name the cluster that a service is
// behind, whose hosts, connections and limits are those of any request to it
// (grpccall). It limits nothing by itself, and does not decide what a failure
// means.
package rlsclient

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"sync"
	"sync/atomic"
	"time"

	rlsv3 "github.com/envoyproxy/go-control-plane/envoy/service/ratelimit/v3"

	"github.com/weirproxy/weir/services/proxy/internal/cluster"
	"github.com/weirproxy/weir/services/proxy/internal/coreconfig"
	"github.com/weirproxy/weir/services/proxy/internal/grpccall"
	"github.com/weirproxy/weir/services/proxy/internal/layeredruntime"
	"github.com/weirproxy/weir/services/proxy/internal/upstream"
)

// method is the only one of the service.
const method = "/envoy.service.ratelimit.v3.RateLimitService/ShouldRateLimit"

// Clusters finds clusters by name.
type Clusters interface {
	// Get returns the cluster that has the name now, or nil. It must not block.
	Get(name string) *cluster.Cluster
}

// Service says which rate-limit service is asked, and how.
type Service struct {
	// Cluster is the name of the cluster that it is behind.
	Cluster string
	// Authority is who is asked for; empty is the cluster's name.
	Authority string
	// Timeout bounds a call; 0 is without limit.
	Timeout time.Duration
	// MaxMessage bounds an answer, in bytes; 0 is gRPC's own bound, 4 MiB.
	MaxMessage uint32
	// SkipEnvoyHeaders has calls go without x-envoy-internal.
	SkipEnvoyHeaders bool
	// Metadata is what each call begins with.
	Metadata coreconfig.Metadata
}

// Services are the rate-limit services in use. It is safe for use by many
// goroutines.
type Services struct {
	clusters Clusters
	runtime  *layeredruntime.Runtime
	log      *slog.Logger
	spare    sync.Pool // *grpccall.Call

	// known are nil once closed. The map is never changed, only replaced.
	known   atomic.Pointer[map[Service]*known]
	mu      sync.Mutex // orders those who replace it
	reports reports
}

// known is a service that was asked before, for as long as its cluster is the one that
// has the name.
type known struct {
	method *grpccall.Method
	outage *outage      // the service's, whatever its cluster
	asked  atomic.Int64 // when, in seconds since 1970, no call later than that
}

// forgottenAfter is how long a service stays known that nobody asks: it may be one of a
// configuration that is in use no more. One that is asked later is made known anew.
const forgottenAfter = time.Hour

// touch notes that the service is asked.
func (k *known) touch(now int64) {
	if k.asked.Load() != now { // so that many calls at once do not write to the same place
		k.asked.Store(now)
	}
}

// New makes Services in clusters that may come, change and go. Runtime has the values that
// bear on them, and may be nil. The log gets a line when a service begins to
// fail, with the cause, and one when it answers again.
func New(clusters Clusters, runtime *layeredruntime.Runtime, log *slog.Logger) *Services {
	s := &Services{clusters: clusters, runtime: runtime, log: log}
	s.spare.New = func() any { return &grpccall.Call{} }
	s.known.Store(&map[Service]*known{})
	return s
}

// ErrGivenUp is what a call ends with that nobody waits for any more, which says
// nothing of the service.
var ErrGivenUp = grpccall.ErrGivenUp

var (
	errClosed    = errors.New("the proxy is stopping")
	errNoCluster = errors.New("there is no such cluster")
)

// ShouldRateLimit asks a service and fills in response. It returns when the
// answer is there or the service's timeout has passed, and at once if there is
// no such cluster, it has no hosts, or none can be reached. Ctx ends with the
// process; caller is held while it blocks, to have it end with ErrGivenUp.
//
// An answer that is neither OK nor OVER_LIMIT is an error. A status of gRPC is a
// *grpccall.StatusError.
func (s *Services) ShouldRateLimit(ctx context.Context, caller upstream.Caller, service Service, request *Request, response *Response) error {
	k, err := s.find(service)
	if err == nil {
		err = s.call(ctx, caller, k.method, request, response)
		if !errors.Is(err, ErrGivenUp) {
			k.outage.note(err)
		}
	}
	if err != nil {
		return fmt.Errorf("ask the rate-limit service in cluster %q: %w", service.Cluster, err)
	}
	return nil
}

func (s *Services) call(ctx context.Context, caller upstream.Caller, m *grpccall.Method, request *Request, response *Response) error {
	call := s.spare.Get().(*grpccall.Call)
	defer s.spare.Put(call)
	if err := call.Do(ctx, caller, m, request, response); err != nil {
		return err
	}
	if response.Code != rlsv3.RateLimitResponse_OK && response.Code != rlsv3.RateLimitResponse_OVER_LIMIT {
		return fmt.Errorf("it answered with the code %v", response.Code)
	}
	return nil
}

// Report asks a service whose answer nobody waits for. It does not block; the call
// ends with the service's timeout, or with Close. Request is the call's from now
// on.
func (s *Services) Report(service Service, request *Request) {
	s.reports.run(func(caller upstream.Caller) {
		// A failure is the log's to tell of.
		_ = s.ShouldRateLimit(context.Background(), caller, service, request, &Response{})
	})
}

// Close ends reports and waits for them. Later calls end with an error. Those in
// flight are their callers' to end; the connections are the clusters'.
func (s *Services) Close() {
	s.mu.Lock()
	s.known.Store(nil)
	s.mu.Unlock()
	s.reports.close()
}

// find returns a service, which the first call for it makes known, and the first one for
// another cluster of the name makes anew.
func (s *Services) find(service Service) (*known, error) {
	all := s.known.Load()
	if all == nil {
		return nil, errClosed
	}
	c := s.clusters.Get(service.Cluster)
	if c == nil {
		return nil, errNoCluster
	}
	now := time.Now().Unix()
	if k := (*all)[service]; k != nil && k.method.Cluster() == c {
		k.touch(now)
		return k, nil
	}
	return s.make(service, c, now)
}

// make makes a service known, and forgets those that nobody asks any more.
func (s *Services) make(service Service, c *cluster.Cluster, now int64) (*known, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	all := s.known.Load()
	if all == nil {
		return nil, errClosed
	}
	k := (*all)[service]
	switch {
	case k == nil:
		k = &known{outage: &outage{log: s.log.With("cluster", service.Cluster)}}
	case k.method.Cluster() == c: // another call was first
		return k, nil
	}
	m, err := grpccall.NewMethod(c, grpccall.Options{
		Path: method, Authority: service.Authority, Timeout: service.Timeout, MaxMessage: service.MaxMessage,
		SkipEnvoyHeaders: service.SkipEnvoyHeaders, Metadata: service.Metadata.Pairs(), Runtime: s.runtime,
	})
	if err != nil {
		return nil, err
	}
	k = &known{method: m, outage: k.outage}
	k.touch(now)
	next := maps.Clone(*all)
	maps.DeleteFunc(next, func(_ Service, k *known) bool {
		return now-k.asked.Load() > int64(forgottenAfter/time.Second)
	})
	next[service] = k
	s.known.Store(&next)
	return k, nil
}
