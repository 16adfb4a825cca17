package hds

import (
	"fmt"
	"net/netip"
	"slices"
	"testing"

	"github.com/cespare/xxhash/v2"
	"github.com/stretchr/testify/require"
)

func candidates(n int) []*checker {
	list := make([]*checker, n)
	for i := range list {
		id := fmt.Sprint("checker-", i)
		list[i] = &checker{id: id, hash: xxhash.Sum64String(id)}
	}
	return list
}

func hostHash(i int) uint64 {
	return hashOf("users", netip.AddrPortFrom(netip.AddrFrom4([4]byte{10, 0, byte(i >> 8), byte(i)}), 80))
}

func TestHostsSpreadEvenlyOverCheckersAndEachHasSeveral(t *testing.T) {
	all := candidates(10)
	given := map[*checker]int{}
	for i := range 10_000 {
		chosen := spread(all, hostHash(i), 3)
		require.Len(t, chosen, 3)
		require.NotSame(t, chosen[0], chosen[1])
		require.NotSame(t, chosen[1], chosen[2])
		require.NotSame(t, chosen[0], chosen[2])
		for _, c := range chosen {
			given[c]++
		}
	}
	for _, c := range all {
		require.InDelta(t, 3000, given[c], 300, c.id)
	}
	require.Len(t, spread(all[:2], hostHash(1), 3), 2)
	require.Empty(t, spread(nil, hostHash(1), 3))
}

func TestACheckerThatGoesIsReplacedByOneOtherAndNothingElseMoves(t *testing.T) {
	all := candidates(10)
	rest := slices.Clone(all[:9])
	slices.Reverse(rest) // the order in which they come makes no difference
	for i := range 1000 {
		before, after := spread(all, hostHash(i), 3), spread(rest, hostHash(i), 3)
		kept := slices.DeleteFunc(slices.Clone(before), func(c *checker) bool { return c == all[9] })
		require.Subset(t, after, kept)
		require.Len(t, after, 3)
	}
}

func TestACheckerThatIsFullGetsNoMore(t *testing.T) {
	all := candidates(3)
	all[1].hosts = mostHosts
	for i := range 100 {
		require.ElementsMatch(t, []*checker{all[0], all[2]}, spread(all, hostHash(i), 2))
	}
}

func BenchmarkSpread(b *testing.B) {
	all := candidates(100)
	b.ReportAllocs()
	for i := 0; b.Loop(); i++ {
		spread(all, hostHash(i), 3)
	}
}
