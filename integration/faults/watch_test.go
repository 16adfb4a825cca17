package faults

import (
	"context"
	"encoding/json"
	"net/http"
	"net/netip"
	"sync"
	"testing"
	"time"

	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	endpointv3 "github.com/envoyproxy/go-control-plane/envoy/config/endpoint/v3"
	discoveryv3 "github.com/envoyproxy/go-control-plane/envoy/service/discovery/v3"
	endpointservicev3 "github.com/envoyproxy/go-control-plane/envoy/service/endpoint/v3"
	"github.com/stretchr/testify/require"
	"google.golang.org/grpc"
	"google.golang.org/grpc/backoff"
	"google.golang.org/grpc/credentials/insecure"
)

// pollEvery is the time in which a replica is asked once for every service.
const pollEvery = 600 * time.Millisecond

// watch asks a replica over REST for every service, again and again, and follows
// its xDS, until the test ends or stop is called.
func watch(t *testing.T, f *fleet, name, rest, xds string) (views []*view, stop func()) {
	t.Helper()
	conn, err := grpc.NewClient(xds, grpc.WithTransportCredentials(insecure.NewCredentials()), grpc.WithConnectParams(grpc.ConnectParams{
		Backoff:           backoff.Config{BaseDelay: 100 * time.Millisecond, Multiplier: 1, MaxDelay: 100 * time.Millisecond},
		MinConnectTimeout: time.Second,
	}))
	require.NoError(t, err)
	p := &poller{view: newView(name+" v2", f, false), address: rest, tags: map[string]string{}, last: map[string][]*host{}}
	s := &subscriber{view: newView(name+" xds", f, true), conn: conn}
	ctx, cancel := context.WithCancel(context.Background())
	var running sync.WaitGroup
	// Both end with ctx; stop waits for them.
	running.Go(func() { p.run(ctx) })
	running.Go(func() { s.run(ctx) })
	stop = sync.OnceFunc(func() {
		cancel()
		running.Wait()
		_ = conn.Close()
	})
	t.Cleanup(stop)
	return []*view{p.view, s.view}, stop
}

// poller asks for lists, by v2.
type poller struct {
	view    *view
	address string
	tags    map[string]string  // the last ETag by service
	last    map[string][]*host // what it stood for
}

func (p *poller) run(ctx context.Context) {
	client := &http.Client{Timeout: callTimeout, Transport: &http.Transport{MaxIdleConnsPerHost: 1}}
	defer client.CloseIdleConnections()
	ticker := time.NewTicker(pollEvery)
	defer ticker.Stop()
	for {
		for _, service := range p.view.fleet.names {
			if !p.ask(ctx, client, service) {
				break
			}
		}
		select {
		case <-ticker.C:
		case <-ctx.Done():
			return
		}
	}
}

// ask asks for one service. It reports whether there was an answer.
func (p *poller) ask(ctx context.Context, client *http.Client, service string) bool {
	asked := p.view.fleet.clock()
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+p.address+"/v2/services/"+service+"/hosts", http.NoBody)
	if err != nil {
		return false
	}
	if tag := p.tags[service]; tag != "" {
		request.Header.Set("If-None-Match", tag)
	}
	response, err := client.Do(request)
	if err != nil {
		return false
	}
	defer response.Body.Close()
	switch response.StatusCode {
	case http.StatusNotModified:
	case http.StatusOK:
		var list struct{ Hosts []struct{ ID string } }
		if json.NewDecoder(response.Body).Decode(&list) != nil {
			return false // cut off
		}
		hosts := make([]*host, len(list.Hosts))
		for i := range list.Hosts {
			hosts[i] = p.view.fleet.byID[list.Hosts[i].ID]
		}
		p.tags[service], p.last[service] = response.Header.Get("ETag"), hosts
	default:
		return false
	}
	p.view.answered(service, p.last[service], asked, p.view.fleet.clock())
	return true
}

// subscriber follows the assignments of all services on a stream, and on another
// when that breaks, to which it says as Envoy does that it has some already.
type subscriber struct {
	view *view
	conn *grpc.ClientConn
	had  bool // it was sent some
}

// earlier is the version that a subscriber which had some says that they are of. No
// replica has it: one that had the version sent last would have nothing to send, and
// here is wanted what it knows.
const earlier = "earlier"

func (s *subscriber) run(ctx context.Context) {
	pause := time.NewTicker(100 * time.Millisecond)
	defer pause.Stop()
	for ctx.Err() == nil {
		s.follow(ctx)
		s.view.broke()
		select {
		case <-pause.C:
		case <-ctx.Done():
		}
	}
}

// follow takes what one stream brings.
func (s *subscriber) follow(ctx context.Context) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	stream, err := endpointservicev3.NewEndpointDiscoveryServiceClient(s.conn).StreamEndpoints(ctx, grpc.WaitForReady(true))
	if err != nil {
		return
	}
	request := &discoveryv3.DiscoveryRequest{
		Node:          &corev3.Node{Id: "watcher", Cluster: "watchers"},
		ResourceNames: s.view.fleet.names,
		TypeUrl:       "type.googleapis.com/envoy.config.endpoint.v3.ClusterLoadAssignment",
	}
	if s.had {
		request.VersionInfo = earlier
	}
	for {
		if stream.Send(request) != nil {
			return
		}
		response, err := stream.Recv()
		if err != nil {
			return
		}
		// What comes next is made after the request that answers this, so that
		// however long this takes to read, it is of now.
		received := s.view.fleet.clock()
		for _, resource := range response.GetResources() {
			var assignment endpointv3.ClusterLoadAssignment
			if resource.UnmarshalTo(&assignment) != nil {
				continue
			}
			s.view.answered(assignment.GetClusterName(), s.hosts(&assignment), received, received)
		}
		s.had = true
		request.VersionInfo, request.ResponseNonce = response.GetVersionInfo(), response.GetNonce()
	}
}

// hosts are those of an assignment.
func (s *subscriber) hosts(assignment *endpointv3.ClusterLoadAssignment) (hosts []*host) {
	for _, locality := range assignment.GetEndpoints() {
		for _, e := range locality.GetLbEndpoints() {
			a := e.GetEndpoint().GetAddress().GetSocketAddress()
			ip, err := netip.ParseAddr(a.GetAddress())
			if err != nil {
				continue
			}
			hosts = append(hosts, s.view.fleet.byAddress[netip.AddrPortFrom(ip, uint16(a.GetPortValue()))])
		}
	}
	return hosts
}
