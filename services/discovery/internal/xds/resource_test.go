package xds

import (
	"log/slog"
	"net/netip"
	"strings"
	"testing"
	"time"

	clusterv3 "github.com/envoyproxy/go-control-plane/envoy/config/cluster/v3"
	endpointv3 "github.com/envoyproxy/go-control-plane/envoy/config/endpoint/v3"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/stretchr/testify/require"
	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/proto"

	"github.com/weirproxy/weir/services/discovery/internal/registry"
)

// record is a host at an address, in a zone.
func record(address, zone string, weight uint8) registry.View {
	return registry.View{Weight: weight, Record: registry.Record{Host: &registry.Host{
		Key:     registry.Key{Service: "users", ID: address},
		Address: netip.MustParseAddrPort(address),
		Tags:    registry.Tags{Region: "eu", Zone: zone, Weight: weight},
	}}}
}

func TestAnAssignmentIsTheHostsByLocality(t *testing.T) {
	earlier, later := record("10.0.0.1:80", "eu-1", 3), record("10.0.0.1:80", "eu-2", 0)
	earlier.Host.ID, later.Host.ID = "a", "b"
	later.FirstSeen = earlier.FirstSeen.Add(time.Second)

	for name, test := range map[string]struct {
		records    []registry.View
		duplicates int
		want       string
	}{
		"no hosts": {nil, 0, `{"clusterName":"users"}`},
		"one without weight": {[]registry.View{record("10.0.0.1:80", "eu-1", 0)}, 0, `{"clusterName":"users","endpoints":[
			{"locality":{"region":"eu","zone":"eu-1"},"loadBalancingWeight":1,"lbEndpoints":[
				{"endpoint":{"address":{"socketAddress":{"address":"10.0.0.1","portValue":80}}}}]}]}`},
		"two zones, in order of addresses": {
			[]registry.View{record("10.0.0.9:80", "eu-1", 5), record("[fd00::1]:80", "eu-2", 0), record("10.0.0.2:80", "eu-1", 0), record("10.0.0.2:79", "eu-1", 100)}, 0,
			`{"clusterName":"users","endpoints":[
			{"locality":{"region":"eu","zone":"eu-1"},"loadBalancingWeight":106,"lbEndpoints":[
				{"endpoint":{"address":{"socketAddress":{"address":"10.0.0.2","portValue":79}}},"loadBalancingWeight":100},
				{"endpoint":{"address":{"socketAddress":{"address":"10.0.0.2","portValue":80}}}},
				{"endpoint":{"address":{"socketAddress":{"address":"10.0.0.9","portValue":80}}},"loadBalancingWeight":5}]},
			{"locality":{"region":"eu","zone":"eu-2"},"loadBalancingWeight":1,"lbEndpoints":[
				{"endpoint":{"address":{"socketAddress":{"address":"fd00::1","portValue":80}}}}]}]}`},
		"an address twice is the latest comer's": {[]registry.View{earlier, later}, 1, `{"clusterName":"users","endpoints":[
			{"locality":{"region":"eu","zone":"eu-2"},"loadBalancingWeight":1,"lbEndpoints":[
				{"endpoint":{"address":{"socketAddress":{"address":"10.0.0.1","portValue":80}}}}]}]}`},
	} {
		t.Run(name, func(t *testing.T) {
			got, duplicates := makeAssignment("users", test.records)
			require.Equal(t, test.duplicates, duplicates)
			require.NoError(t, got.ValidateAll())
			want := &endpointv3.ClusterLoadAssignment{}
			require.NoError(t, protojson.Unmarshal([]byte(test.want), want))
			require.True(t, proto.Equal(want, got), "got %s", protojson.Format(got))
		})
	}
}

func TestAClusterHasItsHostsByEDSOnTheSameStream(t *testing.T) {
	got := makeCluster("users")
	require.NoError(t, got.ValidateAll())
	want := &clusterv3.Cluster{}
	require.NoError(t, protojson.Unmarshal([]byte(`{"name":"users","type":"EDS","connectTimeout":"1s",
		"edsClusterConfig":{"edsConfig":{"ads":{},"resourceApiVersion":"V3"}}}`), want))
	require.True(t, proto.Equal(want, got), "got %s", protojson.Format(got))
}

func TestAVersionIsThatOfTheContent(t *testing.T) {
	version := func(records ...registry.View) uint64 {
		m, _ := makeAssignment("users", records)
		r, err := newResource(endpoints, "users", m)
		require.NoError(t, err)
		return r.version
	}
	a, b := record("10.0.0.1:80", "eu-1", 0), record("10.0.0.2:80", "eu-1", 0)
	want := version(a, b)
	require.Equal(t, want, version(b, a), "the order in which hosts are found")
	beaten := b
	beaten.LastCheckIn = time.Now()
	require.Equal(t, want, version(a, beaten), "a beat")
	require.NotEqual(t, want, version(a), "a host less")
	require.NotEqual(t, want, version(a, record("10.0.0.2:80", "eu-1", 2)), "a weight")
	require.Equal(t, "8aec46b28de6934d", versionText(want), "equal on every replica")
}

func TestAServiceWhoseResourcesCannotBeMadeIsLoggedAndHarmsNoOther(t *testing.T) {
	hosts := serving(t, 1).hosts
	<-hosts.Loaded()
	for service, zone := range map[string]string{"broken": "\xff", "whole": "eu-1"} {
		h := record("10.0.0.1:80", zone, 0).Host
		h.Service, h.TTL = service, time.Minute
		_, err := hosts.CheckIn(*h, "tester")
		require.NoError(t, err)
	}

	var log strings.Builder
	h := newHub(hosts, 0, 0, slog.New(slog.NewTextHandler(&log, nil)), newMetrics(prometheus.NewRegistry()))
	h.update([]string{"broken", "whole"})
	for k := range kinds {
		require.Nil(t, h.catalogue.byName[k]["broken"])
		require.NotNil(t, h.catalogue.byName[k]["whole"])
	}
	require.Regexp(t, `level=ERROR .* service=broken error="marshal endpoints of .*broken.* UTF-8`, log.String())
	require.NotContains(t, log.String(), "whole")
}
