package resources

import (
	"slices"
	"strings"
	"testing"
	"time"

	clusterv3 "github.com/envoyproxy/go-control-plane/envoy/config/cluster/v3"
	endpointv3 "github.com/envoyproxy/go-control-plane/envoy/config/endpoint/v3"
	discoveryv3 "github.com/envoyproxy/go-control-plane/envoy/service/discovery/v3"
	"github.com/stretchr/testify/require"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/anypb"

	// The messages of all types.
	_ "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	_ "github.com/envoyproxy/go-control-plane/envoy/config/listener/v3"
	_ "github.com/envoyproxy/go-control-plane/envoy/config/route/v3"
	_ "github.com/envoyproxy/go-control-plane/envoy/extensions/transport_sockets/tls/v3"
	_ "github.com/envoyproxy/go-control-plane/envoy/service/runtime/v3"
)

func TestAResourceIsEncodedAsItsBody(t *testing.T) {
	for _, name := range []string{"users", ""} {
		message := &clusterv3.Cluster{Name: name}
		r, err := New(Clusters, name, message, 0)
		require.NoError(t, err)
		want, err := anypb.New(message)
		require.NoError(t, err)
		require.True(t, proto.Equal(want, r.Body))
		var decoded anypb.Any
		require.NoError(t, proto.Unmarshal(r.Encoded(), &decoded))
		require.True(t, proto.Equal(want, &decoded))
	}
}

func TestAVersionIsOfNameContentAndTTL(t *testing.T) {
	version := func(name, content string, ttl time.Duration) uint64 {
		r, err := New(Endpoints, name, &endpointv3.ClusterLoadAssignment{ClusterName: content}, ttl)
		require.NoError(t, err)
		require.Equal(t, ttl, r.TTL)
		return r.Version
	}
	require.Equal(t, version("users", "users", 0), version("users", "users", 0))
	require.Equal(t, version("users", "users", time.Minute), version("users", "users", time.Minute))
	require.NotEqual(t, version("users", "users", 0), version("orders", "users", 0))
	require.NotEqual(t, version("users", "users", 0), version("users", "orders", 0))
	require.NotEqual(t, version("users", "users", 0), version("users", "users", time.Minute))
	require.NotEqual(t, version("users", "users", time.Minute), version("users", "users", time.Hour))
	require.NotZero(t, version("", "", 0))
	require.Equal(t, "e1f2431d9afc5656", VersionText(version("users", "users", 0)), "as it was before there was a TTL in it")
}

func TestAMessageThatCannotBeMarshalledIsNamed(t *testing.T) {
	_, err := New(Clusters, "users", &clusterv3.Cluster{Name: "\xff"}, 0)
	require.ErrorContains(t, err, `marshal clusters "users": `)
}

func TestEveryTypeIsKnownByItsURL(t *testing.T) {
	for typ := range Types {
		found, ok := OfURL(typ.URL())
		require.True(t, ok)
		require.Equal(t, typ, found)
		_, err := (&anypb.Any{TypeUrl: typ.URL()}).UnmarshalNew()
		require.NoError(t, err)
		require.NotEmpty(t, typ.String())
	}
	_, ok := OfURL("type.googleapis.com/envoy.config.route.v3.VirtualHost")
	require.False(t, ok)
	_, ok = OfURL("")
	require.False(t, ok)
}

func TestAResourceIsAnEntryOfAResponseOfBothVariants(t *testing.T) {
	for _, name := range []string{"users", "", strings.Repeat("a", 300)} {
		r, err := New(Clusters, name, &clusterv3.Cluster{Name: name}, 0)
		require.NoError(t, err)
		var whole discoveryv3.DiscoveryResponse
		require.NoError(t, proto.Unmarshal(r.Entry(), &whole))
		require.True(t, proto.Equal(&discoveryv3.DiscoveryResponse{Resources: []*anypb.Any{r.Body}}, &whole))
		var delta discoveryv3.DeltaDiscoveryResponse
		head, encoded := r.Wrapped()
		require.NoError(t, proto.Unmarshal(slices.Concat(head, encoded), &delta))
		require.True(t, proto.Equal(&discoveryv3.DeltaDiscoveryResponse{
			Resources: []*discoveryv3.Resource{{Name: name, Version: VersionText(r.Version), Resource: r.Body}}}, &delta))
	}
}
