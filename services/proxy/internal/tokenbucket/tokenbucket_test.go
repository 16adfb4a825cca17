package tokenbucket

import (
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/weirproxy/weir/internal/servicetest"
)

func TestMain(m *testing.M) { servicetest.Main(m) }

// drain takes tokens until there are none and counts them.
func drain(b *Bucket) (n int) {
	for b.Take(time.Now(), 1) {
		n++
	}
	return n
}

func TestBucket(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := New(Size{Most: 10, Fill: 5, Interval: time.Second})
		require.EqualValues(t, 10, b.Remaining(time.Now()))
		require.Equal(t, 10, drain(b), "it begins full")
		require.Equal(t, 200*time.Millisecond, b.Next(time.Now()))
		time.Sleep(199 * time.Millisecond)
		require.Zero(t, drain(b))
		time.Sleep(time.Millisecond)
		require.Equal(t, 1, drain(b), "it fills as time goes on")
		time.Sleep(time.Second)
		require.EqualValues(t, 5, b.Remaining(time.Now()))
		require.Zero(t, b.Next(time.Now()))
		require.Equal(t, 5, drain(b))
		time.Sleep(time.Hour)
		require.Equal(t, 10, drain(b), "up to the most")
	})
}

func TestBucketStaysExact(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := New(Size{Most: 3, Fill: 3, Interval: time.Second})
		drain(b)
		for second := range 10_000 {
			time.Sleep(time.Second)
			require.Equal(t, 3, drain(b), second)
		}
	})
}

func TestAnEmptyBucketHasNoTokens(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := New(Size{Most: 0, Fill: 1, Interval: time.Second})
		time.Sleep(time.Hour)
		require.Zero(t, drain(b))
		require.Zero(t, b.Remaining(time.Now()))
	})
}

func TestNoTokenIsTakenTwice(t *testing.T) {
	b := New(Size{Most: 1000, Fill: 1, Interval: time.Hour})
	var taken atomic.Int64
	var group sync.WaitGroup
	for range 8 {
		group.Go(func() { taken.Add(int64(drain(b))) })
	}
	group.Wait()
	require.EqualValues(t, 1000, taken.Load())
}

func BenchmarkTake(b *testing.B) {
	bucket := New(Size{Most: 1 << 30, Fill: 1 << 30, Interval: 50 * time.Millisecond})
	b.RunParallel(func(pb *testing.PB) {
		for pb.Next() {
			bucket.Take(time.Now(), 1)
		}
	})
}
