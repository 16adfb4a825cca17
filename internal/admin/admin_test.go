package admin

import (
	"context"
	"io"
	"log/slog"
	"net"
	"net/http"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/stretchr/testify/require"

	"github.com/weirproxy/weir/internal/servicetest"
)

func TestMain(m *testing.M) { servicetest.Main(m) }

// serve runs an admin server on a free port until the test ends.
func serve(t *testing.T, state func() State, mount func(*Server)) (address string) {
	t.Helper()
	s := newServer(t, state)
	if mount != nil {
		mount(s)
	}
	done := make(chan error, 1)
	go func() { done <- s.Serve() }() // ends at Stop; the cleanup waits for it
	t.Cleanup(func() {
		require.NoError(t, s.Stop(context.Background()))
		require.NoError(t, <-done)
	})
	return s.Addr().String()
}

func newServer(t *testing.T, state func() State) *Server {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	metrics := prometheus.NewRegistry()
	metrics.MustRegister(prometheus.NewGaugeFunc(prometheus.GaugeOpts{Name: "mill_stones", Help: "stones that turn"}, func() float64 { return 2 }))
	return New(l, Options{Name: "mill", State: state, Metrics: metrics, Log: slog.New(slog.DiscardHandler)})
}

func ready() State { return State{Ready: true, Text: "LIVE"} }

// get asks without keeping a connection.
func get(t *testing.T, url string) (status int, body string) {
	t.Helper()
	req, err := http.NewRequest(http.MethodGet, url, nil)
	require.NoError(t, err)
	req.Close = true
	resp, err := http.DefaultClient.Do(req)
	require.NoError(t, err)
	defer resp.Body.Close()
	text, err := io.ReadAll(resp.Body)
	require.NoError(t, err)
	return resp.StatusCode, string(text)
}

func TestServerAnswersWhatEveryServiceHas(t *testing.T) {
	address := serve(t, ready, nil)
	for path, c := range map[string]struct {
		status int
		body   string
	}{
		"/healthz":      {200, "ok\n"},
		"/ready":        {200, "LIVE\n"},
		"/metrics":      {200, "mill_stones 2"},
		"/debug/pprof/": {200, "goroutine"},
		"/":             {200, `<a href="/metrics">`},
		"/nowhere":      {404, "404"},
	} {
		t.Run(path, func(t *testing.T) {
			status, body := get(t, "http://"+address+path)
			require.Equal(t, c.status, status)
			require.Contains(t, body, c.body)
		})
	}
}

func TestWhatOnlyTellsTakesAnyMethodAndIsNotKept(t *testing.T) {
	address := serve(t, ready, func(s *Server) {
		s.Handle("POST /grind", "starts the stones", http.HandlerFunc(func(http.ResponseWriter, *http.Request) {}))
	})
	for target, want := range map[string]int{
		"GET /ready": 200, "POST /ready": 200, "PUT /healthz": 200, "DELETE /help": 200, "POST /": 200, "POST /metrics": 200,
		"POST /grind": 200, "GET /grind": 405, "POST /nowhere": 404,
	} {
		method, path, _ := strings.Cut(target, " ")
		req, err := http.NewRequest(method, "http://"+address+path, nil)
		require.NoError(t, err)
		req.Close = true
		resp, err := http.DefaultClient.Do(req)
		require.NoError(t, err)
		require.NoError(t, resp.Body.Close())
		require.Equal(t, want, resp.StatusCode, target)
		require.Equal(t, "no-cache, max-age=0", resp.Header.Get("Cache-Control"), target)
		require.Equal(t, "nosniff", resp.Header.Get("X-Content-Type-Options"), target)
	}
}

func TestServerListsWhatIsMountedWithItsHelp(t *testing.T) {
	address := serve(t, ready, func(s *Server) {
		h := http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(w, "grain") })
		s.Handle("GET /silo", "what is in the silo & how much", h)
		s.Handle("/sack", "any method", h)
		s.Handle("POST /grind", "starts the stones", h)
	})
	_, body := get(t, "http://"+address+"/silo")
	require.Equal(t, "grain", body)
	_, index := get(t, "http://"+address+"/")
	require.Contains(t, index, `<a href="/silo">/silo</a></td><td>what is in the silo &amp; how much</td>`)
	require.Contains(t, index, `<a href="/sack">/sack</a></td><td>any method</td>`)
	require.Contains(t, index, `<td>/grind (POST)</td><td>starts the stones</td>`)
	_, help := get(t, "http://"+address+"/help")
	require.Contains(t, help, "admin commands are:\n")
	require.Contains(t, help, "  /silo: what is in the silo & how much\n  /sack: any method\n  /grind (POST): starts the stones\n")
}

func TestReadyAndCheckFollowTheState(t *testing.T) {
	var state atomic.Pointer[State]
	state.Store(&State{Ready: false, Text: "store does not answer"})
	address := serve(t, func() State { return *state.Load() }, nil)

	status, body := get(t, "http://"+address+"/ready")
	require.Equal(t, 503, status)
	require.Equal(t, "store does not answer\n", body)
	require.EqualError(t, Check(t.Context(), address),
		"ask http://"+address+"/ready: 503 Service Unavailable: store does not answer")

	state.Store(&State{Ready: true, Text: "LIVE"})
	require.NoError(t, Check(t.Context(), address))
}

func TestCheckAsksAWildcardAddressOnLoopback(t *testing.T) {
	_, port, err := net.SplitHostPort(serve(t, ready, nil))
	require.NoError(t, err)
	for _, address := range []string{"0.0.0.0:" + port, "[::]:" + port, ":" + port} {
		require.NoError(t, Check(t.Context(), address), address)
	}
}

func TestCheckSaysWhatItAsked(t *testing.T) {
	s := newServer(t, ready)
	address := s.Addr().String()
	require.NoError(t, s.Stop(t.Context()), "a server that never served stops too")
	require.ErrorContains(t, Check(t.Context(), address), "ask http://"+address+"/ready: ")
	require.ErrorContains(t, Check(t.Context(), "6070"), `ask admin listener "6070": `)
}

func TestStopCutsOffWhatIsInFlightAtTheDeadline(t *testing.T) {
	began := make(chan struct{})
	s := newServer(t, ready)
	s.Handle("GET /slow", "never answers", http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		close(began)
		<-r.Context().Done()
	}))
	served := make(chan error, 1)
	go func() { served <- s.Serve() }() // ends at Stop below
	asked := make(chan error, 1)
	go func() { // ends when Stop cuts the request off, below
		_, err := http.Get("http://" + s.Addr().String() + "/slow")
		asked <- err
	}()
	<-began
	ctx, cancel := context.WithTimeout(t.Context(), time.Millisecond)
	defer cancel()
	require.NoError(t, s.Stop(ctx))
	require.Error(t, <-asked)
	require.NoError(t, <-served)
}
