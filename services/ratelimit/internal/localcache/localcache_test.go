package localcache

import (
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
	c.Remember([]byte("k"), 11, end, 0)
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
	c.Remember([]byte("k"), 11, now.Add(time.Minute), 0)
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
	c.Remember([]byte("k"), 11, now.Add(time.Minute), before)
	_, known, after := c.Over([]byte("k"), 10, now)
	require.False(t, known)
	c.Remember([]byte("k"), 11, now.Add(time.Minute), after)
	_, known, _ = c.Over([]byte("k"), 10, now)
	require.True(t, known)
}

func TestTheNewestIsKnownOfMoreThanThereIsRoomFor(t *testing.T) {
	c := New(shards*10*(overhead+8), prometheus.NewRegistry())
	for i := range 10_000 {
		key := fmt.Appendf(nil, "key-%04d", i)
		c.Remember(key, 11, now.Add(time.Minute), 0)
		_, known, _ := c.Over(key, 10, now)
		require.True(t, known)
		require.LessOrEqual(t, c.Len(), shards*10)
	}
	require.Equal(t, 10_000.0-float64(c.Len()), testutil.ToFloat64(c.stats.evicted))
}

func TestAKeyThatHasNoRoomIsNotRemembered(t *testing.T) {
	c := New(shards*10, prometheus.NewRegistry())
	c.Remember([]byte("k"), 11, now.Add(time.Minute), 0)
	require.Zero(t, c.Len())
}

func TestALookAllocatesNothing(t *testing.T) {
	c := New(1<<20, prometheus.NewRegistry())
	key := []byte("k")
	c.Remember(key, 11, now.Add(time.Minute), 0)
	servicetest.Allocations(t, 0, func() { c.Over(key, 10, now) })
}

func BenchmarkOver(b *testing.B) {
	c := New(1<<20, prometheus.NewRegistry())
	c.Remember([]byte("k"), 11, now.Add(time.Minute), 0)
	b.ReportAllocs()
	b.RunParallel(func(p *testing.PB) {
		key := []byte("k")
		for p.Next() {
			c.Over(key, 10, now)
		}
	})
}
