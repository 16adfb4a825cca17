package bench

import (
	"io"
	"math"
	"net/http"
	"path/filepath"
	"regexp"
	"strconv"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/weirproxy/weir/integration/harness"
)

// registryFigures measures what hosts cost in each store, at rest and while they
// beat for d, and how soon discovery is back with them.
func registryFigures(t testing.TB, m *machine, f fleet, d time.Duration) (figures []figure) {
	t.Helper()
	const (
		kilobytes, share, seconds = "kB", "% of a core", "s"
		memoryGoal                = 1.2
		restartGoal               = 2
	)
	add := func(title string, value float64, unit string, goal float64, reference string) {
		figures = append(figures, figure{title, value, unit, goal, reference})
	}
	start := func(store string) *harness.Process {
		return m.start(t, m.measured, discoveryProgram(t, "DISCOVERY_STORE="+store, "DISCOVERY_SNAPSHOT_INTERVAL=2s"))
	}
	perHost := func(bytes float64) float64 { return bytes / float64(f.hosts()) / 1000 }

	p := start("memory:")
	leases, resident, live := occupy(t, p, f)
	add("memory a host", perHost(resident), kilobytes, memoryGoal, "")
	add("of that live heap", perHost(live), kilobytes, 0, "")
	own, _ := steady(t, p, nil, leases, d)
	add("CPU at 10,000 beats a second", own, share, 5, "")
	p.Kill()

	p = start("file://" + filepath.Join(t.TempDir(), "hosts.snapshot"))
	_, resident, live = occupy(t, p, f)
	add("memory a host, with a snapshot", perHost(resident), kilobytes, memoryGoal, "")
	add("of that live heap", perHost(live), kilobytes, 0, "")
	add("restart from the snapshot", restart(t, p, f), seconds, restartGoal, "")
	p.Kill()

	redis := m.start(t, m.other, harness.RedisProgram(t))
	empty := redisFigure(t, redis, "memory", "used_memory")
	p = start("redis://" + redis.Addr("redis"))
	leases, resident, live = occupy(t, p, f)
	add("memory a host, with Redis", perHost(resident), kilobytes, memoryGoal, "")
	add("of that live heap", perHost(live), kilobytes, 0, "")
	add("Redis' own memory a host", perHost(redisFigure(t, redis, "memory", "used_memory")-empty), kilobytes, 0,
		"0.31 to 0.42 kB, by the kind of its keys, and 0.26 kB an entry of a log")
	own, redisOwn := steady(t, p, redis, leases, d)
	add("Redis' CPU at 10,000 beats a second", redisOwn, share, 3,
		"0.5 % by commands of 100 beats each, 1 to 3 % by one or two commands a beat")
	add("discovery's own then", own, share, 0, "")
	add("restart from Redis", restart(t, p, f), seconds, restartGoal, "0.23 s for a client in Python that reads 100,000 records")
	return figures
}

// occupy registers all hosts with a discovery that has none. It returns their
// leases, and by how much memory and live heap grew, in bytes.
func occupy(t testing.TB, p *harness.Process, f fleet) (leases []string, resident, live float64) {
	t.Helper()
	residentBefore, liveBefore := settled(t, p)
	// Long enough to register all, and as short as those of hosts that beat every
	// ten seconds, or so.
	leases = register(t, p, f, time.Minute)
	resident, live = settled(t, p)
	return leases, resident - residentBefore, live - liveBefore
}

// settled returns resident memory and live heap, in bytes, when garbage was
// collected, memory went back to the system, and neither changes any more; or
// after 30 seconds, whatever they do.
func settled(t testing.TB, p *harness.Process) (resident, live float64) {
	t.Helper()
	tries, enough, pause := 30, 3, time.Second
	if testing.Short() {
		tries, enough, pause = 1, 1, 0
	}
	calm := 0
	for lastResident, lastLive, n := 0.0, 0.0, 0; calm < enough && n < tries; n++ {
		if n > 0 {
			time.Sleep(pause)
		}
		answer, err := http.Get("http://" + p.Addr("admin") + "/debug/pprof/heap?gc=1")
		require.NoError(t, err)
		_, err = io.Copy(io.Discard, answer.Body)
		require.NoError(t, err)
		require.NoError(t, answer.Body.Close())
		resident, live = float64(residentKB(t, p))*1024, float64(metric(t, p, "go_memstats_heap_alloc_bytes"))
		calm++
		if math.Abs(1-lastResident/resident) > 0.01 || math.Abs(1-lastLive/live) > 0.02 {
			calm = 0
		}
		lastResident, lastLive = resident, live
	}
	return resident, live
}

// steady lets all hosts beat, 1,000 by a call, ten calls a second, and returns
// how much of a core discovery and Redis, which may be nil, take meanwhile, in
// percent.
func steady(t testing.TB, p, redis *harness.Process, leases []string, d time.Duration) (own, ofRedis float64) {
	t.Helper()
	const each, every = 1000, 100 * time.Millisecond
	round := bulks(leases, each)
	var calls [][]byte
	for len(calls) < int(d/every) {
		calls = append(calls, round[len(calls)%len(round)])
	}
	redisCPU := func() (seconds float64) {
		if redis != nil {
			seconds = redisFigure(t, redis, "cpu", "used_cpu_user") + redisFigure(t, redis, "cpu", "used_cpu_sys")
		}
		return seconds
	}
	before, redisBefore, began := cpuTime(t, p), redisCPU(), time.Now()
	ok := want(t, http.StatusOK)
	send(t, p.Addr("http"), calls, every, func(i, status int, body []byte) {
		ok(i, status, body)
		require.JSONEq(t, `{"unknown": []}`, string(body))
	})
	elapsed := time.Since(began).Seconds()
	return 100 * (cpuTime(t, p) - before).Seconds() / elapsed, 100 * (redisCPU() - redisBefore) / elapsed
}

// restart ends discovery and returns how many seconds it takes from its start
// until it is ready, with all hosts.
func restart(t testing.TB, p *harness.Process, f fleet) (seconds float64) {
	t.Helper()
	p.Stop()
	began := time.Now()
	p.Restart()
	seconds = time.Since(began).Seconds()
	require.Equal(t, f.hosts(), metric(t, p, "discovery_hosts"), "hosts that came back")
	return seconds
}

// redisFigure is a number that a Redis says of itself in a section of INFO.
func redisFigure(t testing.TB, redis *harness.Process, section, name string) float64 {
	t.Helper()
	match := regexp.MustCompile(`(?m)^` + name + `:([0-9.]+)`).FindStringSubmatch(redisInfo(t, redis, section))
	require.NotNil(t, match, name)
	value, err := strconv.ParseFloat(match[1], 64)
	require.NoError(t, err)
	return value
}
