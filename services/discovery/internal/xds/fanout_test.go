package xds

import (
	"fmt"
	"slices"
	"testing"
	"time"

	discoveryv3 "github.com/envoyproxy/go-control-plane/envoy/service/discovery/v3"
	"github.com/stretchr/testify/require"
	rpcstatus "google.golang.org/genproto/googleapis/rpc/status"
	"google.golang.org/protobuf/proto"

	"github.com/weirproxy/weir/services/discovery/internal/resources"
)

// start is a moment for what needs one.
var start = time.Unix(1_000_000, 0)

// ask has a stream request names; those of a stream of the state of the world are
// all that it wants.
func ask(t testing.TB, s *stream, typ resources.Type, names ...string) {
	t.Helper()
	take(t, s, typ, "", names)
}

// answer acknowledges a response, with the names that the stream has.
func answer(t testing.TB, s *stream, r *response) {
	t.Helper()
	var names []string
	if !s.delta {
		for topic := range s.subscriptions[r.typ].names {
			names = append(names, topic.name)
		}
		slices.Sort(names) // as a client repeats them in one order
	}
	take(t, s, r.typ, r.nonce, names)
}

// refuse is a NACK of a response, of a type whose names are not listed.
func refuse(t testing.TB, s *stream, r *response, reason string) {
	t.Helper()
	because := &rpcstatus.Status{Message: reason}
	var m proto.Message = &discoveryv3.DiscoveryRequest{TypeUrl: r.typ.URL(), ResponseNonce: r.nonce, ErrorDetail: because}
	if s.delta {
		m = &discoveryv3.DeltaDiscoveryRequest{TypeUrl: r.typ.URL(), ResponseNonce: r.nonce, ErrorDetail: because}
	}
	send(t, s, m)
}

func take(t testing.TB, s *stream, typ resources.Type, nonce string, names []string) {
	t.Helper()
	var m proto.Message = &discoveryv3.DiscoveryRequest{TypeUrl: typ.URL(), ResponseNonce: nonce, ResourceNames: names}
	if s.delta {
		m = &discoveryv3.DeltaDiscoveryRequest{TypeUrl: typ.URL(), ResponseNonce: nonce, ResourceNamesSubscribe: names}
	}
	send(t, s, m)
}

// send has a stream take in a message, and what it asks for made.
func send(t testing.TB, s *stream, m proto.Message) {
	t.Helper()
	tell(t, s, m)
	s.hub.makeAsked()
}

// tell has a stream take in a message.
func tell(t testing.TB, s *stream, m proto.Message) {
	t.Helper()
	message, err := proto.Marshal(m)
	require.NoError(t, err)
	r := request{delta: s.delta}
	require.NoError(t, r.read(message))
	require.NoError(t, s.request(&r))
}

// subscribed returns n streams that have acknowledged the assignments of names.
func subscribed(t testing.TB, h *testHub, delta bool, n int, names ...string) []*stream {
	t.Helper()
	streams := make([]*stream, n)
	for i := range streams {
		s := h.stream(t, delta)
		ask(t, s, resources.Endpoints, names...)
		acknowledge(t, s)
		streams[i] = s
	}
	return streams
}

// acknowledge takes and answers the one response that waits.
func acknowledge(t testing.TB, s *stream) *response {
	t.Helper()
	r := s.next(start)
	require.NotNil(t, r)
	answer(t, s, r)
	return r
}

func TestAChangeIsMarkedAtItsSubscribersAloneAndMarshalledOnce(t *testing.T) {
	h := newTestHub(t)
	h.open(&h.loaded)
	h.hosts("users", "10.0.0.1:80")
	h.hosts("orders", "10.0.0.2:80")
	users := append(subscribed(t, h, false, 2, "users"), subscribed(t, h, true, 1, "users")...)
	orders := subscribed(t, h, true, 1, "orders")[0]
	woken := 0
	orders.wake = func() { woken++ }

	h.hosts("users", "10.0.0.3:80")
	first := users[0].next(start)
	for _, s := range users[1:] {
		require.Same(t, first.resources[0], s.next(start).resources[0])
	}
	require.Nil(t, orders.next(start))
	require.Zero(t, woken)
	encoded := newWireForm("").encode(first)
	require.Same(t, &first.resources[0].Entry()[0], &encoded[1].ReadOnlyData()[0])
}

func TestWhatNobodySubscribesToIsForgottenAfterAWhile(t *testing.T) {
	h := newTestHub(t)
	h.open(&h.loaded)
	h.hosts("users", "10.0.0.1:80")
	for _, delta := range []bool{false, true} {
		for _, s := range subscribed(t, h, delta, 2, "users", "unknown", "users#canary") {
			ask(t, s, resources.Clusters)
			ask(t, s, resources.Listeners, "users")
			s.close()
			require.Nil(t, s.next(start))
		}
	}
	require.Empty(t, h.streams)
	require.Empty(t, h.ofNode)
	require.NotEmpty(t, h.topics[resources.Endpoints], "they may come back")
	require.True(t, h.topics[resources.Endpoints]["users"].editions[""].made)

	h.sweep(time.Now().Add(linger))
	for typ := range resources.Types {
		require.Empty(t, h.shelves[typ])
		if typ != resources.Clusters {
			require.Empty(t, h.topics[typ])
		}
	}
	require.Len(t, h.topics[resources.Clusters], 1, "that of the service itself is listed")
	require.Empty(t, h.topics[resources.Clusters]["users"].editions)
	require.Empty(t, h.idle)
	require.Empty(t, h.idleShelves)

	delete(h.listings, "users")
	h.refresh("users", time.Now())
	require.Empty(t, h.topics[resources.Clusters])
	require.Empty(t, h.ofService)
}

func TestServicesThatComeAndGoAreForgottenUnderTheWildcard(t *testing.T) {
	for name, come := range map[string]func(h *testHub, service string){
		"services": func(h *testHub, service string) { h.hosts(service, "10.0.0.1:80") },
		"files": func(h *testHub, service string) {
			h.setFiles((&player{t: t}).files([]string{"clusters/" + service + ":1", "clusters/gateway:1"}))
		},
		"files of services": func(h *testHub, service string) {
			h.hosts(service, "10.0.0.1:80")
			h.setFiles((&player{t: t}).files([]string{"clusters/" + service + ":1", "clusters/gateway:1"}))
			delete(h.listings, service)
			h.refresh(service, start)
		},
	} {
		for _, delta := range []bool{false, true} {
			t.Run(name+"/"+variant(delta), func(t *testing.T) {
				h := newTestHub(t)
				h.open(&h.loaded)
				h.setFiles((&player{t: t}).files([]string{"clusters/gateway:1"}))
				h.hosts("users", "10.0.0.1:80")
				s := h.stream(t, delta)
				ask(t, s, resources.Clusters)
				acknowledge(t, s)
				for i := range 20 {
					service := fmt.Sprint("build-", i)
					come(h, service)
					h.makeAsked()
					acknowledge(t, s)
					delete(h.listings, service)
					h.refresh(service, start)
					h.setFiles((&player{t: t}).files([]string{"clusters/gateway:1"}))
					h.makeAsked()
					acknowledge(t, s)
					require.Nil(t, s.next(start))
				}
				h.sweep(time.Now().Add(linger))
				require.Len(t, h.topics[resources.Clusters], 2)
				require.Len(t, h.topics[resources.Clusters]["users"].editions, 1)
				require.Len(t, h.topics[resources.Clusters]["gateway"].editions, 1)
				require.Empty(t, h.unmade)
				require.Empty(t, h.idle)
			})
		}
	}
}

func TestAServiceThatWasForgottenAndIsBackIsSentOnce(t *testing.T) {
	h := newTestHub(t)
	h.open(&h.loaded)
	h.hosts("users", "10.0.0.1:80")
	h.hosts("orders", "10.0.0.1:80")
	s := h.stream(t, true)
	ask(t, s, resources.Clusters)
	first := s.next(start)
	for _, service := range []string{"users", "orders"} {
		delete(h.listings, service)
		h.refresh(service, start)
	}
	require.Nil(t, s.next(start), "the first is unanswered")
	h.sweep(time.Now().Add(linger))
	require.Empty(t, h.topics[resources.Clusters])
	h.hosts("users", "10.0.0.2:80")

	answer(t, s, first)
	r := acknowledge(t, s)
	require.Len(t, r.resources, 1)
	require.Equal(t, "users", r.resources[0].Name)
	require.Empty(t, r.removed)
	require.Equal(t, []string{"orders"}, acknowledge(t, s).removed)
	require.Nil(t, s.next(start))
}

// BenchmarkFanout is one change of a service that 1,000 streams subscribe to,
// each to 50 services in all: making the resources and marking the streams.
func BenchmarkFanout(b *testing.B) {
	for _, delta := range []bool{false, true} {
		b.Run(variant(delta), func(b *testing.B) {
			h, _, _ := crowd(b, delta)
			b.ReportAllocs()
			for i := 0; b.Loop(); i++ {
				h.hosts("service-0", fmt.Sprintf("10.0.0.1:%d", i%60_000+1))
			}
		})
	}
}

// BenchmarkFanoutAndRespond is the same and each stream's response, encoded, and
// its answer.
func BenchmarkFanoutAndRespond(b *testing.B) {
	for _, delta := range []bool{false, true} {
		b.Run(variant(delta), func(b *testing.B) {
			h, streams, names := crowd(b, delta)
			if delta {
				names = nil // which an answer repeats only in the state of the world
			}
			form := newWireForm("replica-1")
			b.ReportAllocs()
			for i := 0; b.Loop(); i++ {
				h.hosts("service-0", fmt.Sprintf("10.0.0.1:%d", i%60_000+1))
				for _, s := range streams {
					r := s.next(start)
					form.encode(r)
					take(b, s, r.typ, r.nonce, names)
				}
			}
		})
	}
}

func variant(delta bool) string {
	if delta {
		return "delta"
	}
	return "sotw"
}

// crowd is 1,000 streams of 50 services each.
func crowd(b *testing.B, delta bool) (h *testHub, streams []*stream, names []string) {
	h = newTestHub(b)
	h.open(&h.loaded)
	for i := range 50 {
		names = append(names, fmt.Sprint("service-", i))
		h.hosts(names[i], "10.0.0.1:1", "10.0.0.2:1", "10.0.0.3:1")
	}
	return h, subscribed(b, h, delta, 1000, names...), names
}
