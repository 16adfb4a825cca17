package xds

import (
	"log/slog"
	"strings"
	"testing"

	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	discoveryv3 "github.com/envoyproxy/go-control-plane/envoy/service/discovery/v3"
	"github.com/prometheus/client_golang/prometheus/testutil"
	"github.com/stretchr/testify/require"

	"github.com/weirproxy/weir/services/discovery/internal/resources"
)

func TestATypeThatIsNotServedIsCountedAndLoggedOnceAndHarmsNoOther(t *testing.T) {
	h := newTestHub(t)
	h.open(&h.loaded)
	h.hosts("users", "10.0.0.1:80")
	s := h.stream(t, false)
	var log strings.Builder
	s.log = slog.New(slog.NewTextHandler(&log, nil))
	url := "type.googleapis.com/envoy.config.route.v3.ScopedRouteConfiguration" + strings.Repeat("x", 300)
	for range 2 {
		send(t, s, &discoveryv3.DiscoveryRequest{Node: &corev3.Node{Id: "proxy-7"}, TypeUrl: url})
		send(t, s, &discoveryv3.DiscoveryRequest{TypeUrl: "another\xc3\xa9"})
	}
	require.Nil(t, s.next(start))
	ask(t, s, resources.Endpoints, "users")
	require.Equal(t, "users", acknowledge(t, s).resources[0].Name)

	require.Equal(t, 4.0, testutil.ToFloat64(h.metrics.unserved))
	require.Equal(t, 1, strings.Count(log.String(), "\n"))
	require.Contains(t, log.String(), "level=WARN")
	require.Contains(t, log.String(), "node=proxy-7 type="+url[:200]+"\n")

	// Another stream's operator hears of it too.
	other := h.stream(t, true)
	other.log = s.log
	send(t, other, &discoveryv3.DeltaDiscoveryRequest{Node: &corev3.Node{Id: "proxy-8"}, TypeUrl: "another"})
	require.Contains(t, log.String(), "node=proxy-8 type=another\n")
}
