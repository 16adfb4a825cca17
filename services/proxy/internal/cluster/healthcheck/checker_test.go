package healthcheck

import (
	"bytes"
	"context"
	"fmt"
	"log/slog"
	"net/netip"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/weirproxy/weir/internal/servicetest"
	"github.com/weirproxy/weir/services/proxy/internal/stats"
)

func TestMain(m *testing.M) { servicetest.Main(m) }

// scripted is a check whose results a test decides.
type scripted struct {
	mu sync.Mutex
	// next is the verdict of the next check of an address; a host that is not
	// here does not answer.
	next map[string]verdict
	// checks are the addresses checked, with the time since the start.
	checks []string
	start  time.Time
	open   int
}

func (s *scripted) newProber(h hostConfig) prober {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.open++
	return &scriptedProber{s, h.address}
}

func (s *scripted) set(address string, v verdict) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.next[address] = v
}

// took returns the checks since the last call.
func (s *scripted) took() string {
	synctest.Wait()
	s.mu.Lock()
	defer s.mu.Unlock()
	all := strings.Join(s.checks, " ")
	s.checks = nil
	return all
}

type scriptedProber struct {
	script  *scripted
	address string
}

func (p *scriptedProber) probe(ctx context.Context) result {
	p.script.mu.Lock()
	p.script.checks = append(p.script.checks, fmt.Sprintf("%s@%v", p.address, time.Since(p.script.start)))
	v, answers := p.script.next[p.address]
	p.script.mu.Unlock()
	if !answers {
		<-ctx.Done()
		return result{verdict: network, why: "too late"}
	}
	return result{verdict: v, why: "as the test says"}
}

func (p *scriptedProber) close() {
	p.script.mu.Lock()
	defer p.script.mu.Unlock()
	p.script.open--
}

// checked is a Checker of a bubble with its script and what it told.
type checked struct {
	*Checker[string]
	script   *scripted
	registry *stats.Registry
	log      *bytes.Buffer

	mu     sync.Mutex
	told   []string
	passed int
	used   bool
}

// start makes a checker that ends with the test. Its hosts are added by set.
func start(t *testing.T, change func(*Config)) *checked {
	t.Helper()
	script := &scripted{next: map[string]verdict{}, start: time.Now()}
	config := mustParse(t, "{"+common+"tcp_health_check: {}}")
	config.check = script
	if change != nil {
		change(config)
	}
	c := &checked{script: script, registry: stats.NewRegistry(), log: &bytes.Buffer{}, used: true}
	c.Checker = New(config, Options[string]{
		Cluster: "a", Changed: c.changed, Scope: c.registry.Scope("cluster.a"), Log: slog.New(slog.NewTextHandler(c.log, nil)),
		Passed: func(string) { c.passed++ }, // by one host alone in the tests that look
		Used: func() bool {
			c.mu.Lock()
			defer c.mu.Unlock()
			return c.used
		},
	})
	t.Cleanup(func() {
		c.Close()
		require.Zero(t, script.open, "probers that were not closed")
	})
	return c
}

func (c *checked) changed(host string, h Health) {
	c.mu.Lock()
	defer c.mu.Unlock()
	text := host + " healthy"
	if h.Failed {
		text = host + " failed"
	}
	if h.Excluded {
		text += " excluded"
	}
	if h.TimedOut {
		text += " timed out"
	}
	c.told = append(c.told, text)
}

// tells returns what was told since the last call.
func (c *checked) tells() string {
	synctest.Wait()
	c.mu.Lock()
	defer c.mu.Unlock()
	all := strings.Join(c.told, ", ")
	c.told = nil
	return all
}

// hosts sets hosts by "name=address" each.
func (c *checked) hosts(list ...string) {
	targets := map[string]Target{}
	for _, entry := range list {
		name, address, _ := strings.Cut(entry, "=")
		targets[name] = Target{Address: netip.MustParseAddrPort(address)}
	}
	c.SetHosts(targets)
}

// counts are the metrics that are not 0, without their prefix.
func (c *checked) counts() map[string]int {
	all := map[string]int{}
	c.registry.Each(func(m stats.Metric) {
		if m.Value != 0 {
			all[m.Name[len("cluster.a.health_check."):]] = int(m.Value)
		}
	})
	return all
}

const one = "10.0.0.1:80"

func TestHostsAreCheckedAtOnceAndThenEachInterval(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := start(t, nil)
		c.script.set(one, passed)
		c.hosts("x=" + one)
		require.Equal(t, "x healthy", c.tells())
		time.Sleep(11 * time.Second)
		require.Equal(t, "10.0.0.1:80@0s 10.0.0.1:80@5s 10.0.0.1:80@10s", c.script.took())
		require.Empty(t, c.tells(), "nothing changed")
		require.Equal(t, 3, c.passed)
		require.Equal(t, map[string]int{"attempt": 3, "success": 3, "healthy": 1}, c.counts())
	})
}

func TestAHostFailsAndComesBackByTheThresholds(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := start(t, func(c *Config) {
			c.UnhealthyInterval, c.UnhealthyEdgeInterval, c.HealthyEdgeInterval = 20*time.Second, time.Second, 2*time.Second
		})
		c.script.set(one, passed)
		c.hosts("x=" + one)
		require.Equal(t, "x healthy", c.tells())
		c.script.set(one, network)
		time.Sleep(7 * time.Second) // checks at 0, 5, 6, 7
		require.Equal(t, "x failed", c.tells())
		c.script.set(one, passed)
		time.Sleep(22 * time.Second) // at 27 and 29
		require.Equal(t, "x healthy", c.tells())
		time.Sleep(5 * time.Second) // at 34
		require.Equal(t, "10.0.0.1:80@0s 10.0.0.1:80@5s 10.0.0.1:80@6s 10.0.0.1:80@7s 10.0.0.1:80@27s 10.0.0.1:80@29s 10.0.0.1:80@34s", c.script.took())
		require.Equal(t, map[string]int{"attempt": 7, "success": 4, "failure": 3, "network_failure": 3, "healthy": 1}, c.counts())
		require.Equal(t, 3, c.passed, "passes of a healthy host")
		require.Contains(t, c.log.String(), `level=WARN msg="host is unhealthy" host=10.0.0.1:80 why="as the test says"`)
		require.Contains(t, c.log.String(), `level=INFO msg="host is healthy" host=10.0.0.1:80`)
	})
}

func TestAHostThatDoesNotAnswerIsTimedOut(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := start(t, nil)
		c.hosts("x=" + one)
		require.Empty(t, c.tells())
		time.Sleep(time.Second)
		require.Equal(t, "x failed timed out", c.tells())
		require.Equal(t, map[string]int{"attempt": 1, "failure": 1, "network_failure": 1}, c.counts())
		require.Contains(t, c.log.String(), `why="no answer within 1s"`)
		time.Sleep(5 * time.Second)
		require.Equal(t, "10.0.0.1:80@0s 10.0.0.1:80@6s", c.script.took(), "the interval begins when the check ended")
	})
}

func TestWithoutTrafficChecksAreFewer(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := start(t, func(c *Config) { c.NoTrafficInterval, c.NoTrafficHealthyInterval = 30*time.Second, time.Minute })
		c.used = false
		c.script.set(one, network)
		c.hosts("x=" + one)
		synctest.Wait()
		c.script.set(one, passed)
		time.Sleep(time.Minute) // at 30 and, healthy now, at 60
		synctest.Wait()
		time.Sleep(time.Minute)
		c.mu.Lock()
		c.used = true
		c.mu.Unlock()
		time.Sleep(5 * time.Minute)
		require.True(t, strings.HasPrefix(c.script.took(), "10.0.0.1:80@0s 10.0.0.1:80@30s 10.0.0.1:80@1m0s 10.0.0.1:80@2m0s"))
	})
}

func TestTheFirstCheckMayWait(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := start(t, func(c *Config) { c.InitialJitter = time.Hour })
		c.script.set(one, passed)
		c.hosts("x=" + one)
		synctest.Wait()
		require.Empty(t, c.script.took())
		time.Sleep(time.Hour)
		require.Equal(t, "x healthy", c.tells())
	})
}

func TestAPassiveFailureHoldsUntilTheNextGoodCheck(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := start(t, func(c *Config) { c.HealthyThreshold = 1 })
		c.script.set(one, passed)
		c.hosts("x=" + one)
		require.Equal(t, "x healthy", c.tells())
		c.Host("x").FailPassively()
		c.Host("x").FailPassively()
		c.Host("no host").FailPassively()
		require.Equal(t, "x failed excluded", c.tells())
		require.Zero(t, c.counts()["healthy"])
		time.Sleep(5 * time.Second)
		require.Equal(t, "x healthy", c.tells())
		counts := c.counts()
		require.Equal(t, 2, counts["attempt"])
		require.Equal(t, counts["failure"], counts["passive_failure"])
		require.Positive(t, counts["passive_failure"])
	})
}

func TestHostsComeGoAndMove(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const two, three = "10.0.0.2:80", "10.0.0.3:80"
		c := start(t, nil)
		for _, address := range []string{one, two, three} {
			c.script.set(address, passed)
		}
		c.hosts("x="+one, "y="+two)
		require.ElementsMatch(t, []string{"x healthy", "y healthy"}, strings.Split(c.tells(), ", "))
		require.Equal(t, 2, c.counts()["healthy"])
		c.script.took()

		c.hosts("x=" + three) // y goes, x moves
		require.Equal(t, "x healthy", c.tells(), "the first result of another target")
		require.Equal(t, 1, c.counts()["healthy"])
		require.Equal(t, three+"@0s", c.script.took())
		require.Nil(t, c.Host("y"))
		require.Equal(t, 1, c.script.open)

		c.hosts()
		synctest.Wait()
		require.Zero(t, c.counts()["healthy"])
		require.Zero(t, c.script.open)
	})
}

func TestAHostThatMovesIsToldOfInOrder(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const two = "10.0.0.2:80"
		script := &scripted{next: map[string]verdict{one: network, two: passed}, start: time.Now()}
		config := mustParse(t, "{"+common+"tcp_health_check: {}}")
		config.check = script
		var told []bool
		hold := make(chan struct{})
		c := New(config, Options[string]{
			Changed: func(_ string, h Health) {
				<-hold
				told = append(told, h.Failed)
			},
			Used: func() bool { return true }, Scope: stats.NewRegistry().Scope("a"), Log: discard,
		})
		defer c.Close()
		c.SetHosts(map[string]Target{"x": {Address: addrPort(one)}})
		synctest.Wait()
		c.SetHosts(map[string]Target{"x": {Address: addrPort(two)}})
		require.Equal(t, one+"@0s", script.took(), "the first target is still being told of")
		close(hold)
		require.Equal(t, two+"@0s", script.took())
		require.Equal(t, []bool{true, false}, told)
	})
}

func TestAHostThatGoesEndsTheCheckThatIsUnderWay(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := start(t, nil)
		c.hosts("x=" + one) // it does not answer
		synctest.Wait()
		c.hosts()
		require.Empty(t, c.tells())
		require.Zero(t, c.script.open)
		require.Equal(t, map[string]int{"attempt": 1}, c.counts())
	})
}

func TestADisabledHostIsNotChecked(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := start(t, nil)
		c.SetHosts(map[string]Target{"x": {Address: netip.MustParseAddrPort(one), Endpoint: Endpoint{Disabled: true}}})
		require.Empty(t, c.tells())
		require.Empty(t, c.script.took())
		require.Nil(t, c.Host("x"))
	})
}

func TestACloseEndsAllChecks(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := start(t, nil)
		c.hosts("x="+one, "y=10.0.0.2:80")
		synctest.Wait()
		c.Close()
		require.Zero(t, c.script.open)
		c.hosts("z=10.0.0.3:80")
		require.Nil(t, c.Host("z"), "a closed checker takes no hosts")
		c.Close()
	})
}

// TestWhoIsToldMayHoldALockThatSetHostsIsCalledUnder is how a cluster uses it.
func TestWhoIsToldMayHoldALockThatSetHostsIsCalledUnder(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		script := &scripted{next: map[string]verdict{one: passed}}
		config := mustParse(t, "{"+common+"tcp_health_check: {}}")
		config.check = script
		var mu sync.Mutex
		c := New(config, Options[int]{
			Changed: func(int, Health) {
				mu.Lock()
				defer mu.Unlock()
			},
			Used: func() bool { return true }, Scope: stats.NewRegistry().Scope("a"), Log: slog.New(slog.DiscardHandler),
		})
		for i := range 100 {
			mu.Lock()
			c.SetHosts(map[int]Target{i / 3: {Address: netip.MustParseAddrPort(one)}})
			mu.Unlock()
			time.Sleep(time.Second)
		}
		c.Close()
	})
}
