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

// Service says which rate-limit service is asked. Those that are equal share their
// connections.
type Service struct {
	// Cluster is the name of the cluster that it is behind.
	Cluster string
	// Authority is who is asked for; empty is the cluster's name.
	Authority string
	// MaxMessage bounds an answer, in bytes; 0 is gRPC's own bound, 4 MiB.
	MaxMessage uint32
}

// Services are the rate-limit services in use. It is safe for use by many
// goroutines.
type Services struct {
	clusters Clusters
	log      *slog.Logger

	// connections are nil once closed. The map is never changed, only replaced.
	connections atomic.Pointer[map[Service]*connection]
	mu          sync.Mutex // orders those who replace it
}

// New makes Services in clusters that stay for as long as the process, as those
// of the bootstrap do; their hosts may come and go. Nothing is connected before
// the first call. The log gets a line when a service begins to fail, with the
// cause, and one when it answers again.
func New(clusters Clusters, log *slog.Logger) *Services {
	s := &Services{clusters: clusters, log: log}
	s.connections.Store(&map[Service]*connection{})
	return s
}

var (
	errClosed    = errors.New("the proxy is stopping")
	errNoCluster = errors.New("there is no such cluster")
)

// ShouldRateLimit asks a service and fills in response. It returns when the answer is there or ctx ends, and at once if
// there is no such cluster, it has no hosts, or none can be reached. The
// context's deadline goes with the call.
//
// An answer that is neither OK nor OVER_LIMIT is an error. One that came of the
// call itself has its gRPC status.
func (s *Services) ShouldRateLimit(ctx context.Context, service Service, request *Request, response *Response) error {
	c, err := s.connection(service)
	if err == nil {
		err = c.call(ctx, request, response)
		if !errors.Is(ctx.Err(), context.Canceled) { // a call given up says nothing of the service
			c.outage.note(err)
		}
	}
	if err != nil {
		return fmt.Errorf("ask the rate-limit service in cluster %q: %w", service.Cluster, err)
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

// connection returns the connection to a service, which the first call for it makes.
func (s *Services) connection(service Service) (*connection, error) {
	connections := s.connections.Load()
	if connections == nil {
		return nil, errClosed
	}
	if c := (*connections)[service]; c != nil {
		return c, nil
	}
	return s.connect(service)
}

func (s *Services) connect(service Service) (*connection, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	connections := s.connections.Load()
	if connections == nil {
		return nil, errClosed
	}
	if c := (*connections)[service]; c != nil { // another call was first
		return c, nil
	}
	cluster := s.clusters.Get(service.Cluster)
	if cluster == nil {
		return nil, errNoCluster
	}
	c, err := connect(cluster, service, s.log)
	if err != nil {
		return nil, err
	}
	more := maps.Clone(*connections)
	more[service] = c
	s.connections.Store(&more)
	return c, nil
}
