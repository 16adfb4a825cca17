package app_test

import (
	"context"
	"encoding/json"
	"math"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"runtime"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/weirproxy/weir/internal/servicetest"
	"github.com/weirproxy/weir/services/proxy/internal/app"
)

func post(t *testing.T, address, path string) {
	t.Helper()
	response, err := http.Post("http://"+address+path, "", nil)
	require.NoError(t, err)
	require.NoError(t, response.Body.Close())
	require.Equal(t, http.StatusOK, response.StatusCode)
}

func TestAnOperatorTakesTheProxyOutAndBackIn(t *testing.T) {
	proxy := run(t, upstreamAt(t, backend(t, "one")))
	admin := proxy.Addr("admin")
	ends := func() bool {
		response, err := http.Get("http://" + proxy.Addr("ingress") + "/exact")
		require.NoError(t, err)
		require.NoError(t, response.Body.Close())
		require.Equal(t, http.StatusOK, response.StatusCode)
		return response.Close
	}
	require.False(t, ends())
	server := func() string {
		_, body := get(t, admin, "/stats?filter=^server\\.(live|state)$")
		return body
	}
	require.Equal(t, "server.live: 1\nserver.state: 0\n", server())

	post(t, admin, "/healthcheck/fail")
	require.Equal(t, "server.live: 0\nserver.state: 1\n", server())
	status, body := get(t, admin, "/ready")
	require.Equal(t, http.StatusServiceUnavailable, status)
	require.Equal(t, "DRAINING\n", body)
	_, body = get(t, admin, "/server_info")
	require.Contains(t, body, `"state": "DRAINING"`)
	require.True(t, ends(), "each answer is the last of its connection")

	post(t, admin, "/healthcheck/ok")
	status, body = get(t, admin, "/ready")
	require.Equal(t, http.StatusOK, status)
	require.Equal(t, "LIVE\n", body)
	require.False(t, ends())
}

func TestTheAdminListenerAnswersThePathsThatAreAllowed(t *testing.T) {
	const address = "address: {socket_address: {address: 127.0.0.1, port_value: 0}}\n"
	proxy := run(t, text(t, "good.yaml", "admin:\n  "+address, "admin:\n  allow_paths: [{exact: /ready}, {prefix: /stats}, {safe_regex: {regex: /healthcheck/.*}}]\n  "+address))
	admin := proxy.Addr("admin")
	for path, want := range map[string]int{
		"/ready": http.StatusOK, "/ready?x": http.StatusForbidden, "/stats?usedonly": http.StatusOK, "/stats/prometheus": http.StatusOK,
		"/help": http.StatusForbidden, "/": http.StatusForbidden, "/stats/../help": http.StatusForbidden, "/healthcheck/ok": http.StatusMethodNotAllowed,
	} {
		status, _ := get(t, admin, path)
		require.Equal(t, want, status, path)
	}
	post(t, admin, "/healthcheck/ok")
	response, err := http.Post("http://"+admin+"/quitquitquit", "", nil)
	require.NoError(t, err)
	require.NoError(t, response.Body.Close())
	require.Equal(t, http.StatusForbidden, response.StatusCode)
}

func TestTheProcessIsTold(t *testing.T) {
	proxy := run(t, upstreamAt(t, backend(t, "one")))
	_, body := get(t, proxy.Addr("admin"), "/stats?filter=^server\\.&format=json")
	var answer struct {
		Stats []struct {
			Name  string
			Value int64
		}
	}
	require.NoError(t, json.Unmarshal([]byte(body), &answer))
	values := map[string]int64{}
	for _, s := range answer.Stats {
		values[s.Name] = s.Value
	}
	require.Positive(t, values["server.memory_allocated"])
	require.GreaterOrEqual(t, values["server.memory_heap_size"], values["server.memory_allocated"])
	require.GreaterOrEqual(t, values["server.memory_physical_size"], values["server.memory_heap_size"])
	require.EqualValues(t, runtime.GOMAXPROCS(0), values["server.concurrency"])
	require.Contains(t, values, "server.uptime")
	require.Contains(t, values, "server.version")
	require.EqualValues(t, math.MaxUint32, values["server.days_until_first_cert_expiring"], "there is none")
	require.Zero(t, values["server.total_connections"])
	conn, err := net.Dial("tcp", proxy.Addr("ingress"))
	require.NoError(t, err)
	connections := func(n string) func() bool {
		return func() bool {
			_, body := get(t, proxy.Addr("admin"), "/stats?filter=^server.total_connections$")
			return body == "server.total_connections: "+n+"\n"
		}
	}
	servicetest.Eventually(t, "the connection counts", connections("1"))
	require.NoError(t, conn.Close())
	servicetest.Eventually(t, "it counts no longer", connections("0"))
	_, body = get(t, proxy.Addr("admin"), "/stats/prometheus?filter=^server\\.")
	require.Contains(t, body, "\nenvoy_server_live 1\n")
	require.Contains(t, body, "\nenvoy_server_initialization_time_ms_count 1\n")
}

func TestReadinessAndListenersDoWhatOperatorsSaidLast(t *testing.T) {
	proxy := run(t, upstreamAt(t, backend(t, "one")))
	admin := proxy.Addr("admin")
	for range 20 {
		var operators sync.WaitGroup
		for _, path := range []string{"/healthcheck/fail", "/healthcheck/ok"} {
			operators.Go(func() {
				response, err := http.Post("http://"+admin+path, "", nil)
				if assert.NoError(t, err) {
					assert.NoError(t, response.Body.Close())
				}
			})
		}
		operators.Wait()
		ready, _ := get(t, admin, "/ready")
		// On a connection of its own: one that was told to end does so in any case.
		fresh := &http.Transport{}
		response, err := (&http.Client{Transport: fresh}).Get("http://" + proxy.Addr("ingress") + "/exact")
		require.NoError(t, err)
		require.NoError(t, response.Body.Close())
		fresh.CloseIdleConnections()
		require.Equal(t, ready != http.StatusOK, response.Close, "one of them says that it drains, the other not")
	}
}

func TestTheLevelOfTheLogChangesWhileTheProxyRuns(t *testing.T) {
	// Whole lines are appended, and read once the proxy is gone.
	log, err := os.Create(filepath.Join(t.TempDir(), "log"))
	require.NoError(t, err)
	defer log.Close()
	ready := filepath.Join(t.TempDir(), "ready")
	proxy, err := app.New(app.Options{ConfigYAML: text(t, "good.yaml"), LogLevel: "error", Log: log, ReadyFile: ready, DrainTime: 10 * time.Second})
	require.NoError(t, err)
	done := make(chan error, 1)
	go func() { done <- proxy.Run(context.Background()) }() // ends at /quitquitquit
	servicetest.Eventually(t, "the ready file is there", func() bool { _, err := os.Stat(ready); return err == nil })
	post(t, proxy.Addr("admin"), "/logging?level=info")
	post(t, proxy.Addr("admin"), "/quitquitquit")
	require.NoError(t, <-done, "it ends as told")
	lines, err := os.ReadFile(log.Name())
	require.NoError(t, err)
	require.Contains(t, string(lines), `"stopping"`)
	require.NotContains(t, string(lines), `"live"`, "which came before")
}
