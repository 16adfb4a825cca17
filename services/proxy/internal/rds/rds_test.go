package rds_test

import (
	"fmt"
	"log/slog"
	"slices"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	routev3 "github.com/envoyproxy/go-control-plane/envoy/config/route/v3"
	"github.com/stretchr/testify/require"
	"google.golang.org/protobuf/encoding/protojson"

	"github.com/weirproxy/weir/internal/servicetest"
	"github.com/weirproxy/weir/services/proxy/internal/coreconfig"
	"github.com/weirproxy/weir/services/proxy/internal/message"
	"github.com/weirproxy/weir/services/proxy/internal/rds"
	"github.com/weirproxy/weir/services/proxy/internal/route"
	"github.com/weirproxy/weir/services/proxy/internal/stats"
	"github.com/weirproxy/weir/services/proxy/internal/strict"
	"github.com/weirproxy/weir/services/proxy/internal/xds"
)

func TestMain(m *testing.M) { servicetest.Main(m) }

// manager is a Manager under test, with the names that it wants.
type manager struct {
	*rds.Manager
	t        *testing.T
	names    map[coreconfig.Source][]string
	registry *stats.Registry
}

func newManager(t *testing.T) *manager {
	schema, err := strict.NewSchema(route.Fields(), coreconfig.Fields())
	require.NoError(t, err)
	m := &manager{t: t, names: map[coreconfig.Source][]string{}, registry: stats.NewRegistry()}
	m.Manager = rds.New(rds.Options{
		Schema: schema, Parse: route.Parse, Log: slog.New(slog.DiscardHandler),
		SetName: func(source coreconfig.Source, name string, wanted bool) {
			require.NotEqual(t, wanted, slices.Contains(m.names[source], name), "it changes")
			if wanted {
				m.names[source] = append(m.names[source], name)
			} else {
				m.names[source] = slices.DeleteFunc(m.names[source], func(other string) bool { return other == name })
			}
		},
	})
	return m
}

// user is who serves by a table.
type user struct {
	*rds.Subscription
	table atomic.Pointer[route.Table]
	ready chan struct{}
}

func (m *manager) subscribe(name string, source coreconfig.Source) *user {
	u := &user{ready: make(chan struct{})}
	u.Subscription = m.Subscribe(rds.Request{
		Source: source, Name: name, InitialFetchTimeout: 15 * time.Second, Into: &u.table,
		Ready: func() { close(u.ready) }, Stats: m.registry.Scope("rds"),
	})
	return u
}

// cluster is where a user's table sends everything; empty without a table.
func (u *user) cluster() string {
	table := u.table.Load()
	if table == nil {
		return ""
	}
	return table.Match(route.Input{Request: &message.Request{Method: []byte("GET"), Authority: []byte("a"), Path: []byte("/")}}).Cluster
}

// isReady says whether Ready was called, in a synctest bubble.
func (u *user) isReady() bool {
	synctest.Wait()
	select {
	case <-u.ready:
		return true
	default:
		return false
	}
}

func routes(t *testing.T, name, cluster, more string) xds.Resource {
	config := &routev3.RouteConfiguration{}
	require.NoError(t, protojson.Unmarshal(fmt.Appendf(nil,
		`{"name": %q, "virtual_hosts": [{"name": "v", "domains": ["*"], "routes": [{"match": {"prefix": "/"}, "route": {"cluster": %q}}]}] %s}`,
		name, cluster, more), config))
	return xds.Resource{Name: name, Version: "of " + cluster, Message: config}
}

func (m *manager) values() map[string]int64 {
	all := map[string]int64{}
	m.registry.Each(func(metric stats.Metric) {
		if metric.Used && metric.Kind == stats.KindCounter {
			all[metric.Name] = metric.Value
		}
	})
	return all
}

func TestATableIsSharedByThoseWhoNameIt(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := newManager(t)
		a, b := m.subscribe("r", coreconfig.Source{}), m.subscribe("r", coreconfig.Source{})
		require.Equal(t, []string{"r"}, m.names[coreconfig.Source{}])
		require.False(t, a.isReady())
		require.Empty(t, a.cluster())
		require.NoError(t, m.Apply([]xds.Resource{routes(t, "r", "one", ""), routes(t, "stranger", "x", "")}, false))
		require.True(t, a.isReady() && b.isReady())
		require.Equal(t, "one", a.cluster())
		late := m.subscribe("r", coreconfig.Source{})
		require.True(t, late.isReady())
		require.Equal(t, "one", late.cluster())

		require.NoError(t, m.Apply([]xds.Resource{routes(t, "r", "two", "")}, false))
		require.Equal(t, "two", b.cluster())
		require.Len(t, m.Tables(), 1)
		require.Equal(t, "of two", m.Tables()[0].Version)

		a.Close()
		late.Close()
		late.Close()
		require.Equal(t, []string{"r"}, m.names[coreconfig.Source{}])
		require.NotEmpty(t, m.values(), "one is left that counts")
		b.Close()
		require.Empty(t, m.names[coreconfig.Source{}])
		require.Empty(t, m.values())
		require.NoError(t, m.Apply([]xds.Resource{routes(t, "r", "three", "")}, false))
		require.Equal(t, "two", b.cluster(), "it has let go")
		require.Empty(t, m.Tables())
	})
}

func TestTablesOfOneNameFromTwoSourcesAreTwo(t *testing.T) {
	m := newManager(t)
	file := coreconfig.Source{Path: "/r"}
	a, b := m.subscribe("r", coreconfig.Source{}), m.subscribe("r", file)
	fromFile := routes(t, "r", "file", "")
	fromFile.Source = file
	require.NoError(t, m.Apply([]xds.Resource{fromFile}, false))
	require.Empty(t, a.cluster())
	require.Equal(t, "file", b.cluster())
	a.Close()
	b.Close()
}

func TestNobodyWaitsForRoutesLongerThanTheirTimeout(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := newManager(t)
		u := m.subscribe("r", coreconfig.Source{})
		time.Sleep(15*time.Second - time.Nanosecond)
		require.False(t, u.isReady())
		time.Sleep(time.Nanosecond)
		require.True(t, u.isReady())
		require.NoError(t, m.Apply([]xds.Resource{routes(t, "r", "late", "")}, false))
		require.Equal(t, "late", u.cluster())
		require.EqualValues(t, 1, m.values()["rds.init_fetch_timeout"])
		u.Close()
	})
}

func TestABadTableIsRefusedAndTheLastGoodOneStays(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := newManager(t)
		u := m.subscribe("r", coreconfig.Source{})
		bad := routes(t, "r", "bad", `, "vhds": {}`)
		require.EqualError(t, m.Apply([]xds.Resource{bad}, false), `route configuration "r": vhds: not supported`)
		require.True(t, u.isReady(), "the start goes on")
		require.Empty(t, u.cluster())
		require.NoError(t, m.Apply([]xds.Resource{routes(t, "r", "good", "")}, false))
		require.Error(t, m.Apply([]xds.Resource{bad}, false))
		require.NoError(t, m.Apply([]xds.Resource{{Name: "r"}}, false), "one that is gone stays")
		m.Failed(coreconfig.Source{}, []string{"r", "other"}, xds.Away)
		require.NoError(t, m.Apply([]xds.Resource{routes(t, "r", "good", "")}, false), "the same is no reload")
		require.Equal(t, "good", u.cluster())
		require.Equal(t, map[string]int64{
			"rds.update_attempt": 7, "rds.update_success": 3, "rds.update_rejected": 2, "rds.update_failure": 1, "rds.update_empty": 1,
			"rds.config_reload": 1,
		}, m.values())
		u.Close()
	})
}

func TestOneThatIsGoneIsNotWaitedFor(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := newManager(t)
		u := m.subscribe("r", coreconfig.Source{})
		require.NoError(t, m.Apply([]xds.Resource{{Name: "r"}}, false))
		require.True(t, u.isReady())
		u.Close()
	})
}
