package faults

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/weirproxy/weir/integration/harness"
)

// settings are those of every replica: the guards as they are by default, but for
// what the short TTL wants.
var settings = []string{"DISCOVERY_LOG_LEVEL=warn", "DISCOVERY_WARM_UP=10s"}

// site is a fleet, the replicas that it beats at, and those who ask them.
type site struct {
	t        *testing.T
	born     time.Time
	replicas []*harness.Process
	gates    []*gate // between hosts and replicas
	fleet    *fleet
	views    []*view
	pulse    pulse
	stops    []func()
	// mostLost is how long a living host may be missing.
	mostLost time.Duration
}

// newSite starts three replicas, with the settings of each, and a fleet, and
// returns when all is known everywhere.
func newSite(t *testing.T, how routing, own func(replica int) []string) *site {
	t.Helper()
	return newSiteOf(t, 3, ttl, how, own)
}

// newSiteOf is newSite with so many replicas, and hosts of such a TTL.
func newSiteOf(t *testing.T, replicas int, hostTTL time.Duration, how routing, own func(replica int) []string) *site {
	t.Helper()
	s := &site{t: t, born: time.Now(), mostLost: mostLost}
	var addresses, overGRPC []string
	for n := range replicas {
		p := harness.DiscoveryProgram(t, slices.Concat(settings, []string{fmt.Sprint("DISCOVERY_IDENTIFIER=replica-", n)}, own(n))...)
		p.Name = fmt.Sprint("replica ", n)
		replica := harness.Start(t, p)
		s.replicas = append(s.replicas, replica)
		s.gates = append(s.gates, newGate(t, replica.Addr("http")))
		addresses, overGRPC = append(addresses, s.gates[n].address()), append(overGRPC, replica.Addr("xds"))
	}
	s.fleet = newFleet(s.clock, addresses, overGRPC, how, hostTTL)
	for _, r := range s.replicas {
		views, stop := watch(t, s.fleet, r.Program.Name, r.Addr("http"), r.Addr("xds"))
		s.views, s.stops = append(s.views, views...), append(s.stops, stop)
	}
	s.stops = append(s.stops, s.fleet.run(t), s.pulse.run(t))
	s.fleet.awaitAll(t)
	for _, v := range s.views {
		s.awaitRight(v)
		v.settled()
	}
	s.pass(heardOf) // from then on every answer is judged
	return s
}

// cutOff lets no call of a host through to a replica for two TTLs. during is done
// after one.
func (s *site) cutOff(replica int, during func()) {
	s.t.Helper()
	taken := s.fleet.taken[s.gates[replica].address()]
	s.gates[replica].close()
	s.pass(callTimeout) // for what is under way
	before := taken.Load()
	s.pass(ttl - callTimeout)
	during()
	s.pass(ttl)
	require.Equal(s.t, before, taken.Load(), "calls that the replica took while it was cut off")
	s.gates[replica].open()
}

// clock is the time since the site began.
func (s *site) clock() time.Duration { return time.Since(s.born) }

// pass lets time go by for what happens in it.
func (s *site) pass(d time.Duration) {
	timer := time.NewTimer(d)
	defer timer.Stop()
	<-timer.C
}

// kill has hosts die, in waves from 0 to 2: one of each of some services with
// five hosts or more, which differ by wave, and the only host of a few.
func (s *site) kill(wave int) {
	for n, service := range s.fleet.names {
		hosts := s.fleet.byService[service]
		if n%30 == 6*wave && len(hosts) == 1 || n%5 == wave && len(hosts) >= 5 {
			s.fleet.kill(hosts[wave%len(hosts)])
		}
	}
}

// dead are the hosts that died.
func (s *site) dead() (dead []*host) {
	for _, h := range s.fleet.hosts {
		if h.died.Load() != 0 {
			dead = append(dead, h)
		}
	}
	return dead
}

// mayMiss says which hosts some views may miss, since nobody hears them.
func (s *site) mayMiss(views []*view, unheard func(*host) bool) {
	for _, v := range views {
		v.mu.Lock()
		v.unheard = unheard
		v.mu.Unlock()
	}
}

// verdict waits until every replica lists all hosts that live and no other, and
// then says what was wrong with any answer since the site began.
func (s *site) verdict() {
	s.t.Helper()
	dead, began := s.dead(), time.Now()
	require.NotEmpty(s.t, dead)
	for _, v := range s.views {
		s.awaitRight(v)
	}
	gone := time.Since(began)
	s.pass(2 * time.Second) // for what comes of that
	for _, stop := range s.stops {
		stop()
	}
	faults := s.fleet.faults
	var said []string
	for _, v := range s.views {
		faults = append(faults, v.verdict(s.mostLost)...)
		said = append(said, fmt.Sprintf("%s answered %d times, missing %v at most", v.name, v.answers, v.lost.Round(time.Millisecond)))
		require.Greater(s.t, v.answers, services, "%s was asked", v.name)
	}
	s.t.Logf("the last of %d dead hosts was gone %v after the fault; %d registrations had to be made again\n%s",
		len(dead), gone.Round(100*time.Millisecond), s.fleet.again.Load(), strings.Join(said, "\n"))
	require.Empty(s.t, faults, "what no reader should be told; this process was held up for %v at most", s.pulse.longest.Round(time.Millisecond))
}

// awaitRight waits until a view has just the hosts that live.
func (s *site) awaitRight(v *view) {
	s.t.Helper()
	tick := time.NewTicker(50 * time.Millisecond)
	defer tick.Stop()
	deadline := time.Now().Add(time.Minute)
	for {
		wrong := v.wrong()
		if len(wrong) == 0 {
			return
		}
		if time.Now().After(deadline) {
			s.t.Fatalf("%s has %d hosts wrong, such as %s of %s, which beats: %v", v.name, len(wrong), wrong[0].id, wrong[0].service, s.fleet.beats(wrong[0]))
		}
		<-tick.C
	}
}

// pulse measures for how long the test's process was held up: on a machine that
// has too much to do its hosts seem dead.
type pulse struct{ longest time.Duration }

// run measures until the test ends, or stop is called. After that longest is for
// reading.
func (p *pulse) run(t *testing.T) (stop func()) {
	const every = 50 * time.Millisecond
	ctx, cancel := context.WithCancel(context.Background())
	var running sync.WaitGroup
	// Ends with ctx; stop waits for it.
	running.Go(func() {
		ticker := time.NewTicker(every)
		defer ticker.Stop()
		for last := time.Now(); ctx.Err() == nil; last = time.Now() {
			<-ticker.C
			p.longest = max(p.longest, time.Since(last)-every)
		}
	})
	stop = sync.OnceFunc(func() {
		cancel()
		running.Wait()
	})
	t.Cleanup(stop)
	return stop
}
