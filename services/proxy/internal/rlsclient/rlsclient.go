// Package rlsclient asks rate-limit services over gRPC
// (envoy.service.ratelimit.v3). Filters name the cluster that a service is
// behind; all that name the same one share its connections. It limits nothing
// by itself, and neither decides how long to wait nor what a failure means.
package rlsclient

import (
	"context"
	"errors"
	"fmt"
	"sync"

	"github.com/weirproxy/weir/services/proxy/internal/cluster"
)

// Clusters finds clusters by name.
type Clusters interface {
	// Get returns the cluster that has the name now, or nil. It must not block.
	Get(name string) *cluster.Cluster
}

// Services are the rate-limit services in use, one for each cluster. It is safe
// for use by many goroutines.
type Services struct {
	clusters Clusters

	mu     sync.Mutex
	closed bool
	// current are the connections to the clusters as they were at their last
	// call, by the cluster's name.
	current map[string]*connection
}

// New makes Services whose hosts are those of the clusters. Nothing is
// connected before the first call.
func New(clusters Clusters) *Services {
	return &Services{clusters: clusters, current: map[string]*connection{}}
}

var (
	errClosed    = errors.New("the proxy is stopping")
	errNoCluster = errors.New("there is no such cluster")
)

// ShouldRateLimit asks the service in the cluster of that name and fills in
// response. It returns when the answer is there or ctx ends, and at once if
// there is no such cluster, it has no hosts, or none can be reached. The
// context's deadline goes with the call.
//
// An error that came of the call itself has its gRPC status.
func (s *Services) ShouldRateLimit(ctx context.Context, cluster string, request *Request, response *Response) error {
	c, err := s.acquire(cluster)
	if err == nil {
		err = c.call(ctx, request, response)
		s.release(c)
	}
	if err != nil {
		return fmt.Errorf("ask the rate-limit service in cluster %q: %w", cluster, err)
	}
	return nil
}

// Close closes all connections. Calls in flight end with an error, as do later
// ones.
func (s *Services) Close() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.closed = true
	for name, c := range s.current {
		c.close()
		delete(s.current, name)
	}
}

// acquire returns a connection for one call. When the cluster went or was
// replaced, the connection to the old one ends with its last call.
func (s *Services) acquire(name string) (*connection, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed {
		return nil, errClosed
	}
	now := s.clusters.Get(name)
	c := s.current[name]
	if c != nil && c.cluster != now {
		delete(s.current, name)
		c.retired = true
		if c.calls == 0 {
			c.close()
		}
		c = nil
	}
	if now == nil {
		return nil, errNoCluster
	}
	if c == nil {
		var err error
		if c, err = connect(now); err != nil {
			return nil, err
		}
		s.current[name] = c
	}
	c.calls++
	return c, nil
}

func (s *Services) release(c *connection) {
	s.mu.Lock()
	defer s.mu.Unlock()
	c.calls--
	if c.retired && c.calls == 0 {
		c.close()
	}
}
