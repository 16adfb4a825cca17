package v2

import (
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/weirproxy/weir/internal/servicetest"
	"github.com/weirproxy/weir/services/discovery/internal/registry"
	"github.com/weirproxy/weir/services/discovery/internal/rest/call"
)

const short30s = `{"address":"10.0.0.1","port":8080,"ttl":"30s"}`

func TestAHeartbeatKeepsAHostForItsTTL(t *testing.T) {
	for name, beat := range map[string]func(f *fixture, lease string) *httptest.ResponseRecorder{
		"by its name": func(f *fixture, _ string) *httptest.ResponseRecorder {
			return f.call("POST", "/v2/services/users/hosts/a/heartbeat", "")
		},
		"by an empty object": func(f *fixture, _ string) *httptest.ResponseRecorder {
			return f.call("POST", "/v2/services/users/hosts/a/heartbeat", "{}")
		},
		"by name and lease": func(f *fixture, lease string) *httptest.ResponseRecorder {
			return f.call("POST", "/v2/services/users/hosts/a/heartbeat", `{"lease":"`+lease+`"}`)
		},
		"by its lease": func(f *fixture, lease string) *httptest.ResponseRecorder {
			return f.call("POST", "/v2/heartbeats", `{"leases":["`+lease+`"]}`)
		},
		"by the same PUT": func(f *fixture, _ string) *httptest.ResponseRecorder {
			return f.call("PUT", "/v2/services/users/hosts/a", short30s)
		},
		"in a chunked body": func(f *fixture, lease string) *httptest.ResponseRecorder {
			return f.chunked(`{"lease":"` + lease + `"}`)
		},
		"in no chunk": func(f *fixture, _ string) *httptest.ResponseRecorder { return f.chunked("") },
		"beside unknown ones": func(f *fixture, lease string) *httptest.ResponseRecorder {
			return f.call("POST", "/v2/heartbeats", `{"leases":["00000000000000aa","`+lease+`"]}`)
		},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				f := newFixture(t)
				lease := f.put(t, "/v2/services/users/hosts/a", short30s)["lease"].(string)
				for range 5 {
					time.Sleep(29 * time.Second)
					synctest.Wait()
					require.Less(t, beat(f, lease).Code, 300)
				}
				require.Equal(t, []string{"a"}, f.ids(t, "/v2/services/users/hosts"))
			})
		})
	}
}

// chunked is a heartbeat of one host, whose body says no length beforehand.
func (f *fixture) chunked(body string) *httptest.ResponseRecorder {
	r := newRequest("POST", "/v2/services/users/hosts/a/heartbeat", body)
	r.Body, r.ContentLength = io.NopCloser(strings.NewReader(body)), -1
	w := httptest.NewRecorder()
	f.ServeHTTP(w, r)
	return w
}

func TestAHeartbeatOfNobodyIsToldToRegister(t *testing.T) {
	f := newFixture(t)
	requireRefused(t, f.call("POST", "/v2/services/users/hosts/a/heartbeat", ""), 404, `service "users" has no host "a"`)
	old := f.put(t, "/v2/services/users/hosts/a", fine)["lease"].(string)
	require.Equal(t, 204, f.call("DELETE", "/v2/services/users/hosts/a", "").Code)
	now := f.put(t, "/v2/services/users/hosts/a", fine)["lease"].(string)
	requireRefused(t, f.call("POST", "/v2/services/users/hosts/a/heartbeat", `{"lease":"`+old+`"}`), 404,
		`host "a" of service "users" has another lease now: register again`)
	require.Equal(t, 204, f.call("POST", "/v2/services/users/hosts/a/heartbeat", `{"lease":"`+now+`"}`).Code)
	w := f.call("POST", "/v2/heartbeats", `{"leases":["`+old+`","`+now+`","0000000000000000"]}`)
	require.Equal(t, 200, w.Code)
	require.Equal(t, `{"unknown":["`+old+`","0000000000000000"]}`+"\n", w.Body.String())
	require.JSONEq(t, `{"unknown":[]}`, f.call("POST", "/v2/heartbeats", ` { "leases" : [ ] } `).Body.String())
}

func TestALeaseThatIsNoneHarmsNoOther(t *testing.T) {
	f := newFixture(t)
	lease := f.put(t, "/v2/services/users/hosts/a", fine)["lease"].(string)
	lastCheckIn := func() time.Time {
		v, found, err := f.registry.Find(registry.Key{Service: "users", ID: "a"})
		require.NoError(t, err)
		require.True(t, found)
		return v.LastCheckIn
	}
	before := lastCheckIn()
	w := f.call("POST", "/v2/heartbeats", `{"leases":["00000000000000AA","`+lease+`","","0000000000000000","+0000000000000aa"]}`)
	require.Equal(t, 200, w.Code)
	require.JSONEq(t, `{"unknown":["0000000000000000","00000000000000AA","","+0000000000000aa"]}`, w.Body.String())
	require.True(t, lastCheckIn().After(before))
}

func TestWhatIsWrongWithHeartbeatsIsRefused(t *testing.T) {
	f := newFixture(t)
	const lease = `"00000000000000aa"`
	for name, test := range map[string]struct {
		target, body string
		faults       []string
	}{
		"no object":       {"one", `[]`, []string{`body: not a JSON object: an array`}},
		"no lease":        {"one", `{"lease":"xyz"}`, []string{`lease: "xyz" is not 16 hexadecimal digits in lower case`}},
		"a null lease":    {"one", `{"lease":null}`, []string{`lease: null is not 16 hexadecimal digits in lower case`}},
		"a number":        {"one", `{"lease":1234567890123456}`, []string{`lease: 1234567890123456 is not 16 hexadecimal digits in lower case`}},
		"unknown members": {"one", `{"leases":[]}`, []string{`leases: unknown`}},
		"members twice":   {"one", `{"lease":"00000000000000aa","lease":"00000000000000aa"}`, []string{`lease: there twice`}},

		"nothing":           {"many", `{}`, []string{`leases: missing`}},
		"half of it":        {"many", `{"leases":[` + lease, []string{`body: not a JSON object: unexpected end of JSON input`}},
		"null":              {"many", `{"leases":null}`, []string{`leases: null is not an array`}},
		"one alone":         {"many", `{"leases":` + lease + `}`, []string{`leases: ` + lease + ` is not an array`}},
		"an object":         {"many", `{"leases":{}}`, []string{`leases: {} is not an array`}},
		"another and twice": {"many", `{"lease":[],"leases":[],"leases":[]}`, []string{`leases: there twice`, `lease: unknown`}},
		"elements that are no texts": {"many", `{"leases":[` + lease + `,null,"",1,["a"]]}`, []string{
			`leases[1]: null is not a string`, `leases[3]: 1 is not a string`, `leases[4]: ["a"] is not a string`,
		}},
		"too many": {"many", `{"leases":[` + strings.Repeat(lease+",", 10_000) + lease + `]}`, []string{`leases: has 10001 elements, of 10000 at most`}},
	} {
		t.Run(name, func(t *testing.T) {
			target := "/v2/heartbeats"
			if test.target == "one" {
				target = "/v2/services/users/hosts/a/heartbeat"
			}
			requireRefused(t, f.call("POST", target, test.body), 400, test.faults...)
		})
	}
	t.Run("more wrong ones than anybody reads", func(t *testing.T) {
		w := f.call("POST", "/v2/heartbeats", `{"leases":[`+strings.Repeat("1,", 10_000)+`1]}`)
		require.Equal(t, 400, w.Code)
		fields := decode(t, w.Body)["fields"].([]any)
		require.Len(t, fields, 101)
		require.Equal(t, map[string]any{"field": "leases", "reason": "and 9901 more"}, fields[100])
	})
}

func TestAsManyHostsAsOneCallMayNameBeat(t *testing.T) {
	f, body := withMany(t)
	require.JSONEq(t, `{"unknown":[]}`, f.call("POST", "/v2/heartbeats", body).Body.String())
	spaced := strings.ReplaceAll(body, ",", ",\n     ")
	require.JSONEq(t, `{"unknown":[]}`, f.call("POST", "/v2/heartbeats", spaced).Body.String())
}

func TestABodyThatDoesNotComeIsAnsweredWhenItsTimeIsOver(t *testing.T) {
	f := newFixture(t)
	f.put(t, "/v2/services/users/hosts/a", fine)
	server := httptest.NewUnstartedServer(f)
	server.Config.ReadHeaderTimeout = servicetest.Patience // which a busy machine keeps
	server.Config.ReadTimeout = 100 * time.Millisecond
	server.Start()
	defer server.Close()
	for _, target := range []string{"/v2/heartbeats", "/v2/services/users/hosts/a/heartbeat"} {
		body, slow := io.Pipe() // of which nothing comes
		r, err := http.NewRequest("POST", server.URL+target, body)
		require.NoError(t, err)
		r.Header.Set("Content-Type", "application/json")
		response, err := server.Client().Do(r)
		require.NoError(t, err)
		require.Equal(t, http.StatusRequestTimeout, response.StatusCode)
		require.Equal(t, "the body did not come in time", decode(t, response.Body)["error"])
		require.NoError(t, response.Body.Close())
		require.NoError(t, slow.Close())
	}
	require.Equal(t, []string{"a"}, f.ids(t, "/v2/services/users/hosts"))
}

// FuzzBeatMany sends any body: the fast reader of leases must take the same as
// encoding/json, and refuse all else.
func FuzzBeatMany(f *testing.F) {
	for _, text := range []string{
		`{"leases":["00000000000000aa","ffffffffffffffff"]}`, ` {"leases" : [ "0123456789abcdef" , "\u0030123456789abcde"]}`,
		`{"leases":["00000000000000aA"]}`, `{"leases":[["00000000000000aa"]]}`, `{"leases":["00000000000000aa"],"leases":[]}`,
		`{"leases":"00000000000000aa"}`, `{"leases":[]}`, `{"leases":["00000000000000aa`,
	} {
		f.Add([]byte(text))
	}
	f.Fuzz(func(t *testing.T, body []byte) {
		var wrong call.Faults
		leases, strange := readLeases(body, &wrong)
		if wrong != nil {
			require.NotEmpty(t, wrong.Refusal().Error())
			return
		}
		var read struct{ Leases []string }
		require.NoError(t, json.Unmarshal(body, &read))
		require.Len(t, read.Leases, len(leases)+len(strange))
		read.Leases = slices.DeleteFunc(read.Leases, func(text string) bool { _, ok := readHex(text); return !ok })
		for i, lease := range leases {
			require.Equal(t, read.Leases[i], fmt.Sprintf("%016x", uint64(lease)))
		}
	})
}

// FuzzBeat sends any body for one host.
func FuzzBeat(f *testing.F) {
	for _, text := range []string{`{}`, `{"lease":"00000000000000aa"}`, `{"lease":"00000000000000aa","lease":""}`, `null`, `{"lease":7}`} {
		f.Add([]byte(text))
	}
	f.Fuzz(func(t *testing.T, body []byte) {
		r := newRequest("POST", "/v2/services/users/hosts/a/heartbeat", string(body))
		var wrong call.Faults
		lease, given, err := readBeat(httptest.NewRecorder(), r, &wrong)
		if err != nil {
			require.ErrorAs(t, err, new(*call.Refusal))
			return
		}
		if wrong == nil && given {
			var read struct{ Lease string }
			require.NoError(t, json.Unmarshal(body, &read))
			require.Equal(t, read.Lease, hexText(lease))
		}
	})
}
