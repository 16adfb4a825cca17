package xds

import (
	"fmt"
	"log/slog"
	"testing"

	discoveryv3 "github.com/envoyproxy/go-control-plane/envoy/service/discovery/v3"
	"github.com/stretchr/testify/require"
)

// subscribed returns n streams that have acknowledged the assignments of names.
func subscribed(t testing.TB, h *hub, n int, names ...string) []*stream {
	streams := make([]*stream, n)
	for i := range streams {
		s := newStream(h, anyKind, "replica-1", slog.New(slog.DiscardHandler))
		require.True(t, h.join(s, n))
		require.NoError(t, s.request(&discoveryv3.DiscoveryRequest{TypeUrl: endpointURL, ResourceNames: names}))
		acknowledge(t, s)
		streams[i] = s
	}
	return streams
}

// acknowledge takes and answers the one response that waits.
func acknowledge(t testing.TB, s *stream) *discoveryv3.DiscoveryResponse {
	response := s.next()
	require.NotNil(t, response)
	names := make([]string, 0, len(s.subscriptions[endpoints].names))
	for name := range s.subscriptions[endpoints].names {
		names = append(names, name)
	}
	require.NoError(t, s.request(&discoveryv3.DiscoveryRequest{
		TypeUrl: response.GetTypeUrl(), ResourceNames: names, ResponseNonce: response.GetNonce()}))
	return response
}

func TestAChangeIsMarkedAtItsSubscribersAloneAndMarshalledOnce(t *testing.T) {
	h := newTestHub()
	h.open(&h.loaded)
	publish(t, h, "users", "10.0.0.1:80")
	publish(t, h, "orders", "10.0.0.2:80")
	users := subscribed(t, h, 3, "users")
	orders := newStream(h, anyKind, "replica-1", slog.New(slog.DiscardHandler))
	require.NoError(t, orders.request(&discoveryv3.DiscoveryRequest{TypeUrl: endpointURL, ResourceNames: []string{"orders"}}))
	acknowledge(t, orders)

	publish(t, h, "users", "10.0.0.3:80")
	first := users[0].next()
	for _, s := range users[1:] {
		response := s.next()
		require.Same(t, first.GetResources()[0], response.GetResources()[0])
		require.Equal(t, first.GetVersionInfo(), response.GetVersionInfo())
	}
	require.Nil(t, orders.next())
	require.Empty(t, orders.wake)
}

func TestAStreamThatLeftIsForgotten(t *testing.T) {
	h := newTestHub()
	h.open(&h.loaded)
	publish(t, h, "users", "10.0.0.1:80")
	for _, s := range subscribed(t, h, 2, "users", "unknown") {
		require.NoError(t, s.request(&discoveryv3.DiscoveryRequest{TypeUrl: clusterURL}))
		h.leave(s)
	}
	for k := range kinds {
		require.Empty(t, h.named[k])
		require.Empty(t, h.wildcard[k])
	}
	require.Empty(t, h.streams)
}

// BenchmarkFanout is one change of a service that 1,000 streams subscribe to,
// each to 50 services in all: making the resources and marking the streams.
func BenchmarkFanout(b *testing.B) {
	h, _ := crowd(b)
	b.ReportAllocs()
	for i := 0; b.Loop(); i++ {
		publish(b, h, "service-0", fmt.Sprintf("10.0.0.1:%d", i%60_000+1))
	}
}

// BenchmarkFanoutAndRespond is the same and each stream's response and its
// answer.
func BenchmarkFanoutAndRespond(b *testing.B) {
	h, streams := crowd(b)
	b.ReportAllocs()
	for i := 0; b.Loop(); i++ {
		publish(b, h, "service-0", fmt.Sprintf("10.0.0.1:%d", i%60_000+1))
		for _, s := range streams {
			acknowledge(b, s)
		}
	}
}

// crowd is 1,000 streams of 50 services each.
func crowd(b *testing.B) (*hub, []*stream) {
	h := newTestHub()
	h.open(&h.loaded)
	var names []string
	for i := range 50 {
		names = append(names, fmt.Sprint("service-", i))
		publish(b, h, names[i], "10.0.0.1:1", "10.0.0.2:1", "10.0.0.3:1")
	}
	return h, subscribed(b, h, 1000, names...)
}
