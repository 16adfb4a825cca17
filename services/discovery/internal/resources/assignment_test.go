package resources

import (
	"encoding/json"
	"net/netip"
	"testing"
	"time"

	endpointv3 "github.com/envoyproxy/go-control-plane/envoy/config/endpoint/v3"
	"github.com/stretchr/testify/require"
	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/proto"

	"github.com/weirproxy/weir/services/discovery/internal/registry"
)

// host is one at an address, in a zone of the region eu; change may be nil.
func host(address, zone string, change func(*registry.View, *registry.Host)) registry.View {
	h := &registry.Host{
		Key:     registry.Key{Service: "users", ID: address},
		Address: netip.MustParseAddrPort(address),
		Tags:    registry.Tags{Region: "eu", Zone: zone},
	}
	v := registry.View{Record: registry.Record{Host: h}}
	if change != nil {
		change(&v, h)
	}
	return v
}

// weighing sets a host's weight, of an operator or of itself.
func weighing(weight uint8) func(*registry.View, *registry.Host) {
	return func(v *registry.View, _ *registry.Host) { v.Weight = weight }
}

func inState(s registry.State) func(*registry.View, *registry.Host) {
	return func(v *registry.View, _ *registry.Host) { v.State = s }
}

// called names a host, which came at a second.
func called(id string, second int) func(*registry.View, *registry.Host) {
	return func(v *registry.View, h *registry.Host) { h.ID, v.FirstSeen = id, time.Unix(int64(second), 0) }
}

func newMaker(t testing.TB, o Options) *Maker {
	m, err := NewMaker(o)
	require.NoError(t, err)
	return m
}

// made is a resource of the service users; nil if there is none.
func made[M any, P interface {
	*M
	proto.Message
}](t testing.TB, m *Maker, kind Type, name string, v View, hosts ...registry.View) P {
	r, err := m.Make(kind, name, "users", v, registry.Listing{Hosts: hosts, Known: true})
	require.NoError(t, err)
	if r == nil {
		return nil
	}
	require.Equal(t, name, r.Name)
	require.Equal(t, kind.URL(), r.Body.GetTypeUrl())
	message := P(new(M))
	require.NoError(t, proto.Unmarshal(r.Body.GetValue(), message))
	validate(t, message)
	return message
}

func validate(t testing.TB, m proto.Message) {
	require.NoError(t, m.(interface{ ValidateAll() error }).ValidateAll())
}

// wantJSON compares a message with the JSON of one.
func wantJSON[M any, P interface {
	*M
	proto.Message
}](t testing.TB, want string, got P) {
	t.Helper()
	message := P(new(M))
	require.NoError(t, protojson.Unmarshal([]byte(want), message))
	require.True(t, proto.Equal(message, got), "got %s", protojson.Format(got))
}

func TestAnAssignmentIsTheHostsByLocality(t *testing.T) {
	for name, test := range map[string]struct {
		hosts []registry.View
		want  string
	}{
		"no hosts": {nil, `{"clusterName":"users"}`},
		"one without weight": {[]registry.View{host("10.0.0.1:80", "eu-1", nil)}, `{"clusterName":"users","endpoints":[
			{"locality":{"region":"eu","zone":"eu-1"},"loadBalancingWeight":1,"lbEndpoints":[
				{"endpoint":{"address":{"socketAddress":{"address":"10.0.0.1","portValue":80}}}}]}]}`},
		"two zones, in order of addresses": {
			[]registry.View{
				host("10.0.0.9:80", "eu-1", weighing(5)), host("[fd00::1]:80", "eu-2", nil),
				host("10.0.0.2:80", "eu-1", nil), host("10.0.0.2:79", "eu-1", weighing(100)),
			},
			`{"clusterName":"users","endpoints":[
			{"locality":{"region":"eu","zone":"eu-1"},"loadBalancingWeight":106,"lbEndpoints":[
				{"endpoint":{"address":{"socketAddress":{"address":"10.0.0.2","portValue":79}}},"loadBalancingWeight":100},
				{"endpoint":{"address":{"socketAddress":{"address":"10.0.0.2","portValue":80}}}},
				{"endpoint":{"address":{"socketAddress":{"address":"10.0.0.9","portValue":80}}},"loadBalancingWeight":5}]},
			{"locality":{"region":"eu","zone":"eu-2"},"loadBalancingWeight":1,"lbEndpoints":[
				{"endpoint":{"address":{"socketAddress":{"address":"fd00::1","portValue":80}}}}]}]}`,
		},
		"a host that says nothing of where it is": {
			[]registry.View{host("10.0.0.1:80", "", func(_ *registry.View, h *registry.Host) { h.Tags.Region = "" })},
			`{"clusterName":"users","endpoints":[{"locality":{},"loadBalancingWeight":1,"lbEndpoints":[
				{"endpoint":{"address":{"socketAddress":{"address":"10.0.0.1","portValue":80}}}}]}]}`,
		},
		"an address twice is the latest comer's": {
			[]registry.View{host("10.0.0.1:80", "eu-1", called("a", 1)), host("10.0.0.1:80", "eu-2", called("b", 2))},
			`{"clusterName":"users","endpoints":[{"locality":{"region":"eu","zone":"eu-2"},"loadBalancingWeight":1,"lbEndpoints":[
				{"endpoint":{"address":{"socketAddress":{"address":"10.0.0.1","portValue":80}}}}]}]}`,
		},
		"an address is left out if its latest comer is out": {
			[]registry.View{
				host("10.0.0.1:80", "eu-1", called("a", 1)),
				host("10.0.0.1:80", "eu-1", func(v *registry.View, h *registry.Host) { called("b", 2)(v, h); v.State = registry.Out }),
			},
			`{"clusterName":"users"}`,
		},
		"hosts that are out are left out, all that drain are there": {
			[]registry.View{host("10.0.0.1:80", "eu-1", inState(registry.Out)), host("10.0.0.2:80", "eu-1", inState(registry.Draining))},
			`{"clusterName":"users","endpoints":[{"locality":{"region":"eu","zone":"eu-1"},"loadBalancingWeight":1,"lbEndpoints":[
				{"healthStatus":"DRAINING","endpoint":{"address":{"socketAddress":{"address":"10.0.0.2","portValue":80}}}}]}]}`,
		},
		"further addresses, and a port for health checks": {
			[]registry.View{host("10.0.0.1:80", "eu-1", func(_ *registry.View, h *registry.Host) {
				h.Additional = []netip.Addr{netip.MustParseAddr("fd00::1"), netip.MustParseAddr("fd00::2")}
				h.Ports = []registry.Port{{Name: "health", Number: 81}, {Name: "metrics", Number: 82}}
			})},
			`{"clusterName":"users","endpoints":[{"locality":{"region":"eu","zone":"eu-1"},"loadBalancingWeight":1,"lbEndpoints":[
				{"endpoint":{"address":{"socketAddress":{"address":"10.0.0.1","portValue":80}},"healthCheckConfig":{"portValue":81},
				"additionalAddresses":[{"address":{"socketAddress":{"address":"fd00::1","portValue":80}}},
					{"address":{"socketAddress":{"address":"fd00::2","portValue":80}}}]}}]}]}`,
		},
	} {
		t.Run(name, func(t *testing.T) {
			wantJSON(t, test.want, made[endpointv3.ClusterLoadAssignment](t, newMaker(t, Options{}), Endpoints, "users", "", test.hosts...))
		})
	}
}

func TestAFurtherAddressIsOneHosts(t *testing.T) {
	further := func(id string, second int, addresses ...string) func(*registry.View, *registry.Host) {
		return func(v *registry.View, h *registry.Host) {
			called(id, second)(v, h)
			for _, a := range addresses {
				h.Additional = append(h.Additional, netip.MustParseAddr(a))
			}
		}
	}
	got := made[endpointv3.ClusterLoadAssignment](t, newMaker(t, Options{}), Endpoints, "users", "",
		host("10.0.0.1:80", "eu-1", further("a", 1, "fd00::1", "fd00::9", "10.0.0.1")),
		host("10.0.0.2:80", "eu-1", further("b", 3, "fd00::9", "10.0.0.3", "fd00::9")),
		host("10.0.0.3:80", "eu-1", nil),
		host("10.0.0.3:81", "eu-1", further("c", 4, "fd00::9")),
	)
	addresses := map[string][]string{}
	for _, e := range got.GetEndpoints()[0].GetLbEndpoints() {
		own := e.GetEndpoint().GetAddress().GetSocketAddress()
		list := []string{}
		for _, more := range e.GetEndpoint().GetAdditionalAddresses() {
			list = append(list, more.GetAddress().GetSocketAddress().GetAddress())
		}
		addresses[own.GetAddress()+" "+e.GetHealthStatus().String()+" "+string(rune('0'+own.GetPortValue()-80))] = list
	}
	require.Equal(t, map[string][]string{
		"10.0.0.1 UNKNOWN 0": {"fd00::1"},
		"10.0.0.2 UNKNOWN 0": {"fd00::9"},
		"10.0.0.3 UNKNOWN 0": {},
		"10.0.0.3 UNKNOWN 1": {"fd00::9"},
	}, addresses)
}

func TestDuplicatesAreCounted(t *testing.T) {
	require.Equal(t, 2, Duplicates([]registry.View{
		host("10.0.0.1:80", "eu-1", called("a", 1)), host("10.0.0.2:80", "eu-1", nil),
		host("10.0.0.1:80", "eu-1", called("b", 1)), host("10.0.0.1:80", "eu-1", called("c", 1)),
	}))
}

func TestPrioritiesAreByTheAskersZone(t *testing.T) {
	hosts := []registry.View{
		host("10.0.0.1:80", "eu-1", nil), host("10.0.0.2:80", "eu-2", nil), host("10.0.0.3:80", "eu-3", nil),
		host("10.0.0.4:80", "us-1", func(_ *registry.View, h *registry.Host) { h.Tags.Region = "us" }),
		host("10.0.0.5:80", "eu-4", inState(registry.Draining)),
	}
	for name, test := range map[string]struct {
		asker Asker
		want  map[string]uint32 // priority by zone
	}{
		"own zone, region, others":           {Asker{Region: "eu", Zone: "eu-2"}, map[string]uint32{"eu-1": 1, "eu-2": 0, "eu-3": 1, "eu-4": 1, "us-1": 2}},
		"no others in the region":            {Asker{Region: "us", Zone: "us-1"}, map[string]uint32{"eu-1": 1, "eu-2": 1, "eu-3": 1, "eu-4": 1, "us-1": 0}},
		"a zone without a region":            {Asker{Zone: "eu-2"}, map[string]uint32{"eu-1": 1, "eu-2": 0, "eu-3": 1, "eu-4": 1, "us-1": 1}},
		"a zone without hosts":               {Asker{Region: "eu", Zone: "eu-9"}, map[string]uint32{"eu-1": 0, "eu-2": 0, "eu-3": 0, "eu-4": 0, "us-1": 0}},
		"a zone whose hosts drain":           {Asker{Region: "eu", Zone: "eu-4"}, map[string]uint32{"eu-1": 0, "eu-2": 0, "eu-3": 0, "eu-4": 0, "us-1": 0}},
		"a zone of that name in another one": {Asker{Region: "us", Zone: "eu-2"}, map[string]uint32{"eu-1": 0, "eu-2": 0, "eu-3": 0, "eu-4": 0, "us-1": 0}},
		"a region alone":                     {Asker{Region: "eu"}, map[string]uint32{"eu-1": 0, "eu-2": 0, "eu-3": 0, "eu-4": 0, "us-1": 0}},
		"an asker that says nothing":         {Asker{ID: "a"}, map[string]uint32{"eu-1": 0, "eu-2": 0, "eu-3": 0, "eu-4": 0, "us-1": 0}},
	} {
		t.Run(name, func(t *testing.T) {
			m := newMaker(t, Options{ZonePriorities: true})
			got := map[string]uint32{}
			for _, l := range made[endpointv3.ClusterLoadAssignment](t, m, Endpoints, "users", m.View(test.asker), hosts...).GetEndpoints() {
				got[l.GetLocality().GetZone()] = l.GetPriority()
			}
			require.Equal(t, test.want, got)
		})
	}
}

func TestAHostsHealthIsTold(t *testing.T) {
	stale := func(v *registry.View, _ *registry.Host) { v.Stale = true }
	for _, test := range []struct {
		host     func(*registry.View, *registry.Host)
		degraded bool
		want     string
	}{
		{nil, true, "UNKNOWN"},
		{stale, false, "UNKNOWN"},
		{stale, true, "DEGRADED"},
		{inState(registry.Draining), true, "DRAINING"},
		{func(v *registry.View, _ *registry.Host) { v.Stale, v.State = true, registry.Draining }, true, "DRAINING"},
		{func(v *registry.View, _ *registry.Host) { v.Unhealthy, v.Stale = true, true }, true, "UNHEALTHY"},
		{func(v *registry.View, _ *registry.Host) { v.Unhealthy, v.State = true, registry.Draining }, true, "DRAINING"},
	} {
		got := made[endpointv3.ClusterLoadAssignment](t, newMaker(t, Options{StaleDegraded: test.degraded}), Endpoints, "users", "",
			host("10.0.0.1:80", "eu-1", test.host))
		require.Equal(t, test.want, got.GetEndpoints()[0].GetLbEndpoints()[0].GetHealthStatus().String())
	}
}

func TestMetadataIsWhatAHostSaysOfItself(t *testing.T) {
	yes, no := true, false
	full := func(v *registry.View, h *registry.Host) {
		v.Stale = true
		h.Revision = "r1"
		h.Tags.Canary = &yes
		h.Tags.InstanceID = "i-1"
		h.Tags.Other = registry.TagListOf(map[string]json.RawMessage{
			"team": json.RawMessage(`"a\nb"`), "cores": json.RawMessage(`8`), "canary": json.RawMessage(`"tag"`),
			"list": json.RawMessage(`[{"a":null}]`), "huge": json.RawMessage(`1e999`), "half": json.RawMessage(`"\ud800"`),
			"deep": json.RawMessage(`[[[[[[[[[[[[[[[[[1]]]]]]]]]]]]]]]]]`), "brackets": json.RawMessage(`["[[[[[[[[[[[[[[[[\"[["]`),
		})
	}
	for name, test := range map[string]struct {
		namespace string
		host      func(*registry.View, *registry.Host)
		want      string
	}{
		"nothing":        {"weir.tags", nil, `{}`},
		"no canary":      {"weir.tags", func(_ *registry.View, h *registry.Host) { h.Tags.Canary = &no }, `{"filterMetadata":{"envoy.lb":{"canary":false}}}`},
		"no namespace":   {"", full, `{"filterMetadata":{"envoy.lb":{"canary":true,"revision":"r1","stale":true}}}`},
		"only a tag":     {"weir.tags", func(_ *registry.View, h *registry.Host) { h.Tags.InstanceID = "i-1" }, `{"filterMetadata":{"weir.tags":{"instance_id":"i-1"}}}`},
		"everything":     {"weir.tags", full, `{"filterMetadata":{"envoy.lb":{"canary":true,"revision":"r1","stale":true},"weir.tags":{"instance_id":"i-1","team":"a\nb","cores":8,"canary":"tag","list":[{"a":null}],"brackets":["[[[[[[[[[[[[[[[[\"[["]}}}`},
		"one for it all": {LoadBalancer, full, `{"filterMetadata":{"envoy.lb":{"canary":true,"revision":"r1","stale":true,"instance_id":"i-1","team":"a\nb","cores":8,"list":[{"a":null}],"brackets":["[[[[[[[[[[[[[[[[\"[["]}}}`},
	} {
		t.Run(name, func(t *testing.T) {
			got := made[endpointv3.ClusterLoadAssignment](t, newMaker(t, Options{TagNamespace: test.namespace}), Endpoints, "users", "",
				host("10.0.0.1:80", "eu-1", test.host)).GetEndpoints()[0].GetLbEndpoints()[0].GetMetadata()
			if test.want == `{}` {
				require.Nil(t, got)
				return
			}
			wantJSON(t, test.want, got)
		})
	}
}

func TestAVersionIsThatOfTheContent(t *testing.T) {
	m := newMaker(t, Options{TagNamespace: "weir.tags"})
	version := func(hosts ...registry.View) uint64 {
		r, err := m.Make(Endpoints, "users", "users", "", registry.Listing{Hosts: hosts, Known: true})
		require.NoError(t, err)
		return r.Version
	}
	a, b := host("10.0.0.1:80", "eu-1", nil), host("10.0.0.2:80", "eu-1", nil)
	want := version(a, b)
	require.Equal(t, want, version(b, a), "the order in which hosts are found")
	beaten := b
	beaten.LastCheckIn, beaten.FirstSeen, beaten.Lease = time.Now(), time.Now(), 7
	require.Equal(t, want, version(a, beaten), "a beat")
	require.NotEqual(t, want, version(a), "a host less")
	require.NotEqual(t, want, version(a, host("10.0.0.2:80", "eu-1", weighing(2))), "a weight")
	require.Equal(t, uint64(0x8aec46b28de6934d), want, "equal on every replica")
	tagged := func() registry.View {
		return host("10.0.0.1:80", "eu-1", func(_ *registry.View, h *registry.Host) {
			h.Tags.Other = registry.TagListOf(map[string]json.RawMessage{"a": json.RawMessage(`1`), "b": json.RawMessage(`2`), "c": json.RawMessage(`{"x":1,"y":2}`)})
		})
	}
	for range 20 {
		require.Equal(t, version(tagged()), version(tagged()), "the order of tags")
	}
}

func TestAHostThatCannotBeMarshalledIsAnError(t *testing.T) {
	_, err := newMaker(t, Options{}).Make(Endpoints, "users", "users", "", registry.Listing{Known: true, Hosts: []registry.View{host("10.0.0.1:80", "\xff", nil)}})
	require.ErrorContains(t, err, `marshal endpoints "users": `)
}
