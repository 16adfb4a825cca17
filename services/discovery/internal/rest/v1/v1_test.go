package v1

import (
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"net/url"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/stretchr/testify/require"

	"github.com/weirproxy/weir/internal/servicetest"
	"github.com/weirproxy/weir/services/discovery/internal/registry"
	"github.com/weirproxy/weir/services/discovery/internal/registry/registrytest"
)

func TestMain(m *testing.M) { servicetest.Main(m) }

// loadedHandler serves a registry that is loaded.
func loadedHandler(t testing.TB) http.Handler {
	return newHandler(registrytest.Loaded(t))
}

func newHandler(hosts *registry.Registry) http.Handler {
	return Handler(Options{
		Registry: hosts, Env: "test", TTL: 600 * time.Second, MaxTTL: time.Hour,
		AutoIPRanges: []netip.Prefix{netip.MustParsePrefix("192.168.0.0/16")},
		Log:          slog.New(slog.DiscardHandler), Metrics: prometheus.NewRegistry(),
	})
}

// call is one request; form nil means no body.
func call(h http.Handler, method, target string, form url.Values, header ...string) *httptest.ResponseRecorder {
	var body io.Reader
	if form != nil {
		body = strings.NewReader(form.Encode())
	}
	r := httptest.NewRequest(method, target, body)
	if form != nil {
		r.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	}
	for i := 0; i < len(header); i += 2 {
		r.Header.Add(header[i], header[i+1])
	}
	w := httptest.NewRecorder()
	h.ServeHTTP(w, r)
	return w
}

// form is a registration that is right, with changes: pairs of field and
// value, a value of "-" taking the field away.
func form(changes ...string) url.Values {
	f := url.Values{
		"ip": {"10.0.0.1"}, "port": {"8080"}, "revision": {"r1"}, "service_repo_name": {"users-repo"},
		"tags": {`{"az":"eu-1","region":"eu","instance_id":"i-1"}`},
	}
	for i := 0; i < len(changes); i += 2 {
		if f.Del(changes[i]); changes[i+1] != "-" {
			f.Set(changes[i], changes[i+1])
		}
	}
	return f
}

// listed are the hosts of a service, without the times of their check-ins.
func listed(t testing.TB, h http.Handler, service string) []map[string]any {
	t.Helper()
	w := call(h, "GET", "/v1/registration/"+service, nil)
	require.Equal(t, 200, w.Code)
	var answer struct{ Hosts []map[string]any }
	require.NoError(t, json.Unmarshal(w.Body.Bytes(), &answer))
	for _, host := range answer.Hosts {
		require.Regexp(t, `^\d{4}-\d\d-\d\d \d\d:\d\d:\d\d\.\d{6}\+00:00$`, host["last_check_in"])
		delete(host, "last_check_in")
	}
	return answer.Hosts
}

func TestEveryCallAnswersAsTheTableSays(t *testing.T) {
	weight := url.Values{"load_balancing_weight": {"7"}}
	for name, test := range map[string]struct {
		method, target string
		form           url.Values
		status         int
		body           string // JSON, or text; empty for none
	}{
		"healthcheck":           {"GET", "/healthcheck", nil, 200, "OK"},
		"register":              {"POST", "/v1/registration/users", form(), 200, `{}`},
		"register another":      {"POST", "/v1/registration/users", form("tags", `{"az":"","region":"","instance_id":""}`), 200, `{}`},
		"list an unknown one":   {"GET", "/v1/registration/nobody", nil, 200, `{"service":"nobody","env":"test","hosts":[]}`},
		"list an unknown repo":  {"GET", "/v1/registration/repo/nobody", nil, 200, `{"service_repo_name":"nobody","env":"test","hosts":[]}`},
		"deregister":            {"DELETE", "/v1/registration/known/10.0.0.1", nil, 200, `{}`},
		"deregister with port":  {"DELETE", "/v1/registration/known/10.0.0.1?port=8080", nil, 200, `{}`},
		"deregister IPv6":       {"DELETE", "/v1/registration/known/fd00::1", nil, 200, `{}`},
		"deregister, no host":   {"DELETE", "/v1/registration/known/10.0.0.9", nil, 400, `{"error":"service \"known\" has no host at 10.0.0.9"}`},
		"deregister, no port":   {"DELETE", "/v1/registration/known/10.0.0.1?port=1", nil, 400, `{"error":"service \"known\" has no host at 10.0.0.1, port 1"}`},
		"deregister, bad IP":    {"DELETE", "/v1/registration/known/10.0.0", nil, 400, `{"error":"ip: \"10.0.0\" is not an IPv4 or IPv6 address"}`},
		"deregister, bad port":  {"DELETE", "/v1/registration/known/10.0.0.1?port=x", nil, 400, `{"error":"port: \"x\" is not an integer from 1 to 65535"}`},
		"deregister from repo":  {"DELETE", "/v1/registration/repo/10.0.0.1", nil, 400, `{"error":"service \"repo\" has no host at 10.0.0.1"}`},
		"weigh a host":          {"POST", "/v1/loadbalancing/known/10.0.0.1", weight, 204, ""},
		"weigh a service":       {"POST", "/v1/loadbalancing/known", weight, 204, ""},
		"weigh an empty one":    {"POST", "/v1/loadbalancing/nobody", weight, 204, ""},
		"weigh no host":         {"POST", "/v1/loadbalancing/known/10.0.0.9", weight, 404, `{"error":"service \"known\" has no host at 10.0.0.9"}`},
		"weigh, no weight":      {"POST", "/v1/loadbalancing/known/10.0.0.1", url.Values{}, 400, `{"error":"load_balancing_weight: missing"}`},
		"weigh, empty weight":   {"POST", "/v1/loadbalancing/known", url.Values{"load_balancing_weight": {""}}, 400, `{"error":"load_balancing_weight: missing"}`},
		"weigh, text":           {"POST", "/v1/loadbalancing/known", url.Values{"load_balancing_weight": {"x"}}, 400, `{"error":"load_balancing_weight: \"x\" is not an integer from 1 to 100"}`},
		"weigh, too light":      {"POST", "/v1/loadbalancing/known", url.Values{"load_balancing_weight": {"0"}}, 400, `{"error":"load_balancing_weight: \"0\" is not an integer from 1 to 100"}`},
		"weigh, too heavy":      {"POST", "/v1/loadbalancing/known", url.Values{"load_balancing_weight": {"101"}}, 400, `{"error":"load_balancing_weight: \"101\" is not an integer from 1 to 100"}`},
		"nothing there":         {"GET", "/v2/registration/users", nil, 404, `{"error":"nothing is at /v2/registration/users"}`},
		"no service":            {"GET", "/v1/registration/", nil, 404, `{"error":"nothing is at /v1/registration/"}`},
		"wrong method, list":    {"PUT", "/v1/registration/users", nil, 405, `{"error":"method PUT: not one of GET, HEAD, POST"}`},
		"wrong method, host":    {"GET", "/v1/registration/users/10.0.0.1", nil, 405, `{"error":"method GET: not one of DELETE"}`},
		"register at a host":    {"POST", "/v1/registration/users/10.0.0.1", form(), 405, `{"error":"method POST: not one of DELETE"}`},
		"deregister no address": {"DELETE", "/v1/registration/users", nil, 405, `{"error":"method DELETE: not one of GET, HEAD, POST"}`},
		"wrong method, weight":  {"GET", "/v1/loadbalancing/users", nil, 405, `{"error":"method GET: not one of POST"}`},
		"wrong method, repo":    {"POST", "/v1/registration/repo/r", form(), 405, `{"error":"method POST: not one of DELETE, GET, HEAD"}`},
	} {
		t.Run(name, func(t *testing.T) {
			h := loadedHandler(t)
			require.Equal(t, 200, call(h, "POST", "/v1/registration/known", form()).Code)
			require.Equal(t, 200, call(h, "POST", "/v1/registration/known", form("ip", "fd00::1")).Code)
			w := call(h, test.method, test.target, test.form)
			require.Equal(t, test.status, w.Code, w.Body)
			require.Equal(t, test.status == 405, w.Header().Get("Allow") != "")
			if strings.HasPrefix(test.body, "{") {
				require.JSONEq(t, test.body, w.Body.String())
				require.Equal(t, "application/json", w.Header().Get("Content-Type"))
			} else {
				require.Equal(t, test.body, w.Body.String())
			}
		})
	}
}

func TestARegisteredHostIsListedByServiceAndRepository(t *testing.T) {
	h := loadedHandler(t)
	require.Equal(t, 200, call(h, "POST", "/v1/registration/users", form()).Code)
	require.Equal(t, 200, call(h, "POST", "/v1/registration/users", form("ip", "FD00::1", "port", "1", "service_repo_name", "-",
		"tags", `{"az":"eu-2","region":"eu","instance_id":"i-2","canary":"true","load_balancing_weight":"50","other":{"a":[1, 2]},"none":null}`)).Code)
	want := []map[string]any{
		{"service": "users", "ip_address": "10.0.0.1", "port": 8080.0, "revision": "r1", "service_repo_name": "users-repo",
			"tags": map[string]any{"az": "eu-1", "region": "eu", "instance_id": "i-1"}},
		{"service": "users", "ip_address": "fd00::1", "port": 1.0, "revision": "r1", "service_repo_name": "",
			"tags": map[string]any{"az": "eu-2", "region": "eu", "instance_id": "i-2", "canary": true, "load_balancing_weight": 50.0,
				"other": map[string]any{"a": []any{1.0, 2.0}}, "none": nil}},
	}
	require.Equal(t, want, listed(t, h, "users"))
	require.Equal(t, want[:1], listed(t, h, "repo/users-repo"))

	head := call(h, "HEAD", "/v1/registration/users", nil)
	require.Equal(t, 200, head.Code)
}

func TestAHostIsWrittenWithoutAllocating(t *testing.T) {
	var f faults
	tags := readTags(`{"az":"eu-1","region":"eu","instance_id":"i-1","canary":true,"load_balancing_weight":7,"rack":"7","a":{}}`, &f)
	require.Empty(t, f)
	view := &registry.View{Weight: tags.Weight, Record: registry.Record{LastCheckIn: time.Now(), Host: &registry.Host{
		Key: registry.Key{Service: "users"}, Address: netip.MustParseAddrPort("10.0.0.1:80"), Repo: "repo", Revision: "r1", Tags: tags,
	}}}
	buffer := make([]byte, 0, hostSize)
	servicetest.Allocations(t, 0, func() { appendHost(buffer, view) })
}

func TestTextInAListIsAsJSONWants(t *testing.T) {
	for _, text := range []string{"", "plain ~text", `a "quote"`, `back\slash`, "line\nbreak", "<&>", "\x7f", "é", "\u2028", "\xff"} {
		want, err := json.Marshal(text)
		require.NoError(t, err)
		require.Equal(t, string(want), string(appendText(nil, text)))
	}
}

func TestANameIsTakenAsItWasEscaped(t *testing.T) {
	h := loadedHandler(t)
	const escaped = "a%2Fb%20%C3%A9"
	require.Equal(t, 200, call(h, "POST", "/v1/registration/"+escaped, form("service_repo_name", "org/name")).Code)
	require.Equal(t, "a/b é", listed(t, h, escaped)[0]["service"])
	require.Len(t, listed(t, h, "repo/org%2Fname"), 1)
	require.Equal(t, 204, call(h, "POST", "/v1/loadbalancing/"+escaped+"/10.0.0.1", url.Values{"load_balancing_weight": {"7"}}).Code)
	require.Equal(t, 200, call(h, "DELETE", "/v1/registration/"+escaped+"/10.0.0.1", nil).Code)
	require.Empty(t, listed(t, h, escaped))
}

func TestTheServiceRepoHasAllButItsRegistrationPathToItself(t *testing.T) {
	h := loadedHandler(t)
	require.Equal(t, 200, call(h, "POST", "/v1/registration/repo", form()).Code)
	require.Len(t, listed(t, h, "repo"), 1)
	require.Equal(t, 200, call(h, "DELETE", "/v1/registration/repo/10.0.0.1", nil).Code)
	require.Empty(t, listed(t, h, "repo"))
}

func TestAHostIsItsAddressAndInstanceID(t *testing.T) {
	h := loadedHandler(t)
	register := func(changes ...string) {
		require.Equal(t, 200, call(h, "POST", "/v1/registration/users", form(changes...)).Code)
	}
	ports := func() (ports []any) {
		for _, host := range listed(t, h, "users") {
			ports = append(ports, host["port"])
		}
		return ports
	}
	register()
	register("port", "9090")
	require.Equal(t, []any{9090.0}, ports(), "the host moved to another port")
	register("port", "1", "tags", `{"az":"eu-1","region":"eu","instance_id":"i-2"}`)
	require.Equal(t, []any{1.0, 9090.0}, ports(), "another host on the same address")
	register("ip", "10.0.0.2")
	require.Equal(t, []any{1.0, 9090.0, 8080.0}, ports(), "another address")
	require.Equal(t, 200, call(h, "DELETE", "/v1/registration/users/10.0.0.1", nil).Code)
	require.Equal(t, []any{8080.0}, ports(), "all hosts of an address went")
}

func TestAHeartbeatLosesNoTagAndNoWeight(t *testing.T) {
	h := loadedHandler(t)
	tags := func() any { return listed(t, h, "users")[0]["tags"] }
	require.Equal(t, 200, call(h, "POST", "/v1/registration/users",
		form("tags", `{"az":"eu-1","region":"eu","instance_id":"i-1","rack":"7","canary":true}`)).Code)
	require.Equal(t, 204, call(h, "POST", "/v1/loadbalancing/users/10.0.0.1", url.Values{"load_balancing_weight": {"30"}}).Code)
	require.Equal(t, 200, call(h, "POST", "/v1/registration/users", form()).Code)
	want := map[string]any{"az": "eu-1", "region": "eu", "instance_id": "i-1", "rack": "7", "canary": true, "load_balancing_weight": 30.0}
	require.Equal(t, want, tags())

	require.Equal(t, 200, call(h, "POST", "/v1/registration/users",
		form("tags", `{"az":"eu-1","region":"eu","instance_id":"i-1","load_balancing_weight":2}`)).Code)
	want["load_balancing_weight"] = 2.0
	require.Equal(t, want, tags())
}

func TestTagsThatGrowWithEveryHeartbeatAreRefusedAtTheirBound(t *testing.T) {
	h := loadedHandler(t)
	beat := func(n int) *httptest.ResponseRecorder {
		return call(h, "POST", "/v1/registration/users",
			form("tags", fmt.Sprintf(`{"az":"a","region":"r","instance_id":"i","tag-%d":"%s"}`, n, strings.Repeat("x", 8000))))
	}
	require.Equal(t, 200, beat(1).Code)
	require.Equal(t, 200, beat(2).Code)
	w := beat(3)
	require.Equal(t, 400, w.Code)
	require.JSONEq(t, `{"error":"tags too large: 24024 bytes with those of earlier check-ins, of 16384 at most"}`, w.Body.String())
	require.Equal(t, 200, beat(2).Code)
	require.Len(t, listed(t, h, "users")[0]["tags"], 5)
}

func TestAHostLivesForTheTTLThatItNames(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := loadedHandler(t)
		require.Equal(t, 200, call(h, "POST", "/v1/registration/users", form("ttl", "3")).Code)
		require.Equal(t, 200, call(h, "POST", "/v1/registration/users", form("ip", "10.0.0.2")).Code)
		time.Sleep(2999 * time.Millisecond)
		synctest.Wait()
		require.Len(t, listed(t, h, "users"), 2)
		time.Sleep(2 * time.Second)
		synctest.Wait()
		require.Len(t, listed(t, h, "users"), 1, "the other has the default of 600s")
		time.Sleep(10 * time.Minute)
		synctest.Wait()
		require.Empty(t, listed(t, h, "users"))
	})
}

func TestWhatIsWrongIsRefusedWithItsReason(t *testing.T) {
	const fine = `"az":"eu-1","region":"eu","instance_id":"i-1"`
	for name, test := range map[string]struct {
		form   url.Values
		reason string
	}{
		"no ip":                 {form("ip", "-"), `ip: missing`},
		"an ip that is none":    {form("ip", "10.0.0.256"), `ip: "10.0.0.256" is not an IPv4 or IPv6 address`},
		"an ip with a zone":     {form("ip", "fe80::1%eth0"), `ip: "fe80::1%eth0" has a zone, which means nothing to others`},
		"no host's address":     {form("ip", "0.0.0.0"), `ip: "0.0.0.0" is not the address of a host`},
		"everybody's address":   {form("ip", "255.255.255.255"), `ip: "255.255.255.255" is not the address of a host`},
		"a group's address":     {form("ip", "224.0.0.1"), `ip: "224.0.0.1" is not the address of a host`},
		"no port":               {form("port", "-"), `port: missing`},
		"a port of text":        {form("port", "abc"), `port: "abc" is not an integer from 1 to 65535`},
		"port 0":                {form("port", "0"), `port: "0" is not an integer from 1 to 65535`},
		"port -1":               {form("port", "-1"), `port: "-1" is not an integer from 1 to 65535`},
		"a port too high":       {form("port", "65536"), `port: "65536" is not an integer from 1 to 65535`},
		"no revision":           {form("revision", "-"), `revision: missing`},
		"a revision of no text": {form("revision", "\xff"), `revision: "\xff" is not UTF-8`},
		"a repo of no text":     {form("service_repo_name", "\xff"), `service_repo_name: "\xff" is not UTF-8`},
		"tags that are no JSON": {form("tags", "{"), `tags: not a JSON object: unexpected end of JSON input`},
		"tags of null":          {form("tags", "null"), `tags: not a JSON object: null`},
		"tags of a number":      {form("tags", "1"), `tags: not a JSON object: json: cannot unmarshal number into Go value of type map[string]json.RawMessage`},
		"tags of a list":        {form("tags", `["az","region","instance_id"]`), `tags: not a JSON object: json: cannot unmarshal array into Go value of type map[string]json.RawMessage`},
		"tags of no text":       {form("tags", `{`+fine+`,"rack":"`+"\xff"+`"}`), `tags: not UTF-8`},
		"no tags":               {form("tags", "-"), `tags.az: missing; tags.region: missing; tags.instance_id: missing`},
		"a zone of null":        {form("tags", `{"az":null,"region":"","instance_id":""}`), `tags.az: missing`},
		"a zone of a number":    {form("tags", `{"az":1,"region":"","instance_id":""}`), `tags.az: 1 is not a string`},
		"a canary of text":      {form("tags", `{`+fine+`,"canary":"maybe"}`), `tags.canary: "maybe" is not true or false`},
		"a canary of a number":  {form("tags", `{`+fine+`,"canary":1}`), `tags.canary: 1 is not true or false`},
		"a weight of 0":         {form("tags", `{`+fine+`,"load_balancing_weight":0}`), `tags.load_balancing_weight: "0" is not an integer from 1 to 100`},
		"a weight of 200":       {form("tags", `{`+fine+`,"load_balancing_weight":200}`), `tags.load_balancing_weight: "200" is not an integer from 1 to 100`},
		"a weight of 1.5":       {form("tags", `{`+fine+`,"load_balancing_weight":1.5}`), `tags.load_balancing_weight: "1.5" is not an integer from 1 to 100`},
		"a ttl of text":         {form("ttl", "soon"), `ttl: "soon" is not an integer from 1 to 3600, in seconds`},
		"a ttl of 0":            {form("ttl", "0"), `ttl: "0" is not an integer from 1 to 3600, in seconds`},
		"a ttl too long":        {form("ttl", "3601"), `ttl: "3601" is not an integer from 1 to 3600, in seconds`},
		"fields given twice":    {url.Values{"ip": {"10.0.0.1", "10.0.0.1"}, "ttl": {"1", "2", "3"}}, `ip: there 2 times; ttl: there 3 times`},
		"tags given twice": {form("tags", `{`+fine+`,"az":"eu-2","a:b":{"x":":","x":1},"\u0061:b":["\\\":",{}],"c":":"}`),
			`tags: "a:b" is there twice; tags: "az" is there twice`},
		"everything, said at once": {url.Values{"port": {"x"}, "ttl": {"x"}, "tags": {`{"az":1}`}},
			`ip: missing; port: "x" is not an integer from 1 to 65535; revision: missing; tags.az: 1 is not a string; ` +
				`tags.region: missing; tags.instance_id: missing; ttl: "x" is not an integer from 1 to 3600, in seconds`},
	} {
		t.Run(name, func(t *testing.T) {
			h := loadedHandler(t)
			require.Equal(t, 200, call(h, "POST", "/v1/registration/users", form("ip", "10.0.0.7")).Code)
			w := call(h, "POST", "/v1/registration/users", test.form)
			require.Equal(t, 400, w.Code)
			var answer map[string]string
			require.NoError(t, json.Unmarshal(w.Body.Bytes(), &answer))
			require.Equal(t, map[string]string{"error": test.reason}, answer)
			require.Len(t, listed(t, h, "users"), 1, "what was there is still there, and nothing else")
		})
	}
}

func TestFieldsThatMeanNothingAreIgnored(t *testing.T) {
	h := loadedHandler(t)
	w := call(h, "POST", "/v1/registration/users", url.Values{
		"ip": {"10.0.0.1"}, "port": {"80"}, "revision": {"r"}, "tl": {"5", "6"}, "tags": {`{"az":"a","region":"r","instance_id":"i","x":{"y":1,"y":2}}`},
	})
	require.Equal(t, 200, w.Code, w.Body)
}

func TestAServiceNameThatReadersCouldNotTakeIsRefused(t *testing.T) {
	h := loadedHandler(t)
	for name, reason := range map[string]string{
		"*":                      `service: "*" is not a name`,
		"%FF":                    `service: "\xff" is not UTF-8`,
		"a%0Ab":                  `service: "a\nb" holds a control character`,
		strings.Repeat("x", 256): `service: the name has 256 bytes, of 255 at most`,
	} {
		w := call(h, "POST", "/v1/registration/"+name, form())
		require.Equal(t, 400, w.Code, name)
		var answer map[string]string
		require.NoError(t, json.Unmarshal(w.Body.Bytes(), &answer))
		require.Equal(t, reason, answer["error"])
	}
}

func TestABodyThatIsNoFormIsRefused(t *testing.T) {
	h := loadedHandler(t)
	for name, test := range map[string]struct {
		contentType, body string
		status            int
		reason            string
	}{
		"JSON":           {"application/json", `{}`, 400, `content-type "application/json": the body must be application/x-www-form-urlencoded`},
		"no media type":  {";", "", 400, `content-type ";": the body must be application/x-www-form-urlencoded`},
		"a bad escape":   {"application/x-www-form-urlencoded", "ip=%zz", 400, `read the form: invalid URL escape "%zz"`},
		"a semicolon":    {"", "ip=1;port=2", 400, `read the form: invalid semicolon separator in query`},
		"a body too big": {"", "ip=" + strings.Repeat("1", maxBody), 413, `the body is longer than 65536 bytes`},
	} {
		t.Run(name, func(t *testing.T) {
			r := httptest.NewRequest("POST", "/v1/registration/users", strings.NewReader(test.body))
			r.Header.Set("Content-Type", test.contentType)
			w := httptest.NewRecorder()
			h.ServeHTTP(w, r)
			require.Equal(t, test.status, w.Code)
			require.JSONEq(t, `{"error":`+string(appendText(nil, test.reason))+`}`, w.Body.String())
		})
	}
}

func TestAutoIPTakesTheLastHopIfItIsInRange(t *testing.T) {
	for name, test := range map[string]struct {
		ip     string
		hops   []string
		want   string
		reason string
	}{
		"one hop":              {hops: []string{"192.168.1.5"}, want: "192.168.1.5"},
		"the last of two":      {hops: []string{"192.168.1.5, 192.168.1.6"}, want: "192.168.1.6"},
		"two headers":          {hops: []string{"192.168.1.5", "192.168.1.6"}, want: "192.168.1.6"},
		"an ip goes before it": {ip: "10.0.0.1", hops: []string{"192.168.1.5"}, want: "10.0.0.1"},
		"out of range": {hops: []string{"10.0.0.1"},
			reason: `auto_ip: 10.0.0.1, the last of x-forwarded-for, is not in one of [192.168.0.0/16]`},
		"no hop": {reason: `auto_ip: last of x-forwarded-for "": "" is not an IPv4 or IPv6 address`},
	} {
		t.Run(name, func(t *testing.T) {
			h := loadedHandler(t)
			var header []string
			for _, hop := range test.hops {
				header = append(header, "X-Forwarded-For", hop)
			}
			w := call(h, "POST", "/v1/registration/users", form("ip", test.ip, "auto_ip", "yes"), header...)
			if test.reason != "" {
				require.Equal(t, 400, w.Code)
				require.JSONEq(t, `{"error":`+string(appendText(nil, test.reason))+`}`, w.Body.String())
				return
			}
			require.Equal(t, 200, w.Code, w.Body)
			require.Equal(t, test.want, listed(t, h, "users")[0]["ip_address"])
		})
	}
}

func TestNothingIsAnsweredBeforeTheRegistryIsLoaded(t *testing.T) {
	h := newHandler(registry.New(registrytest.Options()))
	for _, test := range []struct {
		method, target string
		form           url.Values
	}{
		{"GET", "/v1/registration/users", nil},
		{"GET", "/v1/registration/repo/users", nil},
		{"POST", "/v1/registration/users", form()},
		{"DELETE", "/v1/registration/users/10.0.0.1", nil},
		{"POST", "/v1/loadbalancing/users", url.Values{"load_balancing_weight": {"7"}}},
	} {
		w := call(h, test.method, test.target, test.form)
		require.Equal(t, 503, w.Code, "%s %s", test.method, test.target)
		require.Equal(t, "1", w.Header().Get("Retry-After"))
		require.JSONEq(t, `{"error":"the registry is not loaded yet"}`, w.Body.String())
	}
	require.Equal(t, 200, call(h, "GET", "/healthcheck", nil).Code)
}
