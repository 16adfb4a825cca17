package e2e

import (
	"net/http"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/weirproxy/weir/integration/harness"
	"github.com/weirproxy/weir/internal/servicetest"
)

func TestWithoutRatelimitTrafficGoesOnAndIsCounted(t *testing.T) {
	s := harness.NewStack(t, harness.Options{Rules: minuteRules})
	s.AddHost("one")
	for range 5 {
		require.Equal(t, http.StatusOK, s.Get("/", "ann").Status)
	}
	load := s.StartLoad()
	load.Await(50)

	s.Ratelimit.Kill()
	servicetest.Eventually(t, "requests pass unasked", func() bool { return s.Stat(failureModeAllowed) > 0 })
	for range 10 {
		require.Equal(t, http.StatusOK, s.Get("/", "ann").Status, "no limit holds while nobody counts")
	}
	load.Await(100)
	require.GreaterOrEqual(t, s.Stat(failureModeAllowed), 100)

	s.Ratelimit.Restart()
	servicetest.Eventually(t, "the limit holds again", func() bool {
		return s.Get("/", "ben").Status == http.StatusTooManyRequests
	})
	report := load.Stop()
	require.Empty(t, report.Failures)
	servicetest.Eventually(t, "requests are asked about again", func() bool {
		before := s.Stat(failureModeAllowed)
		return s.Get("/", "").Status == http.StatusOK && s.Stat(failureModeAllowed) == before
	})
}

// TestARatelimitThatHangsCostsATimeoutAndNoRequest: a stopped process holds its
// connections open and answers nothing.
func TestARatelimitThatHangsCostsATimeoutAndNoRequest(t *testing.T) {
	s := harness.NewStack(t, harness.Options{})
	s.AddHost("one")
	require.Equal(t, http.StatusOK, s.Get("/", "").Status)
	s.Ratelimit.Signal(syscall.SIGSTOP)
	servicetest.Eventually(t, "a request passes unasked", func() bool {
		require.Equal(t, http.StatusOK, s.Get("/", "").Status)
		return s.Stat(failureModeAllowed) > 0
	})
	require.Positive(t, s.Stat("cluster.ratelimit.upstream_rq_timeout"), "it ran out of the filter's timeout")
	s.Ratelimit.Signal(syscall.SIGCONT)
	servicetest.Eventually(t, "calls are answered again", func() bool {
		before := s.Stat("cluster.echo.ratelimit.ok")
		return s.Get("/", "").Status == http.StatusOK && s.Stat("cluster.echo.ratelimit.ok") > before
	})
}

func TestWithoutDiscoveryTrafficGoesOnAndOnItsReturnTheHostsAreThere(t *testing.T) {
	for name, settings := range map[string][]string{
		// Until the warm-up ends, what it knows is not taken for all there is; nor
		// is what a file of a crashed one has.
		"the_store_is_memory_and_hosts_beat_again":  {"DISCOVERY_STORE=memory:", "DISCOVERY_WARM_UP=3s"},
		"the_store_is_a_file_that_outlives_a_crash": {"DISCOVERY_STORE=file://" + t.TempDir() + "/hosts.json", "DISCOVERY_SNAPSHOT_INTERVAL=100ms", "DISCOVERY_WARM_UP=3s"},
	} {
		t.Run(name, func(t *testing.T) {
			s := harness.NewStack(t, harness.Options{Discovery: settings})
			s.AddHostOf("one", harness.BriefTTL)
			s.AddHostOf("two", harness.BriefTTL)
			load := s.StartLoad()
			load.Await(50)

			s.Discovery.Kill()
			down := time.Now()
			servicetest.Eventually(t, "the proxy has lost discovery", func() bool {
				return s.Stat("control_plane.connected_state") == 0
			})
			servicetest.Eventually(t, "more than a TTL passes", func() bool { return time.Since(down) > harness.BriefTTL+time.Second })
			load.Await(100)
			require.Equal(t, 2, s.Stat("cluster.echo.membership_total"), "the proxy keeps the last hosts")

			s.Discovery.Restart()
			third := harness.Echo(t, "three")
			s.Register("three", third.Addr("http"))
			s.AwaitControlPlane()
			s.AwaitHosts("one", "two", "three") // what is new is heard of as well
			load.Await(100)
			report := load.Stop()
			require.Empty(t, report.Failures)
			require.Len(t, report.Instances, 3)
			servicetest.Eventually(t, "all three are there", func() bool { return s.Stat("cluster.echo.membership_total") == 3 })
		})
	}
}

func TestAProxyThatIsToldToStopFinishesWhatItHas(t *testing.T) {
	s := harness.NewStack(t, harness.Options{})
	s.AddHost("one")
	load := s.StartLoad()
	load.Await(50)
	client, slow := harness.Client(t), make(chan harness.Answer, 1)
	// Ends with the answer, which the test waits for.
	go func() {
		answer, _ := harness.Send(client, harness.Request{URL: "http://" + s.Ingress() + "/?delay=2s"})
		slow <- answer
	}()
	servicetest.Eventually(t, "the slow request is under way", func() bool { return s.Stat("cluster.echo.upstream_rq_active") > 0 })

	const grace = time.Second // in which the proxy goes on accepting
	graceEnds := time.Now().Add(grace)
	s.Proxy.Signal(syscall.SIGTERM)
	answer := <-slow
	require.Equal(t, http.StatusOK, answer.Status)
	require.Zero(t, s.Proxy.Wait())
	for _, f := range load.Stop().Failures {
		require.True(t, f.At.After(graceEnds), "failed while the proxy still accepted: %s", f.What)
		// The kernel resets the few that it had connected and the proxy had not
		// yet accepted.
		require.Regexp(t, "connection refused|connection reset by peer", f.What)
	}
}
