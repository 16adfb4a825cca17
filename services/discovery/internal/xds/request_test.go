package xds

import (
	"strings"
	"testing"

	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	discoveryv3 "github.com/envoyproxy/go-control-plane/envoy/service/discovery/v3"
	"github.com/stretchr/testify/require"
	"google.golang.org/grpc/mem"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/structpb"

	"github.com/weirproxy/weir/internal/servicetest"
	"github.com/weirproxy/weir/services/discovery/internal/resources"
)

// envoyNode is a node like Envoy's, with about 60 KB of extensions.
func envoyNode() *corev3.Node {
	n := &corev3.Node{
		Id: "envoy-1", Cluster: "edge", UserAgentName: "envoy", Locality: &corev3.Locality{Region: "eu", Zone: "eu-1", SubZone: "a"},
		Metadata:       &structpb.Struct{Fields: map[string]*structpb.Value{"key": structpb.NewStringValue("value")}},
		ClientFeatures: []string{"envoy.lb.does_not_support_overprovisioning", "xds.config.resource-in-sotw"},
	}
	for range 400 {
		n.Extensions = append(n.Extensions, &corev3.Extension{
			Name: "envoy.filters.http.some_filter", Category: "envoy.filters.http",
			TypeUrls: []string{"envoy.extensions.filters.http.some_filter.v3.SomeFilter", "envoy.config.filter.http.some_filter.v2.SomeFilter"},
		})
	}
	return n
}

func TestOfANodeIsReadWhatIsUsed(t *testing.T) {
	message, err := proto.Marshal(envoyNode())
	require.NoError(t, err)
	n, err := readNode(message)
	require.NoError(t, err)
	require.Equal(t, node{
		id: "envoy-1", cluster: "edge", region: "eu", zone: "eu-1", subZone: "a", agent: "envoy", features: features{wrapped: true},
	}, n)
	require.Equal(t, resources.Asker{ID: "envoy-1", Cluster: "edge", Region: "eu", Zone: "eu-1"}, n.asker())
}

func TestAMessageThatIsNoneIsRefused(t *testing.T) {
	encode := func(m proto.Message) []byte {
		text, err := proto.MarshalOptions{}.Marshal(m)
		require.NoError(t, err)
		return text
	}
	for name, test := range map[string]struct {
		message []byte
		want    string
	}{
		"no message":      {[]byte{0xff}, "not a message of protobuf"},
		"a cut one":       {[]byte{0x1a, 5, 'a'}, "not a message of protobuf"},
		"a name too long": {encode(&discoveryv3.DiscoveryRequest{ResourceNames: []string{strings.Repeat("a", 1025)}}), "a name of 1025 bytes: 1024 are the most"},
		"a name of bytes": {[]byte{0x1a, 1, 0xff}, `name "\xff": not UTF-8`},
		"an error":        {[]byte{0x32, 1, 0xff}, "error_detail: not a message of protobuf"},
	} {
		r := request{}
		require.EqualError(t, r.read(test.message), test.want, name)
	}
	for name, test := range map[string]struct {
		node []byte
		want string
	}{
		"no node":       {[]byte{0xff}, "node: not a message of protobuf"},
		"an id of KB":   {encode(&corev3.Node{Id: strings.Repeat("a", 1025)}), "node: id of 1025 bytes: 1024 are the most"},
		"a zone":        {[]byte{0x22, 3, 0x12, 1, 0xff}, `node: locality.zone "\xff": not UTF-8`},
		"no locality":   {[]byte{0x22, 1, 0xff}, "node: locality: not a message of protobuf"},
		"a cluster too": {[]byte{0x12, 1, 0xff}, `node: cluster "\xff": not UTF-8`},
	} {
		_, err := readNode(test.node)
		require.EqualError(t, err, test.want, name)
	}
}

// envoyAnswer is an answer like Envoy's, which repeats its node and its names.
func envoyAnswer(t testing.TB) []byte {
	names := make([]string, 50)
	for i := range names {
		names[i] = "a-service-of-some-name-" + string(rune('a'+i%26)) + string(rune('a'+i/26))
	}
	message, err := proto.Marshal(&discoveryv3.DiscoveryRequest{
		Node: envoyNode(), TypeUrl: resources.Endpoints.URL(), ResourceNames: names, VersionInfo: versionText(1), ResponseNonce: "1",
	})
	require.NoError(t, err)
	return message
}

func TestAnAnswerThatRepeatsItsNodeIsReadNearlyWithoutAllocating(t *testing.T) {
	message := envoyAnswer(t)
	require.Greater(t, len(message), 55_000)
	c, data := newCodec(), mem.BufferSlice{mem.SliceBuffer(message)}
	h := newTestHub(t)
	h.open(&h.loaded)
	s := h.stream(t, false)
	r := request{}
	require.NoError(t, r.read(message))
	require.NoError(t, s.request(&r))
	u := s.subscriptions[resources.Endpoints]
	// Its version, and what the pool of buffers takes.
	servicetest.Allocations(t, 3, func() {
		u.nonce, u.inFlight = "1", true
		require.NoError(t, c.Unmarshal(data, &r))
		require.NoError(t, s.request(&r))
		r.free()
	})
	require.Len(t, u.names, 50)
}

// BenchmarkAnswer is reading an answer of Envoy's, by hand and as a message.
func BenchmarkAnswer(b *testing.B) {
	message := envoyAnswer(b)
	b.Run("by_hand", func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			var r request
			require.NoError(b, r.read(message))
		}
	})
	b.Run("as_message", func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			require.NoError(b, proto.Unmarshal(message, &discoveryv3.DiscoveryRequest{}))
		}
	})
}
