package localcache

import (
	"bytes"
	"fmt"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil"
	"github.com/stretchr/testify/require"

	"github.com/weirproxy/weir/internal/servicetest"
)

func TestMain(m *testing.M) { servicetest.Main(m) }

var now = time.Unix(1000, 0)

func TestWhatIsOverIsKnownUntilItsWindowEnds(t *testing.T) {
	c := New(1<<20, prometheus.NewRegistry())
	end := now.Add(time.Minute)
	c.Remember([]byte("k"), 11, end, now, 0)
	for _, test := range []struct {
		name  string
		key   string
		limit uint32
		at    time.Time
		known bool
	}{
		{"its_own_limit", "k", 10, now, true},
		{"a_lower_limit_on_the_same_counter", "k", 1, now, true},
		{"a_limit_that_the_counter_has_not_passed", "k", 11, now, false},
		{"a_far_higher_limit", "k", 1000, now, false},
		{"just_before_the_window_ends", "k", 10, end.Add(-time.Nanosecond), true},
		{"when_it_ends", "k", 10, end, false},
		{"another_counter", "l", 10, now, false},
	} {
		t.Run(test.name, func(t *testing.T) {
			until, known, _ := c.Over([]byte(test.key), test.limit, test.at)
			require.Equal(t, test.known, known)
			if known {
				require.True(t, until.Equal(end))
			}
		})
	}
	require.Equal(t, 3.0, testutil.ToFloat64(c.stats.hits))
	require.Equal(t, 4.0, testutil.ToFloat64(c.stats.misses))
}

func TestWhatIsForgottenIsNotKnown(t *testing.T) {
	c := New(1<<20, prometheus.NewRegistry())
	c.Remember([]byte("k"), 11, now.Add(time.Minute), now, 0)
	c.Forget([]byte("k"))
	c.Forget([]byte("never"))
	_, known, _ := c.Over([]byte("k"), 10, now)
	require.False(t, known)
	require.Zero(t, c.Len())
}

func TestWhatWasAskedBeforeHitsWereGivenBackIsNotRemembered(t *testing.T) {
	c := New(1<<20, prometheus.NewRegistry())
	_, _, before := c.Over([]byte("k"), 10, now)
	c.Forget([]byte("k"))
	c.Remember([]byte("k"), 11, now.Add(time.Minute), now, before)
	_, known, after := c.Over([]byte("k"), 10, now)
	require.False(t, known)
	c.Remember([]byte("k"), 11, now.Add(time.Minute), now, after)
	_, known, _ = c.Over([]byte("k"), 10, now)
	require.True(t, known)
}

func TestTheNewestIsKnownOfMoreThanThereIsRoomFor(t *testing.T) {
	c := New(shards*10*(overhead+8), prometheus.NewRegistry())
	for i := range 10_000 {
		key := fmt.Appendf(nil, "key-%04d", i)
		c.Remember(key, 11, now.Add(time.Minute), now, 0)
		_, known, _ := c.Over(key, 10, now)
		require.True(t, known)
		require.LessOrEqual(t, c.Len(), shards*10)
	}
	require.Equal(t, 10_000.0-float64(c.Len()), testutil.ToFloat64(c.stats.evicted))
	require.Zero(t, testutil.ToFloat64(c.stats.expired))
}

func TestWhatHasExpiredIsForgotten(t *testing.T) {
	end := now.Add(time.Minute)
	t.Run("when_it_is_asked_for", func(t *testing.T) {
		c := New(1<<20, prometheus.NewRegistry())
		c.Remember([]byte("k"), 11, end, now, 0)
		c.Over([]byte("k"), 10, end.Add(-time.Nanosecond))
		require.Equal(t, 1, c.Len())
		c.Over([]byte("k"), 10, end)
		c.Over([]byte("k"), 10, end)
		require.Zero(t, c.Len())
		require.Equal(t, 1.0, testutil.ToFloat64(c.stats.expired))
	})
	t.Run("when_room_is_wanted", func(t *testing.T) {
		c := New(shards*(overhead+2), prometheus.NewRegistry()) // for one in each shard
		keys := ofOneShard(c, 3)
		c.Remember(keys[0], 11, end, now, 0)
		c.Remember(keys[1], 11, end.Add(time.Minute), end, 0)
		require.Equal(t, 1.0, testutil.ToFloat64(c.stats.expired))
		require.Zero(t, testutil.ToFloat64(c.stats.evicted))
		c.Remember(keys[2], 11, end.Add(time.Minute), end, 0)
		require.Equal(t, 1.0, testutil.ToFloat64(c.stats.expired))
		require.Equal(t, 1.0, testutil.ToFloat64(c.stats.evicted), "one whose window goes on")
		require.Equal(t, 1, c.Len())
	})
}

// ofOneShard returns n keys of two bytes that lie in one shard of c.
func ofOneShard(c *Cache, n int) (keys [][]byte) {
	for i := range 1 << 16 {
		if key := []byte{byte(i >> 8), byte(i)}; len(keys) < n && c.shard(key) == &c.shards[0] {
			keys = append(keys, key)
		}
	}
	return keys
}

func TestWhatIsKnownAlreadyIsOverwritten(t *testing.T) {
	c := New(1<<20, prometheus.NewRegistry())
	for i := range uint64(3) {
		c.Remember([]byte("k"), 11+i, now.Add(time.Minute), now, 0)
	}
	c.Remember([]byte("l"), 11, now.Add(time.Minute), now, 0)
	_, known, _ := c.Over([]byte("k"), 12, now)
	require.True(t, known, "the last is what is known")
	require.Equal(t, 2, c.Len())
	require.Equal(t, 2.0, testutil.ToFloat64(c.stats.overwritten))
}

func TestTheMeanOfTheTimesOfUseIsOfWhatIsKnown(t *testing.T) {
	c := New(1<<20, prometheus.NewRegistry())
	require.Zero(t, c.lastUsed())
	end := now.Add(time.Minute)
	at := func(seconds int) time.Time { return now.Add(time.Duration(seconds) * time.Second) }
	for _, step := range []struct {
		name string
		do   func()
		want int64
	}{
		{"one_is_noted", func() { c.Remember([]byte("k"), 11, end, now, 0) }, 1000},
		{"another_is_noted_later", func() { c.Remember([]byte("l"), 11, end, at(10), 0) }, 1005},
		{"the_first_is_found", func() { c.Over([]byte("k"), 10, at(20)) }, 1015},
		{"one_that_is_not_known_is_asked_for", func() { c.Over([]byte("m"), 10, at(30)) }, 1015},
		{"it_is_noted_anew", func() { c.Remember([]byte("l"), 12, end, at(40), 0) }, 1030},
		{"hits_are_given_back", func() { c.Forget([]byte("l")) }, 1020},
		{"its_window_ends", func() { c.Over([]byte("k"), 10, end) }, 0},
	} {
		step.do()
		require.Equal(t, step.want, c.lastUsed(), step.name)
	}
}

func TestAKeyThatHasNoRoomIsNotRemembered(t *testing.T) {
	c := New(shards*10, prometheus.NewRegistry())
	c.Remember([]byte("k"), 11, now.Add(time.Minute), now, 0)
	require.Zero(t, c.Len())
}

func TestALookAllocatesNothing(t *testing.T) {
	c := New(1<<20, prometheus.NewRegistry())
	key := []byte("k")
	c.Remember(key, 11, now.Add(time.Minute), now, 0)
	servicetest.Allocations(t, 0, func() { c.Over(key, 10, now) })
}

// What is known is noted in its place, and what is not takes its key and itself.
func TestToRememberAllocatesOnlyWhatIsNew(t *testing.T) {
	c := New(1<<20, prometheus.NewRegistry())
	key := bytes.Repeat([]byte("k"), 100)
	end := now.Add(time.Minute)
	c.Remember(key, 11, end, now, 0)
	servicetest.Allocations(t, 0, func() { c.Remember(key, 11, end, now, 0) })
	servicetest.Allocations(t, 2, func() {
		c.Over(key, 10, end) // forgets it
		c.Remember(key, 11, end, now, 0)
	})
}

func BenchmarkRemember(b *testing.B) {
	c := New(1<<20, prometheus.NewRegistry())
	key := []byte("k")
	b.ReportAllocs()
	for b.Loop() {
		c.Remember(key, 11, now.Add(time.Minute), now, 0)
	}
}

func BenchmarkOver(b *testing.B) {
	c := New(1<<20, prometheus.NewRegistry())
	c.Remember([]byte("k"), 11, now.Add(time.Minute), now, 0)
	b.ReportAllocs()
	b.RunParallel(func(p *testing.PB) {
		key := []byte("k")
		for p.Next() {
			c.Over(key, 10, now)
		}
	})
}
