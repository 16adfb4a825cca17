package v1

import (
	"net/http/httptest"
	"net/url"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/weirproxy/weir/services/discovery/internal/registry/registrytest"
)

// TestEveryCallAnswersAsThePeersTable is lyft/discovery's API line by line, each
// with its mend where the README tells of one. Known are two hosts of "known",
// and one of "repo".
func TestEveryCallAnswersAsThePeersTable(t *testing.T) {
	weight := url.Values{"load_balancing_weight": {"7"}}
	for _, test := range []struct {
		name, method, target string
		form                 url.Values
		status               int
		// body is JSON or text; where it is empty there is none, but that of a
		// GET is a list with hosts.
		body string
	}{
		{"list", "GET", "/v1/registration/known?any=1", nil, 200, ""},
		{"list an unknown service", "GET", "/v1/registration/nobody", nil, 200, `{"service":"nobody","env":"test","hosts":[]}`},
		{"list by HEAD", "HEAD", "/v1/registration/nobody", nil, 200, ""},

		{"list an unknown repository", "GET", "/v1/registration/repo/nobody", nil, 200, `{"service_repo_name":"nobody","env":"test","hosts":[]}`},
		{"list a repository", "GET", "/v1/registration/repo/users-repo", nil, 200, ""},
		{"list the service repo", "GET", "/v1/registration/repo", nil, 200, ""},

		{"register", "POST", "/v1/registration/users", fields(), 200, `{}`},
		{"heartbeat", "POST", "/v1/registration/known", fields(), 200, `{}`},
		{"register without a repository", "POST", "/v1/registration/users", fields("service_repo_name", "-"), 200, `{}`},
		{"register with empty tags", "POST", "/v1/registration/users", fields("tags", `{"az":"","region":"","instance_id":""}`), 200, `{}`},
		{"register IPv6 (mended)", "POST", "/v1/registration/users", fields("ip", "fd00::1"), 200, `{}`},
		{"register the service repo", "POST", "/v1/registration/repo", fields(), 200, `{}`},
		{"register, no ip", "POST", "/v1/registration/users", fields("ip", "-"), 400, `{"error":"ip: missing"}`},
		{"register, bad ip", "POST", "/v1/registration/users", fields("ip", "10.10.10"), 400, `{"error":"ip: \"10.10.10\" is not an IPv4 or IPv6 address"}`},
		{"register, ip of a name", "POST", "/v1/registration/users", fields("ip", "localhost"), 400, `{"error":"ip: \"localhost\" is not an IPv4 or IPv6 address"}`},
		{"register, no port", "POST", "/v1/registration/users", fields("port", "-"), 400, `{"error":"port: missing"}`},
		{"register, port of text (was 500)", "POST", "/v1/registration/users", fields("port", "abc"), 400, `{"error":"port: \"abc\" is not an integer from 1 to 65535"}`},
		{"register, port 0", "POST", "/v1/registration/users", fields("port", "0"), 400, `{"error":"port: \"0\" is not an integer from 1 to 65535"}`},
		{"register, port too high (was taken)", "POST", "/v1/registration/users", fields("port", "65536"), 400, `{"error":"port: \"65536\" is not an integer from 1 to 65535"}`},
		{"register, no revision", "POST", "/v1/registration/users", fields("revision", "-"), 400, `{"error":"revision: missing"}`},
		{"register, no tags", "POST", "/v1/registration/users", fields("tags", "-"), 400, `{"error":"tags.az: missing; tags.region: missing; tags.instance_id: missing"}`},
		{"register, tags of no JSON", "POST", "/v1/registration/users", fields("tags", "{az}"), 400, `{"error":"tags: not a JSON object: invalid character 'a' looking for beginning of object key string"}`},
		{"register, tags of null (was 500)", "POST", "/v1/registration/users", fields("tags", "null"), 400, `{"error":"tags: not a JSON object: null"}`},
		{"register, tags of a list (was taken)", "POST", "/v1/registration/users", fields("tags", `["az"]`), 400,
			`{"error":"tags: not a JSON object: an array"}`},
		{"register, no zone", "POST", "/v1/registration/users", fields("tags", `{"region":"r","instance_id":"i"}`), 400, `{"error":"tags.az: missing"}`},
		{"register, no region", "POST", "/v1/registration/users", fields("tags", `{"az":"a","instance_id":"i"}`), 400, `{"error":"tags.region: missing"}`},
		{"register, no instance id", "POST", "/v1/registration/users", fields("tags", `{"az":"a","region":"r"}`), 400, `{"error":"tags.instance_id: missing"}`},

		{"deregister", "DELETE", "/v1/registration/known/10.0.0.1", nil, 200, `{}`},
		{"deregister one port", "DELETE", "/v1/registration/known/10.0.0.1?port=8080", nil, 200, `{}`},
		{"deregister IPv6 (mended)", "DELETE", "/v1/registration/known/fd00::1", nil, 200, `{}`},
		{"deregister IPv6, escaped", "DELETE", "/v1/registration/known/fd00%3A%3A1", nil, 200, `{}`},
		{"deregister from the service repo", "DELETE", "/v1/registration/repo/10.0.0.1", nil, 200, `{}`},
		{"deregister, no host", "DELETE", "/v1/registration/known/10.0.0.9", nil, 400, `{"error":"service \"known\" has no host at 10.0.0.9"}`},
		{"deregister, no service", "DELETE", "/v1/registration/nobody/10.0.0.1", nil, 400, `{"error":"service \"nobody\" has no host at 10.0.0.1"}`},
		{"deregister, no such port", "DELETE", "/v1/registration/known/10.0.0.1?port=1", nil, 400, `{"error":"service \"known\" has no host at 10.0.0.1, port 1"}`},
		{"deregister, bad ip", "DELETE", "/v1/registration/known/10.0.0", nil, 400, `{"error":"ip: \"10.0.0\" is not an IPv4 or IPv6 address"}`},
		{"deregister, bad port", "DELETE", "/v1/registration/known/10.0.0.1?port=x", nil, 400, `{"error":"port: \"x\" is not an integer from 1 to 65535"}`},
		{"deregister, empty port", "DELETE", "/v1/registration/known/10.0.0.1?port=", nil, 400, `{"error":"port: missing"}`},
		{"deregister, two ports", "DELETE", "/v1/registration/known/10.0.0.1?port=8080&port=1", nil, 400, `{"error":"port: there 2 times"}`},
		{"deregister, bad query", "DELETE", "/v1/registration/known/10.0.0.1?port=%zz", nil, 400, `{"error":"query: invalid URL escape \"%zz\""}`},

		{"weigh a host", "POST", "/v1/loadbalancing/known/10.0.0.1", weight, 204, ""},
		{"weigh one port", "POST", "/v1/loadbalancing/known/10.0.0.1?port=8080", weight, 204, ""},
		{"weigh IPv6", "POST", "/v1/loadbalancing/known/fd00::1", weight, 204, ""},
		{"weigh no host", "POST", "/v1/loadbalancing/known/10.0.0.9", weight, 404, `{"error":"Host not found"}`},
		{"weigh no such port", "POST", "/v1/loadbalancing/known/10.0.0.1?port=1", weight, 404, `{"error":"Host not found"}`},
		{"weigh a bad ip", "POST", "/v1/loadbalancing/known/10.0.0", weight, 400, `{"error":"ip: \"10.0.0\" is not an IPv4 or IPv6 address"}`},
		{"weigh a host of an unknown service", "POST", "/v1/loadbalancing/nobody/10.0.0.1", weight, 404, `{"error":"Host not found"}`},
		{"weigh, no weight", "POST", "/v1/loadbalancing/known/10.0.0.1", url.Values{}, 400, `{"error":"Required parameter 'weight' is missing."}`},
		{"weigh, empty weight", "POST", "/v1/loadbalancing/known", url.Values{"load_balancing_weight": {""}}, 400, `{"error":"Required parameter 'weight' is missing."}`},
		{"weigh, text", "POST", "/v1/loadbalancing/known", url.Values{"load_balancing_weight": {"x"}}, 400, `{"error":"Invalid load_balancing_weight. Supply an integer between 1 and 100."}`},
		{"weigh, too light", "POST", "/v1/loadbalancing/known", url.Values{"load_balancing_weight": {"0"}}, 400, `{"error":"Invalid load_balancing_weight. Supply an integer between 1 and 100."}`},
		{"weigh, too heavy", "POST", "/v1/loadbalancing/known", url.Values{"load_balancing_weight": {"101"}}, 400, `{"error":"Invalid load_balancing_weight. Supply an integer between 1 and 100."}`},
		{"weigh, a part", "POST", "/v1/loadbalancing/known", url.Values{"load_balancing_weight": {"1.5"}}, 400, `{"error":"Invalid load_balancing_weight. Supply an integer between 1 and 100."}`},
		{"weigh a service (was 500)", "POST", "/v1/loadbalancing/known", weight, 204, ""},
		{"weigh a service without hosts", "POST", "/v1/loadbalancing/nobody", weight, 204, ""},

		{"list a service of no text", "GET", "/v1/registration/%ff", nil, 400, `{"error":"service: \"\\xff\" is not UTF-8"}`},
		{"list a service with a control character", "GET", "/v1/registration/a%0Ab", nil, 400, `{"error":"service: \"a\\nb\" holds a control character"}`},
		{"list a repository of no text", "GET", "/v1/registration/repo/%ff", nil, 400, `{"error":"repo: \"\\xff\" is not UTF-8"}`},
		{"deregister from a service of no text", "DELETE", "/v1/registration/%ff/10.0.0.1", nil, 400, `{"error":"service: \"\\xff\" is not UTF-8"}`},
		{"weigh a service of no text", "POST", "/v1/loadbalancing/%ff", weight, 400, `{"error":"service: \"\\xff\" is not UTF-8"}`},
		{"live", "GET", "/healthcheck", nil, 200, "OK"},

		{"nothing there", "GET", "/v1/users", nil, 404, `{"error":"nothing is at /v1/users"}`},
		{"no service", "GET", "/v1/registration/", nil, 404, `{"error":"nothing is at /v1/registration/"}`},
		{"too deep", "GET", "/v1/registration/a/b/c", nil, 404, `{"error":"nothing is at /v1/registration/a/b/c"}`},
		{"get a host (was 500)", "GET", "/v1/registration/users/10.0.0.1", nil, 405, `{"error":"method GET: not one of DELETE"}`},
		{"register at a host (was 500)", "POST", "/v1/registration/users/10.0.0.1", fields(), 405, `{"error":"method POST: not one of DELETE"}`},
		{"deregister no address (was 500)", "DELETE", "/v1/registration/users", nil, 405, `{"error":"method DELETE: not one of GET, HEAD, POST"}`},
		{"wrong method, list", "PUT", "/v1/registration/users", nil, 405, `{"error":"method PUT: not one of GET, HEAD, POST"}`},
		{"wrong method, weight", "GET", "/v1/loadbalancing/users", nil, 405, `{"error":"method GET: not one of POST"}`},
		{"wrong method, repository", "POST", "/v1/registration/repo/r", fields(), 405, `{"error":"method POST: not one of DELETE, GET, HEAD"}`},
		{"wrong method, live", "POST", "/healthcheck", fields(), 405, `{"error":"method POST: not one of GET, HEAD"}`},
		{"a method of nobody", "BREW", "/v1/registration/users", nil, 405, `{"error":"method BREW: not one of GET, HEAD, POST"}`},
	} {
		t.Run(test.name, func(t *testing.T) {
			h := loadedHandler(t)
			for _, known := range []struct{ service, ip string }{{"known", "10.0.0.1"}, {"known", "fd00::1"}, {"repo", "10.0.0.1"}} {
				require.Equal(t, 200, do(h, "POST", "/v1/registration/"+known.service, fields("ip", known.ip)).Code)
			}
			w := do(h, test.method, test.target, test.form)
			require.Equal(t, test.status, w.Code, w.Body)
			require.Equal(t, test.status == 405, w.Header().Get("Allow") != "")
			switch {
			case strings.HasPrefix(test.body, "{"):
				require.JSONEq(t, test.body, w.Body.String())
				require.Equal(t, "application/json", w.Header().Get("Content-Type"))
			case test.method == "GET" && test.body == "":
				require.Equal(t, "application/json", w.Header().Get("Content-Type"))
				require.Contains(t, w.Body.String(), `"hosts":[{"service":"`)
			case test.method != "HEAD":
				require.Equal(t, test.body, w.Body.String())
			}
		})
	}
}

func TestTheWeightsThatCallsSetAreSeenAndStay(t *testing.T) {
	h := loadedHandler(t)
	weights := func() (weights []any) {
		for _, host := range listed(t, h, "users") {
			weights = append(weights, host["tags"].(map[string]any)["load_balancing_weight"])
		}
		return weights
	}
	weigh := func(target, weight string) {
		t.Helper()
		require.Equal(t, 204, do(h, "POST", "/v1/loadbalancing/users"+target, url.Values{"load_balancing_weight": {weight}}).Code)
	}
	beat := func() {
		for _, at := range [][2]string{{"10.0.0.1", "80"}, {"10.0.0.1", "81"}, {"10.0.0.2", "80"}} {
			require.Equal(t, 200, do(h, "POST", "/v1/registration/users", fields("ip", at[0], "port", at[1])).Code)
		}
	}
	beat()
	require.Equal(t, []any{nil, nil, nil}, weights())
	weigh("/10.0.0.1?port=81", "10")
	require.Equal(t, []any{nil, 10.0, nil}, weights(), "one port")
	beat()
	require.Equal(t, []any{nil, 10.0, nil}, weights(), "kept over heartbeats")
	weigh("/10.0.0.1", "20")
	require.Equal(t, []any{20.0, 20.0, nil}, weights(), "all ports of an address")
	weigh("", "100")
	beat()
	require.Equal(t, []any{100.0, 100.0, 100.0}, weights(), "all of the service")
}

func TestReadsTakeNothingOut(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		o := options(registrytest.Loaded(t))
		h := handlerOf(o)
		require.Equal(t, 200, do(h, "POST", "/v1/registration/users", fields("ttl", "1")).Code)
		require.Equal(t, 200, do(h, "POST", "/v1/registration/users", fields("ip", "10.0.0.2")).Code)
		time.Sleep(999 * time.Millisecond)
		feed := o.Registry.Events()
		defer feed.Close()
		for range 3 {
			require.Len(t, listed(t, h, "users"), 2)
			require.Len(t, listed(t, h, "repo/users-repo"), 2)
		}
		events, _ := feed.Take()
		require.Empty(t, events)
	})
}

func TestACheckInIsShownAtItsTime(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := loadedHandler(t)
		shown := func() string {
			_, rest, found := strings.Cut(do(h, "GET", "/v1/registration/users", nil).Body.String(), `"last_check_in":"`)
			require.True(t, found)
			return rest[:timeForm.Len()]
		}
		require.Equal(t, 200, do(h, "POST", "/v1/registration/users", fields()).Code)
		first := shown()
		require.Equal(t, string(timeForm.AppendTime(nil, time.Now())), first)
		time.Sleep(3 * time.Second)
		require.Equal(t, first, shown(), "a read is no beat")
		require.Equal(t, 200, do(h, "POST", "/v1/registration/users", fields()).Code)
		require.Equal(t, string(timeForm.AppendTime(nil, time.Now())), shown())
	})
}

func TestTheDefaultContentTypeOfAFormIsTaken(t *testing.T) {
	h := loadedHandler(t)
	for _, contentType := range []string{"", formType, "application/x-www-form-urlencoded; charset=UTF-8", "application/x-www-form-urlencoded; charset=US-ASCII", "Application/X-WWW-Form-Urlencoded"} {
		r := httptest.NewRequest("POST", "/v1/registration/users", strings.NewReader(fields().Encode()))
		r.Header.Set("Content-Type", contentType)
		w := httptest.NewRecorder()
		h.ServeHTTP(w, r)
		require.Equal(t, 200, w.Code, "%q: %s", contentType, w.Body)
	}
}
