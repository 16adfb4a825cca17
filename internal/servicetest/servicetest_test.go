package servicetest

import (
	"fmt"
	"net"
	"os"
	"path/filepath"
	"runtime"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"
)

func TestMain(m *testing.M) { Main(m) }

// record is a testing.TB that keeps what a helper did to it. The helpers end a
// test by FailNow or SkipNow, so each is called on a goroutine of its own.
type record struct {
	testing.TB
	failed, skipped bool
	text            string
}

func (r *record) Helper()                   {}
func (r *record) Errorf(string, ...any)     { r.failed = true }
func (r *record) FailNow()                  { r.failed = true; panic(r) }
func (r *record) Fatalf(f string, a ...any) { r.failed, r.text = true, fmt.Sprintf(f, a...); panic(r) }
func (r *record) Skipf(f string, a ...any)  { r.skipped, r.text = true, fmt.Sprintf(f, a...); panic(r) }

// run calls helper and returns what it did.
func run(t *testing.T, helper func(testing.TB)) (r *record) {
	r = &record{TB: t}
	defer func() {
		if got := recover(); got != nil {
			require.Same(t, r, got)
		}
	}()
	helper(r)
	return r
}

func TestGoldenComparesWithTheFile(t *testing.T) {
	rewrite := *update
	*update = false
	defer func() { *update = rewrite }()
	path := filepath.Join(t.TempDir(), "golden.txt")
	require.NoError(t, os.WriteFile(path, []byte("grain\n"), 0o644))
	require.False(t, run(t, func(tb testing.TB) { Golden(tb, path, []byte("grain\n")) }).failed)
	require.True(t, run(t, func(tb testing.TB) { Golden(tb, path, []byte("flour\n")) }).failed)
	require.True(t, run(t, func(tb testing.TB) { Golden(tb, path+".missing", []byte("grain\n")) }).failed)
}

func TestEventuallyWaitsForTheConditionAndFailsOutOfPatience(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		begin := time.Now()
		comes := func(after time.Duration) *record {
			return run(t, func(tb testing.TB) {
				Eventually(tb, "it comes", func() bool { return time.Since(begin) >= after })
			})
		}
		require.False(t, comes(0).failed)
		require.Zero(t, time.Since(begin), "what holds is not waited for")
		require.False(t, comes(Patience).failed)
		r := comes(3 * Patience)
		require.True(t, r.failed)
		require.Equal(t, "not within 1m0s: it comes", r.text)
	})
}

func TestCPUTimeGrowsByWork(t *testing.T) {
	for begin := CPUTime(t); CPUTime(t) < begin+50*time.Millisecond; { // which is all of it
	}
}

func TestAllocationsFailAboveTheirNumberWhereTheyCount(t *testing.T) {
	for _, most := range []float64{0, 1} {
		calls, after := 0, false
		r := run(t, func(tb testing.TB) {
			Allocations(tb, most, func() {
				calls++
				runtime.KeepAlive(make([]byte, 1<<20)) // too large for a stack
			})
			after = true
		})
		fails := most < 1 && !raceDetector
		require.Equal(t, fails, r.failed)
		require.Equal(t, !fails, after, "the rest of the test runs")
		require.False(t, r.skipped)
		require.Equal(t, 501, calls)
	}
}

func TestAllocatedBytesCountsAlsoWhatIsLetGo(t *testing.T) {
	const size, times = 1 << 20, 16 // too large for a stack
	calls := 0
	bytes := func(tb testing.TB) {
		AllocatedBytes(tb, size*times/2, func() {
			calls++
			for range times {
				runtime.KeepAlive(make([]byte, size))
			}
		})
	}
	require.Equal(t, !raceDetector, run(t, bytes).failed)
	require.Equal(t, 1, calls)
}

func TestPeer(t *testing.T) {
	missing := func(tb testing.TB) { Peer(tb, "no-such-mill", "MILL", "make peers") }
	t.Run("is_the_program_of_the_path", func(t *testing.T) {
		require.Equal(t, "sh", filepath.Base(Peer(t, "sh", "MILL", "")))
	})
	t.Run("is_what_the_variable_says", func(t *testing.T) {
		t.Setenv("MILL", "/opt/mill")
		require.Equal(t, "/opt/mill", Peer(t, "no-such-mill", "MILL", ""))
	})
	t.Run("that_is_missing_skips_and_says_how_to_get_it", func(t *testing.T) {
		t.Setenv("WEIR_REQUIRE_PEERS", "")
		r := run(t, missing)
		require.True(t, r.skipped)
		require.Equal(t, "no-such-mill is not installed: make peers (or set MILL to its path)", r.text)
	})
	t.Run("that_is_missing_fails_where_peers_are_required", func(t *testing.T) {
		t.Setenv("WEIR_REQUIRE_PEERS", "1")
		r := run(t, missing)
		require.True(t, r.failed)
		require.Equal(t, "no-such-mill is not installed, and WEIR_REQUIRE_PEERS is set: make peers", r.text)
	})
}

func TestRedisAnswersAgainAtTheSameAddressAfterAKill(t *testing.T) {
	r := Redis(t)
	address := r.Address
	require.NoError(t, r.Process().Signal(syscall.Signal(0)))
	r.Kill()
	r.Kill()
	_, err := net.Dial("tcp", address)
	require.Error(t, err)
	r.Start()
	c, err := net.Dial("tcp", address)
	require.NoError(t, err)
	require.NoError(t, c.Close())
}

func TestAClusterServesAllSlotsAndWithoutOneMasterThoseOfTheOthers(t *testing.T) {
	masters := RedisCluster(t)
	require.Len(t, masters, 3)
	slots := map[string]*RedisServer{"a": masters[2], "b": masters[0], "c": masters[1]} // 15495, 3300, 7365
	for key, m := range slots {
		require.Equal(t, "1", m.Command("INCR "+key))
	}
	masters[0].Kill()
	require.Equal(t, "2", masters[1].Command("INCR c"))
}

func TestASentinelPutsTheReplicaInTheMastersPlace(t *testing.T) {
	s := Sentinel(t)
	require.Equal(t, "1", s.Master.Command("INCR k"))
	s.Replica.reports("GET k", "1")
	s.Master.Kill()
	s.Replica.reports("INFO replication", "role:master")
	require.Equal(t, "2", s.Replica.Command("INCR k"))
}
