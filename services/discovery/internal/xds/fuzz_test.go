package xds

import (
	"fmt"
	"iter"
	"maps"
	"strconv"
	"testing"
	"time"

	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	discoveryv3 "github.com/envoyproxy/go-control-plane/envoy/service/discovery/v3"
	"github.com/stretchr/testify/require"
	rpcstatus "google.golang.org/genproto/googleapis/rpc/status"
	"google.golang.org/protobuf/encoding/protowire"
	"google.golang.org/protobuf/proto"

	"github.com/weirproxy/weir/services/discovery/internal/resources"
)

// FuzzRequests sends a stream of either variant whatever a client may, while
// services and files change: a response must be one that the client can read,
// with at most one unanswered per type, and nothing must be left behind.
func FuzzRequests(f *testing.F) {
	encode := func(m proto.Message) []byte {
		text, err := proto.Marshal(m)
		require.NoError(f, err)
		return text
	}
	clusters, endpoints := resources.Clusters.URL(), resources.Endpoints.URL()
	sotw := func(r *discoveryv3.DiscoveryRequest) []byte { return encode(r) }
	delta := func(r *discoveryv3.DeltaDiscoveryRequest) []byte { return encode(r) }
	f.Add(false, sotw(&discoveryv3.DiscoveryRequest{TypeUrl: clusters, Node: &corev3.Node{Id: "a", ClientFeatures: []string{"xds.config.supports-resource-ttl"}}}),
		sotw(&discoveryv3.DiscoveryRequest{TypeUrl: endpoints, ResourceNames: []string{"users", "orders"}}),
		sotw(&discoveryv3.DiscoveryRequest{TypeUrl: clusters, ResponseNonce: "1"}), uint8(0b101))
	f.Add(false, sotw(&discoveryv3.DiscoveryRequest{TypeUrl: endpoints, ResourceNames: []string{"users", "users", "*", ""}}),
		sotw(&discoveryv3.DiscoveryRequest{TypeUrl: endpoints, ResponseNonce: "1", ErrorDetail: &rpcstatus.Status{}}),
		sotw(&discoveryv3.DiscoveryRequest{TypeUrl: endpoints, ResourceNames: []string{"users"}, ResponseNonce: "9"}), uint8(0b111))
	f.Add(false, sotw(&discoveryv3.DiscoveryRequest{TypeUrl: clusters, ResourceNames: []string{"*", "users#canary"}, VersionInfo: "x"}),
		sotw(&discoveryv3.DiscoveryRequest{}), []byte{0xff}, uint8(0))
	f.Add(true, delta(&discoveryv3.DeltaDiscoveryRequest{TypeUrl: clusters, InitialResourceVersions: map[string]string{"users": "0", "gone": "1"}}),
		delta(&discoveryv3.DeltaDiscoveryRequest{TypeUrl: clusters, ResourceNamesSubscribe: []string{"users", "a"}, ResponseNonce: "1", ErrorDetail: &rpcstatus.Status{Message: "no"}}),
		delta(&discoveryv3.DeltaDiscoveryRequest{TypeUrl: clusters, ResourceNamesUnsubscribe: []string{"users", "*", "a"}, ResponseNonce: "2"}), uint8(0b111))
	f.Add(true, delta(&discoveryv3.DeltaDiscoveryRequest{TypeUrl: endpoints, ResourceNamesSubscribe: []string{"users", "*", "unknown", ""}}),
		delta(&discoveryv3.DeltaDiscoveryRequest{TypeUrl: resources.Secrets.URL(), ResourceNamesSubscribe: []string{"cert"}}),
		delta(&discoveryv3.DeltaDiscoveryRequest{TypeUrl: endpoints, ResponseNonce: "1"}), uint8(0b010))

	f.Add(true, delta(&discoveryv3.DeltaDiscoveryRequest{TypeUrl: endpoints, ResourceNamesSubscribe: []string{"users", "orders", "a"}}),
		delta(&discoveryv3.DeltaDiscoveryRequest{TypeUrl: endpoints, ResponseNonce: "1", ErrorDetail: &rpcstatus.Status{Message: "no"}}),
		delta(&discoveryv3.DeltaDiscoveryRequest{TypeUrl: endpoints, ResourceNamesUnsubscribe: []string{"orders"}, ResponseNonce: "2"}), uint8(0b111))

	f.Fuzz(func(t *testing.T, isDelta bool, a, b, c []byte, changes uint8) {
		h := newTestHub(t)
		h.open(&h.loaded)
		h.hosts("users", "10.0.0.1:80")
		s := h.stream(t, isDelta)
		last := 0
		for i, text := range [][]byte{a, b, c, a, b, c} {
			r := request{delta: isDelta}
			if r.read(text) != nil {
				continue
			}
			if s.request(&r) != nil {
				break
			}
			h.makeAsked()
			if changes>>i&1 == 1 {
				h.hosts("users", fmt.Sprintf("10.0.0.%d:80", i+2))
				h.hosts("orders")
				h.setFiles((&player{t: t}).files([]string{fmt.Sprint("secrets/cert:", i, "+1s"), fmt.Sprint("clusters/a:", i, "=a"), fmt.Sprint("listeners/a:", i)}))
			}
			last = drain(t, s, last)
		}
		s.close()
		h.sweep(time.Now().Add(linger))
		for typ := range resources.Types {
			require.Empty(t, h.shelves[typ])
			for _, topic := range h.topics[typ] {
				require.Empty(t, topic.editions)
				require.True(t, topic.listed || topic.file != nil || topic.empty != nil)
			}
		}
	})
}

// drain takes all responses that wait. It returns the last nonce.
func drain(t *testing.T, s *stream, last int) int {
	unanswered := map[resources.Type]bool{}
	for r := s.next(time.Now()); r != nil; r = s.next(time.Now()) {
		require.False(t, unanswered[r.typ])
		unanswered[r.typ] = true
		nonce, err := strconv.Atoi(r.nonce)
		require.NoError(t, err)
		require.Greater(t, nonce, last)
		last = nonce
		text := newWireForm("replica-1").encode(r).Materialize()
		if s.delta {
			require.NoError(t, proto.Unmarshal(text, &discoveryv3.DeltaDiscoveryResponse{}))
		} else {
			require.NoError(t, proto.Unmarshal(text, &discoveryv3.DiscoveryResponse{}))
		}
		seen := map[string]bool{}
		for _, resource := range r.resources {
			require.False(t, seen[resource.Name], "a name twice")
			seen[resource.Name] = true
		}
		for _, name := range r.removed {
			require.False(t, seen[name], "a name twice")
			seen[name] = true
		}
	}
	return last
}

// FuzzRead reads whatever comes as a request: it says the same of it as the
// messages' own reader, or refuses it.
func FuzzRead(f *testing.F) {
	node := &corev3.Node{Id: "a", Cluster: "b", Locality: &corev3.Locality{Region: "r", Zone: "z", SubZone: "s"}, UserAgentName: "envoy"}
	for _, m := range []proto.Message{
		&discoveryv3.DiscoveryRequest{Node: node, TypeUrl: resources.Routes.URL(), ResourceNames: []string{"a", ""}, VersionInfo: "v", ResponseNonce: "n"},
		&discoveryv3.DiscoveryRequest{ErrorDetail: &rpcstatus.Status{Code: 3, Message: "because"}, TypeUrl: "other"},
		&discoveryv3.DeltaDiscoveryRequest{Node: node, TypeUrl: resources.Routes.URL(), ResourceNamesSubscribe: []string{"a", ""}, ResourceNamesUnsubscribe: []string{"b"}, ResponseNonce: "n"},
		&discoveryv3.DeltaDiscoveryRequest{ErrorDetail: &rpcstatus.Status{Code: 3, Message: "because"}, InitialResourceVersions: map[string]string{"a": "1", "b": ""}},
	} {
		text, err := proto.Marshal(m)
		require.NoError(f, err)
		_, isDelta := m.(*discoveryv3.DeltaDiscoveryRequest)
		f.Add(isDelta, text)
	}
	f.Fuzz(func(t *testing.T, isDelta bool, text []byte) {
		r := request{delta: isDelta}
		if r.read(text) != nil {
			return
		}
		n, err := readNode(r.node)
		if err != nil {
			return
		}
		var sotw discoveryv3.DiscoveryRequest
		var delta discoveryv3.DeltaDiscoveryRequest
		var want interface {
			GetNode() *corev3.Node
			GetTypeUrl() string
			GetResponseNonce() string
			GetErrorDetail() *rpcstatus.Status
		} = &sotw
		var message proto.Message = &sotw
		if isDelta {
			want, message = &delta, &delta
		}
		if proto.Unmarshal(text, message) != nil {
			return // what is read by hand leaves parts alone that may be broken
		}
		names, dropped := texts(r.allNames()), texts(r.droppedNames())
		require.Equal(t, append(sotw.GetResourceNames(), delta.GetResourceNamesSubscribe()...), names)
		require.Equal(t, len(names), r.names)
		require.Equal(t, delta.GetResourceNamesUnsubscribe(), dropped)
		require.Equal(t, len(dropped), r.dropped)
		initial := map[string]string{}
		for name, version := range r.initialVersions() {
			initial[string(name)] = string(version)
		}
		require.True(t, maps.Equal(delta.GetInitialResourceVersions(), initial))
		require.Equal(t, sotw.GetVersionInfo(), r.version)
		require.Equal(t, want.GetResponseNonce(), r.nonce)
		require.Equal(t, want.GetErrorDetail() != nil, r.refused)
		typ, served := resources.OfURL(want.GetTypeUrl())
		require.Equal(t, served, r.served)
		require.Equal(t, typ, r.typ)
		if single(text, r.fields().node) {
			require.Equal(t, want.GetNode().GetId(), n.id)
			require.Equal(t, want.GetNode().GetLocality().GetZone(), n.zone)
		}
	})
}

// texts are names as text; nil for none.
func texts(names iter.Seq[[]byte]) (list []string) {
	for name := range names {
		list = append(list, string(name))
	}
	return list
}

// single reports whether a message has its node and its error once at most: of
// more, the messages' own reader makes one of all.
func single(text []byte, node protowire.Number) bool {
	count := map[int]int{}
	for f, err := range fieldsOf(text) {
		if err != nil {
			return false
		}
		if f.number == node {
			for inner, err := range fieldsOf(f.bytes) {
				if err != nil {
					return false
				}
				if inner.number == 4 {
					count[4]++
				}
			}
		}
		count[int(f.number)+100]++
	}
	return count[int(node)+100] < 2 && count[4] < 2
}
