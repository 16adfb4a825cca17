package refusals

import (
	"fmt"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/weirproxy/weir/internal/servicetest"
	"github.com/weirproxy/weir/services/ratelimit/internal/limits"
)

func TestMain(m *testing.M) { servicetest.Main(m) }

func user(name string) []limits.Entry { return []limits.Entry{{Key: "user", Value: name}} }

func TestTheMostRefusedComeFirst(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var top Top
		for i := range 10 {
			for range i + 1 {
				top.Add("shop", user(fmt.Sprint(i)), 2)
			}
		}
		top.Add("shop", user("looks"), 0)
		require.Equal(t, []Refusal{{"shop: user=9", 20, 20}, {"shop: user=8", 18, 18}}, top.List(2))
		require.Len(t, top.List(100), 10)
	})
}

func TestRefusalsAreForgottenAfterFiveMinutes(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var top Top
		require.Empty(t, top.List(5))
		top.Add("shop", user("a"), 1)
		time.Sleep(2 * time.Minute)
		top.Add("shop", user("a"), 1)
		top.Add("shop", user("b"), 1)
		require.Equal(t, []Refusal{{"shop: user=a", 2, 2}, {"shop: user=b", 1, 1}}, top.List(5))
		time.Sleep(3 * time.Minute)
		require.Equal(t, []Refusal{{"shop: user=a", 1, 1}, {"shop: user=b", 1, 1}}, top.List(5))
		time.Sleep(time.Hour)
		require.Empty(t, top.List(5))
	})
}

func TestManyDescriptorsDoNotPushOutTheOneThatIsRefusedMost(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var top Top
		for i := range 20_000 {
			top.Add("shop", user(fmt.Sprint(i)), 1)
			if i%20 == 0 {
				top.Add("shop", user("greedy"), 1)
			}
		}
		list := top.List(1000)
		require.Len(t, list, slots)
		require.Equal(t, "shop: user=greedy", list[0].Descriptor)
		require.GreaterOrEqual(t, list[0].Hits, uint64(1000))
		require.LessOrEqual(t, list[0].AtLeast, uint64(1000))
		require.Positive(t, list[0].AtLeast)
	})
}

func TestNamesAreReadableAndBounded(t *testing.T) {
	for _, c := range []struct {
		entries []limits.Entry
		want    string
	}{
		{nil, "shop"},
		{[]limits.Entry{{Key: "a", Value: "b"}, {Key: "c"}}, "shop: a=b, c"},
		{[]limits.Entry{{Key: "a", Value: "b, c=d"}}, `shop: a="b, c=d"`},
		{[]limits.Entry{{Key: "a", Value: "\x00\xff"}}, `shop: a="\x00\xff"`},
		{[]limits.Entry{{Key: "a", Value: strings.Repeat("x", 10000)}}, "shop: a=" + strings.Repeat("x", longest-8) + "…"},
	} {
		require.Equal(t, c.want, string(appendName(nil, "shop", c.entries)))
	}
}

func TestARefusalThatIsKnownAllocatesNothing(t *testing.T) {
	var top Top
	entries := user("alice")
	servicetest.Allocations(t, 0, func() { top.Add("shop", entries, 1) })
}

func BenchmarkAdd(b *testing.B) {
	b.Run("known", func(b *testing.B) {
		var top Top
		entries := user("alice")
		b.ReportAllocs()
		for b.Loop() {
			top.Add("shop", entries, 1)
		}
	})
	b.Run("always_another", func(b *testing.B) {
		var top Top
		names := make([][]limits.Entry, 10_000)
		for i := range names {
			names[i] = user(fmt.Sprint(i))
		}
		b.ReportAllocs()
		for i := 0; b.Loop(); i++ {
			top.Add("shop", names[i%len(names)], 1)
		}
	})
}
