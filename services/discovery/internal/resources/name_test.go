package resources

import (
	"encoding/json"
	"slices"
	"strings"
	"testing"

	clusterv3 "github.com/envoyproxy/go-control-plane/envoy/config/cluster/v3"
	endpointv3 "github.com/envoyproxy/go-control-plane/envoy/config/endpoint/v3"
	"github.com/stretchr/testify/require"

	"github.com/weirproxy/weir/services/discovery/internal/registry"
)

func TestTheServiceOfAName(t *testing.T) {
	m := newMaker(t, Options{})
	for _, test := range []struct {
		kind          Type
		name, service string // none if empty
	}{
		{Clusters, "users", "users"},
		{Endpoints, "users", "users"},
		{Routes, "users", "users"},
		{Listeners, "users", "users"},
		{Secrets, "users", ""},
		{Runtimes, "users", ""},
		{Extensions, "users", ""},
		{Clusters, "", ""},
		{Clusters, "*", ""},
		{Clusters, "\xff", ""},

		{Listeners, "users:50051", "users"},
		{Listeners, "users:0", "users"},
		{Listeners, "users:65536", "users:65536"},
		{Listeners, "users:", "users:"},
		{Listeners, "users:http", "users:http"},
		{Listeners, "a:1:2", "a:1"},
		{Listeners, ":80", ":80"},
		{Listeners, "users#canary:80", "users"},
		{Clusters, "users:50051", "users:50051"},

		{Clusters, "users#canary", "users"},
		{Clusters, "users#!canary", "users"},
		{Endpoints, "users#revision=r1", "users"},
		{Endpoints, "users#region=eu,zone=eu-1,tag.team=a", "users"},
		{Endpoints, "users#revision=a%2Cb", "users"},
		{Endpoints, "users#" + strings.Repeat("canary,", 7) + "canary", "users"},

		// No subsets, so services of such names, if there are any.
		{Clusters, "c#", "c#"},
		{Clusters, "users#", "users#"},
		{Clusters, "#canary", "#canary"},
		{Clusters, "users#Canary", "users#Canary"},
		{Clusters, "users#canary=true", "users#canary=true"},
		{Clusters, "users#canary,", "users#canary,"},
		{Clusters, "users#revision", "users#revision"},
		{Clusters, "users#revision=", "users#revision="},
		{Clusters, "users#revision=%zz", "users#revision=%zz"},
		{Clusters, "users#tag.=a", "users#tag.=a"},
		{Clusters, "users#tag.%zz=a", "users#tag.%zz=a"},
		{Clusters, "users#colour=red", "users#colour=red"},
		{Endpoints, "users#" + strings.Repeat("canary,", 8) + "canary", "users#" + strings.Repeat("canary,", 8) + "canary"},
		{Clusters, "c##canary", "c#"},
		{Clusters, "c#lib#canary", "c#lib"},
		{Clusters, "users#revision=a#b", "users"},
	} {
		service, ok := m.Service(test.kind, test.name)
		require.Equal(t, test.service != "", ok, "%s %q", test.kind, test.name)
		require.Equal(t, test.service, service, "%s %q", test.kind, test.name)
	}
}

func TestASubsetIsOfHostsThatAreAllOfIt(t *testing.T) {
	yes, no := true, false
	is := func(canary *bool, revision string, tags map[string]string) func(*registry.View, *registry.Host) {
		return func(_ *registry.View, h *registry.Host) {
			other := map[string]json.RawMessage{}
			for name, value := range tags {
				other[name] = json.RawMessage(value)
			}
			h.Tags.Canary, h.Revision, h.Tags.Other = canary, revision, registry.TagListOf(other)
		}
	}
	hosts := []registry.View{
		host("10.0.0.1:80", "eu-1", is(&yes, "r1", map[string]string{"team": `"a"`, "n": `8`})),
		host("10.0.0.2:80", "eu-2", is(&no, "r1", map[string]string{"team": `"a,\n#"`, "a=b": `true`})),
		host("10.0.0.3:80", "eu-2", is(nil, "r2", map[string]string{"team": `{"a":1}`})),
	}
	m := newMaker(t, Options{})
	for suffix, want := range map[string]string{
		"canary":                 "1",
		"!canary":                "23",
		"revision=r1":            "12",
		"revision=r1,!canary":    "2",
		"zone=eu-2":              "23",
		"region=eu":              "123",
		"tag.team=a":             "1",
		"tag.n=8":                "1",
		"tag.team=a%2C%0A%23":    "2",
		"tag.a%3Db=true":         "2",
		`tag.team={"a":1}`:       "3",
		"revision=r3":            "",
		"canary,!canary":         "",
		"revision=r2,zone=eu-2,": "none",
		"colour=red":             "none",
	} {
		t.Run(suffix, func(t *testing.T) {
			name := "users#" + suffix
			service, ok := m.Service(Endpoints, name)
			require.True(t, ok)
			if service != "users" {
				require.Equal(t, "none", want)
				r, err := m.Make(Clusters, name, service, "", registry.Listing{}) // as of a service that there is not
				require.NoError(t, err)
				require.Nil(t, r)
				return
			}
			assignment := made[endpointv3.ClusterLoadAssignment](t, m, Endpoints, name, "", hosts...)
			require.Equal(t, name, assignment.GetClusterName())
			got := []string{}
			for _, l := range assignment.GetEndpoints() {
				for _, e := range l.GetLbEndpoints() {
					got = append(got, strings.TrimPrefix(e.GetEndpoint().GetAddress().GetSocketAddress().GetAddress(), "10.0.0."))
				}
			}
			slices.Sort(got)
			require.Equal(t, want, strings.Join(got, ""))
			cluster := made[clusterv3.Cluster](t, m, Clusters, name, "", hosts...)
			require.Equal(t, name, cluster.GetName())
		})
	}
}

// FuzzReadName wants the names of a service and its subsets to be of it, and no
// name to be of a service that is longer.
func FuzzReadName(f *testing.F) {
	for _, seed := range []string{"users", "users#canary", "users#revision=%2C,tag.a=b", "a#b#canary:80", "#", "%#zone=%"} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, text string) {
		for kind := range Types {
			n, ok := readName(kind, text)
			if !ok {
				continue
			}
			require.NotEmpty(t, n.service)
			require.True(t, strings.HasPrefix(n.cluster, n.service))
			require.True(t, strings.HasPrefix(text, n.cluster))
			require.LessOrEqual(t, len(n.subset), maxTerms)
			n.subset.has(&registry.Host{})
			again, ok := readName(Clusters, n.cluster)
			require.True(t, ok)
			require.Equal(t, n, again)
		}
	})
}

func TestAServiceOfItsOwnNameIsMadeWhole(t *testing.T) {
	m := newMaker(t, Options{})
	hosts := []registry.View{host("10.0.0.1:80", "eu-1", nil)} // no canary
	for service, plain := range map[string]bool{
		"users": true, "users#Canary": true, "users:http": true, "*": true, "\xff": true,
		"users#canary": false, "users:8080": false, "users#canary:80": false,
	} {
		require.Equal(t, plain, m.IsPlain(service), "%q", service)
		if plain {
			continue
		}
		r, err := m.Make(Endpoints, service, service, "", registry.Listing{Known: true, Hosts: hosts})
		require.NoError(t, err)
		var a endpointv3.ClusterLoadAssignment
		require.NoError(t, r.Body.UnmarshalTo(&a))
		require.Equal(t, service, a.GetClusterName())
		require.Len(t, a.GetEndpoints(), 1)

		r, err = m.Make(Secrets, service, service, "", registry.Listing{Known: true, Hosts: hosts})
		require.NoError(t, err)
		require.Nil(t, r)
	}
}
