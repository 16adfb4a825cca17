package faults

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
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

// The time in which a replica is asked once for every service, by v2 and by the lists
// of v1.
const (
	pollEvery   = 600 * time.Millisecond
	pollV1Every = 900 * time.Millisecond
)

// watch asks a replica over REST for every service, again and again, and follows
// its xDS, until the test ends or stop is called.
func watch(t *testing.T, f *fleet, name, rest, xds string) (views []*view, stop func()) {
	t.Helper()
	conn, err := grpc.NewClient(xds, grpc.WithTransportCredentials(insecure.NewCredentials()), grpc.WithConnectParams(grpc.ConnectParams{
		Backoff:           backoff.Config{BaseDelay: 100 * time.Millisecond, Multiplier: 1, MaxDelay: 100 * time.Millisecond},
		MinConnectTimeout: time.Second,
	}))
	require.NoError(t, err)
	p := newPoller(newView(name+" v2", f, false), pollEvery, "http://"+rest+"/v2/services/%s/hosts", readV2)
	v1 := newPoller(newView(name+" v1", f, false), pollV1Every, "http://"+rest+"/v1/registration/%s", readV1)
	s := &subscriber{view: newView(name+" xds", f, true), conn: conn}
	ctx, cancel := context.WithCancel(context.Background())
	var running sync.WaitGroup
	// All end with ctx; stop waits for them.
	running.Go(func() { p.run(ctx) })
	running.Go(func() { v1.run(ctx) })
	running.Go(func() { s.run(ctx) })
	stop = sync.OnceFunc(func() {
		cancel()
		running.Wait()
		_ = conn.Close()
	})
	t.Cleanup(stop)
	return []*view{p.view, v1.view, s.view}, stop
}

// poller asks for lists.
type poller struct {
	view  *view
	every time.Duration
	form  string // of URLs, with %s for the service
	// read reads the hosts of a list; a host that is none of the fleet's is nil.
	read func(*fleet, io.Reader) ([]*host, error)
	tags map[string]string  // the last ETag by service
	last map[string][]*host // what it stood for
}

func newPoller(v *view, every time.Duration, form string, read func(*fleet, io.Reader) ([]*host, error)) *poller {
	return &poller{view: v, every: every, form: form, read: read, tags: map[string]string{}, last: map[string][]*host{}}
}

// readV2 reads a list of v2, which names hosts.
func readV2(f *fleet, body io.Reader) ([]*host, error) {
	var list struct{ Hosts []struct{ ID string } }
	err := json.NewDecoder(body).Decode(&list)
	hosts := make([]*host, len(list.Hosts))
	for i := range list.Hosts {
		hosts[i] = f.byID[list.Hosts[i].ID]
	}
	return hosts, err
}

// readV1 reads a list of v1, which tells where hosts are.
func readV1(f *fleet, body io.Reader) ([]*host, error) {
	var list struct {
		Hosts []struct {
			Address netip.Addr `json:"ip_address"`
			Port    uint16
		}
	}
	err := json.NewDecoder(body).Decode(&list)
	hosts := make([]*host, len(list.Hosts))
	for i, h := range list.Hosts {
		hosts[i] = f.byAddress[netip.AddrPortFrom(h.Address, h.Port)]
	}
	return hosts, err
}

func (p *poller) run(ctx context.Context) {
	client := &http.Client{Timeout: callTimeout, Transport: &http.Transport{MaxIdleConnsPerHost: 1}}
	defer client.CloseIdleConnections()
	ticker := time.NewTicker(p.every)
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
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, fmt.Sprintf(p.form, service), http.NoBody)
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
		hosts, err := p.read(p.view.fleet, response.Body)
		if err != nil {
			return false // cut off
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
