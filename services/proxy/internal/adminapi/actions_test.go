package adminapi_test

import (
	"encoding/json"
	"fmt"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"testing/synctest"

	bootstrapv3 "github.com/envoyproxy/go-control-plane/envoy/config/bootstrap/v3"
	"github.com/stretchr/testify/require"
	"google.golang.org/protobuf/proto"

	"github.com/weirproxy/weir/services/proxy/internal/adminapi"
	"github.com/weirproxy/weir/services/proxy/internal/layeredruntime"
	"github.com/weirproxy/weir/services/proxy/internal/stats"
	"github.com/weirproxy/weir/services/proxy/internal/strict"
)

// control notes what it is told.
type control struct{ told []string }

func (c *control) tell(format string, args ...any) {
	c.told = append(c.told, fmt.Sprintf(format, args...))
}
func (c *control) FailHealthChecks(fail bool) { c.tell("fail %t", fail) }
func (c *control) DrainListeners(inboundOnly, graceful, keepOpen bool) {
	c.tell("drain inbound only %t graceful %t keep open %t", inboundOnly, graceful, keepOpen)
}
func (c *control) ReopenLogs() { c.tell("reopen") }
func (c *control) Quit()       { c.tell("quit") }

func post(h http.Handler, url string, headers ...string) *httptest.ResponseRecorder {
	answer, request := httptest.NewRecorder(), httptest.NewRequest(http.MethodPost, url, nil)
	for i := 0; i < len(headers); i += 2 {
		request.Header.Set(headers[i], headers[i+1])
	}
	h.ServeHTTP(answer, request)
	return answer
}

func TestActions(t *testing.T) {
	for _, c := range []struct {
		url    string
		status int
		body   string
		told   string
	}{
		{"/healthcheck/fail", 200, "OK\n", "fail true"},
		{"/healthcheck/ok", 200, "OK\n", "fail false"},
		{"/drain_listeners", 200, "OK\n", "drain inbound only false graceful false keep open false"},
		{"/drain_listeners?graceful", 200, "OK\n", "drain inbound only false graceful true keep open false"},
		{"/drain_listeners?graceful&skip_exit&inboundonly", 200, "OK\n", "drain inbound only true graceful true keep open true"},
		{"/drain_listeners?gently", 400, "parameter \"gently\" is not supported; supported are: graceful, skip_exit, inboundonly\n", ""},
		{"/reopen_logs", 200, "OK\n", "reopen"},
		{"/quitquitquit", 200, "OK\n", "quit"},
		{"/runtime_modify?a=b", 503, "No admin layer specified\n", ""},
		{"/runtime_modify", 400, "usage: /runtime_modify?key1=value1&key2=value2, or a form with them; an empty value takes a key out of the admin_layer\n", ""},
	} {
		t.Run(c.url, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				told := &control{}
				h := proxy(t, func(o *adminapi.Options) { o.Control = told })
				require.Equal(t, http.StatusMethodNotAllowed, get(h, c.url).Code, "GET changes nothing")
				require.Equal(t, http.StatusForbidden, post(h, c.url, "Sec-Fetch-Site", "cross-site").Code, "nor does a page of others")
				require.Equal(t, http.StatusForbidden, post(h, c.url, "Origin", "http://evil.example").Code)
				require.Empty(t, told.told)
				answer := post(h, c.url)
				require.Equal(t, c.status, answer.Code)
				require.Equal(t, c.body, answer.Body.String())
				if c.told == "" {
					require.Empty(t, told.told)
				} else {
					require.Equal(t, []string{c.told}, told.told)
				}
			})
		})
	}
}

func TestCountersBeginAnewAfterAReset(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := proxy(t, nil)
		const url = "/stats?filter=users.upstream_rq_503|users.membership_total"
		require.Equal(t, "cluster.users.membership_total: 4\ncluster.users.upstream_rq_503: 1\n", get(h, url).Body.String())
		require.Equal(t, "OK\n", post(h, "/reset_counters").Body.String())
		require.Equal(t, "cluster.users.membership_total: 4\ncluster.users.upstream_rq_503: 0\n", get(h, url).Body.String())
	})
}

func TestLoggingSetsTheLevelByEnvoysNames(t *testing.T) {
	level := &slog.LevelVar{}
	synctest.Test(t, func(t *testing.T) {
		h := proxy(t, func(o *adminapi.Options) { o.LogLevel = level })
		for _, c := range []struct {
			query, shown string
			want         slog.Level
		}{
			{"", "info", slog.LevelInfo},
			{"?level=debug", "debug", slog.LevelDebug},
			{"?level=warning", "warning", slog.LevelWarn},
			{"?proxy=trace", "debug", slog.LevelDebug},
			{"?paths=proxy:critical", "error", slog.LevelError},
			{"?level=off", "off", slog.LevelError + 4},
			{"?level=info", "info", slog.LevelInfo},
		} {
			answer := post(h, "/logging"+c.query)
			require.Equal(t, "active loggers:\n  proxy: "+c.shown+"\n", answer.Body.String(), c.query)
			require.Equal(t, c.want, level.Level(), c.query)
		}
		for query, want := range map[string]string{
			"level=loud":             `level "loud" is not one of trace, debug, info, warning, error, critical, off`,
			"paths=admin:info":       `parameter paths="admin:info": there is no logger "admin", but proxy alone`,
			"level=error&proxy=loud": `level "loud" is not one of trace, debug, info, warning, error, critical, off`,
		} {
			answer := post(h, "/logging?"+query)
			require.Equal(t, http.StatusBadRequest, answer.Code)
			require.Equal(t, want+"\n", answer.Body.String())
			require.Equal(t, slog.LevelInfo, level.Level(), "a refused query changes nothing")
		}
	})
}

// withAdminLayer lets the admin_layer lie over the layers of the bootstrap.
func withAdminLayer(t *testing.T) http.Handler {
	return proxy(t, func(o *adminapi.Options) {
		layered := proto.CloneOf(o.Bootstrap.GetLayeredRuntime())
		layered.Layers = append(layered.Layers, &bootstrapv3.RuntimeLayer{Name: "admin", LayerSpecifier: &bootstrapv3.RuntimeLayer_AdminLayer_{AdminLayer: &bootstrapv3.RuntimeLayer_AdminLayer{}}})
		report := &strict.Report{}
		config := layeredruntime.Parse(layered, "layered_runtime", report)
		require.NoError(t, report.Err())
		o.Runtime = layeredruntime.New(config, stats.NewRegistry().Scope("runtime"))
	})
}

func TestRuntimeModifySetsKeysOfTheAdminLayer(t *testing.T) {
	const limit = "envoy.resource_limits.listener.ingress.connection_limit"
	synctest.Test(t, func(t *testing.T) {
		h := withAdminLayer(t)
		answer := post(h, "/runtime_modify?"+limit+"=7&a.b=5&a.b=6")
		require.Equal(t, http.StatusOK, answer.Code, answer.Body)
		require.Equal(t, "OK\n", answer.Body.String())
		var got struct {
			Layers  []string
			Entries map[string]struct {
				LayerValues []string `json:"layer_values"`
				FinalValue  string   `json:"final_value"`
			}
		}
		shown := func() {
			got.Entries = nil
			require.NoError(t, json.Unmarshal(get(h, "/runtime").Body.Bytes(), &got))
		}
		shown()
		require.Equal(t, []string{"base", "more", "admin"}, got.Layers)
		require.Equal(t, []string{"100", "200", "7"}, got.Entries[limit].LayerValues)
		require.Equal(t, "7", got.Entries[limit].FinalValue)
		require.Equal(t, "5", got.Entries["a.b"].FinalValue, "the first of two")

		form := httptest.NewRequest(http.MethodPost, "/runtime_modify", strings.NewReader(limit+"=&a.b=9"))
		form.Header.Set("Content-Type", "application/x-www-form-urlencoded")
		h.ServeHTTP(httptest.NewRecorder(), form)
		shown()
		require.Equal(t, "200", got.Entries[limit].FinalValue, "that of the layer below")
		require.Equal(t, "9", got.Entries["a.b"].FinalValue)

		for query, want := range map[string]string{
			"a.b=1&" + limit + "=many": "runtime key \"" + limit + "\": want a number of connections, not many\n",
			"=1":                       "runtime key \"\": it is empty\n",
		} {
			answer := post(h, "/runtime_modify?"+query)
			require.Equal(t, http.StatusBadRequest, answer.Code)
			require.Equal(t, want, answer.Body.String())
		}
		shown()
		require.Equal(t, "9", got.Entries["a.b"].FinalValue, "nothing of a bad request holds")

		long := httptest.NewRequest(http.MethodPost, "/runtime_modify", strings.NewReader("a="+strings.Repeat("1", 1<<20)))
		long.Header.Set("Content-Type", "application/x-www-form-urlencoded")
		refused := httptest.NewRecorder()
		h.ServeHTTP(refused, long)
		require.Equal(t, http.StatusBadRequest, refused.Code)
	})
}
