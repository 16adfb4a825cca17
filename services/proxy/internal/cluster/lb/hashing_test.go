package lb_test

import (
	"fmt"
	"math"
	"math/rand/v2"
	"net/netip"
	"os"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/cespare/xxhash/v2"
	"github.com/stretchr/testify/require"

	"github.com/weirproxy/weir/services/proxy/internal/cluster"
	"github.com/weirproxy/weir/services/proxy/internal/cluster/lb"
)

// byRule is the ring's choice by the letter of its rule: of all places the one
// with the least hash that is not less, or else with the least of all.
func byRule(list []cluster.WeightedHost, places int, hash uint64) *cluster.Host {
	var next, first *cluster.Host
	var nextAt, firstAt uint64 = math.MaxUint64, math.MaxUint64
	for _, h := range list {
		for i := range places {
			at := xxhash.Sum64String(h.Address.String() + "_" + strconv.Itoa(i))
			if at >= hash && at <= nextAt {
				next, nextAt = h.Host, at
			}
			if at <= firstAt {
				first, firstAt = h.Host, at
			}
		}
	}
	if next != nil {
		return next
	}
	return first
}

func TestRingChoosesByItsRule(t *testing.T) {
	for n, places := range map[int]int{1: 1024, 2: 512, 3: 342, 10: 103} { // ⌈1024/n⌉ each
		t.Run(fmt.Sprint(n, " hosts"), func(t *testing.T) {
			b := configured(t, lb.RingHash(), "")
			list := equals(n)
			ring := b.of(list)
			require.EqualValues(t, n*places, b.gauge("ring_hash_lb.size"))
			for i := range 300 {
				require.Same(t, byRule(list, places, spread(i)), ring.Pick(spread(i), 0))
			}
			require.Same(t, byRule(list, places, 0), ring.Pick(0, 0))
			require.Same(t, byRule(list, places, math.MaxUint64), ring.Pick(math.MaxUint64, 0))
		})
	}
}

func TestRingHasTheSizesThatItsRuleSays(t *testing.T) {
	for _, c := range []struct {
		name, fields       string
		weights            []float64
		size, fewest, most int64
	}{
		{"as many as the least needs", `"ring_hash_lb_config": {"minimum_ring_size": 1024}`, []float64{1, 2, 5}, 1024, 128, 640},
		{"a whole number for the lightest", `"ring_hash_lb_config": {"minimum_ring_size": 10}`, []float64{1, 2}, 12, 4, 8},
		{"no more than the largest", `"ring_hash_lb_config": {"minimum_ring_size": 10, "maximum_ring_size": 10}`, []float64{1, 2}, 10, 4, 6},
		{"a small one", `"ring_hash_lb_config": {"minimum_ring_size": 1}`, []float64{1, 1, 1}, 3, 1, 1},
		{"too small for all", `"ring_hash_lb_config": {"minimum_ring_size": 1, "maximum_ring_size": 2}`, []float64{1, 1, 1}, 2, 0, 1},
	} {
		t.Run(c.name, func(t *testing.T) {
			b := configured(t, lb.RingHash(), c.fields)
			b.of(hosts(c.weights...))
			require.Equal(t, c.size, b.gauge("ring_hash_lb.size"))
			require.Equal(t, c.fewest, b.gauge("ring_hash_lb.min_hashes_per_host"))
			require.Equal(t, c.most, b.gauge("ring_hash_lb.max_hashes_per_host"))
		})
	}
}

// byPaper fills a maglev table for hosts of one weight as the paper has it: each
// host in turn takes the first free place of its permutation.
func byPaper(list []cluster.WeightedHost, size uint64) []*cluster.Host {
	table := make([]*cluster.Host, size)
	next := make([]uint64, len(list))
	for filled := uint64(0); ; {
		for i, h := range list {
			key := h.Address.String()
			second := xxhash.NewWithSeed(1)
			_, err := second.WriteString(key)
			if err != nil {
				return nil
			}
			offset, skip := xxhash.Sum64String(key)%size, second.Sum64()%(size-1)+1
			place := (offset + next[i]*skip) % size
			for table[place] != nil {
				next[i]++
				place = (offset + next[i]*skip) % size
			}
			table[place] = h.Host
			next[i]++
			if filled++; filled == size {
				return table
			}
		}
	}
}

func TestMaglevChoosesByItsRule(t *testing.T) {
	for _, size := range []uint64{2, 7, 1009} {
		for _, n := range []int{1, 2, 5} {
			t.Run(fmt.Sprint(size, " places of ", n), func(t *testing.T) {
				list := equals(n)
				table := configured(t, lb.Maglev(), fmt.Sprintf(`"maglev_lb_config": {"table_size": %d}`, size)).of(list)
				for i, want := range byPaper(list, size) {
					require.Same(t, want, table.Pick(uint64(i), 0))
				}
			})
		}
	}
}

func TestMaglevTellsHowEvenItIs(t *testing.T) {
	b := configured(t, lb.Maglev(), "")
	b.of(equals(10))
	require.EqualValues(t, 6553, b.gauge("maglev_lb.min_entries_per_host"))
	require.EqualValues(t, 6554, b.gauge("maglev_lb.max_entries_per_host"))
}

// TestChoicesAreEnvoys holds ours to those that Envoy 1.40 made: for a policy
// (with a w: by weight) and the value of a header that a hash_policy names, the
// port of the host.
func TestChoicesAreEnvoys(t *testing.T) {
	five := func(weights ...float64) []cluster.WeightedHost {
		list := hosts(weights...)
		for i := range list {
			list[i].Address = netip.MustParseAddrPort(fmt.Sprint("127.0.0.1:", 29101+i))
		}
		return list
	}
	balancers := map[string]cluster.Balancer{}
	for name, b := range map[string]*builder{
		"ring":   configured(t, lb.RingHash(), ""),
		"murmur": configured(t, lb.RingHash(), `"ring_hash_lb_config": {"hash_function": "MURMUR_HASH_2"}`),
		"maglev": configured(t, lb.Maglev(), ""),
	} {
		balancers[name] = b.of(five(1, 1, 1, 1, 1))
		balancers[name+"w"] = b.of(five(1, 2, 3, 4, 10))
	}
	text, err := os.ReadFile("testdata/envoy-1.40.txt")
	require.NoError(t, err)
	lines := strings.Split(strings.TrimSpace(string(text)), "\n")
	require.Len(t, lines, 600)
	for _, line := range lines {
		fields := strings.Fields(line)
		host := balancers[fields[0]].Pick(xxhash.Sum64String(fields[1]), 0)
		require.Equal(t, fields[2], fmt.Sprint(host.Address.Port()), line)
	}
}

// hashing are the policies that hash, and which share of the requests that a
// host leaves or takes may move among the others beside.
func hashing(t testing.TB) map[string]struct {
	*builder
	beside float64
} {
	return map[string]struct {
		*builder
		beside float64
	}{
		// The hosts that stay get a few places more each, to fill the ring.
		"ring":        {configured(t, lb.RingHash(), ""), 0.06},
		"murmur ring": {configured(t, lb.RingHash(), `"ring_hash_lb_config": {"hash_function": "MURMUR_HASH_2"}`), 0.06},
		"maglev":      {configured(t, lb.Maglev(), `"maglev_lb_config": {"table_size": 10007}`), 0.08},
	}
}

func TestFewRequestsMoveWhenAHostGoes(t *testing.T) {
	for name, c := range hashing(t) {
		t.Run(name, func(t *testing.T) {
			const n = 20000
			list := equals(20)
			before, after := c.of(list), c.of(list[1:])
			lost, moved := 0, 0
			for i := range n {
				switch was := before.Pick(spread(i), 0); {
				case was == list[0].Host:
					lost++
				case was != after.Pick(spread(i), 0):
					moved++
				}
			}
			require.InDelta(t, n/20, lost, n/50)
			require.LessOrEqual(t, float64(moved), c.beside*n)
		})
	}
}

func TestChoiceIsThatOfEveryProxy(t *testing.T) {
	for name, c := range hashing(t) {
		t.Run(name, func(t *testing.T) {
			list := hosts(1, 2, 3, 4, 5, 6, 7)
			first := c.of(list)
			shuffled := slices.Clone(list)
			rand.New(rand.NewPCG(3, 4)).Shuffle(len(shuffled), func(i, j int) { shuffled[i], shuffled[j] = shuffled[j], shuffled[i] })
			second := c.of(shuffled)
			for i := range 2000 {
				require.Same(t, first.Pick(spread(i), 0), second.Pick(spread(i), 0))
			}
		})
	}
}

func TestFurtherAttemptsReachOtherHosts(t *testing.T) {
	for name, c := range hashing(t) {
		t.Run(name, func(t *testing.T) {
			balancer := c.of(equals(5))
			reached := map[*cluster.Host]bool{}
			for attempt := range 200 {
				reached[balancer.Pick(99, attempt)] = true
			}
			require.Len(t, reached, 5)
		})
	}
}

func TestKeyOfAHost(t *testing.T) {
	// Two lists of hosts that share only their keys make the same choices.
	byHostname := `"common_lb_config": {"consistent_hashing_lb_config": {"use_hostname_for_hashing": true}}`
	for policy, p := range map[string]cluster.Policy{"ring": lb.RingHash(), "maglev": lb.Maglev()} {
		for _, c := range []struct {
			name, fields string
			key          func(h *cluster.WeightedHost, name string)
			same         bool
		}{
			{"the hostname, if wanted", byHostname, func(h *cluster.WeightedHost, name string) { h.Hostname = name }, true},
			{"not the hostname, if not", "", func(h *cluster.WeightedHost, name string) { h.Hostname = name }, false},
			{"hash_key before both", byHostname, func(h *cluster.WeightedHost, name string) { h.Hostname, h.HashKey = h.Address.String(), name }, true},
		} {
			t.Run(policy+" "+c.name, func(t *testing.T) {
				all := equals(10)
				for i := range all {
					c.key(&all[i], fmt.Sprint("name-", i%5))
				}
				b := configured(t, p, c.fields)
				first, second := b.of(all[:5]), b.of(all[5:])
				index := map[*cluster.Host]int{}
				for i := range all {
					index[all[i].Host] = i % 5
				}
				same := 0
				for i := range 1000 {
					if index[first.Pick(spread(i), 0)] == index[second.Pick(spread(i), 0)] {
						same++
					}
				}
				if c.same {
					require.Equal(t, 1000, same)
				} else {
					require.Less(t, same, 500)
				}
			})
		}
	}
}
