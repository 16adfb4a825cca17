package app_test

import (
	"context"
	"crypto/x509"
	"fmt"
	"log/slog"
	"net/http"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	commonpb "github.com/envoyproxy/go-control-plane/envoy/extensions/common/ratelimit/v3"
	pb "github.com/envoyproxy/go-control-plane/envoy/service/ratelimit/v3"
	"github.com/stretchr/testify/require"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	healthpb "google.golang.org/grpc/health/grpc_health_v1"
	reflectionpb "google.golang.org/grpc/reflection/grpc_reflection_v1"
	"google.golang.org/grpc/status"

	"github.com/weirproxy/weir/internal/environtest"
	"github.com/weirproxy/weir/internal/servicetest"
	"github.com/weirproxy/weir/services/ratelimit/internal/app"
)

func TestMain(m *testing.M) { servicetest.Main(m) }

// running is a service in this process and a gRPC client of it.
type running struct {
	addrs map[string]string
	conn  *grpc.ClientConn
	rules string // the directory of its rule files
	// stop waits for its end, and returns what Run did.
	stop func() error
}

// options are the defaults, on free ports of loopback, with the rules of
// testdata in a directory that the test may change.
func options(t testing.TB) app.Options {
	t.Helper()
	var o app.Options
	environtest.Defaults(t, &o)
	o.Host, o.GRPCHost, o.DebugHost = "127.0.0.1", "127.0.0.1", "127.0.0.1"
	o.Port, o.GRPCPort, o.DebugPort = 0, 0, 0
	o.DrainGrace = 0
	o.RuntimeRoot = t.TempDir()
	o.RedisTimeout = servicetest.Patience // this machine may be busy
	text, err := os.ReadFile("../../testdata/shop.yaml")
	require.NoError(t, err)
	require.NoError(t, os.Mkdir(filepath.Join(o.RuntimeRoot, "config"), 0o755))
	require.NoError(t, os.WriteFile(filepath.Join(o.RuntimeRoot, "config/shop.yaml"), text, 0o644))
	return o
}

// start runs the service until the test ends.
func start(t testing.TB, o app.Options) *running {
	t.Helper()
	a, err := app.New(o, slog.New(slog.DiscardHandler))
	require.NoError(t, err)
	r := &running{addrs: a.Addrs(), rules: filepath.Join(o.RuntimeRoot, "config"), stop: servicetest.Run(t, a)}
	r.conn, err = grpc.NewClient(r.addrs["grpc"], grpc.WithTransportCredentials(insecure.NewCredentials()))
	require.NoError(t, err)
	t.Cleanup(func() { // before the service ends
		require.NoError(t, r.conn.Close())
		http.DefaultClient.CloseIdleConnections()
	})
	return r
}

// ask sends one descriptor of one entry.
func (r *running) ask(ctx context.Context, key, value string) (*pb.RateLimitResponse, error) {
	return pb.NewRateLimitServiceClient(r.conn).ShouldRateLimit(ctx, &pb.RateLimitRequest{
		Domain: "shop",
		Descriptors: []*commonpb.RateLimitDescriptor{{
			Entries: []*commonpb.RateLimitDescriptor_Entry{{Key: key, Value: value}},
		}},
	})
}

// get asks the named HTTP listener and returns status and body.
func (r *running) get(t testing.TB, listener, path string) (int, string) {
	t.Helper()
	return servicetest.Get(t, r.addrs[listener], path)
}

// health asks gRPC health.
func (r *running) health(t testing.TB, service string) healthpb.HealthCheckResponse_ServingStatus {
	t.Helper()
	resp, err := healthpb.NewHealthClient(r.conn).Check(t.Context(), &healthpb.HealthCheckRequest{Service: service})
	require.NoError(t, err)
	return resp.GetStatus()
}

func TestServesGRPCAndJSONOverTheSameCounters(t *testing.T) {
	r := start(t, options(t))
	for i := range 3 {
		resp, err := r.ask(t.Context(), "user", "alice")
		require.NoError(t, err)
		require.Equal(t, pb.RateLimitResponse_OK, resp.GetOverallCode())
		require.Equal(t, uint32(2-i), resp.GetStatuses()[0].GetLimitRemaining())
		require.Equal(t, pb.RateLimitResponse_RateLimit_YEAR, resp.GetStatuses()[0].GetCurrentLimit().GetUnit())
	}
	const request = `{"domain": "shop", "descriptors": [{"entries": [{"key": "user", "value": "alice"}]}]}`
	resp, err := http.Post("http://"+r.addrs["http"]+"/json", "application/json", strings.NewReader(request))
	require.NoError(t, err)
	defer resp.Body.Close()
	require.Equal(t, http.StatusTooManyRequests, resp.StatusCode)
}

func TestAnswersHealthReflectionAndAdmin(t *testing.T) {
	r := start(t, options(t))
	_, err := r.ask(t.Context(), "user", "alice")
	require.NoError(t, err)
	require.Equal(t, healthpb.HealthCheckResponse_SERVING, r.health(t, ""))
	require.Equal(t, healthpb.HealthCheckResponse_SERVING, r.health(t, "ratelimit"))
	for _, c := range []struct {
		listener, path string
		status         int
		want           string
	}{
		{"http", "/healthcheck", 200, "OK"},
		{"http", "/", 404, "404"},
		{"admin", "/healthz", 200, "ok"},
		{"admin", "/ready", 200, "ready"},
		{"admin", "/rlconfig", 200, "shop.user: unit=YEAR requests_per_unit=3, shadow_mode: false, quota_mode: false\n" +
			"shop.user.path_/pay: unit=DAY requests_per_unit=1, shadow_mode: false, quota_mode: false\n" +
			"shop.free: unlimited, shadow_mode: false, quota_mode: false\n"},
		{"admin", "/metrics", 200, `ratelimit_service_rate_limit_total_hits{domain="shop",rule="user"} 1`},
		{"admin", "/debug/pprof/", 200, "goroutine"},
		{"admin", "/", 200, "/rlconfig"},
	} {
		status, body := r.get(t, c.listener, c.path)
		require.Equal(t, c.status, status, c.path)
		require.Contains(t, body, c.want, c.path)
	}

	stream, err := reflectionpb.NewServerReflectionClient(r.conn).ServerReflectionInfo(t.Context())
	require.NoError(t, err)
	require.NoError(t, stream.Send(&reflectionpb.ServerReflectionRequest{
		MessageRequest: &reflectionpb.ServerReflectionRequest_ListServices{},
	}))
	list, err := stream.Recv()
	require.NoError(t, err)
	require.Contains(t, list.String(), "envoy.service.ratelimit.v3.RateLimitService")
	require.NoError(t, stream.CloseSend())
}

func TestBadRulesAreShownAndTheGoodOnesServed(t *testing.T) {
	o := options(t)
	bad := filepath.Join(o.RuntimeRoot, "config/bad.yaml")
	require.NoError(t, os.WriteFile(bad, []byte("domain: x\ndescriptors: 5\n"), 0o644))
	r := start(t, o)
	_, body := r.get(t, "admin", "/rlconfig")
	require.Contains(t, body, "# refused: "+bad+":2:14: descriptors must be a list, not 5\nshop.user: ")
}

func TestIsNotReadyWithoutRulesAndTakesThemWhenTheyCome(t *testing.T) {
	for _, c := range []struct {
		name string
		// lay puts into the empty root what there is at the start.
		lay  func(t *testing.T, root string)
		want string // with the root as %s
	}{
		{"no_directory", func(*testing.T, string) {},
			"no rules: read rule directory: stat %s/config: no such file or directory"},
		{"an_empty_directory", func(t *testing.T, root string) {
			require.NoError(t, os.Mkdir(filepath.Join(root, "config"), 0o755))
		}, "no rules: no rule file in %s/config"},
		{"every_file_refused", func(t *testing.T, root string) {
			require.NoError(t, os.Mkdir(filepath.Join(root, "config"), 0o755))
			require.NoError(t, os.WriteFile(filepath.Join(root, "config/shop.yaml"), []byte("domain: [\n"), 0o644))
		}, "no rules: %s/config/shop.yaml:"},
	} {
		t.Run(c.name, func(t *testing.T) {
			o := options(t)
			good := filepath.Join(o.RuntimeRoot, "config/shop.yaml")
			o.RuntimeRoot = t.TempDir()
			c.lay(t, o.RuntimeRoot)
			r := start(t, o)

			want := fmt.Sprintf(c.want, o.RuntimeRoot)
			_, err := r.ask(t.Context(), "never", "x")
			require.Equal(t, codes.Unavailable, status.Code(err))
			require.Equal(t, "no rules are loaded", status.Convert(err).Message())
			code, body := r.get(t, "admin", "/ready")
			require.Equal(t, http.StatusServiceUnavailable, code)
			require.Contains(t, body, want)
			code, body = r.get(t, "http", "/healthcheck")
			require.Equal(t, http.StatusInternalServerError, code)
			require.Contains(t, body, want)
			require.Equal(t, healthpb.HealthCheckResponse_NOT_SERVING, r.health(t, "ratelimit"))
			require.Equal(t, healthpb.HealthCheckResponse_NOT_SERVING, r.health(t, ""))

			text, err := os.ReadFile(good)
			require.NoError(t, err)
			require.NoError(t, os.MkdirAll(r.rules, 0o755))
			require.NoError(t, os.WriteFile(filepath.Join(r.rules, "shop.yaml"), text, 0o644))
			servicetest.Eventually(t, "the rules are in force", func() bool {
				code, _ := r.get(t, "admin", "/ready")
				return code == http.StatusOK
			})
			resp, err := r.ask(t.Context(), "user", "alice")
			require.NoError(t, err)
			require.Equal(t, uint32(2), resp.GetStatuses()[0].GetLimitRemaining())
		})
	}
}

func TestChangingRulesUnderLoadFailsNoRequest(t *testing.T) {
	r := start(t, options(t))
	file := filepath.Join(r.rules, "shop.yaml")
	good, err := os.ReadFile(file)
	require.NoError(t, err)
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	failed := make(chan error, 1)
	asked := 0
	// Ends with ctx; the test waits for it below.
	go func() {
		defer close(failed)
		for ; ctx.Err() == nil; asked++ {
			resp, err := r.ask(t.Context(), "free", "x")
			if err != nil || resp.GetStatuses()[0].GetLimitRemaining() == 0 {
				failed <- fmt.Errorf("request %d: %v: %w", asked, resp, err)
				return
			}
		}
	}()
	for round := range 5 {
		require.NoError(t, os.WriteFile(file, []byte("domain: [\n"), 0o644))
		servicetest.Eventually(t, "the broken file is refused", func() bool {
			_, body := r.get(t, "admin", "/rlconfig")
			return strings.Contains(body, "# refused: "+file) && strings.Contains(body, "shop.free: unlimited")
		})
		name := fmt.Sprintf("round%d", round)
		more := fmt.Sprintf("%s  - {key: %s, rate_limit: {unit: day, requests_per_unit: 1}}\n", good, name)
		require.NoError(t, os.WriteFile(file, []byte(more), 0o644))
		servicetest.Eventually(t, "the mended file is in force", func() bool {
			_, body := r.get(t, "admin", "/rlconfig")
			return !strings.Contains(body, "# refused") && strings.Contains(body, "shop."+name)
		})
	}
	cancel()
	require.NoError(t, <-failed)
	require.Positive(t, asked)
}

// Each round's body is read from /metrics; numbers do not matter.
func TestMetricsAreThoseOfTheGoldenFile(t *testing.T) {
	heads := regexp.MustCompile(`(?m)^# (HELP|TYPE) ratelimit_.*\n`)
	for _, backend := range []string{"memory", "redis"} {
		t.Run(backend, func(t *testing.T) {
			o := options(t)
			o.BackendType, o.RedisURL, o.LocalCacheSize = backend, "127.0.0.1:1", 1<<20
			o.ServerTLS = true
			o.ServerTLSCert, o.ServerTLSKey = servicetest.NewAuthority(t).IssueFiles(x509.Certificate{})
			r := start(t, o)
			_, body := r.get(t, "admin", "/metrics")
			require.NotContains(t, body, `rule="free"`, "no request has met it")
			const free = `{"domain": "shop", "descriptors": [{"entries": [{"key": "free"}]}]}` // for which no store is needed
			resp, err := http.Post("http://"+r.addrs["http"]+"/json", "application/json", strings.NewReader(free))
			require.NoError(t, err)
			require.NoError(t, resp.Body.Close())
			require.Equal(t, http.StatusOK, resp.StatusCode)
			_, body = r.get(t, "admin", "/metrics")
			servicetest.Golden(t, "testdata/metrics_"+backend+".txt", []byte(strings.Join(heads.FindAllString(body, -1), "")))
		})
	}
}
