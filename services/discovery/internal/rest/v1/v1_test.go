package v1

import (
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"testing/iotest"
	"testing/synctest"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/stretchr/testify/require"

	"github.com/weirproxy/weir/internal/filewatch"
	"github.com/weirproxy/weir/internal/servicetest"
	"github.com/weirproxy/weir/services/discovery/internal/auth"
	"github.com/weirproxy/weir/services/discovery/internal/denial"
	"github.com/weirproxy/weir/services/discovery/internal/httpjson"
	"github.com/weirproxy/weir/services/discovery/internal/registry"
	"github.com/weirproxy/weir/services/discovery/internal/registry/registrytest"
	"github.com/weirproxy/weir/services/discovery/internal/rest/call"
	"github.com/weirproxy/weir/services/discovery/internal/rest/jsontext"
)

func TestMain(m *testing.M) { servicetest.Main(m) }

// loadedHandler serves a registry that is loaded.
func loadedHandler(t testing.TB) http.Handler { return newHandler(registrytest.Loaded(t)) }

func newHandler(hosts *registry.Registry) http.Handler { return handlerOf(options(hosts)) }

func options(hosts *registry.Registry) Options {
	return Options{
		Registry: hosts, Env: "test", TTL: 600 * time.Second, MaxTTL: time.Hour,
		AutoIPHops: 1, AutoIPRanges: []netip.Prefix{netip.MustParsePrefix("192.168.0.0/16")},
	}
}

// handlerOf serves the face alone, as the app serves all.
func handlerOf(o Options) http.Handler {
	metrics := prometheus.NewRegistry()
	return call.NewRouter(call.Options{
		Log: slog.New(slog.DiscardHandler), Metrics: metrics, Denials: denial.NewCounters(metrics, call.Limits()...),
	}, Routes(o)...)
}

// do makes one request; form nil means no body.
func do(h http.Handler, method, target string, form url.Values, header ...string) *httptest.ResponseRecorder {
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

// fields is a registration that is right, with changes: pairs of field and
// value, a value of "-" taking the field away.
func fields(changes ...string) url.Values {
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
	w := do(h, "GET", "/v1/registration/"+service, nil)
	require.Equal(t, 200, w.Code)
	var answer struct{ Hosts []map[string]any }
	require.NoError(t, json.Unmarshal(w.Body.Bytes(), &answer))
	for _, host := range answer.Hosts {
		require.Regexp(t, `^\d{4}-\d\d-\d\d \d\d:\d\d:\d\d\.\d{6}\+00:00$`, host["last_check_in"])
		delete(host, "last_check_in")
	}
	return answer.Hosts
}

func TestARegisteredHostIsListedByServiceAndRepository(t *testing.T) {
	h := loadedHandler(t)
	require.Equal(t, 200, do(h, "POST", "/v1/registration/users", fields()).Code)
	require.Equal(t, 200, do(h, "POST", "/v1/registration/users", fields("ip", "FD00::1", "port", "1", "service_repo_name", "-",
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

	head := do(h, "HEAD", "/v1/registration/users", nil)
	require.Equal(t, 200, head.Code)
}

func TestAHostIsWrittenWithoutAllocating(t *testing.T) {
	var f call.Faults
	tags := readTags(&field{value: `{"az":"eu-1","region":"eu","instance_id":"i-1","canary":true,"load_balancing_weight":7,"rack":"7","a":{}}`}, &f)
	require.Empty(t, f)
	view := registry.View{Weight: 7, Record: registry.Record{LastCheckIn: time.Now(), Host: &registry.Host{
		Key: registry.Key{Service: "users"}, Address: netip.MustParseAddrPort("10.0.0.1:80"), Repo: "repo", Revision: "r1", Tags: tags,
	}}}
	buffer := make([]byte, 0, 512)
	servicetest.Allocations(t, 0, func() { appendHost(buffer, &view, appendTime) })
}

func TestANameIsTakenAsItWasEscaped(t *testing.T) {
	h := loadedHandler(t)
	const escaped = "a%2Fb%20%C3%A9"
	require.Equal(t, 200, do(h, "POST", "/v1/registration/"+escaped, fields("service_repo_name", "org/name")).Code)
	require.Equal(t, "a/b é", listed(t, h, escaped)[0]["service"])
	require.Len(t, listed(t, h, "repo/org%2Fname"), 1)
	require.Equal(t, 204, do(h, "POST", "/v1/loadbalancing/"+escaped+"/10.0.0.1", url.Values{"load_balancing_weight": {"7"}}).Code)
	require.Equal(t, 200, do(h, "DELETE", "/v1/registration/"+escaped+"/10.0.0.1", nil).Code)
	require.Empty(t, listed(t, h, escaped))
}

func TestAPathThatGoesRoundAboutIsSentToTheStraightOne(t *testing.T) {
	h := loadedHandler(t)
	for _, method := range []string{"GET", "POST"} {
		for path, want := range map[string]string{
			"/v1//registration/users": "/v1/registration/users",
			"/v1/x/../registration/a": "/v1/registration/a",
		} {
			w := do(h, method, path, fields())
			require.Equal(t, 307, w.Code)
			require.Equal(t, want, w.Header().Get("Location"))
		}
	}
	require.Equal(t, 200, do(h, "POST", "/v1/registration/%2E%2E", fields()).Code)
	require.Equal(t, "..", listed(t, h, "%2E%2E")[0]["service"])
}

func TestTheServiceRepoHasAllButItsRegistrationPathToItself(t *testing.T) {
	h := loadedHandler(t)
	require.Equal(t, 200, do(h, "POST", "/v1/registration/repo", fields()).Code)
	require.Len(t, listed(t, h, "repo"), 1)
	require.Equal(t, 200, do(h, "DELETE", "/v1/registration/repo/10.0.0.1", nil).Code)
	require.Empty(t, listed(t, h, "repo"))
}

func TestAHostIsItsAddressAndPort(t *testing.T) {
	h := loadedHandler(t)
	register := func(changes ...string) {
		require.Equal(t, 200, do(h, "POST", "/v1/registration/users", fields(changes...)).Code)
	}
	ports := func() (ports []any) {
		for _, host := range listed(t, h, "users") {
			ports = append(ports, host["port"])
		}
		return ports
	}
	register()
	register("port", "9090")
	require.Equal(t, []any{8080.0, 9090.0}, ports(), "two processes of one instance_id on one address")
	register("tags", `{"az":"eu-1","region":"eu","instance_id":"i-2"}`)
	require.Equal(t, []any{8080.0, 9090.0}, ports(), "the same process under another name")
	require.Equal(t, "i-2", listed(t, h, "users")[0]["tags"].(map[string]any)["instance_id"])
	register("ip", "10.0.0.2")
	register("ip", "fd00::1")
	require.Equal(t, []any{8080.0, 9090.0, 8080.0, 8080.0}, ports(), "other addresses")
	require.Equal(t, 200, do(h, "DELETE", "/v1/registration/users/10.0.0.2?port=8080", nil).Code)
	require.Equal(t, []any{8080.0, 9090.0, 8080.0}, ports())
	require.Equal(t, 200, do(h, "DELETE", "/v1/registration/users/10.0.0.1", nil).Code)
	require.Equal(t, []any{8080.0}, ports(), "all ports of an address went")
	require.Equal(t, 200, do(h, "DELETE", "/v1/registration/users/FD00:0::1", nil).Code)
	require.Empty(t, ports(), "an address has more than one spelling")
}

func TestAHeartbeatLosesNoTagAndNoWeight(t *testing.T) {
	h := loadedHandler(t)
	tags := func() any { return listed(t, h, "users")[0]["tags"] }
	require.Equal(t, 200, do(h, "POST", "/v1/registration/users",
		fields("tags", `{"az":"eu-1","region":"eu","instance_id":"i-1","rack":"7","canary":true}`)).Code)
	require.Equal(t, 204, do(h, "POST", "/v1/loadbalancing/users/10.0.0.1", url.Values{"load_balancing_weight": {"30"}}).Code)
	require.Equal(t, 200, do(h, "POST", "/v1/registration/users", fields()).Code)
	want := map[string]any{"az": "eu-1", "region": "eu", "instance_id": "i-1", "rack": "7", "canary": true, "load_balancing_weight": 30.0}
	require.Equal(t, want, tags())

	require.Equal(t, 200, do(h, "POST", "/v1/registration/users",
		fields("tags", `{"az":"eu-1","region":"eu","instance_id":"i-1","load_balancing_weight":2}`)).Code)
	want["load_balancing_weight"] = 2.0
	require.Equal(t, want, tags())
}

func TestTagsThatGrowWithEveryHeartbeatAreRefusedAtTheirBound(t *testing.T) {
	h := loadedHandler(t)
	beat := func(n int) *httptest.ResponseRecorder {
		return do(h, "POST", "/v1/registration/users",
			fields("tags", fmt.Sprintf(`{"az":"a","region":"r","instance_id":"i","tag-%d":"%s"}`, n, strings.Repeat("x", 8000))))
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
		require.Equal(t, 200, do(h, "POST", "/v1/registration/users", fields("ttl", "3")).Code)
		require.Equal(t, 200, do(h, "POST", "/v1/registration/users", fields("ip", "10.0.0.2")).Code)
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
		"no ip":                   {fields("ip", "-"), `ip: missing`},
		"an ip that is none":      {fields("ip", "10.0.0.256"), `ip: "10.0.0.256" is not an IPv4 or IPv6 address`},
		"an ip with a zone":       {fields("ip", "fe80::1%eth0"), `ip: "fe80::1%eth0" has a zone, which means nothing to others`},
		"no host's address":       {fields("ip", "0.0.0.0"), `ip: "0.0.0.0" is not the address of a host`},
		"everybody's address":     {fields("ip", "255.255.255.255"), `ip: "255.255.255.255" is not the address of a host`},
		"a group's address":       {fields("ip", "224.0.0.1"), `ip: "224.0.0.1" is not the address of a host`},
		"no port":                 {fields("port", "-"), `port: missing`},
		"a port of text":          {fields("port", "abc"), `port: "abc" is not an integer from 1 to 65535`},
		"port 0":                  {fields("port", "0"), `port: "0" is not an integer from 1 to 65535`},
		"port -1":                 {fields("port", "-1"), `port: "-1" is not an integer from 1 to 65535`},
		"a port too high":         {fields("port", "65536"), `port: "65536" is not an integer from 1 to 65535`},
		"no revision":             {fields("revision", "-"), `revision: missing`},
		"a revision of no text":   {fields("revision", "\xff"), `revision: "\xff" is not UTF-8`},
		"a repo of no text":       {fields("service_repo_name", "\xff"), `service_repo_name: "\xff" is not UTF-8`},
		"a revision of two lines": {fields("revision", "a\nb"), `revision: "a\nb" holds a control character`},
		"a repo of two lines":     {fields("service_repo_name", "a\rb"), `service_repo_name: "a\rb" holds a control character`},
		"tags of two lines":       {fields("tags", `{`+fine+`,"rack":"`+"a\nb"+`"}`), `tags: not a JSON object: invalid character '\n' in string literal`},
		"a zone of two lines": {fields("tags", `{"az":"a\u0000","region":"b\n","instance_id":"c\u007f"}`),
			`tags.az: "a\x00" holds a control character; tags.region: "b\n" holds a control character; tags.instance_id: "c\x7f" holds a control character`},
		"tags that are no JSON": {fields("tags", "{"), `tags: not a JSON object: unexpected end of JSON input`},
		"tags of null":          {fields("tags", "null"), `tags: not a JSON object: null`},
		"tags of a number":      {fields("tags", "1"), `tags: not a JSON object: a number`},
		"tags of a list":        {fields("tags", `["az","region","instance_id"]`), `tags: not a JSON object: an array`},
		"half a pair and more":  {fields("tags", `{"az":"a","region":"\ud800","canary":7}`), `tags: holds half of a surrogate pair: \ud800; tags.instance_id: missing; tags.canary: 7 is not true or false`},
		"a tag without a name":  {fields("tags", `{`+fine+`,"":1}`), `tags: "" is not a name`},
		"a number of 65 bits":   {fields("tags", `{`+fine+`,"n":18446744073709551616}`), `tags.n: holds 18446744073709551616, which is beyond signed numbers of 64 bits`},
		"tags of half a pair":   {fields("tags", `{`+fine+`,"rack":"\ud800"}`), `tags: holds half of a surrogate pair: \ud800`},
		"tags of no text":       {fields("tags", `{`+fine+`,"rack":"`+"\xff"+`"}`), `tags: not UTF-8`},
		"a revision too long":   {fields("revision", strings.Repeat("x", 1025)), `revision: has 1025 bytes, of 1024 at most`},
		"a repo too long":       {fields("service_repo_name", strings.Repeat("x", 1025)), `service_repo_name: has 1025 bytes, of 1024 at most`},
		"no tags":               {fields("tags", "-"), `tags.az: missing; tags.region: missing; tags.instance_id: missing`},
		"a zone of null":        {fields("tags", `{"az":null,"region":"","instance_id":""}`), `tags.az: missing`},
		"a zone of a number":    {fields("tags", `{"az":1,"region":"","instance_id":""}`), `tags.az: 1 is not a string`},
		"a canary of text":      {fields("tags", `{`+fine+`,"canary":"maybe"}`), `tags.canary: "maybe" is not true or false`},
		"a canary of a number":  {fields("tags", `{`+fine+`,"canary":1}`), `tags.canary: 1 is not true or false`},
		"a weight of 0":         {fields("tags", `{`+fine+`,"load_balancing_weight":0}`), `tags.load_balancing_weight: "0" is not an integer from 1 to 100`},
		"a weight of 200":       {fields("tags", `{`+fine+`,"load_balancing_weight":200}`), `tags.load_balancing_weight: "200" is not an integer from 1 to 100`},
		"a weight of 1.5":       {fields("tags", `{`+fine+`,"load_balancing_weight":1.5}`), `tags.load_balancing_weight: "1.5" is not an integer from 1 to 100`},
		"a ttl of text":         {fields("ttl", "soon"), `ttl: "soon" is not an integer from 1 to 3600, in seconds`},
		"a ttl of 0":            {fields("ttl", "0"), `ttl: "0" is not an integer from 1 to 3600, in seconds`},
		"a ttl too long":        {fields("ttl", "3601"), `ttl: "3601" is not an integer from 1 to 3600, in seconds`},
		"fields given twice": {url.Values{"ip": {"10.0.0.1", "10.0.0.1"}, "ttl": {"1", "2", "3"}},
			`ip: there 2 times; ttl: there 3 times; port: missing; revision: missing; tags.az: missing; tags.region: missing; tags.instance_id: missing`},
		"tags given twice": {fields("tags", `{`+fine+`,"az":"eu-2","a:b":{"x":":","y":1},"\u0061:b":["\\\":",{}],"c":":"}`),
			`tags: "az" is there more than once; tags: "a:b" is there more than once`},
		"a tag that is too large a number": {fields("tags", `{`+fine+`,"x":1e999}`), `tags.x: holds 1e999, which is beyond signed numbers of 64 bits`},
		"a tag that says a name twice":     {fields("tags", `{`+fine+`,"x":[{"y":1,"y":2}]}`), `tags.x: holds an object that has "y" twice`},
		"a tag that is too deep":           {fields("tags", `{`+fine+`,"x":`+strings.Repeat("[", 33)+strings.Repeat("]", 33)+`}`), `tags.x: holds values in each other more than 32 deep`},
		"everything, said at once": {url.Values{"port": {"x"}, "ttl": {"x"}, "tags": {`{"az":1}`}},
			`ip: missing; port: "x" is not an integer from 1 to 65535; revision: missing; tags.az: 1 is not a string; ` +
				`tags.region: missing; tags.instance_id: missing; ttl: "x" is not an integer from 1 to 3600, in seconds`},
	} {
		t.Run(name, func(t *testing.T) {
			h := loadedHandler(t)
			require.Equal(t, 200, do(h, "POST", "/v1/registration/users", fields("ip", "10.0.0.7")).Code)
			w := do(h, "POST", "/v1/registration/users", test.form)
			require.Equal(t, 400, w.Code)
			var answer map[string]string
			require.NoError(t, json.Unmarshal(w.Body.Bytes(), &answer))
			require.Equal(t, map[string]string{"error": test.reason}, answer)
			require.Len(t, listed(t, h, "users"), 1, "what was there is still there, and nothing else")
		})
	}
}

func TestSoManyTagsThatAreThereTwiceAreToldOf(t *testing.T) {
	tags := `{"az":"eu-1","region":"eu","instance_id":"i-1"`
	for i := range 2 * (jsontext.MaxTwice + 1) {
		tags += fmt.Sprintf(`,"%04d":0`, i/2)
	}
	w := do(loadedHandler(t), "POST", "/v1/registration/users", fields("tags", tags+"}"))
	require.Equal(t, 400, w.Code)
	require.Equal(t, jsontext.MaxTwice, strings.Count(w.Body.String(), " is there more than once"))
	require.Contains(t, w.Body.String(), `; tags: more names may be there more than once: 100 are told"}`)
}

func TestFieldsThatMeanNothingAreIgnored(t *testing.T) {
	h := loadedHandler(t)
	w := do(h, "POST", "/v1/registration/users", url.Values{
		"ip": {"10.0.0.1"}, "port": {"80"}, "revision": {"r"}, "tl": {"5", "6"}, "tags": {`{"az":"a","region":"r","instance_id":"i","x":{"y":1}}`},
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
		w := do(h, "POST", "/v1/registration/"+name, fields())
		require.Equal(t, 400, w.Code, name)
		var answer map[string]string
		require.NoError(t, json.Unmarshal(w.Body.Bytes(), &answer))
		require.Equal(t, reason, answer["error"])
	}
}

// badEscapes tells of the escapes that begin so and end in a g.
func badEscapes(begin string) string {
	var told []string
	for _, digit := range begin {
		told = append(told, fmt.Sprintf(`read the form: invalid URL escape "%%%cg"`, digit))
	}
	return strings.Join(told, "; ")
}

func TestABodyThatIsNoFormIsRefused(t *testing.T) {
	h := loadedHandler(t)
	const missing = `revision: missing; tags.az: missing; tags.region: missing; tags.instance_id: missing`
	for name, test := range map[string]struct {
		contentType, body string
		status            int
		reason            string
	}{
		"JSON":           {"application/json", `{}`, 400, `content-type "application/json": JSON is not read here; the body must be application/x-www-form-urlencoded`},
		"JSON in UTF-8":  {"application/json; charset=utf-8", `{}`, 400, `content-type "application/json; charset=utf-8": JSON is not read here; the body must be application/x-www-form-urlencoded`},
		"a multipart":    {"multipart/form-data; boundary=x", "", 400, `content-type "multipart/form-data; boundary=x": the body must be application/x-www-form-urlencoded`},
		"in UTF-16":      {"application/x-www-form-urlencoded; charset=UTF-16", "ip=1", 415, `content-type "application/x-www-form-urlencoded; charset=UTF-16": forms are read as UTF-8 alone`},
		"in ISO-8859-1":  {"application/x-www-form-urlencoded; charset=ISO-8859-1", "ip=1&revision=%E9&port=1&tags={%22az%22:%22%22,%22region%22:%22%22,%22instance_id%22:%22%22}", 400, `ip: "1" is not an IPv4 or IPv6 address; revision: "\xe9" is not UTF-8`},
		"no media type":  {";", "", 400, `content-type ";": the body must be application/x-www-form-urlencoded`},
		"a bad escape":   {"application/x-www-form-urlencoded", "ip=%zz", 400, `ip: invalid URL escape "%zz"; port: missing; ` + missing},
		"a bad name":     {"", "%=1&port=0", 400, `read the form: invalid URL escape "%"; ip: missing; port: "0" is not an integer from 1 to 65535; ` + missing},
		"bad and twice":  {"", "tags=%&ttl=1&ttl=x&revision=%zz&port=80&ip=1", 400, `tags: invalid URL escape "%"; revision: invalid URL escape "%zz"; ttl: there 2 times; ip: "1" is not an IPv4 or IPv6 address`},
		"bad all along":  {"", strings.Repeat("%0g=1&", 3) + "%1g&%2g&%3g&%4g&%5g&%6g&%7g&%8g&%9g&%ag&ip=1", 400, badEscapes("0123456789") + "; ip: missing; port: missing; " + missing},
		"no body":        {"", "", 400, `ip: missing; port: missing; revision: missing; tags.az: missing; tags.region: missing; tags.instance_id: missing`},
		"ampersands":     {"", "&&=&", 400, `ip: missing; port: missing; revision: missing; tags.az: missing; tags.region: missing; tags.instance_id: missing`},
		"a semicolon":    {"", "ip=1;port=2&port=1&revision=r&tags={%22az%22:%22%22,%22region%22:%22%22,%22instance_id%22:%22%22}", 400, `ip: "1;port=2" is not an IPv4 or IPv6 address`},
		"a body too big": {"", "ip=" + strings.Repeat("1", call.MaxBody), 413, `the body is longer than 65536 bytes`},
	} {
		t.Run(name, func(t *testing.T) {
			r := httptest.NewRequest("POST", "/v1/registration/users", strings.NewReader(test.body))
			r.Header.Set("Content-Type", test.contentType)
			w := httptest.NewRecorder()
			h.ServeHTTP(w, r)
			require.Equal(t, test.status, w.Code)
			require.JSONEq(t, `{"error":`+string(httpjson.AppendText(nil, test.reason))+`}`, w.Body.String())
		})
	}
}

func TestABodyThatIsNotReadToItsEndIsRefused(t *testing.T) {
	h := loadedHandler(t)
	for name, test := range map[string]struct {
		body   io.Reader
		length int64 // as the head says; -1 for unknown
		status int
		reason string
	}{
		"it says that it is too long": {iotest.ErrReader(errors.New("read")), call.MaxBody + 1, 413, "the body is longer than 65536 bytes"},
		"it turns out too long":       {strings.NewReader(strings.Repeat("x", call.MaxBody+1)), -1, 413, "the body is longer than 65536 bytes"},
		"it is late":                  {iotest.ErrReader(os.ErrDeadlineExceeded), 10, 408, "the body did not come in time"},
		"it is late after a part":     {io.MultiReader(strings.NewReader("ip="), iotest.ErrReader(os.ErrDeadlineExceeded)), 10, 408, "the body did not come in time"},
		"it breaks off":               {iotest.ErrReader(io.ErrUnexpectedEOF), 10, 400, "read the body: unexpected EOF"},
	} {
		t.Run(name, func(t *testing.T) {
			for _, target := range []string{"/v1/registration/users", "/v1/loadbalancing/users"} {
				r := httptest.NewRequest("POST", target, test.body)
				r.ContentLength = test.length
				w := httptest.NewRecorder()
				h.ServeHTTP(w, r)
				require.Equal(t, test.status, w.Code)
				require.JSONEq(t, `{"error":`+string(httpjson.AppendText(nil, test.reason))+`}`, w.Body.String())
				if seeker, ok := test.body.(io.Seeker); ok {
					_, _ = seeker.Seek(0, io.SeekStart)
				}
			}
		})
	}
}

func TestTheLongestBodyIsRead(t *testing.T) {
	h := loadedHandler(t)
	body := fields().Encode() + "&other="
	body += strings.Repeat("x", call.MaxBody-len(body))
	r := httptest.NewRequest("POST", "/v1/registration/users", strings.NewReader(body))
	w := httptest.NewRecorder()
	h.ServeHTTP(w, r)
	require.Equal(t, 200, w.Code, w.Body)
}

func TestAutoIPTakesTheLastHopIfItIsInARange(t *testing.T) {
	for name, test := range map[string]struct {
		value  string // of auto_ip; "yes" unless said
		ip     string
		hops   []string
		want   string
		reason string
	}{
		"one hop":              {hops: []string{"192.168.1.5"}, want: "192.168.1.5"},
		"any value means it":   {value: "false", hops: []string{"192.168.1.5"}, want: "192.168.1.5"},
		"the last of two":      {hops: []string{"192.168.1.5, 192.168.1.6"}, want: "192.168.1.6"},
		"two headers":          {hops: []string{"192.168.1.5", "192.168.1.6"}, want: "192.168.1.6"},
		"an ip goes before it": {ip: "10.0.0.1", hops: []string{"192.168.1.5"}, want: "10.0.0.1"},
		"out of range": {hops: []string{"10.0.0.1"},
			reason: `auto_ip: 10.0.0.1, where the caller was seen, is not in one of [192.168.0.0/16]`},
		"no hop": {reason: `auto_ip: x-forwarded-for "" has no address at place 1 from its end`},
	} {
		t.Run(name, func(t *testing.T) {
			h := loadedHandler(t)
			var header []string
			for _, hop := range test.hops {
				header = append(header, "X-Forwarded-For", hop)
			}
			w := do(h, "POST", "/v1/registration/users", fields("ip", test.ip, "auto_ip", cmp.Or(test.value, "yes")), header...)
			if test.reason != "" {
				require.Equal(t, 400, w.Code)
				require.JSONEq(t, `{"error":`+string(httpjson.AppendText(nil, test.reason))+`}`, w.Body.String())
				return
			}
			require.Equal(t, 200, w.Code, w.Body)
			require.Equal(t, test.want, listed(t, h, "users")[0]["ip_address"])
		})
	}
}

func TestAutoIPCountsTheProxiesThatStandInFront(t *testing.T) {
	for name, test := range map[string]struct {
		hops         int
		forwardedFor string
		remote       string
		want, reason string
	}{
		"two hops":       {2, "6.6.6.6, 192.168.1.5, 10.0.0.1", "", "192.168.1.5", ""},
		"just enough":    {2, "192.168.1.5,10.0.0.1", "", "192.168.1.5", ""},
		"IPv6":           {1, "FD00::7", "", "fd00::7", ""},
		"with a port":    {1, "192.168.1.5:4711", "", "192.168.1.5", ""},
		"mapped IPv4":    {1, "::ffff:192.168.1.5", "", "192.168.1.5", ""},
		"too few":        {3, "192.168.1.5, 10.0.0.1", "", "", `auto_ip: x-forwarded-for "192.168.1.5, 10.0.0.1" has no address at place 3 from its end`},
		"a hop of text":  {1, "192.168.1.5, unknown", "", "", `auto_ip: x-forwarded-for "192.168.1.5, unknown" has no address at place 1 from its end`},
		"no proxy":       {0, "192.168.1.5", "192.168.1.6:4711", "192.168.1.6", ""},
		"no proxy, IPv6": {0, "", "[fd00::7]:4711", "fd00::7", ""},
		"a far caller":   {0, "192.168.1.5", "6.6.6.6:4711", "", `auto_ip: 6.6.6.6, where the caller was seen, is not in one of [192.168.0.0/16 fd00::/8]`},
		"no address":     {0, "", "@", "", `auto_ip: it is not known where the caller was seen`},
	} {
		t.Run(name, func(t *testing.T) {
			o := options(registrytest.Loaded(t))
			o.AutoIPHops, o.AutoIPRanges = test.hops, append(o.AutoIPRanges, netip.MustParsePrefix("fd00::/8"))
			h := handlerOf(o)
			r := httptest.NewRequest("POST", "/v1/registration/users", strings.NewReader(fields("ip", "-", "auto_ip", "1").Encode()))
			r.Header.Set("X-Forwarded-For", test.forwardedFor)
			if test.remote != "" {
				r.RemoteAddr = test.remote
			}
			w := httptest.NewRecorder()
			h.ServeHTTP(w, r)
			if test.reason != "" {
				require.Equal(t, 400, w.Code)
				require.JSONEq(t, `{"error":`+string(httpjson.AppendText(nil, test.reason))+`}`, w.Body.String())
				return
			}
			require.Equal(t, 200, w.Code, w.Body)
			require.Equal(t, test.want, listed(t, h, "users")[0]["ip_address"])
		})
	}
}

// token is the one that the rules of behindAuth know.
const token = "users-0123456789abcdef"

// behindAuth puts the caller of each call into its context, as the gate does:
// httptest's requests come from 192.0.2.1, and only with the token something may
// be done, to hosts of "users" at that address or 10.0.0.1.
func behindAuth(t *testing.T, o Options) http.Handler {
	t.Helper()
	path := filepath.Join(t.TempDir(), "access.yaml")
	require.NoError(t, os.WriteFile(path, []byte("tokens: [{name: users-team, token: "+token+", services: [users], addresses: [10.0.0.1]}]"), 0o600))
	policy, err := auth.New(auth.Options{
		File: filewatch.File{Setting: "RULES", Path: path}, Log: slog.New(slog.DiscardHandler), Metrics: prometheus.NewRegistry(), Denials: denial.NewCounters(prometheus.NewRegistry()),
	})
	require.NoError(t, err)
	h := handlerOf(o)
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		caller := policy.HTTP(r)
		h.ServeHTTP(w, r.WithContext(auth.NewContext(r.Context(), &caller)))
	})
}

func TestTheHistoryNamesTheCaller(t *testing.T) {
	hosts := registrytest.Loaded(t)
	h := behindAuth(t, options(hosts))
	bearer := []string{"Authorization", "Bearer " + token}
	require.Equal(t, 200, do(h, "POST", "/v1/registration/users", fields(), bearer...).Code)
	require.Equal(t, 204, do(h, "POST", "/v1/loadbalancing/users", url.Values{"load_balancing_weight": {"7"}}, bearer...).Code)
	require.Equal(t, 200, do(h, "DELETE", "/v1/registration/users/10.0.0.1", nil, bearer...).Code)
	history, err := hosts.History("users")
	require.NoError(t, err)
	require.Len(t, history, 3)
	for _, event := range history {
		require.Equal(t, "users-team", event.Actor)
		require.Equal(t, "10.0.0.1:8080", event.ID)
	}
}

func TestACallerMayDoNoMoreThanItMay(t *testing.T) {
	hosts := registrytest.Loaded(t)
	h := behindAuth(t, options(hosts))
	bearer := []string{"Authorization", "Bearer " + token}
	weight := url.Values{"load_balancing_weight": {"7"}}
	require.Equal(t, 200, do(h, "POST", "/v1/registration/users", fields(), bearer...).Code)
	for _, test := range []struct {
		method, target string
		form           url.Values
		header         []string
		status         int
		reason         string
	}{
		{"POST", "/v1/registration/users", fields("revision", "r2"), nil, 401, `to change hosts of service "users" takes a token`},
		{"POST", "/v1/registration/users", fields("ip", "10.0.0.2"), bearer, 403, `address 10.0.0.2 is not that of the caller`},
		{"POST", "/v1/registration/carts", fields(), bearer, 403, `the rule of "users-team" does not let it change hosts of service "carts"`},
		{"DELETE", "/v1/registration/users/10.0.0.1", nil, nil, 401, `to change hosts of service "users" takes a token`},
		{"DELETE", "/v1/registration/users/10.0.0.2", nil, bearer, 403, `address 10.0.0.2 is not that of the caller`},
		{"DELETE", "/v1/registration/repo/10.0.0.1", nil, bearer, 403, `the rule of "users-team" does not let it change hosts of service "repo"`},
		{"POST", "/v1/loadbalancing/users", weight, nil, 401, `to change hosts of service "users" takes a token`},
		{"POST", "/v1/loadbalancing/carts", weight, bearer, 403, `the rule of "users-team" does not let it change hosts of service "carts"`},
	} {
		w := do(h, test.method, test.target, test.form, test.header...)
		require.Equal(t, test.status, w.Code, "%s %s", test.method, test.target)
		require.Contains(t, strings.ReplaceAll(w.Body.String(), `\"`, `"`), test.reason)
		require.Equal(t, test.status == 401, w.Header().Get("WWW-Authenticate") != "")
	}
	require.Equal(t, "r1", listed(t, h, "users")[0]["revision"])
}

func TestEachRegistrationIsToldOfAndWhetherItWasTaken(t *testing.T) {
	o := options(registrytest.Loaded(t))
	var told []string
	o.Registration = func(service string, taken bool) { told = append(told, fmt.Sprint(service, " ", taken)) }
	h := handlerOf(o)
	do(h, "POST", "/v1/registration/users", fields())
	do(h, "POST", "/v1/registration/users", fields())
	do(h, "POST", "/v1/registration/a%2Fb", fields("port", "0"))
	do(h, "POST", "/v1/registration/users", fields("tags", "{"))
	do(h, "GET", "/v1/registration/users", nil)
	do(h, "POST", "/v1/loadbalancing/users", fields())
	do(h, "DELETE", "/v1/registration/users/10.0.0.1", nil)
	require.Equal(t, []string{"users true", "users true", "a/b false", "users false"}, told)
}

func TestMoreThanTheOperatorAllowsIsRefusedWithItsNumber(t *testing.T) {
	o := registrytest.Options()
	o.Limits = registry.Limits{HostsPerService: 1, Services: 1, TagBytes: 1000}
	hosts := registry.New(o)
	registrytest.Run(t, hosts)
	<-hosts.Loaded()
	h := newHandler(hosts)
	require.Equal(t, 200, do(h, "POST", "/v1/registration/users", fields()).Code)
	for target, reason := range map[string]string{
		"/v1/registration/users": "the service has as many hosts as it may: 1",
		"/v1/registration/mail":  "there are as many services as there may be: 1",
	} {
		w := do(h, "POST", target, fields("port", "1"))
		require.Equal(t, 429, w.Code)
		require.Equal(t, "10", w.Header().Get("Retry-After"))
		require.JSONEq(t, `{"error":`+string(httpjson.AppendText(nil, reason))+`}`, w.Body.String())
	}
	require.Equal(t, 200, do(h, "POST", "/v1/registration/users", fields()).Code, "what is there beats on")
}

func TestNothingIsAnsweredBeforeTheRegistryIsLoaded(t *testing.T) {
	h := newHandler(registry.New(registrytest.Options()))
	for _, test := range []struct {
		method, target string
		form           url.Values
	}{
		{"GET", "/v1/registration/users", nil},
		{"GET", "/v1/registration/repo/users", nil},
		{"POST", "/v1/registration/users", fields()},
		{"DELETE", "/v1/registration/users/10.0.0.1", nil},
		{"POST", "/v1/loadbalancing/users", url.Values{"load_balancing_weight": {"7"}}},
	} {
		w := do(h, test.method, test.target, test.form)
		require.Equal(t, 503, w.Code, "%s %s", test.method, test.target)
		require.Equal(t, "1", w.Header().Get("Retry-After"))
		require.JSONEq(t, `{"error":"the registry is not loaded yet"}`, w.Body.String())
	}
	require.Equal(t, 200, do(h, "GET", "/healthcheck", nil).Code)
}

// What a replica has from its snapshot alone is not all: another may have taken the host
// in since. So it does not say that there is none.
func TestAHostThatAStaleReplicaDoesNotKnowIsNotTakenForGone(t *testing.T) {
	h := newHandler(registrytest.Stale(t, registry.Host{
		Key: registry.Key{Service: "users", ID: "10.0.0.1:80"}, Address: netip.MustParseAddrPort("10.0.0.1:80"), TTL: time.Minute,
	}))
	weight := url.Values{"load_balancing_weight": {"7"}}
	for _, c := range []struct {
		method, target string
		form           url.Values
	}{
		{"DELETE", "/v1/registration/users/10.0.0.2", nil},
		{"POST", "/v1/loadbalancing/users/10.0.0.2", weight},
		{"POST", "/v1/loadbalancing/orders", weight},
	} {
		w := do(h, c.method, c.target, c.form)
		require.Equal(t, 503, w.Code, c.target)
		require.Equal(t, "1", w.Header().Get("Retry-After"))
		require.Contains(t, w.Body.String(), "does not know of the host")
	}
	require.Equal(t, 204, do(h, "POST", "/v1/loadbalancing/users", weight).Code, "of this one it knows one")
	require.Equal(t, 204, do(h, "POST", "/v1/loadbalancing/users/10.0.0.1", weight).Code)
	require.Equal(t, 200, do(h, "DELETE", "/v1/registration/users/10.0.0.1", nil).Code)
}
