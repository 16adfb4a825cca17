package xds

import (
	"context"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	discoveryv3 "github.com/envoyproxy/go-control-plane/envoy/service/discovery/v3"
	endpointservice "github.com/envoyproxy/go-control-plane/envoy/service/endpoint/v3"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/stretchr/testify/require"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/encoding/protojson"

	"github.com/weirproxy/weir/internal/servicetest"
	"github.com/weirproxy/weir/services/discovery/internal/denial"
	"github.com/weirproxy/weir/services/discovery/internal/registry"
	"github.com/weirproxy/weir/services/discovery/internal/registry/registrytest"
	"github.com/weirproxy/weir/services/discovery/internal/resources"
	"github.com/weirproxy/weir/services/discovery/internal/rest/call"
)

// face is the server's routes over HTTP, when it answers.
func (s *service) face(t testing.TB) http.Handler {
	t.Helper()
	servicetest.Eventually(t, "all that was loaded is known", s.hub.isLoaded)
	return faceOf(s.Server)
}

func faceOf(s *Server) http.Handler {
	metrics := prometheus.NewRegistry()
	return call.NewRouter(call.Options{
		Log: slog.New(slog.DiscardHandler), Metrics: metrics, Denials: denial.NewCounters(metrics, call.Limits()...),
	}, s.Routes()...)
}

// post asks for a type by a request in JSON.
func post(face http.Handler, path, body string) *httptest.ResponseRecorder {
	w := httptest.NewRecorder()
	face.ServeHTTP(w, httptest.NewRequest("POST", "/v3/discovery:"+path, strings.NewReader(body)))
	return w
}

// later does the same aside. The answer comes by the channel, which its goroutine
// ends with.
func later(face http.Handler, path, body string) <-chan *httptest.ResponseRecorder {
	answered := make(chan *httptest.ResponseRecorder, 1)
	go func() { answered <- post(face, path, body) }()
	return answered
}

// poll asks for a type, and reads the answer if it is a response.
func poll(t testing.TB, face http.Handler, path, body string) (status int, r *discoveryv3.DiscoveryResponse, text string) {
	t.Helper()
	return read(t, post(face, path, body))
}

func read(t testing.TB, w *httptest.ResponseRecorder) (status int, r *discoveryv3.DiscoveryResponse, text string) {
	t.Helper()
	r = &discoveryv3.DiscoveryResponse{}
	if w.Code == 200 {
		require.Equal(t, "application/json", w.Header().Get("Content-Type"))
		require.NoError(t, protojson.Unmarshal(w.Body.Bytes(), r))
	}
	return w.Code, r, w.Body.String()
}

func TestAPollIsAnsweredByAllThatItAsksFor(t *testing.T) {
	s := serving(t, nil)
	<-s.hosts.Loaded()
	s.register(t, "users", 1)
	s.register(t, "orders", 2)
	s.awaitService(t, "users")
	s.awaitService(t, "orders")
	s.SetFiles((&player{t: t}).files([]string{"listeners/main:1", "secrets/cert:1", "runtime/layer:1", "extension_configs/filter:1"}))
	face := s.face(t)

	for _, test := range []struct {
		path, body string
		want       []string
	}{
		{"clusters", `{"node":{"id":"a","metadata":{"any":["thing"]}}}`, []string{"orders", "users"}},
		{"clusters", `{"resource_names":["users"],"type_url":"type.googleapis.com/envoy.config.cluster.v3.Cluster"}`, []string{"users"}},
		{"endpoints", `{"resourceNames":["users"],"aFieldOfTomorrow":1}`, []string{"users(127.0.0.1:1)"}},
		{"listeners", `{}`, []string{"main:1"}},
		{"listeners", `{"resource_names":["users"]}`, []string{"users"}},
		{"routes", `{"resource_names":["users"]}`, []string{"users"}},
		{"secrets", `{"resource_names":["cert"]}`, []string{"cert"}},
		{"runtime", `{"resource_names":["layer"]}`, []string{"layer"}},
		{"extension_configs", `{"resource_names":["filter"]}`, []string{"filter"}},
	} {
		code, r, text := poll(t, face, test.path, test.body)
		require.Equal(t, 200, code, text)
		var got []string
		for _, body := range r.GetResources() {
			got = append(got, (&player{t: t}).body(body))
		}
		require.Equal(t, test.want, got, test.path)
		require.Equal(t, "replica-1", r.GetControlPlane().GetIdentifier())

		// Who has it is told nothing.
		again := strings.Replace(test.body, "{", `{"version_info":"`+r.GetVersionInfo()+`",`, 1)
		again = strings.Replace(again, ",}", "}", 1)
		code, _, text = poll(t, face, test.path, again)
		require.Equal(t, 304, code, "%s", text)
		require.Empty(t, text)
	}
	require.Empty(t, s.Status(), "a poll is no stream that lasts")
	require.Empty(t, s.hub.all())
}

func TestAPollThatCannotBeAnsweredSaysWhy(t *testing.T) {
	s := serving(t, func(l *Limits) {
		l.MayBe = func(_ context.Context, a resources.Asker) error {
			if a.ID == "bad" {
				return status.Error(codes.PermissionDenied, "not you")
			}
			return nil
		}
	})
	<-s.hosts.Loaded()
	s.register(t, "users", 1)
	s.awaitService(t, "users")
	face := s.face(t)
	names := `["` + strings.Repeat(`a","`, 1000) + `a"]`
	for name, test := range map[string]struct {
		path, body string
		status     int
		want       string
	}{
		"an unknown type":    {"scoped-routes", `{}`, 404, "nothing is at /v3/discovery:scoped-routes"},
		"an unknown service": {"endpoints", `{"resource_names":["unknown"]}`, 404, "no endpoints of the names that are asked for"},
		"no JSON":            {"clusters", `{`, 400, "read the body as a DiscoveryRequest: "},
		"another type":       {"clusters", `{"type_url":"x"}`, 400, `type_url \"x\": the path is that of clusters`},
		"a long name":        {"endpoints", `{"resource_names":["` + strings.Repeat("a", 2000) + `"]}`, 400, "a name of 2000 bytes"},
		"too many names":     {"endpoints", `{"resource_names":` + names + `}`, 429, "1001 names on one stream: 1000 are the most"},
		"a long body":        {"endpoints", `{"version_info":"` + strings.Repeat("a", MaxPollBody) + `"}`, 413, "the body is longer than 1048576 bytes"},
		"not that node":      {"clusters", `{"node":{"id":"bad"}}`, 403, "not you"},
	} {
		code, _, text := poll(t, face, test.path, test.body)
		require.Equal(t, test.status, code, name)
		require.Contains(t, text, test.want, name)
	}
	w := httptest.NewRecorder()
	face.ServeHTTP(w, httptest.NewRequest("GET", "/v3/discovery:clusters", nil))
	require.Equal(t, 405, w.Code)
	require.Equal(t, "POST", w.Header().Get("Allow"))
}

func TestAPollIsNotToldWhatIsNotThereWhileTheRegistryFills(t *testing.T) {
	s := servingAfter(t, time.Hour, nil)
	<-s.hosts.Loaded()
	face := s.face(t)
	withheld := func(path, body string) {
		t.Helper()
		w := post(face, path, body)
		require.Equal(t, 503, w.Code, w.Body)
		require.NotEmpty(t, w.Header().Get("Retry-After"))
		require.Contains(t, w.Body.String(), registry.ErrNotWarm.Error())
	}
	withheld("clusters", `{}`)
	withheld("endpoints", `{"resource_names":["users"]}`)
	withheld("listeners", `{"resource_names":["users"]}`)
	_, err := endpointservice.NewEndpointDiscoveryServiceClient(s.dial(t)).FetchEndpoints(t.Context(),
		&discoveryv3.DiscoveryRequest{ResourceNames: []string{"users"}})
	require.Equal(t, codes.Unavailable, status.Code(err), "%v", err)
	code, _, text := poll(t, face, "secrets", `{"resource_names":["none"]}`)
	require.Equal(t, 404, code, "%s: files are known", text)

	s.register(t, "users", 1)
	s.awaitService(t, "users")
	code, r, text := poll(t, face, "endpoints", `{"resource_names":["users","orders"]}`)
	require.Equal(t, 200, code, text)
	require.Equal(t, []string{"127.0.0.1:1"}, assigned(t, r))
	code, _, text = poll(t, face, "clusters", `{}`)
	require.Equal(t, 200, code, text)
	withheld("endpoints", `{"resource_names":["orders"]}`)
}

// What the client has of it is the last host, which may be about to be back.
func TestAPollOfAServiceWhoseLastHostHasJustGoneIsAnsweredAtOnce(t *testing.T) {
	h := newTestHub(t)
	h.open(&h.loaded)
	h.debounce.Empty = time.Hour
	h.hosts("users", "10.0.0.1:80")
	h.hosts("orders", "10.0.0.2:80")
	h.listings["users"] = registry.Listing{Known: true, EmptySince: time.Now()}
	s := clientsOf(h)
	s.limits, s.metrics, s.log, s.noWaits = Limits{Streams: 10, Names: 10}, h.metrics, slog.New(slog.DiscardHandler), make(chan struct{})
	face, done := faceOf(s), make(chan struct{})
	var making sync.WaitGroup
	// Ends with done; the test waits for it.
	making.Go(func() {
		for {
			select {
			case <-h.asked:
				h.makeAsked()
			case <-done:
				return
			}
		}
	})
	defer making.Wait()
	defer close(done)

	w := post(face, "endpoints", `{"resource_names":["users"]}`)
	require.Equal(t, 503, w.Code, w.Body)
	require.Equal(t, "1", w.Header().Get("Retry-After"))
	require.Contains(t, w.Body.String(), errJustEmptied.Reason)
	asked, err := readPoll([]byte(`{"resource_names":["users"]}`), resources.Endpoints)
	require.NoError(t, err)
	_, err = s.fetch(t.Context(), resources.Endpoints, asked)
	require.Equal(t, codes.Unavailable, status.Code(err), "%v", err)
	require.ErrorContains(t, err, errJustEmptied.Reason)

	code, r, text := poll(t, face, "endpoints", `{"resource_names":["users","orders"]}`)
	require.Equal(t, 200, code, text)
	require.Equal(t, []string{"10.0.0.2:80"}, assigned(t, r))
	code, _, text = poll(t, face, "endpoints", `{"resource_names":["users"],"version_info":"1"}`)
	require.Equal(t, 304, code, text)
}

func TestAPollMayWaitForSomethingNew(t *testing.T) {
	s := serving(t, func(l *Limits) { l.Wait = 15 * time.Second })
	<-s.hosts.Loaded()
	s.register(t, "users", 1)
	face := s.face(t)
	_, r, _ := poll(t, face, "endpoints", `{"resource_names":["users"]}`)
	answered := later(face, "endpoints", `{"resource_names":["users"],"version_info":"`+r.GetVersionInfo()+`"}`)
	s.awaitStreams(t, 1)
	s.register(t, "users", 2)
	_, r, _ = read(t, <-answered)
	require.Equal(t, []string{"127.0.0.1:1", "127.0.0.1:2"}, assigned(t, r))
}

func TestAPollIsRefusedWhoseClientMayBeItsNodeNoMoreWhenItsWaitIsOver(t *testing.T) {
	var refuse atomic.Bool
	s := serving(t, func(l *Limits) {
		l.Wait = 15 * time.Second
		l.MayBe = func(context.Context, resources.Asker) error {
			if refuse.Load() {
				return status.Error(codes.Unauthenticated, "no more")
			}
			return nil
		}
	})
	<-s.hosts.Loaded()
	s.register(t, "users", 1)
	face := s.face(t)
	_, r, _ := poll(t, face, "endpoints", `{"resource_names":["users"]}`)
	answered := later(face, "endpoints", `{"resource_names":["users"],"version_info":"`+r.GetVersionInfo()+`"}`)
	s.awaitStreams(t, 1)
	refuse.Store(true)
	s.register(t, "users", 2)
	code, _, text := read(t, <-answered)
	require.Equal(t, 401, code)
	require.Contains(t, text, "no more")
}

func TestAStopEndsPollsThatWait(t *testing.T) {
	s := serving(t, func(l *Limits) { l.Wait = time.Hour })
	<-s.hosts.Loaded()
	face := s.face(t)
	answered := later(face, "endpoints", `{"resource_names":["users"]}`)
	servicetest.Eventually(t, "the call waits for something new", func() bool {
		open := s.hub.all()
		if len(open) == 0 {
			return false
		}
		open[0].mu.Lock()
		asked := open[0].subscriptions[resources.Endpoints] != nil
		open[0].mu.Unlock()
		return asked && (&pollCall{stream: open[0]}).settled()
	})
	s.StopWaiting()
	require.Equal(t, 404, (<-answered).Code)
}

func TestNothingIsAnsweredBeforeTheRegistryIsLoaded(t *testing.T) {
	maker, err := resources.NewMaker(resources.Options{})
	require.NoError(t, err)
	s := New(Options{
		Registry: registry.New(registrytest.Options()), Maker: maker, Limits: Limits{Streams: 1, Names: 1},
		Log: slog.New(slog.DiscardHandler), Metrics: prometheus.NewRegistry(),
	})
	w := httptest.NewRecorder()
	faceOf(s).ServeHTTP(w, httptest.NewRequest("POST", "/v3/discovery:clusters", strings.NewReader("{}")))
	require.Equal(t, 503, w.Code)
	require.Equal(t, "1", w.Header().Get("Retry-After"))
}

func TestAnyBodyIsAnsweredOrRefused(t *testing.T) {
	s := serving(t, nil)
	<-s.hosts.Loaded()
	face := s.face(t)
	w := httptest.NewRecorder()
	face.ServeHTTP(w, httptest.NewRequest("POST", "/v3/discovery:endpoints", io.MultiReader(strings.NewReader("\xff\x00"))))
	require.Equal(t, 400, w.Code)
}

func TestAPollOfWhatIsJustBeingMadeHasIt(t *testing.T) {
	s := serving(t, nil)
	<-s.hosts.Loaded()
	s.register(t, "users", 1)
	s.awaitService(t, "users")
	face := s.face(t)
	// Each name is made while its call looks whether it is.
	for i := range 5_000 {
		require.Equal(t, 200, post(face, "endpoints", fmt.Sprintf(`{"resource_names":["users#revision=r%d"]}`, i)).Code, i)
	}
}
