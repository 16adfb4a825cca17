package xds

import (
	"fmt"
	"log/slog"
	"strconv"
	"testing"

	discoveryv3 "github.com/envoyproxy/go-control-plane/envoy/service/discovery/v3"
	"github.com/stretchr/testify/require"
	rpcstatus "google.golang.org/genproto/googleapis/rpc/status"
	"google.golang.org/protobuf/proto"
)

// FuzzRequests sends a stream whatever a client may, while services change: a
// response must be one that the client can take, with at most one unanswered
// per type, and nothing must be left behind.
func FuzzRequests(f *testing.F) {
	encode := func(r *discoveryv3.DiscoveryRequest) []byte {
		text, err := proto.Marshal(r)
		require.NoError(f, err)
		return text
	}
	f.Add(encode(&discoveryv3.DiscoveryRequest{TypeUrl: clusterURL}),
		encode(&discoveryv3.DiscoveryRequest{TypeUrl: endpointURL, ResourceNames: []string{"users", "orders"}}),
		encode(&discoveryv3.DiscoveryRequest{TypeUrl: clusterURL, ResponseNonce: "1"}), uint8(0b101))
	f.Add(encode(&discoveryv3.DiscoveryRequest{TypeUrl: endpointURL, ResourceNames: []string{"users", "users", "*", ""}}),
		encode(&discoveryv3.DiscoveryRequest{TypeUrl: endpointURL, ResponseNonce: "1", ErrorDetail: &rpcstatus.Status{}}),
		encode(&discoveryv3.DiscoveryRequest{TypeUrl: endpointURL, ResourceNames: []string{"users"}, ResponseNonce: "9"}), uint8(0b111))
	f.Add(encode(&discoveryv3.DiscoveryRequest{TypeUrl: clusterURL, ResourceNames: []string{"*", "users"}, VersionInfo: "x"}),
		encode(&discoveryv3.DiscoveryRequest{}), []byte{0xff}, uint8(0))

	f.Fuzz(func(t *testing.T, a, b, c []byte, changes uint8) {
		h := newTestHub()
		h.open(&h.loaded)
		publish(t, h, "users", "10.0.0.1:80")
		s := newStream(h, anyKind, "replica-1", slog.New(slog.DiscardHandler))
		require.True(t, h.join(s, 1))
		last := 0
		for i, text := range [][]byte{a, b, c, a, b, c} {
			var r discoveryv3.DiscoveryRequest
			if proto.Unmarshal(text, &r) != nil {
				continue
			}
			if err := s.request(&r); err != nil {
				break
			}
			if changes>>i&1 == 1 {
				publish(t, h, "users", fmt.Sprintf("10.0.0.%d:80", i+2))
				publish(t, h, "orders")
			}
			unanswered := map[string]bool{}
			for response := s.next(); response != nil; response = s.next() {
				require.False(t, unanswered[response.GetTypeUrl()])
				unanswered[response.GetTypeUrl()] = true
				nonce, err := strconv.Atoi(response.GetNonce())
				require.NoError(t, err)
				require.Greater(t, nonce, last)
				last = nonce
				_, err = proto.Marshal(response)
				require.NoError(t, err)
			}
		}
		h.leave(s)
		for k := range kinds {
			require.Empty(t, h.named[k])
			require.Empty(t, h.wildcard[k])
		}
	})
}
