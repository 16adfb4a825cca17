package v2

import (
	"fmt"
	"net/http/httptest"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/weirproxy/weir/services/discovery/internal/httpjson"
	"github.com/weirproxy/weir/services/discovery/internal/registry"
	"github.com/weirproxy/weir/services/discovery/internal/rest/call"
)

func TestAListIsFiltered(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFixture(t)
		const at = "/v2/services/users/hosts"
		f.put(t, at+"/a", `{"address":"10.0.0.1","port":1,"ttl":"1h","zone":"z1","revision":"r1","canary":true,"tags":{"rack":"7","n":7,"o":{"x": 1}}}`)
		f.put(t, at+"/b", `{"address":"10.0.0.2","port":1,"ttl":"1h","zone":"z1","revision":"r2","canary":false,"tags":{"rack":"8:9","n":"7"}}`)
		f.put(t, at+"/c", `{"address":"10.0.0.3","port":1,"ttl":"1h","revision":"r2","draining":true}`)
		f.put(t, at+"/d", `{"address":"10.0.0.4","port":1,"ttl":"1h","zone":"z2","draining":true}`)
		time.Sleep(time.Minute)
		f.put(t, at+"/c", `{"address":"10.0.0.3","port":1,"ttl":"1h","revision":"r2"}`)
		f.put(t, at+"/c", `{"address":"10.0.0.3","port":1,"ttl":"1h","revision":"r2","draining":true}`)
		for query, want := range map[string]string{
			"":                          "a b c d",
			"zone=z1":                   "a b",
			"zone=":                     "c",
			"zone=z3":                   "",
			"revision=r2":               "b c",
			"revision=":                 "d",
			"canary=true":               "a",
			"canary=false":              "b c d",
			"state=serving":             "a b",
			"state=draining":            "c",
			"state=out":                 "d",
			"stale=true":                "",
			"stale=false":               "a b c d",
			"tag=rack":                  "a b",
			"tag=rack:7":                "a",
			"tag=rack:8:9":              "b",
			"tag=n:7":                   "a b",
			"tag=o:%7B%22x%22:1%7D":     "a",
			"tag=rack:":                 "",
			"tag=rack&tag=n:7":          "a b",
			"tag=rack:7&tag=other":      "",
			"zone=z1&revision=r2&tag=n": "b",
		} {
			require.Equal(t, strings.Fields(want), f.ids(t, at+"?"+query), query)
		}
	})
}

// What is kept of a list must not be told from a list that is made anew, as one with
// a filter is.
func TestAListThatWasKeptIsAsOneMadeAnew(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFixture(t)
		const at = "/v2/services/users/hosts"
		for i := range 30 {
			id := fmt.Sprint(i % 7)
			f.put(t, at+"/"+id, fmt.Sprintf(described, i%7+1, i%3+1))
			for range 2 {
				time.Sleep(1234567 * time.Microsecond)
				require.Equal(t, 204, f.call("POST", at+"/"+id+"/heartbeat", "").Code)
				kept, anew := f.call("GET", at, ""), f.call("GET", at+"?stale=false", "")
				require.Equal(t, anew.Body.String(), kept.Body.String())
				require.Equal(t, anew.Header(), kept.Header())
			}
		}
	})
}

func TestAListOfAnUnknownServiceIsEmpty(t *testing.T) {
	f := newFixture(t)
	require.Equal(t, map[string]any{"service": "a/b", "known": false, "index": "0000000000000000", "hosts": []any{}},
		f.get(t, "/v2/services/a%2Fb/hosts"))
	f.put(t, "/v2/services/a%2Fb/hosts/x", fine)
	f.call("DELETE", "/v2/services/a%2Fb/hosts/x", "")
	require.Equal(t, map[string]any{"service": "a/b", "known": true, "index": "0000000000000000", "hosts": []any{}},
		f.get(t, "/v2/services/a%2Fb/hosts"))
}

func TestWhatIsWrongWithAListsQueryIsRefused(t *testing.T) {
	f := newFixture(t)
	for query, faults := range map[string][]string{
		"canary=yes&stale=1&state=up":       {`canary: "yes" is not one of true, false`, `stale: "1" is not one of true, false`, `state: "up" is not one of serving, draining, out`},
		"zone=a&zone=b":                     {`zone: there 2 times`},
		"zone=%ff":                          {`zone: "\xff" is not UTF-8`},
		"tag=&tag=:x":                       {`tag: "" names none`, `tag: ":x" names none`},
		strings.Repeat("tag=a&", 17):        {`tag: there 17 times, of 16 at most`},
		"index=12":                          {`index: "12" is not 16 hexadecimal digits in lower case`},
		"index=00000000000000AA":            {`index: "00000000000000AA" is not 16 hexadecimal digits in lower case`},
		"wait=30s":                          {`wait: there is no index to wait for the end of`},
		"index=0000000000000000&wait=x":     {`wait: "x" is not a duration above 0 and up to 5m0s, such as "30s"`},
		"index=0000000000000000&wait=0s":    {`wait: "0s" is not a duration above 0 and up to 5m0s, such as "30s"`},
		"index=0000000000000000&wait=5m1ns": {`wait: "5m1ns" is not a duration above 0 and up to 5m0s, such as "30s"`},
		"a=1&b=2&wait=-1s":                  {`wait: "-1s" is not a duration above 0 and up to 5m0s, such as "30s"`, `a: unknown`, `b: unknown`},
	} {
		requireRefused(t, f.call("GET", "/v2/services/users/hosts?"+query, ""), 400, faults...)
	}
}

func TestTheIndexNamesWhatAServiceIs(t *testing.T) {
	f := newFixture(t)
	const at = "/v2/services/users/hosts"
	index := func() string { return f.get(t, at)["index"].(string) }
	seen := map[string]bool{index(): true}
	isNew := func() bool {
		i := index()
		defer func() { seen[i] = true }()
		return !seen[i]
	}
	f.put(t, at+"/a", fine)
	require.True(t, isNew(), "a host came")
	f.put(t, at+"/a", fine)
	require.False(t, isNew(), "a heartbeat is no change")
	f.put(t, at+"/a", whole)
	require.True(t, isNew(), "a host changed")
	require.Equal(t, 200, f.call("PUT", "/v2/settings/weight", `{"scope":{"service":"users"},"weight":7,"author":"ada","reason":"r"}`).Code)
	require.True(t, isNew(), "an operator weighed it")
	require.Equal(t, 200, f.call("PUT", "/v2/settings/drain", `{"scope":{"service":"users"},"author":"ada","reason":"r"}`).Code)
	require.True(t, isNew(), "an operator drains it")
	require.Equal(t, index(), f.get(t, at+"?zone=none")["index"], "filters do not matter")
	require.Equal(t, index(), f.get(t, "/v2/services/users/revisions")["index"])
	require.Equal(t, index(), f.get(t, "/v2/services")["services"].([]any)[0].(map[string]any)["index"])
}

func TestAListThatTheCallerHasIsNotSentAgain(t *testing.T) {
	f := newFixture(t)
	const at = "/v2/services/users/hosts"
	f.put(t, at+"/a", fine)
	w := f.call("GET", at, "")
	etag := w.Header().Get("ETag")
	index := strings.Trim(etag, `W/"`)
	require.Equal(t, index, decode(t, w.Body)["index"])
	with := func(target, tag string) *httptest.ResponseRecorder {
		r := newRequest("GET", target, "")
		r.Header.Set("If-None-Match", tag)
		w := httptest.NewRecorder()
		f.ServeHTTP(w, r)
		return w
	}
	for name, w := range map[string]*httptest.ResponseRecorder{
		"by index":      f.call("GET", at+"?index="+index, ""),
		"by tag":        with(at, etag),
		"by strong tag": with(at, `"`+index+`"`),
		"by any tag":    with(at, "*"),
		"by a list":     with(at, `"x", `+etag),
	} {
		require.Equal(t, 304, w.Code, name)
		require.Empty(t, w.Body.String(), name)
		require.Equal(t, etag, w.Header().Get("ETag"), name)
	}
	for _, tag := range []string{"", `"x"`, index, `"`, `W/"0000000000000000"`} {
		require.Equal(t, 200, with(at, tag).Code, tag)
	}
	require.Equal(t, 200, with(at+"?index=0000000000000000", etag).Code, "the index goes before the tag")
}

func TestHEADAnswersWithoutABody(t *testing.T) {
	f := newFixture(t)
	server := httptest.NewServer(f)
	defer server.Close()
	response, err := server.Client().Head(server.URL + "/v2/services/users/hosts")
	require.NoError(t, err)
	defer response.Body.Close()
	require.Equal(t, 200, response.StatusCode)
	require.Equal(t, "application/json", response.Header.Get("Content-Type"))
	require.Equal(t, int64(f.call("GET", "/v2/services/users/hosts", "").Body.Len()), response.ContentLength)
}

func TestServicesAreCountedByState(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFixture(t)
		require.Equal(t, map[string]any{"services": []any{}}, f.get(t, "/v2/services"))
		for i, body := range []string{
			`{"address":"10.0.0.1","port":1,"ttl":"1h"}`, `{"address":"10.0.0.2","port":1,"ttl":"1h"}`,
			`{"address":"10.0.0.3","port":1,"ttl":"1h","draining":true}`,
		} {
			f.put(t, fmt.Sprintf("/v2/services/users/hosts/%d", i), body)
		}
		time.Sleep(time.Minute)
		synctest.Wait()
		f.put(t, "/v2/services/users/hosts/3", `{"address":"10.0.0.4","port":1,"ttl":"1h","draining":true}`)
		f.put(t, "/v2/services/carts/hosts/0", `{"address":"10.0.0.4","port":1,"ttl":"1h"}`)
		now := stamp(time.Now())
		services := f.get(t, "/v2/services")["services"].([]any)
		require.Len(t, services, 2)
		require.Equal(t, "carts", services[0].(map[string]any)["name"])
		users := services[1].(map[string]any)
		require.Regexp(t, "^[0-9a-f]{16}$", users["index"])
		delete(users, "index")
		require.Equal(t, map[string]any{
			"name": "users", "hosts": 4.0, "serving": 2.0, "draining": 1.0, "out": 1.0, "stale": 0.0, "unhealthy": 0.0, "changed_at": now,
		}, users)
	})
}

func TestAHostThatIsUnhealthyIsShownSo(t *testing.T) {
	f := newFixture(t)
	f.put(t, "/v2/services/users/hosts/0", `{"address":"10.0.0.1","port":1,"ttl":"1h"}`)
	require.NotContains(t, f.get(t, "/v2/services/users/hosts/0"), "unhealthy")
	require.Equal(t, 1, f.registry.SetHealth(map[registry.Key]bool{{Service: "users", ID: "0"}: true}, "test"))
	require.Equal(t, true, f.get(t, "/v2/services/users/hosts/0")["unhealthy"])
	require.Equal(t, 1.0, f.get(t, "/v2/services")["services"].([]any)[0].(map[string]any)["unhealthy"])
}

func TestADeploymentIsSeenByRevision(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFixture(t)
		begin := time.Now()
		at := func(d time.Duration) string { return stamp(begin.Add(d)) }
		put := func(id, revision, more string) {
			f.put(t, "/v2/services/users/hosts/"+id, `{"address":"10.0.0.1","port":1,"ttl":"1h","revision":"`+revision+`"`+more+`}`)
			time.Sleep(time.Second)
		}
		put("a", "r1", "")
		put("b", "r1", "")
		put("c", "r1", `,"draining":true`)
		put("d", "r2", `,"canary":true`)
		put("e", "", "")
		answer := f.get(t, "/v2/services/users/revisions")
		delete(answer, "index")
		require.Equal(t, map[string]any{"service": "users", "known": true, "revisions": []any{
			map[string]any{"revision": "", "hosts": 1.0, "serving": 1.0, "canary": 0.0, "oldest": at(4 * time.Second), "newest": at(4 * time.Second)},
			map[string]any{"revision": "r2", "hosts": 1.0, "serving": 1.0, "canary": 1.0, "oldest": at(3 * time.Second), "newest": at(3 * time.Second)},
			map[string]any{"revision": "r1", "hosts": 3.0, "serving": 2.0, "canary": 0.0, "oldest": at(0), "newest": at(2 * time.Second)},
		}}, answer)
		require.Equal(t, map[string]any{"service": "none", "known": false, "index": "0000000000000000", "revisions": []any{}},
			f.get(t, "/v2/services/none/revisions"))
	})
}

func TestADurationIsWrittenAsGoDoes(t *testing.T) {
	for _, d := range []time.Duration{0, 1, time.Second, 59 * time.Second, time.Minute, 90 * time.Second, time.Hour, 1500 * time.Millisecond} {
		require.Equal(t, `"`+d.String()+`"`, string(appendSeconds(nil, d)))
	}
}

func TestAnIndexIsReadAsItIsWritten(t *testing.T) {
	for _, version := range []registry.Version{0, 1, 0xfedcba9876543210, ^registry.Version(0)} {
		text := hexText(version)
		require.Equal(t, `"`+text+`"`, string(httpjson.AppendHex(nil, uint64(version))))
		read, ok := readHex(text)
		require.True(t, ok)
		require.Equal(t, version, registry.Version(read))
	}
}

// FuzzListQuery sends any query: it must be refused with a reason, or be
// answered.
func FuzzListQuery(f *testing.F) {
	for _, query := range []string{
		"zone=a&revision=b&canary=true&stale=false&state=out&tag=a:b&tag=c", "index=0000000000000000&wait=1ns", "wait=1s", "%zz", "tag=%ff", "a;b",
	} {
		f.Add(query)
	}
	face := &face{longPollMax: time.Minute}
	f.Fuzz(func(t *testing.T, raw string) {
		r := newRequest("GET", "/v2/services/users/hosts", "")
		r.URL.RawQuery = raw
		q := call.ReadQuery(r)
		filter := readFilter(q)
		list, err := face.readListQuery(r)
		if err != nil {
			require.ErrorAs(t, err, new(*call.Refusal))
			require.NotEmpty(t, err.Error())
			return
		}
		require.True(t, list.hasKnown || list.wait == 0)
		require.LessOrEqual(t, len(filter.tags), maxTagFilters)
		filter.passes(&registry.View{Record: registry.Record{Host: &registry.Host{}}})
	})
}
