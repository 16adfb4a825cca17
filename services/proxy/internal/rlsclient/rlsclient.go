// Package rlsclient asks rate-limit services over gRPC
// (envoy.service.ratelimit.v3). Filters name the cluster that a service is
// behind; all that name the same one share its connections. It limits nothing
// by itself, and neither decides how long to wait nor what a failure means.
package rlsclient

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"sync"
	"sync/atomic"

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
	log      *slog.Logger

	// connections are by the cluster's name; nil once closed. The map is never
	// changed, only replaced.
	connections atomic.Pointer[map[string]*connection]
	mu          sync.Mutex // orders those who replace it
}

// New makes Services in clusters that stay for as long as the process, as those
// of the bootstrap do; their hosts may come and go. Nothing is connected before
// the first call. The log gets a line when a service begins to fail, with the
// cause, and one when it answers again.
func New(clusters Clusters, log *slog.Logger) *Services {
	s := &Services{clusters: clusters, log: log}
	s.connections.Store(&map[string]*connection{})
	return s
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
// An answer that is neither OK nor OVER_LIMIT is an error. One that came of the
// call itself has its gRPC status.
func (s *Services) ShouldRateLimit(ctx context.Context, cluster string, request *Request, response *Response) error {
	c, err := s.connection(cluster)
	if err == nil {
		err = c.call(ctx, request, response)
		if !errors.Is(ctx.Err(), context.Canceled) { // a call given up says nothing of the service
			c.outage.note(err)
		}
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
	connections := s.connections.Swap(nil)
	if connections == nil {
		return
	}
	for _, c := range *connections {
		c.close()
	}
}

// connection returns the connection to the cluster of that name, which the
// first call for it makes.
func (s *Services) connection(name string) (*connection, error) {
	connections := s.connections.Load()
	if connections == nil {
		return nil, errClosed
	}
	if c := (*connections)[name]; c != nil {
		return c, nil
	}
	return s.connect(name)
}

func (s *Services) connect(name string) (*connection, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	connections := s.connections.Load()
	if connections == nil {
		return nil, errClosed
	}
	if c := (*connections)[name]; c != nil { // another call was first
		return c, nil
	}
	cluster := s.clusters.Get(name)
	if cluster == nil {
		return nil, errNoCluster
	}
	c, err := connect(cluster, s.log)
	if err != nil {
		return nil, err
	}
	more := maps.Clone(*connections)
	more[name] = c
	s.connections.Store(&more)
	return c, nil
}
