package conformance

import (
	"fmt"
	"net/http"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/weirproxy/weir/integration/harness"
	"github.com/weirproxy/weir/internal/servicetest"
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
		for try := 0; ; try++ {
			began, uncounted := time.Now().Unix()/60, s.Stat(failureModeAllowed)
			var answers []harness.Answer
			for range 12 {
				answers = append(answers, s.Get("/", fmt.Sprintf("ann-%d", try)))
			}
			isGood := s.Stat(failureModeAllowed) == uncounted && time.Now().Unix()/60 == began
			if !isGood && try < 10 { // again, as another user
				continue
			}
			for i, answer := range answers {
				if i < 5 {
					require.Equal(t, http.StatusOK, answer.Status, "request %d", i)
					continue
				}
				require.Equal(t, http.StatusTooManyRequests, answer.Status, "request %d", i)
				require.Equal(t, []string{"true"}, answer.Header.Values("X-Envoy-Ratelimited"))
				require.Empty(t, answer.Body)
			}
			break
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
		two := s.AddHost("echo-2")
		third := harness.Echo(t, "echo-3")
		began := time.Now()
		s.Register("echo-3", third.Addr("http"))
		s.AwaitHosts("echo-3")
		require.Less(t, time.Since(began), 2*time.Second)
		require.Equal(t, 3, s.Stat("cluster.echo.membership_total"))

		killed := time.Now()
		two.Kill()
		servicetest.Eventually(t, "the killed host is dropped", func() bool {
			return s.Stat("cluster.echo.membership_total") == 2
		})
		require.Less(t, time.Since(killed), harness.HostTTL+3*time.Second)
		for range 10 {
			require.Equal(t, http.StatusOK, s.Get("/", "").Status)
		}
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
		servicetest.Eventually(t, "the limit holds again", func() bool {
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
		one.Stop() // deregisters
		servicetest.Eventually(t, "the host is dropped", func() bool {
			return s.Stat("cluster.echo.membership_total") == 0
		})
		answer := s.Get("/", "")
		require.Equal(t, http.StatusServiceUnavailable, answer.Status)
		require.Equal(t, "no healthy upstream", answer.Body)
	})
}
