package guard

import (
	"fmt"
	"math/rand/v2"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// usual are limits as they are set by default.
var usual = Limits{
	ServiceShare: 0.25, GlobalShare: 0.15, GlobalLeast: 10, LastHost: 2, Ceiling: time.Hour, BeatLoss: 0.5, BeatLeast: 10,
}

// dead is a host of "users", one of ten and of a thousand in all, that beat at 0
// and has a TTL of 30s.
var dead = Host{Service: "users", Hosts: 10, All: 1000, TTL: 30 * time.Second}

// draining is the last host of "users", which was about to go.
var draining = Host{Service: "users", Hosts: 1, All: 1000, TTL: 30 * time.Second, Draining: true}

func TestJudge(t *testing.T) {
	const second, minute = time.Second, time.Minute
	for name, test := range map[string]struct {
		limits Limits
		before func(*Guard)
		host   Host
		now    time.Duration
		want   Verdict
	}{
		"one dead host of many goes at once": {limits: usual, host: dead, now: 30 * second},
		"without limits any goes":            {host: Host{Service: "users", Hosts: 1, All: 1, TTL: 30 * second}, now: 30 * second},
		"the share of its service has gone": {
			limits: usual, before: gone("users", 3, 10*second), host: dead, now: 30 * second,
			want: Verdict{ServiceShare, 30*second + dead.TTL/8}},
		"of a small service one may go": {
			limits: usual, host: Host{Service: "users", Hosts: 2, All: 2, TTL: 30 * second}, now: 30 * second},
		"of a small service one has gone": {
			limits: usual, before: gone("users", 1, 10*second), host: Host{Service: "users", Hosts: 2, All: 2, TTL: 30 * second}, now: 30 * second,
			want: Verdict{ServiceShare, 30*second + dead.TTL/8}},
		"those of another service do not count": {
			limits: usual, before: gone("orders", 100, 10*second), host: dead, now: 30 * second},
		"those that went a TTL ago do not count": {
			limits: usual, before: gone("users", 100, 0), host: dead, now: 30 * second},
		"the share of all has gone": {
			limits: usual, before: gone("orders", 176, 10*second), host: dead, now: 30 * second,
			want: Verdict{GlobalShare, 30*second + dead.TTL/8}},
		"so few are no mass": {
			limits: usual, before: gone("orders", 9, 10*second), host: Host{Service: "users", Hosts: 10, All: 10, TTL: 30 * second}, now: 30 * second},
		"one more is": {
			limits: usual, before: gone("orders", 10, 10*second), host: Host{Service: "users", Hosts: 10, All: 10, TTL: 30 * second}, now: 30 * second,
			want: Verdict{GlobalShare, 30*second + dead.TTL/8}},
		"what was draining goes, be it the last": {
			limits: usual, before: gone("users", 200, 10*second), host: draining, now: 30 * second},
		"what was draining does not count": {
			limits: usual, before: func(g *Guard) {
				for range 100 {
					g.Judge(draining, 30*second)
				}
			}, host: dead, now: 30 * second},
		"what was draining is suspended": {
			limits: usual, before: func(g *Guard) { g.Suspend(BeatsLost, "", 20*second) }, host: draining, now: 30 * second,
			want: Verdict{Suspended, 30*second + dead.TTL/8}},
		"the last host stays": {
			limits: usual, host: Host{Service: "users", Hosts: 1, All: 1000, TTL: 30 * second}, now: 59 * second,
			want: Verdict{LastHost, 60 * second}},
		"the last host goes after two TTLs": {
			limits: usual, host: Host{Service: "users", Hosts: 1, All: 1000, TTL: 30 * second}, now: 60 * second},
		"the last host stays until the ceiling": {
			limits: Limits{LastHost: -1, Ceiling: time.Hour}, host: Host{Service: "users", Hosts: 1, All: 1000, TTL: 30 * second},
			now: time.Hour + 29*second, want: Verdict{LastHost, time.Hour + 30*second}},
		"the ceiling lets the last host go": {
			limits: Limits{LastHost: -1, Ceiling: time.Hour}, host: Host{Service: "users", Hosts: 1, All: 1000, TTL: 30 * second},
			now: time.Hour + 30*second},
		"without a ceiling it stays for ever": {
			limits: Limits{LastHost: -1}, host: Host{Service: "users", Hosts: 1, All: 1000, TTL: 30 * second},
			now: 1000 * time.Hour, want: Verdict{LastHost, 1000*time.Hour + dead.TTL/8}},
		"the ceiling is above the shares": {
			limits: usual, before: gone("users", 500, time.Hour), host: dead, now: time.Hour + 30*second},
		"its TTL began anew": {
			limits: usual, before: moment(Paused, 20*second), host: from(20 * second), now: 30 * second,
			want: Verdict{Suspended, 50 * second}},
		"its TTL began anew and ended": {
			limits: usual, before: moment(Paused, 20*second), host: from(20 * second), now: 50 * second},
		"the ceiling is above TTLs that begin anew": {
			limits: usual, before: moment(Paused, time.Hour+20*second), host: from(time.Hour + 20*second), now: time.Hour + 30*second},
		"but not above the suspension after the start": {
			limits: usual, before: moment(Started, 5*time.Hour), host: unheard(5 * time.Hour), now: 5*time.Hour + 29*second,
			want: Verdict{Suspended, 5*time.Hour + 30*second}},
		"beats are lost": {
			limits: usual, before: func(g *Guard) { g.Suspend(BeatsLost, "", 20*second) }, host: dead, now: 30 * second,
			want: Verdict{Suspended, 30*second + dead.TTL/8}},
		"the ceiling is above lost beats": {
			limits: usual, before: func(g *Guard) { g.Suspend(BeatsLost, "", 20*second) }, host: dead, now: time.Hour + 30*second},
		"the store is away": {
			limits: usual, before: func(g *Guard) { g.Suspend(StoreAway, "", 20*second) }, host: dead, now: 30 * second,
			want: Verdict{Suspended, 30*second + dead.TTL/8}},
		"the ceiling is not above a store that is away": {
			limits: usual, before: func(g *Guard) { g.Suspend(StoreAway, "", 20*second) }, host: dead, now: 5 * time.Hour,
			want: Verdict{Suspended, 5*time.Hour + dead.TTL/8}},
		"a lift is not above it either": {
			limits: usual, before: func(g *Guard) {
				g.Suspend(StoreAway, "", 20*second)
				g.Lift("ann", "", minute)
			}, host: dead, now: minute,
			want: Verdict{Suspended, minute + dead.TTL/8}},
		"the ceiling counts from when the store was back": {
			limits: usual, before: func(g *Guard) {
				g.Suspend(StoreAway, "", 20*second)
				g.Resume(StoreAway, "", 5*time.Hour, 0)
				gone("users", 100, 5*time.Hour)(g)
			}, host: unheard(5 * time.Hour), now: 5*time.Hour + 30*second - 1,
			want: Verdict{Suspended, 5*time.Hour + 30*second}},
		"what was lifted while the store was away is not when it is back": {
			limits: usual, before: func(g *Guard) {
				g.Suspend(StoreAway, "", 20*second)
				g.Lift("ann", "", minute)
				g.Resume(StoreAway, "", 2*minute, 0)
			}, host: unheard(2 * minute), now: 2 * minute,
			want: Verdict{Suspended, 2*minute + 30*second}},
		"lifted from a share": {
			limits: usual, before: func(g *Guard) {
				gone("users", 100, 10*second)(g)
				g.Lift("ann", "", 30*second)
			}, host: dead, now: 30 * second},
		"dead only after the lift": {
			limits: usual, before: func(g *Guard) {
				gone("users", 100, 10*second)(g)
				g.Lift("ann", "", 29*second)
			}, host: dead, now: 30 * second, want: Verdict{ServiceShare, 30*second + dead.TTL/8}},
		"lifted from lost beats": {
			limits: usual, before: func(g *Guard) {
				g.Suspend(BeatsLost, "", 20*second)
				g.Lift("ann", "", 29*second)
			}, host: dead, now: 30 * second},
		"a long TTL is looked at again in ten seconds": {
			limits: usual, before: gone("users", 100, 10*time.Minute), host: Host{Service: "users", Hosts: 10, All: 1000, TTL: 10 * minute},
			now: 10 * minute, want: Verdict{ServiceShare, 10*minute + 10*second}},
		"a short one in a second": {
			limits: usual, before: gone("users", 100, 59*second), host: Host{Service: "users", Hosts: 10, All: 1000, TTL: 2 * second},
			now: minute, want: Verdict{ServiceShare, minute + second}},
	} {
		t.Run(name, func(t *testing.T) {
			g := New(test.limits)
			if test.before != nil {
				test.before(g)
			}
			require.Equal(t, test.want, g.Judge(test.host, test.now))
		})
	}
}

// gone tells a guard of hosts with a TTL of 30s that went.
func gone(service string, hosts int, at time.Duration) func(*Guard) {
	return func(g *Guard) {
		for range hosts {
			g.Went(service, 30*time.Second, at)
		}
	}
}

// moment tells a guard of a trouble that was over at once.
func moment(c Cause, at time.Duration) func(*Guard) {
	return func(g *Guard) { g.Resume(c, "", at, at+30*time.Second) }
}

// from is dead, with a TTL that began anew.
func from(at time.Duration) Host {
	h := dead
	h.From = at
	return h
}

// unheard is dead, of whom nothing could be heard before.
func unheard(at time.Duration) Host {
	h := from(at)
	h.Silent = at
	return h
}

// model is a registry to the least, beside which a guard is held to what it
// promises.
type model struct {
	t      *testing.T
	limits Limits
	g      *Guard
	now    time.Duration
	hosts  map[int]*modelHost
	went   []departure // all that did, with the TTL in ends
	times  []time.Duration
}

type modelHost struct {
	Host
	due   time.Duration
	lives bool // and so beats
}

func (m *model) count(service string) (of, all int) {
	for _, h := range m.hosts {
		if h.Service == service {
			of++
		}
	}
	return of, len(m.hosts)
}

// lately is how many went within their TTL until now, counted one by one.
func (m *model) lately(service string) (of, all int) {
	for i, d := range m.went {
		if m.now-m.times[i] < d.ends {
			all++
			if d.service == service {
				of++
			}
		}
	}
	return of, all
}

// tick has all hosts that live beat now and then, and judges those that are due.
func (m *model) tick(r *rand.Rand) {
	m.g.Tick(0, len(m.hosts), m.now)
	for id := range len(m.hosts) + len(m.went) {
		h := m.hosts[id]
		if h == nil {
			continue
		}
		if h.lives && r.IntN(3) == 0 {
			h.Silent, h.From = m.now, m.now
			m.g.Release(h.Held)
			h.Held = Free
		}
		if h.From+h.TTL > m.now || h.due > m.now {
			continue
		}
		h.Hosts, h.All = m.count(h.Service)
		of, all := m.lately(h.Service)
		verdict := m.g.Judge(h.Host, m.now)
		ceiling := h.Silent+h.TTL+m.limits.Ceiling <= m.now
		if verdict.Held != Free {
			require.False(m.t, ceiling, "host %d is held at %v, %v after its last beat", id, m.now, m.now-h.Silent)
			require.Greater(m.t, verdict.Again, m.now)
			h.Held, h.due = verdict.Held, verdict.Again
			continue
		}
		if !ceiling {
			require.LessOrEqual(m.t, float64(of+1), max(1, m.limits.ServiceShare*float64(h.Hosts+of)), "of its service, at %v", m.now)
			require.LessOrEqual(m.t, float64(all+1), max(float64(m.limits.GlobalLeast), m.limits.GlobalShare*float64(h.All+all)), "of all, at %v", m.now)
			require.True(m.t, h.Hosts > 1 || float64(m.now-h.Silent) >= m.limits.LastHost*float64(h.TTL), "the last host, at %v", m.now)
		}
		if r.IntN(4) == 0 { // it beat elsewhere
			m.g.Stayed(h.Service, m.now+h.TTL)
			h.Silent, h.From, h.Held = m.now, m.now, Free
			continue
		}
		delete(m.hosts, id)
		m.went = append(m.went, departure{h.Service, h.TTL})
		m.times = append(m.times, m.now)
	}
	held := map[Reason]int{}
	for _, h := range m.hosts {
		held[h.Held]++
	}
	for _, why := range Reasons {
		require.Equal(m.t, held[why], m.g.Held(why), "held for %v at %v", why, m.now)
	}
}

func TestNeverMoreThanTheShareGoesAndAllDeadGoInTheEnd(t *testing.T) {
	for seed := range uint64(30) {
		t.Run(fmt.Sprint("seed ", seed), func(t *testing.T) {
			r := rand.New(rand.NewPCG(seed, 1))
			limits := Limits{
				ServiceShare: 0.05 + r.Float64()/2, GlobalShare: 0.05 + r.Float64()/3, GlobalLeast: 1 + r.IntN(10),
				LastHost: 1 + 4*r.Float64(), Ceiling: time.Duration(1+r.IntN(20)) * time.Minute,
			}
			m := &model{t: t, limits: limits, g: New(limits), hosts: map[int]*modelHost{}}
			var living int
			for id := range 120 {
				h := &modelHost{lives: r.IntN(5) == 0}
				h.Service = fmt.Sprint("service ", r.IntN(1+r.IntN(20)))
				h.TTL = time.Duration(10+20*r.IntN(3)) * time.Second
				h.Silent = -time.Duration(r.IntN(int(10 * time.Second)))
				h.From = h.Silent
				m.hosts[id] = h
				if h.lives {
					living++
				}
			}
			// One in four that are let go stays once more.
			longest := 10 * (50*time.Second + limits.Ceiling)
			for ; m.now <= longest; m.now += time.Second {
				m.tick(r)
			}
			for id, h := range m.hosts {
				require.True(t, h.lives, "host %d is dead and still there", id)
			}
			require.LessOrEqual(t, len(m.hosts), living)
			m.now += time.Minute
			m.g.Tick(0, 0, m.now)
			require.Empty(t, m.g.window.departures, "nothing is kept of hosts that went long ago")
			require.Empty(t, m.g.window.gone)
			require.Empty(t, m.g.window.back)
			require.Zero(t, m.g.window.all())
		})
	}
}

func TestAGuardThatActsSaysSoOnceAndWhenItEnds(t *testing.T) {
	g := New(usual)
	gone("users", 3, 10*time.Second)(g)
	verdict := g.Judge(dead, 30*time.Second)
	g.Judge(dead, 30*time.Second)
	require.Equal(t, ServiceShare, verdict.Held)
	require.Equal(t, []Notice{{What: "service_share", Detail: `3 of 13 hosts of "users" went within a TTL of 30s`}}, g.Notices())
	require.Equal(t, []Act{{Reason: ServiceShare, Detail: `3 of 13 hosts of "users" went within a TTL of 30s`, Since: 30 * time.Second, Held: 2, Most: 2}},
		g.Status(30*time.Second).Acts)
	g.Tick(0, 10, 31*time.Second)
	require.Empty(t, g.Notices(), "it still holds them")

	g.Release(ServiceShare)
	g.Release(ServiceShare)
	require.Empty(t, g.Status(32*time.Second).Acts)
	g.Tick(0, 10, 33*time.Second)
	require.Equal(t, []Notice{{What: "service_share", Ended: true, Lasted: 3 * time.Second, Most: 2}}, g.Notices())
}

func TestAHostThatStayedCountsNoMore(t *testing.T) {
	g := New(usual)
	one := dead
	one.Hosts = 2
	require.Equal(t, Free, g.Judge(one, 30*time.Second).Held)
	require.Equal(t, ServiceShare, g.Judge(one, 31*time.Second).Held)
	g.Release(ServiceShare)
	g.Stayed(one.Service, 30*time.Second+one.TTL)
	require.Zero(t, g.Status(31*time.Second).Gone)
	require.Equal(t, Free, g.Judge(one, 32*time.Second).Held)
	require.Equal(t, 1, g.Status(61*time.Second).Gone, "another one counts on")
	require.Zero(t, g.Status(62*time.Second).Gone)
	g.Stayed(one.Service, 32*time.Second+one.TTL)
	require.Zero(t, g.Status(62*time.Second).Gone, "what counts no more is not taken back")
}

func TestAHostThatTheStoreKeepsIsHeld(t *testing.T) {
	g := New(usual)
	h := dead
	require.Equal(t, Free, g.Judge(h, 30*time.Second).Held)
	g.Keep(h, 31*time.Second)
	require.Equal(t, 1, g.Held(InStore))
	require.Equal(t, []Notice{{What: "in_store", Detail: `a host of "users" may go, but the store does not let go of it`}}, g.Notices())
	h.Held = InStore
	g.Release(h.Held)
	require.Zero(t, g.Held(InStore))
}

func TestASuspensionSaysSoOnceAndWhenAllHadTheirTTL(t *testing.T) {
	g := New(usual)
	g.Suspend(StoreAway, "connection refused", time.Second)
	g.Suspend(StoreAway, "connection refused", 2*time.Second)
	require.True(t, g.Suspended(StoreAway))
	require.Equal(t, []Notice{{What: "store_away", Suspends: true, Detail: "connection refused"}}, g.Notices())
	g.Resume(StoreAway, "", time.Minute, 2*time.Minute)
	require.Equal(t, []Suspension{{Cause: StoreAway, Detail: "connection refused", Since: time.Second, Until: 2 * time.Minute}},
		g.Status(time.Minute).Suspensions)
	g.Suspend(StoreAway, "again", 90*time.Second)
	g.Tick(0, 10, 3*time.Minute)
	require.True(t, g.Suspended(StoreAway), "it went away again")
	require.Empty(t, g.Notices(), "which is one suspension to those who read")
	g.Resume(StoreAway, "", 4*time.Minute, 5*time.Minute)
	g.Tick(0, 10, 5*time.Minute)
	require.False(t, g.Suspended(StoreAway))
	require.Equal(t, []Notice{{What: "store_away", Suspends: true, Ended: true, Lasted: 5*time.Minute - time.Second}}, g.Notices())
}

func TestALiftEndsSuspensions(t *testing.T) {
	g := New(usual)
	for _, c := range Causes {
		g.Suspend(c, "", time.Second)
	}
	g.Notices()
	g.Lift("ann", "they are dead", time.Minute)
	status := g.Status(time.Minute)
	require.Len(t, status.Suspensions, 1)
	require.Equal(t, StoreAway, status.Suspensions[0].Cause)
	require.Equal(t, "ann", status.LiftedBy)
	require.Equal(t, "they are dead", status.LiftReason)
	require.Equal(t, time.Minute, status.LiftedAt)
	require.Len(t, g.Notices(), len(Causes)-1)
}

func TestAHeldHostCostsNoMemory(t *testing.T) {
	g := New(usual)
	gone("users", 100, 10*time.Second)(g)
	h := dead
	h.Held = g.Judge(h, 30*time.Second).Held
	require.Zero(t, testing.AllocsPerRun(100, func() {
		h.Held = g.Judge(h, 30*time.Second).Held
		g.Tick(100, 1000, 30*time.Second)
	}))
}

func BenchmarkJudgeAHostThatIsHeld(b *testing.B) {
	g := New(usual)
	gone("users", 100, 10*time.Second)(g)
	h := dead
	b.ReportAllocs()
	for b.Loop() {
		h.Held = g.Judge(h, 30*time.Second).Held
	}
}
