package app_test

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	endpointv3 "github.com/envoyproxy/go-control-plane/envoy/config/endpoint/v3"
	discoveryv3 "github.com/envoyproxy/go-control-plane/envoy/service/discovery/v3"
	"github.com/stretchr/testify/require"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/protobuf/types/known/anypb"

	"github.com/weirproxy/weir/internal/servicetest"
)

// assignments counts what xDS clients of "echo" were sent.
type assignments struct{ all, empty atomic.Int64 }

// take counts one assignment.
func (a *assignments) take(resource *anypb.Any) error {
	var m endpointv3.ClusterLoadAssignment
	if err := resource.UnmarshalTo(&m); err != nil {
		return err
	}
	hosts := 0
	for _, locality := range m.GetEndpoints() {
		hosts += len(locality.GetLbEndpoints())
	}
	if hosts == 0 {
		a.empty.Add(1)
	}
	a.all.Add(1)
	return nil
}

// followBoth has a client of each variant of xDS follow the assignment of "echo" until
// the test ends.
func (r *running) followBoth(t *testing.T) *assignments {
	t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	conn, err := grpc.NewClient(r.addrs["xds"], grpc.WithTransportCredentials(insecure.NewCredentials()))
	require.NoError(t, err)
	client, a := discoveryv3.NewAggregatedDiscoveryServiceClient(conn), &assignments{}
	var reading sync.WaitGroup // end with ctx
	t.Cleanup(func() { cancel(); reading.Wait(); _ = conn.Close() })

	whole, err := client.StreamAggregatedResources(ctx)
	require.NoError(t, err)
	names := []string{"echo"}
	require.NoError(t, whole.Send(&discoveryv3.DiscoveryRequest{TypeUrl: endpointURL, ResourceNames: names}))
	reading.Go(func() {
		for {
			response, err := whole.Recv()
			if err != nil {
				return
			}
			for _, resource := range response.GetResources() {
				if err := a.take(resource); err != nil {
					t.Error(err)
				}
			}
			_ = whole.Send(&discoveryv3.DiscoveryRequest{
				TypeUrl: endpointURL, ResourceNames: names, VersionInfo: response.GetVersionInfo(), ResponseNonce: response.GetNonce()})
		}
	})
	delta, err := client.DeltaAggregatedResources(ctx)
	require.NoError(t, err)
	require.NoError(t, delta.Send(&discoveryv3.DeltaDiscoveryRequest{TypeUrl: endpointURL, ResourceNamesSubscribe: names}))
	reading.Go(func() {
		for {
			response, err := delta.Recv()
			if err != nil {
				return
			}
			for _, resource := range response.GetResources() {
				if err := a.take(resource.GetResource()); err != nil {
					t.Error(err)
				}
			}
			_ = delta.Send(&discoveryv3.DeltaDiscoveryRequest{TypeUrl: endpointURL, ResponseNonce: response.GetNonce()})
		}
	})
	servicetest.Eventually(t, "both have the host", func() bool { return a.all.Load() >= 2 })
	return a
}

// answer is the body of the answer to a call, which is to be 200. Any goroutine may make
// it: what goes wrong is told, and fails the test at its end.
func (r *running) answer(t *testing.T, method, path, body string) string {
	t.Helper()
	request, err := http.NewRequest(method, "http://"+r.addrs["http"]+path, strings.NewReader(body))
	if err != nil {
		t.Error(err)
		return ""
	}
	request.Header.Set("Content-Type", "application/json")
	response, err := http.DefaultClient.Do(request)
	if err != nil {
		t.Error(err)
		return ""
	}
	defer response.Body.Close()
	text, err := io.ReadAll(response.Body)
	if err != nil || response.StatusCode != http.StatusOK {
		t.Errorf("%s %s: %s: %q, %v", method, path, response.Status, text, err)
	}
	return string(text)
}

// lists reports whether each list of hosts of "echo" has the one at 8001.
func (r *running) lists(t *testing.T) bool {
	t.Helper()
	for _, path := range []string{"/v1/registration/echo", "/v2/services/echo/hosts"} {
		if !strings.Contains(r.answer(t, "GET", path, ""), `"port":8001`) {
			return false
		}
	}
	return true
}

// polled reports whether a client of REST-JSON is told of a host of "echo".
func (r *running) polled(t *testing.T) bool {
	t.Helper()
	return strings.Contains(r.answer(t, "POST", "/v3/discovery:endpoints", `{"resource_names":["echo"]}`), "8001")
}

// deregister takes out the host of "echo".
func (r *running) deregister(t *testing.T) {
	t.Helper()
	r.answer(t, "DELETE", "/v1/registration/echo/127.0.0.1", "")
}

// stored is how many hosts Redis has in the partition of "echo", by the hash of that
// name.
func stored(redis *servicetest.RedisServer) string { return redis.Command("HLEN sd:{25}:rec") }

// replicas are services on one Redis, of which each lists the one host of "echo".
func replicas(t *testing.T, n int, empty time.Duration) (list []*running, redis *servicetest.RedisServer) {
	redis = servicetest.Redis(t)
	for i := range n {
		o := options(t)
		o.Store, o.Identifier, o.DebounceEmpty = "redis://"+redis.Address, fmt.Sprint("replica-", i), empty
		list = append(list, start(t, o))
	}
	list[0].register(t, "8001", "600")
	for _, r := range list {
		servicetest.Eventually(t, "all list the host", func() bool { return r.lists(t) && r.polled(t) })
	}
	return list, redis
}

// The only host of a service moves from one replica to another again and again. No
// reader of any replica is told that it is gone, but for lists of the one at which it
// deregistered until that hears of the other. They may wait for that for as long as a
// busy machine takes: whether the default is enough depends on how long a move takes,
// and that is not tested.
func TestNoServiceIsEmptyWhileItsOnlyHostMovesBetweenReplicas(t *testing.T) {
	const moves = 40
	list, redis := replicas(t, 3, servicetest.Patience)
	var sent []*assignments
	// gone is how often the host deregistered here and how often it was seen to be
	// back, together: it is even when it must be listed.
	gone := make([]atomic.Int64, len(list))
	stop := make(chan struct{})
	var looking sync.WaitGroup
	for i, r := range list {
		sent = append(sent, r.followBoth(t))
		looking.Go(func() {
			for looked := false; ; looked = true {
				select {
				case <-stop:
					if looked {
						return
					}
				default:
				}
				before := gone[i].Load()
				if !r.lists(t) && before%2 == 0 && before == gone[i].Load() {
					t.Errorf("replica %d does not list the host", i)
				}
				if !r.polled(t) {
					t.Errorf("replica %d tells clients of REST-JSON that the host is gone", i)
				}
			}
		})
	}
	for move := range moves {
		from, to := list[move%2], list[(move+1)%2]
		gone[move%2].Add(1)
		from.deregister(t)
		servicetest.Eventually(t, "redis is told", func() bool { return stored(redis) == "0" })
		// So long does a host take that moves. Nothing is waited for: replicas may or may
		// not hear of the first before the second is done.
		time.Sleep(50 * time.Millisecond)
		to.register(t, "8001", "600")
		servicetest.Eventually(t, "it is back", func() bool { return from.lists(t) && stored(redis) == "1" })
		gone[move%2].Add(1)
	}
	close(stop)
	looking.Wait()
	for i, a := range sent {
		require.Zero(t, a.empty.Load(), "empty assignments of replica %d", i)
	}
}

func TestAServiceWhoseOnlyHostDeregisteredIsEmptyAtAllReplicas(t *testing.T) {
	list, _ := replicas(t, 2, time.Second)
	var sent []*assignments
	for _, r := range list {
		sent = append(sent, r.followBoth(t))
	}
	list[0].deregister(t)
	require.False(t, list[0].lists(t), "at the replica that was asked to at once")
	for i, r := range list {
		servicetest.Eventually(t, "it is told", func() bool {
			return !r.lists(t) && !r.polled(t) && sent[i].empty.Load() == 2
		})
	}
}
