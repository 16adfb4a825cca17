package v2

import (
	"fmt"
	"net/netip"
	"strconv"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/weirproxy/weir/services/discovery/internal/registry"
	"github.com/weirproxy/weir/services/discovery/internal/rest/call"
)

func TestASettingIsInForceUntilItIsEnded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFixture(t)
		f.put(t, "/v2/services/users/hosts/a", `{"address":"10.0.0.1","port":1,"ttl":"1h","weight":50,"zone":"z"}`)
		made := stamp(time.Now())
		w := f.call("PUT", "/v2/settings/weight", `{"scope":{"service":"users","id":"a"},"weight":7,"author":"ada","reason":"slow disk"}`)
		require.Equal(t, 200, w.Code, w.Body)
		want := map[string]any{
			"kind": "weight", "scope": map[string]any{"service": "users", "id": "a"}, "weight": 7.0,
			"author": "ada", "reason": "slow disk", "made": made,
		}
		require.Equal(t, want, decode(t, w.Body))
		require.Equal(t, map[string]any{"settings": []any{want}}, f.get(t, "/v2/settings"))
		weights := func() []any {
			shown := f.get(t, "/v2/services/users/hosts/a")
			return []any{shown["weight"], shown["own_weight"]}
		}
		require.Equal(t, []any{7.0, 50.0}, weights())
		f.put(t, "/v2/services/users/hosts/a", `{"address":"10.0.0.1","port":1,"ttl":"1h","weight":60,"zone":"z"}`)
		require.Equal(t, []any{7.0, 60.0}, weights(), "no heartbeat changes it")
		require.Equal(t, 204, f.call("DELETE", "/v2/settings/weight?service=users&id=a", "").Code)
		require.Equal(t, []any{60.0, 60.0}, weights())
		requireRefused(t, f.call("DELETE", "/v2/settings/weight?service=users&id=a", ""), 404, "there is no setting weight of that scope")
	})
}

func TestASettingEndsByItself(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFixture(t)
		f.put(t, "/v2/services/users/hosts/a", `{"address":"10.0.0.1","port":1,"ttl":"1h","zone":"z"}`)
		state := func() any { return f.get(t, "/v2/services/users/hosts/a")["state"] }
		w := f.call("PUT", "/v2/settings/drain", `{"scope":{"zone":"z"},"author":"ada","reason":"r","expires_in":"1h"}`)
		require.Equal(t, 200, w.Code, w.Body)
		require.Equal(t, stamp(time.Now().Add(time.Hour)), decode(t, w.Body)["expires"])
		require.Equal(t, "draining", state())
		time.Sleep(31 * time.Second)
		require.Equal(t, "out", state())
		time.Sleep(time.Hour)
		f.put(t, "/v2/services/users/hosts/a", `{"address":"10.0.0.1","port":1,"ttl":"1h","zone":"z"}`)
		require.Equal(t, "serving", state())
		require.Empty(t, f.get(t, "/v2/settings")["settings"])
	})
}

func TestEveryScopeCanBeSet(t *testing.T) {
	f := newFixture(t)
	for _, scope := range []string{`{"zone":"z"}`, `{"service":"users"}`, `{"service":"users","zone":"z"}`, `{"service":"users","id":"a"}`} {
		w := f.call("PUT", "/v2/settings/maintenance", `{"scope":`+scope+`,"author":"ada","reason":"r"}`)
		require.Equal(t, 200, w.Code, w.Body)
	}
	require.Len(t, f.get(t, "/v2/settings")["settings"], 4)
	for _, query := range []string{"zone=z", "service=users", "service=users&zone=z", "service=users&id=a"} {
		require.Equal(t, 204, f.call("DELETE", "/v2/settings/maintenance?"+query, "").Code, query)
	}
}

func TestWhatIsWrongWithASettingIsToldAllAtOnce(t *testing.T) {
	long := strings.Repeat("x", 1001)
	for name, test := range map[string]struct {
		kind, body string
		faults     []string
	}{
		"no kind":        {"wight", `{"scope":{"zone":"z"},"author":"ada","reason":"r"}`, []string{`kind: "wight" is not one of weight, drain, maintenance`}},
		"no object":      {"drain", `"z"`, []string{`body: not a JSON object: a string`}},
		"nothing":        {"weight", `{}`, []string{`scope: missing`, `weight: missing`, `author: missing`, `reason: missing`}},
		"no scope":       {"drain", `{"scope":{},"author":"ada","reason":"r"}`, []string{`scope: names neither service nor zone`}},
		"a null scope":   {"drain", `{"scope":null,"author":"ada","reason":"r"}`, []string{`scope: not a JSON object: null`}},
		"id and zone":    {"drain", `{"scope":{"service":"s","id":"a","zone":"z"},"author":"ada","reason":"r"}`, []string{`scope: names both id and zone`}},
		"an id alone":    {"drain", `{"scope":{"id":"a"},"author":"ada","reason":"r"}`, []string{`scope: names an id, but no service`}},
		"a wrong scope":  {"drain", `{"scope":{"service":"*","id":7,"zones":"z","zone":""},"author":"ada","reason":"r"}`, []string{`scope.service: "*" is not a name`, `scope.id: 7 is not a string`, `scope.zone: "" is not a name`, `scope.zones: unknown`}},
		"a drain weighs": {"drain", `{"scope":{"zone":"z"},"weight":1,"author":"ada","reason":"r"}`, []string{`weight: is of the kind weight alone`}},
		"a weight of 0":  {"weight", `{"scope":{"zone":"z"},"weight":0,"author":"ada","reason":"r"}`, []string{`weight: 0 is not an integer from 1 to 100`}},
		"empty texts":    {"drain", `{"scope":{"zone":"z"},"author":"","reason":""}`, []string{`author: is empty`, `reason: is empty`}},
		"texts too long": {"drain", `{"scope":{"zone":"z"},"author":"` + long[:256] + `","reason":"` + long + `"}`, []string{`author: has 256 bytes, of 255 at most`, `reason: has 1001 bytes, of 1000 at most`}},
		"no expiry":      {"drain", `{"scope":{"zone":"z"},"author":"ada","reason":"r","expires_in":"0s","expires":"x"}`, []string{`expires_in: "0s" is not a duration from 1s to 8784h0m0s in whole seconds, such as "30s"`, `expires: unknown`}},
	} {
		t.Run(name, func(t *testing.T) {
			f := newFixture(t)
			requireRefused(t, f.call("PUT", "/v2/settings/"+test.kind, test.body), 400, test.faults...)
			require.Empty(t, f.get(t, "/v2/settings")["settings"])
		})
	}
}

func TestWhatIsWrongWithEndingASettingIsRefused(t *testing.T) {
	f := newFixture(t)
	for target, faults := range map[string][]string{
		"weigth?zone=z":                    {`kind: "weigth" is not one of weight, drain, maintenance`},
		"drain":                            {`scope: names neither service nor zone`},
		"drain?id=a":                       {`scope: names an id, but no service`},
		"drain?service=s&id=a&zone=z":      {`scope: names both id and zone`},
		"drain?service=*&zone=":            {`service: "*" is not a name`, `zone: "" is not a name`},
		"drain?zone=a&zone=b&host=c&%61=d": {`zone: there 2 times`, `a: unknown`, `host: unknown`},
	} {
		requireRefused(t, f.call("DELETE", "/v2/settings/"+target, ""), 400, faults...)
	}
}

// clerk is the rule of a caller who may register hosts of "carts" at 10.0.0.1.
const clerk = "services: [carts], addresses: [10.0.0.1]"

func TestACallerMayDoNoMoreThanItMay(t *testing.T) {
	f := newFixture(t).as(t, "carts-team", clerk)
	const (
		service  = `the rule of "carts-team" does not let it change hosts of service "users"`
		address  = `address %s is not that of the caller, 192.0.2.1, and it may register no other`
		operator = `the rule of "carts-team" does not let it do what is an operator's`
	)
	for _, h := range []registry.Host{
		{Key: registry.Key{Service: "users", ID: "a"}, Address: netip.MustParseAddrPort("10.0.0.1:1"), TTL: time.Hour},
		{Key: registry.Key{Service: "carts", ID: "b"}, Address: netip.MustParseAddrPort("10.0.0.2:1"), TTL: time.Hour},
	} {
		_, err := f.registry.Put(h, "test")
		require.NoError(t, err)
	}
	for _, test := range []struct{ method, target, body, reason string }{
		{"PUT", "/v2/services/users/hosts/a", fine, service},
		{"DELETE", "/v2/services/users/hosts/a", "", service},
		{"POST", "/v2/services/users/hosts/a/heartbeat", "", service},
		{"PUT", "/v2/services/carts/hosts/a", `{"address":"10.0.0.2","port":1}`, fmt.Sprintf(address, "10.0.0.2")},
		{"PUT", "/v2/services/carts/hosts/a", `{"address":"10.0.0.1","additional_addresses":["fd00::1"],"port":1}`, fmt.Sprintf(address, "fd00::1")},
		{"PUT", "/v2/services/carts/hosts/b", fine, fmt.Sprintf(address, "10.0.0.2")},
		{"POST", "/v2/services/carts/hosts/b/heartbeat", "", fmt.Sprintf(address, "10.0.0.2")},
		{"DELETE", "/v2/services/carts/hosts/b", "", fmt.Sprintf(address, "10.0.0.2")},
		{"PUT", "/v2/settings/drain", `{"scope":{"zone":"z"},"reason":"r"}`, operator},
		{"DELETE", "/v2/settings/drain?zone=z", "", operator},
		{"DELETE", "/v2/guard/suspension?reason=r", "", operator},
	} {
		requireRefused(t, f.call(test.method, test.target, test.body), 403, test.reason)
	}
	f.put(t, "/v2/services/carts/hosts/a", fine)
	require.Equal(t, 204, f.call("POST", "/v2/services/carts/hosts/a/heartbeat", "").Code)
	require.Equal(t, 204, f.call("DELETE", "/v2/services/carts/hosts/a", "").Code)
	require.Equal(t, []string{"registered b by test", "registered a by carts-team", "deregistered a by carts-team"}, f.events(t, "carts"))
	require.Equal(t, []string{"a"}, f.ids(t, "/v2/services/users/hosts"))
}

func TestTheAuthorOfASettingIsWhoMakesTheCall(t *testing.T) {
	f := newFixture(t).as(t, "ada", "operator: true")
	for _, author := range []string{"", `,"author":"somebody else"`} {
		w := f.call("PUT", "/v2/settings/drain", `{"scope":{"zone":"z"},"reason":"r"`+author+`}`)
		require.Equal(t, 200, w.Code, w.Body)
		require.Equal(t, "ada", decode(t, w.Body)["author"])
	}
}

// FuzzSetting sends any body: it must be refused with a reason, or give a
// setting that can be.
func FuzzSetting(f *testing.F) {
	f.Add("drain", []byte(`{"scope":{"zone":"z"},"author":"ada","reason":"r","expires_in":"1h"}`))
	f.Add("weight", []byte(`{"scope":{"service":"s","id":"a"},"weight":7,"author":"ada","reason":"r"}`))
	f.Add("weight", []byte(`{"scope":{"service":"s","service":"a"},"weight":"7","reason":null}`))
	f.Add("", []byte(`{"scope":[],"x":1}`))
	now := time.Now()
	f.Fuzz(func(t *testing.T, kind string, body []byte) {
		var wrong call.Faults
		s := readSetting(registry.SettingKind(kind), body, "", now, &wrong)
		if wrong != nil {
			require.NotEmpty(t, wrong.Refusal().Error())
			return
		}
		require.NotEmpty(t, s.Author)
		require.NotEmpty(t, s.Reason)
		require.NotEqual(t, registry.Scope{}, s.Scope)
		require.Equal(t, s.Kind == registry.Weigh, s.Weight > 0)
		require.False(t, s.Scope.ID != "" && (s.Scope.Service == "" || s.Scope.Zone != ""))
		require.True(t, s.Expires.IsZero() || s.Expires.After(now))
	})
}

// fillSettings makes as many settings as there may be.
func (f *fixture) fillSettings(t testing.TB) {
	t.Helper()
	for i := range registry.MaxSettings {
		_, err := f.registry.Make(registry.Setting{
			Scope: registry.Scope{Service: "users", ID: strconv.Itoa(i)}, Kind: registry.Drain, Author: "ada", Made: time.Now(),
		})
		require.NoError(t, err)
	}
}
