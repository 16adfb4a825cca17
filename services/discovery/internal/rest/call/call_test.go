package call_test

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"strings"
	"testing"
	"testing/iotest"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/stretchr/testify/require"

	"github.com/weirproxy/weir/internal/servicetest"
	"github.com/weirproxy/weir/services/discovery/internal/denial"
	"github.com/weirproxy/weir/services/discovery/internal/httpjson"
	"github.com/weirproxy/weir/services/discovery/internal/registry"
	"github.com/weirproxy/weir/services/discovery/internal/rest/call"
)

func TestMain(m *testing.M) { servicetest.Main(m) }

// face is a router with what it counts and logs.
type face struct {
	http.Handler
	metrics *prometheus.Registry
	log     bytes.Buffer
}

// newFace has a path of a thing, which answers GET with 200 and PUT as put says.
func newFace(put call.Handler) *face {
	f := &face{metrics: prometheus.NewRegistry()}
	f.Handler = call.NewRouter(call.Options{
		Log: slog.New(slog.NewTextHandler(&f.log, nil)), Metrics: f.metrics, Denials: denial.NewCounters(f.metrics, call.Limits()...),
	}, call.Route{Path: "/things/{name}", Methods: map[string]call.Handler{
		"GET": func(w http.ResponseWriter, r *http.Request) (int, error) {
			return httpjson.Answer(w, 200, r.PathValue("name"))
		},
		"PUT": put,
	}})
	return f
}

func (f *face) call(method, target string) *httptest.ResponseRecorder {
	w := httptest.NewRecorder()
	f.ServeHTTP(w, httptest.NewRequest(method, target, nil))
	return w
}

// counts are the counters of a name that are not 0, by their labels' values.
func (f *face) counts(t *testing.T, name string) map[string]float64 {
	t.Helper()
	families, err := f.metrics.Gather()
	require.NoError(t, err)
	counts := map[string]float64{}
	for _, family := range families {
		for _, metric := range family.GetMetric() {
			if family.GetName() != name || metric.GetCounter().GetValue() == 0 {
				continue
			}
			var labels []string
			for _, label := range metric.GetLabel() {
				labels = append(labels, label.GetValue())
			}
			counts[strings.Join(labels, " ")] = metric.GetCounter().GetValue()
		}
	}
	return counts
}

// Over sockets, for net/http answers some of these itself if it is let.
func TestACallOfNoPathIsAnsweredAsOthersAre(t *testing.T) {
	server := httptest.NewUnstartedServer(newFace(nil))
	server.Config.DisableGeneralOptionsHandler = true // as the app does
	server.Start()
	defer server.Close()
	for line, want := range map[string]string{
		"OPTIONS *":           "method OPTIONS: not one of GET, HEAD, PUT, of a path",
		"GET *":               "method GET: not one of GET, HEAD, PUT, of a path",
		"CONNECT example.com": "method CONNECT: not one of GET, HEAD, PUT, of a path",
		"CONNECT a:443":       "method CONNECT: not one of GET, HEAD, PUT, of a path",
		"CONNECT /things/a":   "method CONNECT: not one of GET, HEAD, PUT",
	} {
		t.Run(line, func(t *testing.T) {
			conn, err := net.Dial("tcp", server.Listener.Addr().String())
			require.NoError(t, err)
			defer conn.Close()
			_, err = fmt.Fprintf(conn, "%s HTTP/1.1\r\nHost: a\r\n\r\n", line)
			require.NoError(t, err)
			response, err := http.ReadResponse(bufio.NewReader(conn), nil)
			require.NoError(t, err)
			defer response.Body.Close()
			require.Equal(t, 405, response.StatusCode)
			require.Equal(t, "GET, HEAD, PUT", response.Header.Get("Allow"))
			body, err := io.ReadAll(response.Body)
			require.NoError(t, err)
			require.JSONEq(t, `{"error":"`+want+`"}`, string(body))
		})
	}
}

func TestACallIsLedToTheHandlerOfItsPathAndMethod(t *testing.T) {
	f := newFace(func(w http.ResponseWriter, _ *http.Request) (int, error) { return httpjson.Nothing(w) })
	require.Equal(t, "\"a/b\"\n", f.call("GET", "/things/a%2Fb").Body.String())
	require.Equal(t, 200, f.call("HEAD", "/things/a").Code)
	require.Equal(t, 204, f.call("PUT", "/things/a").Code)

	w := f.call("POST", "/things/a")
	require.Equal(t, 405, w.Code)
	require.Equal(t, "GET, HEAD, PUT", w.Header().Get("Allow"))
	require.JSONEq(t, `{"error":"method POST: not one of GET, HEAD, PUT"}`, w.Body.String())
	for _, target := range []string{"/", "/things", "/things/", "/things/a/b", "/thing%2Fa"} {
		w := f.call("GET", target)
		require.Equal(t, 404, w.Code)
		require.Equal(t, "application/json", w.Header().Get("Content-Type"))
		require.JSONEq(t, `{"error":"nothing is at `+target+`"}`, w.Body.String())
	}
	require.Equal(t, map[string]float64{
		"200 /things/{name}": 2, "204 /things/{name}": 1, "405 /things/{name}": 1, "404 other": 5,
	}, f.counts(t, "discovery_rest_requests_total"))
}

func TestWhatIsNotDoneIsAnsweredByWhatTheErrorIs(t *testing.T) {
	full := fmt.Errorf("%w: 7", registry.ErrServiceFull)
	for name, test := range map[string]struct {
		err        error
		status     int
		retryAfter string
		body       string
		counted    string // the reason of a denial
		logged     bool
	}{
		"a refusal": {err: call.Refuse(404, "no %q", "a"), status: 404, body: `{"error":"no \"a\""}`},
		"faults": {
			err: call.Faults{{Field: "a", Reason: "missing"}, {Field: "b.c", Reason: "unknown"}}.Refusal(), status: 400,
			body: `{"error":"a: missing; b.c: unknown","fields":[{"field":"a","reason":"missing"},{"field":"b.c","reason":"unknown"}]}`,
		},
		"faults in a line": {
			err:    call.Faults{{Field: "a", Reason: "missing"}, {Field: "b.c", Reason: "unknown"}}.Line(),
			status: 400, body: `{"error":"a: missing; b.c: unknown"}`,
		},
		"a refusal for now": {
			err: &call.Refusal{Status: 503, Reason: "busy", RetryAfter: 1500 * time.Millisecond}, status: 503, retryAfter: "2", body: `{"error":"busy"}`,
		},
		"a denial":            {err: &denial.Error{Status: 403, Text: "not you"}, status: 403, body: `{"error":"not you"}`},
		"a limit":             {err: full, status: 429, retryAfter: "10", counted: "hosts", body: `{"error":"the service has as many hosts as it may: 7"}`},
		"a limit, by a field": {err: &call.Refusal{Status: 400, Reason: "x: y", Fields: call.Faults{{"x", "y"}}, Cause: full}, status: 429, retryAfter: "10", counted: "hosts", body: `{"error":"x: y","fields":[{"field":"x","reason":"y"}]}`},
		"not loaded":          {err: registry.ErrNotLoaded, status: 503, retryAfter: "1", body: `{"error":"the registry is not loaded yet"}`},
		"another error":       {err: errors.New("broken"), status: 500, body: `{"error":"broken"}`, logged: true},
	} {
		t.Run(name, func(t *testing.T) {
			f := newFace(func(http.ResponseWriter, *http.Request) (int, error) { return 0, test.err })
			w := f.call("PUT", "/things/a")
			require.Equal(t, test.status, w.Code)
			require.Equal(t, test.retryAfter, w.Header().Get("Retry-After"))
			require.JSONEq(t, test.body, w.Body.String())
			require.Equal(t, map[string]float64{fmt.Sprint(test.status) + " /things/{name}": 1}, f.counts(t, "discovery_rest_requests_total"))
			counted := map[string]float64{}
			if test.counted != "" {
				counted[test.counted] = 1
			}
			require.Equal(t, counted, f.counts(t, "discovery_refusals_total"))
			require.Equal(t, test.logged, f.log.Len() > 0, f.log.String())
		})
	}
}

func TestNoFaultsAreNoRefusal(t *testing.T) {
	var f call.Faults
	require.NoError(t, f.Refusal())
	require.NoError(t, f.Line())
}

func TestABodyIsReadUpToItsLimitAndInTime(t *testing.T) {
	for name, test := range map[string]struct {
		body   io.Reader
		length int64
		status int
		reason string
	}{
		"fits":             {strings.NewReader("0123456789"), 10, 0, ""},
		"without length":   {strings.NewReader("0123456789"), -1, 0, ""},
		"too long":         {strings.NewReader("0123456789x"), 11, 413, "the body is longer than 10 bytes"},
		"too long at last": {strings.NewReader("0123456789x"), -1, 413, "the body is longer than 10 bytes"},
		"too late":         {iotest.ErrReader(os.ErrDeadlineExceeded), -1, 408, "the body did not come in time"},
		"broken":           {iotest.ErrReader(errors.New("cut")), -1, 400, "read the body: cut"},
	} {
		t.Run(name, func(t *testing.T) {
			r := httptest.NewRequest("PUT", "/", test.body)
			r.ContentLength = test.length
			r.Header.Set("Content-Encoding", "Identity")
			body, err := call.ReadBody(httptest.NewRecorder(), r, 10)
			if test.reason == "" {
				require.NoError(t, err)
				require.Equal(t, "0123456789", string(body))
				return
			}
			require.EqualError(t, err, test.reason)
			refused, ok := errors.AsType[*call.Refusal](err)
			require.True(t, ok)
			require.Equal(t, test.status, refused.Status)
		})
	}
}

func TestACodedBodyIsNotRead(t *testing.T) {
	for _, codings := range [][]string{{"gzip"}, {"identity", "br"}, {"identity, deflate"}} {
		r := httptest.NewRequest("PUT", "/", iotest.ErrReader(errors.New("read")))
		r.Header["Content-Encoding"] = codings
		w := httptest.NewRecorder()
		_, err := call.ReadBody(w, r, 10)
		refused, ok := errors.AsType[*call.Refusal](err)
		require.True(t, ok, "%v", err)
		require.Equal(t, 415, refused.Status)
		require.Equal(t, fmt.Sprintf("content-encoding %q: no coded body is read", codings[len(codings)-1]), refused.Reason)
		require.Equal(t, "identity", w.Header().Get("Accept-Encoding"))
	}
}

func TestABodyThatIsTooLongIsCountedOnce(t *testing.T) {
	f := newFace(func(w http.ResponseWriter, r *http.Request) (int, error) {
		_, err := call.ReadBody(w, r, 10)
		return 0, err
	})
	for _, length := range []int64{11, -1} {
		r := httptest.NewRequest("PUT", "/things/a", strings.NewReader("0123456789x"))
		r.ContentLength = length
		w := httptest.NewRecorder()
		f.ServeHTTP(w, r)
		require.Equal(t, 413, w.Code)
		require.JSONEq(t, `{"error":"the body is longer than 10 bytes"}`, w.Body.String())
	}
	require.Equal(t, map[string]float64{"body": 2}, f.counts(t, "discovery_refusals_total"))
}

func TestABodyThatMayBeLeftOutIsFoundWithoutLosingIt(t *testing.T) {
	for text, length := range map[string]int64{"": 0, "x": 1, "yz": -1} {
		r := httptest.NewRequest("PUT", "/", io.NopCloser(strings.NewReader(text)))
		r.ContentLength = length
		has, err := call.HasBody(r)
		require.NoError(t, err)
		require.Equal(t, text != "", has)
		body, err := io.ReadAll(r.Body)
		require.NoError(t, err)
		require.Equal(t, text, string(body))
	}
	r := httptest.NewRequest("PUT", "/", io.NopCloser(strings.NewReader("")))
	r.ContentLength = -1
	has, err := call.HasBody(r)
	require.NoError(t, err)
	require.False(t, has)
	r.Body = io.NopCloser(iotest.ErrReader(os.ErrDeadlineExceeded))
	_, err = call.HasBody(r)
	require.EqualError(t, err, "the body did not come in time")
}

func TestAllThatIsWrongWithAQueryIsToldAtOnce(t *testing.T) {
	short := func(text string) error {
		if len(text) > 1 {
			return errors.New("long")
		}
		return nil
	}
	for raw, want := range map[string]string{
		"name=a&kind=x&wait=1s&tag=1&tag=2": "",
		"":                                  "",
		"name=ab&kind=z&wait=2m":            `name: long; kind: "z" is not one of x, y; wait: "2m" is not a duration above 0 and up to 1m0s, such as "30s"`,
		"name=a&name=b&wait=x&other=&ab=":   `name: there 2 times; wait: "x" is not a duration above 0 and up to 1m0s, such as "30s"; ab: unknown; other: unknown`,
		"tag=%ff":                           `tag: "\xff" is not UTF-8`,
		"%zz":                               `query: invalid URL escape "%zz"`,
	} {
		q := call.ReadQuery(httptest.NewRequest("GET", "/?"+raw, nil))
		q.Checked("name", short)
		q.OneOf("kind", "x", "y")
		q.Duration("wait", time.Minute)
		q.All("tag")
		if err := q.End(); want == "" {
			require.NoError(t, err)
		} else {
			require.EqualError(t, err, want)
		}
	}
}

func TestAPathThatGoesRoundAboutLeadsToTheSameThing(t *testing.T) {
	f := newFace(nil)
	for target, want := range map[string]string{
		"//things/a%20b":                "/things/a%20b",
		"//things/a%2fb":                "/things/a%2fb",
		"/x/../things/a%2Fb":            "/things/a%2Fb",
		"/./things//foo%23canary?a=%23": "/things/foo%23canary?a=%23",
		"//things/%2525":                "/things/%2525",
		"//things/%C3%A9":               "/things/%C3%A9",
		"//elsewhere.example//x":        "/elsewhere.example/x",
		"/things/a%20b//":               "/things/a%20b/",
		"//":                            "/",
	} {
		for _, method := range []string{"GET", "PUT", "POST"} {
			r := httptest.NewRequest(method, "http://discovery"+target, nil)
			w := httptest.NewRecorder()
			f.ServeHTTP(w, r)
			require.Equal(t, 307, w.Code, target)
			require.Equal(t, []string{want}, w.Header()["Location"])
			require.Empty(t, w.Body.String())
		}
	}
	// Whoever follows asks for what was named, and is led no further.
	for target, name := range map[string]string{"//things/a%20b": "a b", "//things/a%2fb": "a/b", "//things/foo%23canary": "foo#canary", "//things/%252e%252e": "%2e%2e", "//things/%2e%2e": ".."} {
		w := f.call("GET", f.call("GET", "http://discovery"+target).Header().Get("Location"))
		require.Equal(t, 200, w.Code, target)
		require.JSONEq(t, `"`+name+`"`, w.Body.String())
	}
	require.Equal(t, 404, f.call("GET", "/things/a%20b/").Code)
	require.Equal(t, 404, f.call("GET", "/").Code)
}
