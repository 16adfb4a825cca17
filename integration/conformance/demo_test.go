package conformance

import (
	"fmt"
	"net/http"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/weirproxy/weir/integration/harness"
)

// inTheProxysPlace runs a test with our proxy and with a real Envoy, each with
// a discovery and a ratelimit of ours behind it and the demo's bootstrap,
// changed in nothing but its ports.
func inTheProxysPlace(t *testing.T, test func(t *testing.T, s *harness.Stack)) {
	t.Helper()
	for name, o := range map[string]harness.Options{
		"our_proxy":    {},
		"a_real_Envoy": {Envoy: true},
	} {
		t.Run(name, func(t *testing.T) { test(t, harness.NewStack(t, o)) })
	}
}

func TestTheDemoAlternatesBetweenItsHosts(t *testing.T) {
	inTheProxysPlace(t, func(t *testing.T, s *harness.Stack) {
		s.AddHost("echo-1")
		s.AddHost("echo-2")
		last := s.Get("/", "").Instance
		for range 10 {
			answer := s.Get("/", "")
			require.Equal(t, http.StatusOK, answer.Status)
			require.Equal(t, answer.Instance+" GET /\n", answer.Body)
			require.NotEqual(t, last, answer.Instance)
			last = answer.Instance
		}
	})
}

// failureModeAllowed counts the requests that the proxy let pass uncounted, for
// the rate limiter was away or slow.
const failureModeAllowed = "cluster.echo.ratelimit.failure_mode_allowed"

func TestTheDemoLimitsAUserAndNobodyElse(t *testing.T) {
	inTheProxysPlace(t, func(t *testing.T, s *harness.Stack) {
		s.AddHost("echo-1")
		try := 0
		var answers []harness.Answer
		// Again, as another user, if one passed uncounted or a window ended in between.
		eventually(t, "all requests of a user are counted in one window", func() bool {
			began, uncounted := time.Now().Unix()/60, s.Stat(failureModeAllowed)
			try++
			answers = nil
			for range 12 {
				answers = append(answers, s.Get("/", fmt.Sprintf("ann-%d", try)))
			}
			return s.Stat(failureModeAllowed) == uncounted && time.Now().Unix()/60 == began
		})
		for i, answer := range answers {
			if i < 5 {
				require.Equal(t, http.StatusOK, answer.Status, "request %d", i)
				continue
			}
			require.Equal(t, http.StatusTooManyRequests, answer.Status, "request %d", i)
			require.Equal(t, []string{"true"}, answer.Header.Values("X-Envoy-Ratelimited"))
			require.Empty(t, answer.Body)
		}
		for range 12 {
			require.Equal(t, http.StatusOK, s.Get("/", "vip").Status)
			require.Equal(t, http.StatusOK, s.Get("/", "").Status)
		}
		require.Positive(t, s.Stat("cluster.echo.ratelimit.over_limit"))
		require.Positive(t, s.Stat("cluster.echo.ratelimit.ok"))
	})
}

func TestTheDemosThirdHostTakesTrafficAndAKilledOneLeaves(t *testing.T) {
	inTheProxysPlace(t, func(t *testing.T, s *harness.Stack) {
		s.AddHost("echo-1")
		two := s.AddHostOf("echo-2", harness.BriefTTL)
		third := harness.Echo(t, "echo-3")
		s.Register("echo-3", third.Addr("http"))
		s.AwaitHosts("echo-3")
		eventually(t, "there are three hosts", func() bool { return s.Stat("cluster.echo.membership_total") == 3 })

		two.Kill()
		eventually(t, "the killed host is dropped", func() bool {
			return s.Stat("cluster.echo.membership_total") == 2
		})
		eventually(t, "no request meets it", func() bool { // which Envoy's worker hears a moment later
			for range 10 {
				if s.Get("/", "").Status != http.StatusOK {
					return false
				}
			}
			return true
		})
	})
}

func TestTheDemoGoesOnWithoutDiscoveryAndWithoutRatelimit(t *testing.T) {
	inTheProxysPlace(t, func(t *testing.T, s *harness.Stack) {
		s.AddHost("echo-1")
		s.Discovery.Kill()
		s.Ratelimit.Kill()
		for range 20 {
			require.Equal(t, http.StatusOK, s.Get("/", "ann").Status)
		}
		require.Positive(t, s.Stat(failureModeAllowed))

		s.Discovery.Restart()
		s.Ratelimit.Restart()
		eventually(t, "the limit holds again", func() bool {
			return s.Get("/", "ben").Status == http.StatusTooManyRequests
		})
		s.AwaitControlPlane()
		require.Equal(t, http.StatusOK, s.Get("/", "").Status)
	})
}

func TestTheDemoWithoutAnyHostAnswers503(t *testing.T) {
	inTheProxysPlace(t, func(t *testing.T, s *harness.Stack) {
		require.Equal(t, http.StatusServiceUnavailable, s.Get("/", "").Status)
		one := s.AddHost("echo-1")
		one.Signal(syscall.SIGTERM)
		eventually(t, "the host drains", func() bool { return s.Stat("cluster.echo.membership_healthy") == 0 })
		one.Stop() // it need not go on with that, and deregisters
		eventually(t, "the host is dropped", func() bool {
			return s.Stat("cluster.echo.membership_total") == 0
		})
		eventually(t, "there is nobody to answer", func() bool {
			answer := s.Get("/", "")
			return answer.Status == http.StatusServiceUnavailable && answer.Body == "no healthy upstream"
		})
	})
}
