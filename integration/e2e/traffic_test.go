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

func TestHostsThatBeatTakeTrafficInTurn(t *testing.T) {
	const ttl = 8 * time.Second
	s := harness.NewStack(t, harness.Options{})
	s.AddHostOf("one", ttl)
	s.AddHostOf("two", ttl)
	instances := map[string]int{}
	for range 20 {
		answer := s.Get("/", "")
		require.Equal(t, http.StatusOK, answer.Status)
		instances[answer.Instance]++
	}
	require.Equal(t, map[string]int{"one": 10, "two": 10}, instances)

	// Beats alone keep them: more than a TTL later both are still there.
	load, began := s.StartLoad(), time.Now()
	servicetest.Eventually(t, "more than a TTL passes", func() bool { return time.Since(began) > ttl+time.Second })
	report := load.Stop()
	require.Empty(t, report.Failures)
	require.InDelta(t, report.Instances["one"], report.Instances["two"], 5)
}

func TestAHostRegisteredByHandTakesTraffic(t *testing.T) {
	s := harness.NewStack(t, harness.Options{})
	s.AddHost("one")
	s.AddHost("two")
	third := harness.Echo(t, "three")
	load := s.StartLoad()
	s.Register("three", third.Addr("http"))
	s.AwaitHosts("three")
	load.Await(60)
	report := load.Stop()
	require.Empty(t, report.Failures)
	require.Len(t, report.Instances, 3)
}

func TestAKilledHostIsDroppedAfterItsTTL(t *testing.T) {
	s := harness.NewStack(t, harness.Options{})
	s.AddHost("one")
	two := s.AddHostOf("two", harness.BriefTTL)
	load := s.StartLoad()
	load.Await(50)

	killed := time.Now()
	two.Kill() // the agent and the backend: the beats end too
	servicetest.Eventually(t, "the host is dropped", func() bool {
		return s.Stat("cluster.echo.membership_total") == 1
	})
	dropped := time.Now()
	require.Greater(t, dropped.Sub(killed), harness.BriefTTL-2*harness.HostInterval)
	load.Await(100)

	report := load.Stop()
	for _, f := range report.Failures {
		require.Contains(t, f.What, "503 upstream connect error", "the only failures are of connections to the killed host")
		require.True(t, f.At.After(killed) && f.Began.Before(dropped), "and they end as it is dropped")
	}
	require.NotEmpty(t, report.Failures, "the load met the killed host")
}

func TestAHostThatIsStoppedLeavesWithoutAFailedRequest(t *testing.T) {
	s := harness.NewStack(t, harness.Options{})
	s.AddHost("one")
	two := s.AddHost("two")
	load := s.StartLoad()
	load.Await(50)
	two.Signal(syscall.SIGTERM)
	servicetest.Eventually(t, "the proxy has heard that it drains", func() bool { return s.Stat("cluster.echo.membership_healthy") == 1 })
	load.Await(100) // what was on its way is over
	two.Stop()      // and so is the draining
	servicetest.Eventually(t, "the host is out", func() bool { return s.Stat("cluster.echo.membership_total") == 1 })
	load.Await(100)
	require.Empty(t, load.Stop().Failures)
}

func TestAHostThatAnOperatorDrainsTakesNoTrafficUntilItIsUpAgain(t *testing.T) {
	s := harness.NewStack(t, harness.Options{})
	s.AddHost("one")
	s.AddHost("two")
	load := s.StartLoad()
	load.Await(50)
	text, code := s.Agent("drain", "--service", "echo", "--id", "two", "--reason", "test", "--author", "test", "--for", "1h")
	require.Zero(t, code, text)
	servicetest.Eventually(t, "the proxy has heard of it", func() bool { return s.Stat("cluster.echo.membership_healthy") == 1 })
	for range 10 {
		require.Equal(t, "one", s.Get("/", "").Instance)
	}
	text, code = s.Agent("list", "echo")
	require.Zero(t, code, text)
	require.Regexp(t, `(?m)^one .* serving `, text)
	require.Regexp(t, `(?m)^two .* draining `, text)

	text, code = s.Agent("up", "--service", "echo", "--id", "two")
	require.Zero(t, code, text)
	s.AwaitHosts("two")
	require.Empty(t, load.Stop().Failures)
}
