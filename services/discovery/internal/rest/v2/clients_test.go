package v2

import (
	"fmt"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/weirproxy/weir/services/discovery/internal/resourcefiles"
	"github.com/weirproxy/weir/services/discovery/internal/xds"
)

// withClients has the face know a client of xDS that refuses, of stream 7, and a bad
// file of resources.
func withClients(o *Options) {
	at := time.Date(2026, 11, 26, 14, 30, 0, 0, time.UTC)
	o.Clients = func(xds.ClientQuery) xds.ClientList {
		return xds.ClientList{Clients: 2, Refusing: 1, Matching: 2, List: []xds.StreamStatus{
			{Number: 7, Type: "ads", Variant: "delta", Since: at, Node: "edge-1", LastPush: at, Subscriptions: map[string]xds.SubscriptionStatus{
				"clusters": {Wildcard: true, Held: 1, Nonce: "2", SentAt: at, NACKs: 1, Refused: true,
					LastNACK: &xds.NACKStatus{At: at, Nonce: "2", Reason: "no such filter", Names: []string{"users"}}},
			}},
			{Type: "rest", Variant: "sotw", Since: at, LastPoll: at, Subscriptions: map[string]xds.SubscriptionStatus{
				"endpoints": {Names: 1, Version: "0123456789abcdef"},
			}},
		}}
	}
	o.Resources = func(stream uint64, _ string) ([]xds.ResourceStatus, bool) {
		if stream != 7 {
			return nil, false
		}
		return []xds.ResourceStatus{
			{Type: "clusters", Name: "users", Version: "0123456789abcdef", State: "nacked", Reason: "no such filter"},
			{Type: "endpoints", Name: "users", State: "requested"},
		}, true
	}
	o.Files = func() *resourcefiles.Status {
		return &resourcefiles.Status{
			Directory: "/etc/resources",
			Files:     []resourcefiles.FileStatus{{Path: "a.yaml", State: resourcefiles.Kept, Faults: []string{"a.yaml:1:2: no"}, Resources: 1}},
			Resources: map[string][]string{"clusters": {"users"}},
			Warnings:  []string{"a.yaml:3:1: no such cluster"},
		}
	}
}

func TestClientsAreAskedForByTheQuery(t *testing.T) {
	var asked []xds.ClientQuery
	f := newFixture(t, func(o *Options) {
		o.Clients = func(q xds.ClientQuery) xds.ClientList {
			asked = append(asked, q)
			return xds.ClientList{}
		}
	})
	f.get(t, "/v2/xds/clients")
	f.get(t, "/v2/xds/clients?search=edge&show=slow&offset=7&limit=500")
	require.Equal(t, []xds.ClientQuery{{Limit: 100}, {Search: "edge", Show: "slow", Offset: 7, Limit: 500}}, asked)
	for _, query := range []string{"limit=0", "limit=501", "offset=-1", "offset=x", "show=bad", "x=y"} {
		w := f.call("GET", "/v2/xds/clients?"+query, "")
		require.Equal(t, 400, w.Code, query)
		require.NotEmpty(t, decode(t, w.Body)["fields"], query)
	}
}

func TestClientsThatPollHaveNoStreamThatOneCouldAskFor(t *testing.T) {
	f := newFixture(t, withClients)
	for _, client := range f.get(t, "/v2/xds/clients")["list"].([]any) {
		stream, has := client.(map[string]any)["stream"]
		require.Equal(t, client.(map[string]any)["type"] != "rest", has)
		if has {
			require.Equal(t, 200, f.call("GET", fmt.Sprint("/v2/xds/clients/", stream), "").Code)
		}
	}
}

func TestResourcesOfAClientAreToldOfInParts(t *testing.T) {
	f := newFixture(t, withClients)
	for query, types := range map[string][]string{
		"":          {"clusters", "endpoints"},
		"?limit=1":  {"clusters"},
		"?offset=1": {"endpoints"},
		"?offset=9": {},
	} {
		answer := f.get(t, "/v2/xds/clients/7"+query)
		require.EqualValues(t, 2, answer["matching"])
		got := []string{}
		for _, resource := range answer["list"].([]any) {
			got = append(got, resource.(map[string]any)["type"].(string))
		}
		require.Equal(t, types, got, query)
	}
	for _, number := range []string{"8", "x", "-1", "99999999999999999999"} {
		require.Equal(t, 404, f.call("GET", "/v2/xds/clients/"+number, "").Code, number)
	}
}

func TestFilesAreToldOfWithoutTheNamesOfResources(t *testing.T) {
	require.Equal(t, map[string]any{
		"directory": "/etc/resources", "warnings": []any{"a.yaml:3:1: no such cluster"},
		"files": []any{map[string]any{"path": "a.yaml", "state": "kept", "faults": []any{"a.yaml:1:2: no"}, "resources": 1.0}},
	}, newFixture(t, withClients).get(t, "/v2/xds/files"))
	require.Equal(t, map[string]any{"directory": "", "warnings": []any{}, "files": []any{}}, newFixture(t).get(t, "/v2/xds/files"))
}
