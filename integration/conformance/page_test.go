package conformance

import (
	"context"
	"os"
	"path/filepath"
	"testing"
	"time"

	commonpb "github.com/envoyproxy/go-control-plane/envoy/extensions/common/ratelimit/v3"
	rlspb "github.com/envoyproxy/go-control-plane/envoy/service/ratelimit/v3"

	"github.com/chromedp/chromedp"
	"github.com/stretchr/testify/require"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"

	"github.com/weirproxy/weir/integration/harness"
	"github.com/weirproxy/weir/internal/servicetest"
)

// browserTime is how long a test with a browser may take in all: one that hangs
// ends with what the page shows then. On a slow machine such a test takes minutes.
const browserTime = 5 * time.Minute

// withBrowser is the package's tests. The first that asks for a browser starts it,
// which takes longer than most of these tests do, and it ends with the last.
type withBrowser struct{ *testing.M }

// running is the browser that the tests share; nil until one has asked for it.
var running context.Context

func (m withBrowser) Run() int {
	code := m.M.Run()
	if running != nil {
		_ = chromedp.Cancel(running)
	}
	return code
}

// browser opens a tab of a real browser that ends with the test. The pages keep what
// they keep in a tab's storage, so it has nothing of other tests.
func browser(t *testing.T) context.Context {
	t.Helper()
	if running == nil {
		path := servicetest.Peer(t, "chromium", "CHROMIUM", "make peers, or apt-get install chromium")
		options := append(chromedp.DefaultExecAllocatorOptions[:],
			chromedp.ExecPath(path), chromedp.NoSandbox, chromedp.WSURLReadTimeout(slowMachine))
		allocator, _ := chromedp.NewExecAllocator(context.Background(), options...)
		ctx, cancel := chromedp.NewContext(allocator)
		if err := chromedp.Run(ctx); err != nil {
			cancel()
			require.NoError(t, err, "start %s", path)
		}
		running = ctx
	}
	ctx, cancel := context.WithTimeout(running, browserTime)
	t.Cleanup(cancel)
	ctx, cancel = chromedp.NewContext(ctx)
	t.Cleanup(func() { _ = chromedp.Cancel(ctx); cancel() })
	return ctx
}

// shows waits until the text of an element contains what is wanted.
func shows(tab context.Context, t *testing.T, selector, want string) {
	t.Helper()
	expression := `document.querySelector("` + selector + `").innerText.includes(` + "`" + want + "`" + `)`
	require.NoError(t, chromedp.Run(tab, chromedp.Poll(expression, nil, chromedp.WithPollingTimeout(slowMachine))), "%s shows %q", selector, want)
}

func TestTheLimitersPageShowsRulesRefusalsAndFaults(t *testing.T) {
	rules := filepath.Join(t.TempDir(), "rules")
	require.NoError(t, os.Mkdir(rules, 0o755))
	file := filepath.Join(rules, "mill.yaml")
	require.NoError(t, os.WriteFile(file, []byte(limiterRules), 0o644))
	limiter := harness.Ratelimit(t, rules)
	conn, err := grpc.NewClient(limiter.Addr("grpc"), grpc.WithTransportCredentials(insecure.NewCredentials()))
	require.NoError(t, err)
	defer conn.Close()
	for range 5 {
		_, err := rlspb.NewRateLimitServiceClient(conn).ShouldRateLimit(t.Context(), &rlspb.RateLimitRequest{
			Domain: "mill",
			Descriptors: []*commonpb.RateLimitDescriptor{{
				Entries: []*commonpb.RateLimitDescriptor_Entry{{Key: "user", Value: "<b>greedy</b>"}},
			}},
		})
		require.NoError(t, err)
	}

	tab := browser(t)
	require.NoError(t, chromedp.Run(tab, chromedp.Navigate("http://"+limiter.Addr("admin")+"/page")))
	shows(tab, t, "#state", "ready")
	shows(tab, t, "#store", "memory")
	shows(tab, t, "#refusals tbody tr", "mill: user=<b>greedy</b>\t2")
	shows(tab, t, "#rules tbody", "route_grind.user")
	shows(tab, t, "#rule-count", "3 of 3 that match, of 3 in 1 domains")
	shows(tab, t, "#numbers tbody", "ratelimit_memory_counters")
	require.NoError(t, chromedp.Run(tab, chromedp.SendKeys("#filter", "miller", chromedp.ByQuery)))
	shows(tab, t, "#rule-count", "1 of 1 that match, of 3 in 1 domains")
	shows(tab, t, "#rules tbody", "user_miller")

	require.NoError(t, os.WriteFile(file, []byte("domain: mill\ndescriptors: none\n"), 0o644))
	shows(tab, t, "#fault-list", file+":2:14: descriptors must be a list")
	limiter.Kill()
	shows(tab, t, "#state", "does not answer")
}
