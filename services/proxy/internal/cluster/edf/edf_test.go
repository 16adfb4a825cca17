package edf_test

import (
	"fmt"
	"math"
	"sync"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/weirproxy/weir/internal/servicetest"
	"github.com/weirproxy/weir/services/proxy/internal/cluster/edf"
)

func TestMain(m *testing.M) { servicetest.Main(m) }

func itself(weight float64) float64 { return weight }

func TestEachEntryGetsItsShare(t *testing.T) {
	for _, weights := range [][]float64{{1}, {1, 2, 5}, {1, 100}, {0.3, 0.03}, {2, 3, 4, 5, 6, 7, 8, 9, 10}} {
		t.Run(fmt.Sprint(weights), func(t *testing.T) {
			s := edf.New(weights, itself)
			sum := 0.0
			for _, w := range weights {
				sum += w
			}
			picks := map[float64]int{}
			const rounds = 2000
			for range rounds {
				picks[s.Next()]++
			}
			// One turn more or less than its share is where the turns began and ended.
			for _, w := range weights {
				require.InDelta(t, rounds*w/sum, picks[w], 2, "weight %v", w)
			}
		})
	}
}

func TestHeavyEntryHasNoLongRun(t *testing.T) {
	s := edf.New([]float64{2, 1, 1.1}, itself)
	run, longest := 0, 0
	for range 200 {
		if s.Next() == 2 {
			run++
		} else {
			run = 0
		}
		longest = max(longest, run)
	}
	require.LessOrEqual(t, longest, 2)
}

func TestWeightIsAskedAtEachTurn(t *testing.T) {
	weights := map[string]float64{"a": math.SmallestNonzeroFloat64, "b": 1}
	s := edf.New([]string{"a", "b"}, func(name string) float64 { return weights[name] })
	weights["a"] = 1
	first := map[string]int{}
	for range 10 {
		first[s.Next()]++
	}
	require.LessOrEqual(t, first["a"], 1, "it weighed nothing when its turn was set")
	weights["b"] = 0.01
	s = edf.New([]string{"a", "b"}, func(name string) float64 { return weights[name] })
	picks := map[string]int{}
	for range 101 {
		picks[s.Next()]++
	}
	require.InDelta(t, 100, picks["a"], 1)
}

func TestTurnsFromManyGoroutinesKeepTheShares(t *testing.T) {
	s := edf.New([]float64{1, 3}, itself)
	var mu sync.Mutex
	picks := map[float64]int{}
	var all sync.WaitGroup
	for range 4 {
		all.Go(func() {
			for range 100 {
				w := s.Next()
				mu.Lock()
				picks[w]++
				mu.Unlock()
			}
		})
	}
	all.Wait()
	require.InDelta(t, 300, picks[3], 2)
}
