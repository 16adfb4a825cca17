package v2

import (
	"encoding/json"
	"fmt"
	"net/http/httptest"
	"net/netip"
	"strings"
	"testing"
	"testing/synctest"
	"time"
	"unicode/utf8"

	"github.com/stretchr/testify/require"

	"github.com/weirproxy/weir/services/discovery/internal/registry"
	"github.com/weirproxy/weir/services/discovery/internal/rest/call"
	"github.com/weirproxy/weir/services/discovery/internal/rest/jsontext"
)

// whole is a host that says all of itself.
const whole = `{"address":"10.0.0.1","additional_addresses":["fd00::2","fd00::1"],"port":8080,"ports":{"http":80,"grpc":9090},` +
	`"zone":"eu-1a","region":"eu-1","repo":"users-repo","revision":"r1","weight":50,"canary":false,` +
	`"tags":{"rack":"7","gpu":{ "n" : 2 },"spot":true},"ttl":"90s","draining":false}`

func TestAHostIsShownAsItDescribedItself(t *testing.T) {
	f := newFixture(t)
	w := f.call("PUT", "/v2/services/users/hosts/a%2Fb", whole)
	require.Equal(t, 201, w.Code, w.Body)
	answer := decode(t, w.Body)
	require.Regexp(t, "^[0-9a-f]{16}$", answer["lease"])
	delete(answer, "lease")
	require.Equal(t, map[string]any{"service": "users", "id": "a/b", "ttl": "1m30s", "outcome": "new"}, answer)

	shown := f.get(t, "/v2/services/users/hosts/a%2Fb")
	require.Equal(t, []any{shown}, f.get(t, "/v2/services/users/hosts")["hosts"])
	for _, name := range []string{"first_seen", "last_check_in"} {
		at, err := time.Parse(time.RFC3339, shown[name].(string))
		require.NoError(t, err)
		require.WithinDuration(t, time.Now(), at, time.Minute)
		delete(shown, name)
	}
	require.Equal(t, map[string]any{
		"service": "users", "id": "a/b", "address": "10.0.0.1", "additional_addresses": []any{"fd00::1", "fd00::2"},
		"port": 8080.0, "ports": map[string]any{"grpc": 9090.0, "http": 80.0},
		"zone": "eu-1a", "region": "eu-1", "repo": "users-repo", "revision": "r1",
		"weight": 50.0, "own_weight": 50.0, "canary": false,
		"tags": map[string]any{"rack": "7", "gpu": map[string]any{"n": 2.0}, "spot": true},
		"ttl":  "1m30s", "state": "serving", "stale": false,
	}, shown)
}

func TestAHostThatSaysLittleHasTheDefaults(t *testing.T) {
	f := newFixture(t)
	f.put(t, "/v2/services/users/hosts/a", `{"address":"::ffff:10.0.0.1","port":1}`)
	shown := f.get(t, "/v2/services/users/hosts/a")
	delete(shown, "first_seen")
	delete(shown, "last_check_in")
	require.Equal(t, map[string]any{
		"service": "users", "id": "a", "address": "10.0.0.1", "additional_addresses": []any{},
		"port": 1.0, "ports": map[string]any{}, "zone": "", "region": "", "repo": "", "revision": "",
		"tags": map[string]any{}, "ttl": "1m0s", "state": "serving", "stale": false,
	}, shown)
}

func TestALeaseIsShownToItsHostAlone(t *testing.T) {
	f := newFixture(t)
	lease := f.put(t, "/v2/services/users/hosts/a", whole)["lease"].(string)
	for _, target := range []string{
		"/v2/services/users/hosts/a", "/v2/services/users/hosts", "/v2/services",
		"/v2/services/users/revisions", "/v2/services/users/history", "/v2/settings",
	} {
		require.NotContains(t, f.call("GET", target, "").Body.String(), lease, target)
	}
}

func TestTheSamePutAgainIsAHeartbeatAndNoMore(t *testing.T) {
	f := newFixture(t)
	first := f.put(t, "/v2/services/users/hosts/a", whole)
	reordered := strings.Replace(whole, `"fd00::2","fd00::1"`, `"fd00:0::1","fd00::2"`, 1)
	w := f.call("PUT", "/v2/services/users/hosts/a", reordered)
	require.Equal(t, 200, w.Code)
	again := decode(t, w.Body)
	require.Equal(t, "unchanged", again["outcome"])
	require.Equal(t, first["lease"], again["lease"])
	require.Equal(t, []string{"registered a by 192.0.2.1"}, f.events(t, "users"))
}

func TestAPutReplacesAllThatTheHostSaidBefore(t *testing.T) {
	f := newFixture(t)
	first := f.put(t, "/v2/services/users/hosts/a", whole)
	changed := f.put(t, "/v2/services/users/hosts/a", fine)
	require.Equal(t, "changed", changed["outcome"])
	require.Equal(t, first["lease"], changed["lease"])
	shown := f.get(t, "/v2/services/users/hosts/a")
	require.Empty(t, shown["tags"])
	require.Empty(t, shown["ports"])
	require.Empty(t, shown["additional_addresses"])
	require.NotContains(t, shown, "weight")
	require.NotContains(t, shown, "canary")
}

func TestAHostThatDrainsIsShownSoAndThenOut(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFixture(t)
		put := func(draining bool) {
			f.put(t, "/v2/services/users/hosts/a", fmt.Sprintf(`{"address":"10.0.0.1","port":1,"ttl":"1h","draining":%v}`, draining))
		}
		state := func() any { return f.get(t, "/v2/services/users/hosts/a")["state"] }
		put(true)
		require.Equal(t, "draining", state())
		time.Sleep(30 * time.Second)
		require.Equal(t, "out", state())
		put(false)
		require.Equal(t, "serving", state())
	})
}

func TestAHostLivesForTheTTLThatItNames(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFixture(t)
		f.put(t, "/v2/services/users/hosts/a", `{"address":"10.0.0.1","port":1,"ttl":"3s"}`)
		f.put(t, "/v2/services/users/hosts/b", `{"address":"10.0.0.2","port":1}`)
		time.Sleep(2999 * time.Millisecond)
		synctest.Wait()
		require.Equal(t, []string{"a", "b"}, f.ids(t, "/v2/services/users/hosts"))
		time.Sleep(2 * time.Second)
		synctest.Wait()
		require.Equal(t, []string{"b"}, f.ids(t, "/v2/services/users/hosts"))
	})
}

func TestWhatIsWrongWithAHostIsToldAllAtOnce(t *testing.T) {
	long := strings.Repeat("x", 256)
	with := func(member string) string { return strings.TrimSuffix(fine, "}") + "," + member + "}" }
	for name, test := range map[string]struct {
		body   string
		faults []string
	}{
		"no JSON":               {`{"address"`, []string{`body: not a JSON object: unexpected end of JSON input`}},
		"null":                  {`null`, nil},
		"a list":                {`[]`, nil},
		"two objects":           {fine + fine, nil},
		"no UTF-8":              {with(`"zone":"` + "\xff" + `"`), []string{`body: not UTF-8`}},
		"half a surrogate pair": {with(`"zone":"\ud800x"`), []string{`body: holds half of a surrogate pair: \ud800`}},
		"half a pair and more":  {with(`"zone":"\ud800x","weight":0,"ttl":1,"x":1`), []string{`body: holds half of a surrogate pair: \ud800`, `weight: 0 is not an integer from 1 to 100`, `ttl: 1 is not a duration from 1s to 1h0m0s in whole seconds, such as "30s"`, `x: unknown`}},
		"the other half":        {with(`"tags":{"\udc00":1}`), []string{`body: holds half of a surrogate pair: \udc00`}},
		"nothing":               {`{}`, []string{`address: missing`, `port: missing`}},
		"unknown members":       {with(`"zoned":1,"ttls":null`), []string{`ttls: unknown`, `zoned: unknown`}},
		"a member without name": {with(`"":1`), []string{`"": unknown`}},
		"members in other case": {with(`"Zone":"a"`), []string{`Zone: unknown`}},
		"members twice":         {with(`"port":1,"zone":"a","z\u006fne":"b","tags":{"x":1,"x":2},"ports":{"p":1,"p":2}`), []string{`port: there twice`, `zone: there twice`, `ports.p: there twice`, `tags.x: there twice`}},

		"null everywhere": {`{"address":null,"additional_addresses":null,"port":null,"ports":null,"zone":null,"region":null,"repo":null,"revision":null,` +
			`"weight":null,"canary":null,"tags":null,"ttl":null,"draining":null}`, []string{
			`address: null is not a string`, `additional_addresses: null is not an array`, `port: null is not an integer from 1 to 65535`,
			`ports: not a JSON object: null`, `zone: null is not a string`, `region: null is not a string`, `repo: null is not a string`,
			`revision: null is not a string`, `weight: null is not an integer from 1 to 100`, `canary: null is not true or false`,
			`tags: not a JSON object: null`, `ttl: null is not a duration from 1s to 1h0m0s in whole seconds, such as "30s"`, `draining: null is not true or false`,
		}},
		"another type everywhere": {`{"address":1,"additional_addresses":"10.0.0.2","port":"80","ports":[80],"zone":{},"region":[],"repo":true,"revision":7,` +
			`"weight":"50","canary":"true","tags":"a","ttl":30,"draining":0}`, []string{
			`address: 1 is not a string`, `additional_addresses: "10.0.0.2" is not an array`, `port: "80" is not an integer from 1 to 65535`,
			`ports: not a JSON object: an array`, `zone: {} is not a string`, `region: [] is not a string`, `repo: true is not a string`,
			`revision: 7 is not a string`, `weight: "50" is not an integer from 1 to 100`, `canary: "true" is not true or false`,
			`tags: not a JSON object: a string`, `ttl: 30 is not a duration from 1s to 1h0m0s in whole seconds, such as "30s"`, `draining: 0 is not true or false`,
		}},
		"no address of a host": {`{"address":"0.0.0.0","port":1}`, []string{`address: "0.0.0.0" is not the address of a host`}},
		"addresses often": {with(`"additional_addresses":["10.0.0.1","10.0.0.1","fd00::1","fd00::1","fd00::1","x","x"]`), []string{
			`additional_addresses: "10.0.0.1" is there twice`, `additional_addresses: "fd00::1" is there twice`, `additional_addresses: "x" is not an IPv4 or IPv6 address`}},
		"addresses twice":        {with(`"additional_addresses":["10.0.0.1","fd00::1","fd00:0::1","fe80::1%a",7]`), []string{`additional_addresses: "10.0.0.1" is there twice`, `additional_addresses: "fd00:0::1" is there twice`, `additional_addresses: "fe80::1%a" has a zone, which means nothing to others`, `additional_addresses: 7 is not a string`}},
		"too many addresses":     {with(`"additional_addresses":["a","a","a","a","a","a","a","a","a"]`), []string{`additional_addresses: has 9 elements, of 8 at most`}},
		"port 0":                 {`{"address":"10.0.0.1","port":0}`, []string{`port: 0 is not an integer from 1 to 65535`}},
		"a port below 0":         {`{"address":"10.0.0.1","port":-1}`, []string{`port: -1 is not an integer from 1 to 65535`}},
		"a port too high":        {`{"address":"10.0.0.1","port":65536}`, []string{`port: 65536 is not an integer from 1 to 65535`}},
		"a port far too high":    {`{"address":"10.0.0.1","port":123456789012345678901234567890123456789012345678901234567890123456789}`, []string{`port: 1234567890123456789012345678901234567890123456789012345678901234… is not an integer from 1 to 65535`}},
		"a port with a fraction": {`{"address":"10.0.0.1","port":80.5}`, []string{`port: 80.5 is not an integer from 1 to 65535`}},
		"ports that are none":    {with(`"ports":{"":1,"a b":2,"ok":0,"x":"1"}`), []string{`ports."": the name is not 1 to 63 letters, digits, "-", "_" and "."`, `ports.a b: the name is not 1 to 63 letters, digits, "-", "_" and "."`, `ports.ok: 0 is not an integer from 1 to 65535`, `ports.x: "1" is not an integer from 1 to 65535`}},
		"a port's name too long": {with(`"ports":{"` + long[:64] + `":1}`), []string{`ports.` + long[:64] + `: the name is not 1 to 63 letters, digits, "-", "_" and "."`}},
		"too many ports":         {with(`"ports":{"a":1,"b":1,"c":1,"d":1,"e":1,"f":1,"g":1,"h":1,"i":1,"j":1,"k":1,"l":1,"m":1,"n":1,"o":1,"p":1,"q":1}`), []string{`ports: has 17 members, of 16 at most`}},
		"texts too long":         {with(`"zone":"` + long + `","revision":"` + long + `"`), []string{`zone: has 256 bytes, of 255 at most`, `revision: has 256 bytes, of 255 at most`}},
		"control characters":     {with(`"region":"a\u0000b","repo":"a\nb"`), []string{`region: "a\x00b" holds a control character`, `repo: "a\nb" holds a control character`}},
		"a weight of 0":          {with(`"weight":0`), []string{`weight: 0 is not an integer from 1 to 100`}},
		"a weight of 101":        {with(`"weight":101`), []string{`weight: 101 is not an integer from 1 to 100`}},
		"tags that v1 shows":     {with(`"tags":{"az":"a","canary":true}`), []string{`tags.az: is not a tag here: zone says it`, `tags.canary: is not a tag here: canary says it`}},
		"tags without a name":    {with(`"tags":{"":1}`), []string{`tags: "" is not a name`}},
		"tags some cannot read":  {with(`"tags":{"a":{"b":1,"b":2},"c":[1e999]}`), []string{`tags.a: holds an object that has "b" twice`, `tags.c: holds 1e999, which is beyond signed numbers of 64 bits`}},
		"tags too large":         {with(`"tags":{"a":"` + strings.Repeat("x", 16384) + `"}`), []string{`tags: tags too large: 16388 bytes, of 16384 at most`}},
		"a ttl of 0":             {with(`"ttl":"0s"`), []string{`ttl: "0s" is not a duration from 1s to 1h0m0s in whole seconds, such as "30s"`}},
		"a ttl without a unit":   {with(`"ttl":"30"`), []string{`ttl: "30" is not a duration from 1s to 1h0m0s in whole seconds, such as "30s"`}},
		"a ttl with a fraction":  {with(`"ttl":"1.5s"`), []string{`ttl: "1.5s" is not a duration from 1s to 1h0m0s in whole seconds, such as "30s"`}},
		"a ttl above the bound":  {with(`"ttl":"3601s"`), []string{`ttl: "3601s" is not a duration from 1s to 1h0m0s in whole seconds, such as "30s"`}},
	} {
		t.Run(name, func(t *testing.T) {
			f := newFixture(t)
			f.put(t, "/v2/services/users/hosts/a", whole)
			before := f.get(t, "/v2/services/users/hosts/a")
			w := f.call("PUT", "/v2/services/users/hosts/a", test.body)
			if test.faults == nil {
				require.Equal(t, 400, w.Code)
				require.Contains(t, w.Body.String(), `"error":"body: not a JSON object: `)
			} else {
				requireRefused(t, w, 400, test.faults...)
			}
			require.Equal(t, before, f.get(t, "/v2/services/users/hosts/a"), "what was there is still there")
		})
	}
}

func TestSoManyMembersThatAreThereTwiceAreToldOf(t *testing.T) {
	body := "{"
	for i := range 2 * (jsontext.MaxTwice + 1) {
		body += fmt.Sprintf(`"%04d":0,`, i/2)
	}
	w := newFixture(t).call("POST", "/v2/heartbeats", body+`"leases":[]}`)
	require.Equal(t, 400, w.Code)
	require.Equal(t, jsontext.MaxTwice, strings.Count(w.Body.String(), `"reason":"there twice"`))
	require.Contains(t, w.Body.String(), `{"field":"body","reason":"more names may be there twice: 100 are told"}`)
}

func TestABodyThatIsNotTakenIsRefused(t *testing.T) {
	f := newFixture(t)
	for _, test := range []struct{ method, target, body string }{
		{"PUT", "/v2/services/users/hosts/a", fine},
		{"POST", "/v2/services/users/hosts/a/heartbeat", `{}`},
		{"POST", "/v2/heartbeats", `{"leases":[]}`},
		{"PUT", "/v2/settings/drain", `{"scope":{"zone":"a"},"author":"ada","reason":"r"}`},
	} {
		for _, given := range []string{"", "text/plain", "application/x-www-form-urlencoded", "application/json-patch+json", ";"} {
			r := httptest.NewRequest(test.method, test.target, strings.NewReader(test.body))
			if given != "" {
				r.Header.Set("Content-Type", given)
			}
			w := httptest.NewRecorder()
			f.ServeHTTP(w, r)
			requireRefused(t, w, 415, fmt.Sprintf("content-type %q: the body must be application/json", given))
		}
		for _, given := range []string{"application/json; charset=utf-16", "application/json;charset=ISO-8859-1"} {
			r := httptest.NewRequest(test.method, test.target, strings.NewReader(test.body))
			r.Header.Set("Content-Type", given)
			w := httptest.NewRecorder()
			f.ServeHTTP(w, r)
			requireRefused(t, w, 415, fmt.Sprintf("content-type %q: JSON is read as UTF-8 alone", given))
		}
		r := httptest.NewRequest(test.method, test.target, strings.NewReader(test.body))
		r.Header.Set("Content-Type", "application/json")
		r.Header.Set("Content-Encoding", "gzip")
		w := httptest.NewRecorder()
		f.ServeHTTP(w, r)
		requireRefused(t, w, 415, `content-encoding "gzip": no coded body is read`)
		limit := 64 << 10
		if test.target == "/v2/heartbeats" {
			limit = 256 << 10
		}
		requireRefused(t, f.call(test.method, test.target, test.body+strings.Repeat(" ", limit)), 413,
			fmt.Sprintf("the body is longer than %d bytes", limit))
	}
	require.Empty(t, f.ids(t, "/v2/services/users/hosts"))
}

func TestAContentTypeMayHaveParameters(t *testing.T) {
	for _, charset := range []string{"utf-8", "US-ASCII"} {
		f := newFixture(t)
		r := newRequest("PUT", "/v2/services/users/hosts/a", fine)
		r.Header.Set("Content-Type", "Application/JSON; charset="+charset)
		w := httptest.NewRecorder()
		f.ServeHTTP(w, r)
		require.Equal(t, 201, w.Code, w.Body)
	}
}

func TestOneHostTooManyIsToldToComeLater(t *testing.T) {
	f := newFixture(t)
	for i := range 10 {
		f.put(t, fmt.Sprintf("/v2/services/users/hosts/%d", i), fine)
	}
	w := f.call("PUT", "/v2/services/users/hosts/10", fine)
	requireRefused(t, w, 429, "the service has as many hosts as it may: 10")
	require.Equal(t, "10", w.Header().Get("Retry-After"))
	require.Equal(t, 200, f.call("PUT", "/v2/services/users/hosts/9", fine).Code)
}

func TestAHostIsDeletedByItsLeaseOnlyWhileItHasThat(t *testing.T) {
	f := newFixture(t)
	const path = "/v2/services/users/hosts/a"
	register := func() (lease string) {
		receipt, err := f.registry.Put(registry.Host{
			Key: registry.Key{Service: "users", ID: "a"}, Address: netip.MustParseAddrPort("10.0.0.1:1"), TTL: time.Hour,
		}, "test")
		require.NoError(t, err)
		return fmt.Sprintf("%016x", uint64(receipt.Lease))
	}
	first := register()
	require.Equal(t, 204, f.call("DELETE", path, "").Code)
	second := register()
	requireRefused(t, f.call("DELETE", path+"?lease="+first, ""), 404, `service "users" has no host "a" with that lease`)
	require.Equal(t, []string{"a"}, f.ids(t, "/v2/services/users/hosts"))
	for _, wrong := range []string{"", "12", "0000000000000000", strings.ToUpper("00000000000000ab")} {
		requireRefused(t, f.call("DELETE", path+"?lease="+wrong, ""), 400, fmt.Sprintf("lease: %q is not 16 hexadecimal digits in lower case, other than 0", wrong))
	}
	require.Equal(t, 204, f.call("DELETE", path+"?lease="+second, "").Code)
	require.Empty(t, f.ids(t, "/v2/services/users/hosts"))
}

func TestAHostThatIsDeletedIsGone(t *testing.T) {
	f := newFixture(t)
	f.put(t, "/v2/services/users/hosts/a", fine)
	f.put(t, "/v2/services/users/hosts/b", fine)
	w := f.call("DELETE", "/v2/services/users/hosts/a", "")
	require.Equal(t, 204, w.Code)
	require.Empty(t, w.Body.String())
	require.Equal(t, []string{"b"}, f.ids(t, "/v2/services/users/hosts"))
	requireRefused(t, f.call("DELETE", "/v2/services/users/hosts/a", ""), 404, `service "users" has no host "a"`)
	requireRefused(t, f.call("GET", "/v2/services/users/hosts/a", ""), 404, `service "users" has no host "a"`)
	requireRefused(t, f.call("GET", "/v2/services/nobody/hosts/a", ""), 404, `service "nobody" has no host "a"`)
	require.Equal(t, []string{"registered a by 192.0.2.1", "registered b by 192.0.2.1", "deregistered a by 192.0.2.1"}, f.events(t, "users"))
}

// FuzzPut sends any body: it must be refused with a reason, or give a host that
// every reader can take.
func FuzzPut(f *testing.F) {
	f.Add([]byte(whole))
	f.Add([]byte(fine))
	f.Add([]byte(`{"address":"fd00::1","port":1,"tags":{"a":[{"b":null}],"\u0041":"\ud83d\ude00"},"ttl":"1h"}`))
	f.Add([]byte(`{"address":"10.0.0.1","port":1e2,"ports":{"a":1,"a":2},"tags":{"a":{"b":1,"b":2}},"x":0}`))
	f.Add([]byte(`{"zone":"\ud800","additional_addresses":["","10.0.0.1"]}`))
	f.Add([]byte(`{"":false}`))
	f.Add([]byte("{\"repo\":\"\xff\""))
	t := terms{ttl: time.Minute, maxTTL: time.Hour}
	f.Fuzz(func(test *testing.T, body []byte) {
		if jsontext.CheckText(body) != nil {
			return
		}
		var wrong call.Faults
		h := t.readHost(registry.Key{Service: "users", ID: "a"}, body, &wrong)
		if wrong != nil {
			require.NotEmpty(test, wrong.Refusal().Error())
			for _, fault := range wrong {
				require.NotEmpty(test, fault.Field)
				require.NotEmpty(test, fault.Reason)
			}
			return
		}
		require.True(test, h.Address.IsValid())
		require.NotZero(test, h.Address.Port())
		require.LessOrEqual(test, h.Tags.Weight, uint8(100))
		require.GreaterOrEqual(test, h.TTL, time.Second)
		require.LessOrEqual(test, h.TTL, time.Hour)
		shown := appendHost(nil, &registry.View{Record: registry.Record{Host: &h}}, appendTime)
		require.True(test, utf8.Valid(shown), "%q", shown)
		var read struct {
			Address, Zone, Revision string
			Port                    uint16
			Ports                   map[string]uint16
			Tags                    map[string]any
		}
		require.NoError(test, json.Unmarshal(shown, &read))
		require.Equal(test, h.Tags.Zone, read.Zone)
		require.Equal(test, h.Revision, read.Revision)
		require.Equal(test, h.Address.Port(), read.Port)
		require.Len(test, read.Ports, len(h.Ports))
		require.Len(test, read.Tags, len(h.Tags.Other))
	})
}
