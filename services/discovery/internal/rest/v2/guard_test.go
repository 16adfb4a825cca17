package v2

import (
	"encoding/json"
	"net/netip"
	"testing"
	"time"

	"github.com/getkin/kin-openapi/openapi3"
	"github.com/stretchr/testify/require"

	"github.com/weirproxy/weir/internal/servicetest"
	"github.com/weirproxy/weir/services/discovery/internal/guard"
	"github.com/weirproxy/weir/services/discovery/internal/registry"
	"github.com/weirproxy/weir/services/discovery/internal/registry/registrytest"
)

// heldFixture is a fixture with a host, "last" of "users", that a guard holds.
func heldFixture(t testing.TB) *fixture {
	t.Helper()
	o := registrytest.Options()
	o.Guard = guard.Limits{LastHost: -1, Ceiling: time.Hour, ReplicaLoss: time.Minute}
	hosts := registry.New(o)
	registrytest.Run(t, hosts)
	<-hosts.Loaded()
	_, err := hosts.Put(registry.Host{
		Key: registry.Key{Service: "users", ID: "last"}, Address: netip.MustParseAddrPort("10.0.0.1:80"), TTL: time.Millisecond,
	}, "test")
	require.NoError(t, err)
	servicetest.Eventually(t, "the host is held", func() bool { return hosts.Guard().Stale == 1 })
	return fixtureOf(t, hosts)
}

func TestAHostThatAGuardHoldsIsStaleUntilTheGuardIsLifted(t *testing.T) {
	f := heldFixture(t)
	require.Equal(t, []string{"last"}, f.ids(t, "/v2/services/users/hosts?stale=true"))
	require.Empty(t, f.ids(t, "/v2/services/users/hosts?stale=false"))
	require.Equal(t, true, f.get(t, "/v2/services/users/hosts/last")["stale"])
	require.Equal(t, 1.0, f.get(t, "/v2/services")["services"].([]any)[0].(map[string]any)["stale"])
	status := f.get(t, "/v2/guard")
	require.NoError(t, readOpenAPI(t).Components.Schemas["Guard"].Value.VisitJSON(status, openapi3.EnableJSONSchema2020()))
	require.Equal(t, 1.0, status["stale"])
	require.NotContains(t, status, "lifted")
	require.NotContains(t, status["limits"], "last_host", "it has no number")
	limits := status["limits"].(map[string]any)
	require.Equal(t, []any{"1h0m0s", "1m0s"}, []any{limits["ceiling"], limits["replica_loss"]})
	held := status["holds"].([]any)[0].(map[string]any)
	require.Equal(t, []any{"last_host", 1.0}, []any{held["reason"], held["hosts"]})

	require.Equal(t, 204, f.call("DELETE", "/v2/guard/suspension?reason=the+zone+burnt+down", "").Code)
	servicetest.Eventually(t, "the host is gone", func() bool { return len(f.ids(t, "/v2/services/users/hosts")) == 0 })
	status = f.get(t, "/v2/guard")
	require.Empty(t, status["holds"])
	lifted := status["lifted"].(map[string]any)
	require.Equal(t, []any{"192.0.2.1", "the zone burnt down"}, []any{lifted["by"], lifted["reason"]})
}

func TestAGuardIsLiftedForAReason(t *testing.T) {
	f := newFixture(t)
	requireRefused(t, f.call("DELETE", "/v2/guard/suspension", ""), 400, "reason: missing")
	requireRefused(t, f.call("DELETE", "/v2/guard/suspension?reason=", ""), 400, "reason: is empty")
	requireRefused(t, f.call("DELETE", "/v2/guard/suspension?reason=a&reason=b%0A", ""), 400, "reason: there 2 times")
	require.NotContains(t, f.get(t, "/v2/guard"), "lifted")
}

// TestAllThatAGuardDoesIsShownAsTheFileSays has more than one guard does at once.
func TestAllThatAGuardDoesIsShownAsTheFileSays(t *testing.T) {
	schema := readOpenAPI(t).Components.Schemas["Guard"].Value
	at := time.Date(2026, 11, 26, 14, 30, 0, 0, time.UTC)
	status := registry.GuardStatus{
		Limits:   guard.Limits{ServiceShare: 0.25, GlobalShare: 0.15, GlobalLeast: 5, LastHost: 10, Ceiling: time.Hour, BeatLoss: 0.5, BeatLeast: 10},
		Gone:     1,
		LiftedBy: "ann", LiftReason: "the zone burnt down", LiftedAt: at,
	}
	for _, cause := range guard.Causes {
		status.Suspensions = append(status.Suspensions,
			registry.GuardSuspension{Cause: cause.String(), Detail: "d", Since: at, Lasting: true},
			registry.GuardSuspension{Cause: cause.String(), Since: at, Until: at})
	}
	for _, why := range guard.Reasons {
		status.Holds = append(status.Holds, registry.GuardHold{Reason: why.String(), Detail: "d", Since: at, Hosts: 1, Most: 2})
	}
	text, err := json.Marshal(showGuard(status))
	require.NoError(t, err)
	var shown any
	require.NoError(t, json.Unmarshal(text, &shown))
	require.NoError(t, schema.VisitJSON(shown, openapi3.EnableJSONSchema2020()))
	require.Contains(t, string(text), `{"cause":"started","detail":"d","since":"2026-11-26T14:30:00.000Z","lasting":true}`)
	require.Contains(t, string(text), `"lasting":false,"until":"2026-11-26T14:30:00.000Z"}`)
	require.Contains(t, string(text), `"lifted":{"by":"ann","reason":"the zone burnt down","at":"2026-11-26T14:30:00.000Z"}`)
	require.Contains(t, string(text), `"last_host":10,"ceiling":"1h0m0s"`)
}
