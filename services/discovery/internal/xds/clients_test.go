package xds

import (
	"context"
	"fmt"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"testing"
	"time"

	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	discoveryv3 "github.com/envoyproxy/go-control-plane/envoy/service/discovery/v3"
	"github.com/prometheus/client_golang/prometheus/testutil"
	"github.com/stretchr/testify/require"
	rpcstatus "google.golang.org/genproto/googleapis/rpc/status"

	"github.com/weirproxy/weir/services/discovery/internal/resources"
)

// nodesOf are the ids of the nodes of a list.
func nodesOf(list ClientList) (ids []string) {
	for _, s := range list.List {
		ids = append(ids, s.Node)
	}
	return ids
}

// named is the first request of a node for the assignment of users.
func named(id, cluster string) *discoveryv3.DiscoveryRequest {
	return &discoveryv3.DiscoveryRequest{TypeUrl: resources.Endpoints.URL(), ResourceNames: []string{"users"}, Node: &corev3.Node{Id: id, Cluster: cluster}}
}

// clientsOf is a server of a hub's streams.
func clientsOf(h *testHub) *Server {
	s := &Server{hub: h.hub, identity: func(context.Context) string { return "" }}
	s.polled = newPollers(10)
	return s
}

// part asks for a part of the clients by a query as REST has it.
func part(t *testing.T, s *Server, query string) ClientList {
	t.Helper()
	values, err := url.ParseQuery(query)
	require.NoError(t, err)
	q := ClientQuery{Search: values.Get("search"), Show: values.Get("show"), Limit: 100}
	if values.Has("limit") {
		q.Limit, err = strconv.Atoi(values.Get("limit"))
		require.NoError(t, err)
	}
	if values.Has("offset") {
		q.Offset, err = strconv.Atoi(values.Get("offset"))
		require.NoError(t, err)
	}
	return s.Clients(q)
}

func TestClientsAreFoundByWhoTheyAreAndHowTheyAre(t *testing.T) {
	h := newTestHub(t)
	h.open(&h.loaded)
	h.hosts("users", "10.0.0.1:80")
	s := clientsOf(h)
	for i, id := range []string{"edge-2", "edge-1", "shop-1"} {
		st := h.stream(t, false)
		st.number, st.identity = uint64(i+1), "team of "+id
		send(t, st, named(id, "proxies"))
		r := st.next(start)
		require.NotNil(t, r)
		switch id {
		case "edge-1":
			answer(t, st, r)
		case "shop-1":
			refuse := named("", "")
			refuse.Node, refuse.ResponseNonce, refuse.ErrorDetail = nil, r.nonce, &rpcstatus.Status{Message: "no such thing"}
			send(t, st, refuse)
		}
	}
	for query, want := range map[string][]string{
		"":                         {"edge-1", "edge-2", "shop-1"},
		"search=EDGE":              {"edge-1", "edge-2"},
		"search=team+of+shop":      {"shop-1"},
		"search=proxies&limit=1":   {"edge-1"},
		"limit=2&offset=1":         {"edge-2", "shop-1"},
		"offset=7":                 nil,
		"show=refusing":            {"shop-1"},
		"show=waiting":             {"edge-2"},
		"show=waiting&search=shop": nil,
		"show=slow":                nil,
		"search=nobody":            nil,
	} {
		list := part(t, s, query)
		require.Equal(t, want, nodesOf(list), query)
		require.Equal(t, [4]int{3, 1, 1, 0}, [4]int{list.Clients, list.Refusing, list.Waiting, list.Slow}, query)
	}
	shop := part(t, s, "search=shop").List[0]
	require.Equal(t, "team of shop-1", shop.Identity)
	require.True(t, shop.Subscriptions["endpoints"].Refused)
	require.Equal(t, "no such thing", shop.Subscriptions["endpoints"].LastNACK.Reason)

	held, is := s.Resources(2, "")
	require.True(t, is)
	require.Len(t, held, 1)
	require.Equal(t, "acked", held[0].State)
	require.Equal(t, "endpoints", held[0].Type)
	require.NotEmpty(t, held[0].Version)
	refused, _ := s.Resources(3, "USER")
	require.Equal(t, "no such thing", refused[0].Reason)
	require.Equal(t, "nacked", refused[0].State)
	require.Equal(t, held[0].Version, refused[0].Version)
	none, is := s.Resources(3, "orders")
	require.True(t, is)
	require.Empty(t, none)
	_, is = s.Resources(7, "")
	require.False(t, is)
}

func TestWhatAClientHoldsIsCounted(t *testing.T) {
	for _, delta := range []bool{false, true} {
		h := newTestHub(t)
		h.open(&h.loaded)
		h.hosts("users", "10.0.0.1:80")
		h.hosts("orders", "10.0.0.2:80")
		st := h.stream(t, delta)
		held := func(typ resources.Type) int { return st.status().Subscriptions[typ.String()].Held }
		ask(t, st, resources.Clusters)
		require.Zero(t, held(resources.Clusters))
		acknowledge(t, st)
		require.Equal(t, 2, held(resources.Clusters))
		ask(t, st, resources.Endpoints, "users", "unknown")
		acknowledge(t, st)
		require.Equal(t, 1, held(resources.Endpoints), "delta: %v", delta)
	}
}

func TestThousandsOfClientsAreToldOfInParts(t *testing.T) {
	h := newTestHub(t)
	h.open(&h.loaded)
	h.hosts("users", "10.0.0.1:80")
	for i := range 5000 {
		st := h.stream(t, false)
		send(t, st, named(fmt.Sprintf("node-%04d", i), strings.Repeat("c", 1000)))
	}
	s := clientsOf(h)
	list := part(t, s, "offset=4990")
	require.Equal(t, "node-4990", list.List[0].Node)
	require.Len(t, list.List, 10)
	require.Equal(t, 5000, list.Matching)
	require.Len(t, s.Clients(ClientQuery{Limit: 100}).List, 100)
}

func TestWhoPollsIsShownForAWhile(t *testing.T) {
	s := serving(t, nil)
	<-s.hosts.Loaded()
	s.register(t, "users", 1)
	s.awaitService(t, "users")
	face := s.face(t)
	body := `{"node":{"id":"poller","cluster":"edge"},"version_info":%q}`
	status, r, text := poll(t, face, "clusters", fmt.Sprintf(body, ""))
	require.Equal(t, http.StatusOK, status, text)
	list := part(t, s.Server, "")
	require.Equal(t, []string{"poller"}, nodesOf(list))
	shown := list.List[0]
	require.Equal(t, [3]string{"rest", "sotw", "edge"}, [3]string{shown.Type, shown.Variant, shown.Cluster})
	clusters := shown.Subscriptions["clusters"]
	require.Equal(t, r.GetVersionInfo(), clusters.Version)
	require.Zero(t, clusters.ACKs)
	require.False(t, clusters.Unanswered)
	require.False(t, shown.LastPush.IsZero())

	status, _, text = poll(t, face, "clusters", fmt.Sprintf(body, r.GetVersionInfo()))
	require.Equal(t, http.StatusNotModified, status, text)
	status, _, text = poll(t, face, "endpoints", `{"node":{"id":"poller","cluster":"edge"},"resource_names":["users"]}`)
	require.Equal(t, http.StatusOK, status, text)
	list = part(t, s.Server, "")
	require.Equal(t, 1, list.Clients)
	require.Zero(t, list.List[0].Number, "it has no stream that one could ask for")
	require.EqualValues(t, 1, list.List[0].Subscriptions["clusters"].ACKs, "it says that it has it")
	require.Equal(t, clusters.Version, list.List[0].Subscriptions["clusters"].Version)
	require.Equal(t, 1, list.List[0].Subscriptions["endpoints"].Names)
	require.Empty(t, s.Status(), "a call is no stream")
}

func TestWhatAPollerRefusesIsShownAsAStreamsRefusalIs(t *testing.T) {
	s := serving(t, nil)
	<-s.hosts.Loaded()
	s.register(t, "users", 1)
	s.awaitService(t, "users")
	face := s.face(t)
	refusal := `{"node":{"id":"poller"},"response_nonce":"1","error_detail":{"code":3,"message":%q}}`
	refusing := func() (SubscriptionStatus, int) {
		list := part(t, s.Server, "show=refusing")
		if list.Matching == 0 {
			return part(t, s.Server, "").List[0].Subscriptions["clusters"], list.Refusing
		}
		return list.List[0].Subscriptions["clusters"], list.Refusing
	}
	for i, reason := range []string{"no such filter", "no such filter", "no such cluster"} {
		status, r, text := poll(t, face, "clusters", fmt.Sprintf(refusal, reason))
		require.Equal(t, http.StatusOK, status, text)
		clusters, n := refusing()
		require.Equal(t, 1, n)
		require.True(t, clusters.Refused)
		require.EqualValues(t, i+1, clusters.NACKs)
		require.Equal(t, [2]string{reason, "1"}, [2]string{clusters.LastNACK.Reason, clusters.LastNACK.Nonce})
		require.InDelta(t, i+1, testutil.ToFloat64(s.metrics.nacks[resources.Clusters]), 0)
		if i < 2 {
			continue
		}
		status, _, text = poll(t, face, "clusters", fmt.Sprintf(`{"node":{"id":"poller"},"version_info":%q}`, r.GetVersionInfo()))
		require.Equal(t, http.StatusNotModified, status, text)
	}
	clusters, n := refusing()
	require.Zero(t, n, "it has taken the next")
	require.False(t, clusters.Refused)
	require.EqualValues(t, 1, clusters.ACKs)
	require.EqualValues(t, 3, clusters.NACKs)
	require.Equal(t, "no such cluster", clusters.LastNACK.Reason, "the last one is told still")
}

func TestSoManyWhoPollAreRememberedAndNotForEver(t *testing.T) {
	p := newPollers(2)
	h := newTestHub(t)
	note := func(id string, now time.Time) {
		st := h.stream(t, false)
		st.node.id = id
		p.note(st, resources.Clusters, &request{}, &response{}, now)
	}
	now := time.Now()
	note("a", now.Add(-pollerFor-time.Second))
	note("b", now)
	note("c", now) // in the place of a
	note("d", now)
	require.Len(t, p.glances(), 2)
	for _, g := range p.glances() {
		require.Contains(t, []string{"b", "c"}, g.node)
	}
}

// BenchmarkClients is what a look at the page costs, of 5,000 clients with 50
// names each.
func BenchmarkClients(b *testing.B) {
	h := newTestHub(b)
	h.open(&h.loaded)
	names := make([]string, 50)
	for i := range names {
		names[i] = fmt.Sprintf("service-%d", i)
		h.hosts(names[i], "10.0.0.1:80")
	}
	subscribed(b, h, true, 5000, names...)
	s := clientsOf(h)
	b.ReportAllocs()
	for b.Loop() {
		s.Clients(ClientQuery{Search: "node", Limit: 100})
		s.Clients(ClientQuery{Limit: 100})
	}
}
