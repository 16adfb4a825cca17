package resources

import (
	"fmt"
	"math"
	"net/netip"
	"slices"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/weirproxy/weir/services/discovery/internal/registry"
)

// manyHosts are n hosts in zones in turn.
func manyHosts(n int, zones ...string) []registry.View {
	hosts := make([]registry.View, n)
	for i := range hosts {
		address := netip.AddrPortFrom(netip.AddrFrom4([4]byte{10, 0, byte(i >> 8), byte(i)}), 80)
		hosts[i] = host(address.String(), zones[i%len(zones)], nil)
	}
	return hosts
}

// shownTo is the addresses that an asker is shown of hosts.
func shownTo(m *Maker, id, zone string, hosts []registry.View) []string {
	list := unique(hosts)
	var addresses []string
	for _, v := range m.share(Asker{ID: id, Region: "eu", Zone: zone}, list) {
		addresses = append(addresses, v.Host.Address.String())
	}
	return addresses
}

// lacks is what of some addresses others lack.
func lacks(others, some []string) []string {
	return slices.DeleteFunc(slices.Clone(some), func(a string) bool { return slices.Contains(others, a) })
}

func TestAskersAreSpreadEvenlyOverHosts(t *testing.T) {
	const size, askers = 20, 2000
	for _, n := range []int{21, 50, 200} {
		hosts := manyHosts(n, "eu-1")
		m := newMaker(t, Options{SubsetSize: size})
		count := map[string]int{}
		for i := range askers {
			shown := shownTo(m, fmt.Sprintf("node-%d", i), "eu-1", hosts)
			require.Len(t, shown, size)
			for _, a := range shown {
				count[a]++
			}
		}
		// Each host is in each subset with the chance p: five deviations of the
		// binomial distribution, which is the same in every run.
		p := float64(size) / float64(n)
		want, deviation := askers*p, math.Sqrt(askers*p*(1-p))
		require.Len(t, count, n)
		for a, c := range count {
			require.InDelta(t, want, c, 5*deviation, "%s of %d hosts", a, n)
		}
	}
}

func TestAHostThatComesOrGoesChangesASubsetByOneHost(t *testing.T) {
	const size = 5
	m := newMaker(t, Options{SubsetSize: size})
	hosts := manyHosts(40, "eu-1", "eu-2", "eu-3")
	for i := range 50 {
		id := fmt.Sprint("node-", i)
		before := shownTo(m, id, "eu-2", hosts)
		for gone := range hosts {
			address := hosts[gone].Host.Address.String()
			after := shownTo(m, id, "eu-2", slices.Delete(slices.Clone(hosts), gone, gone+1))
			require.Len(t, after, size)
			if slices.Contains(before, address) {
				require.Equal(t, []string{address}, lacks(after, before))
				require.Len(t, lacks(before, after), 1)
			} else {
				require.Equal(t, before, after)
			}

			draining := slices.Clone(hosts)
			draining[gone].State = registry.Draining
			after = shownTo(m, id, "eu-2", draining)
			if slices.Contains(before, address) {
				require.Empty(t, lacks(after, before), "what drains is still shown")
				require.Len(t, after, size+1)
			} else {
				require.Equal(t, before, after)
			}
		}
	}
}

func TestASubsetTakesTheNearestFirst(t *testing.T) {
	hosts := manyHosts(40, "eu-1", "eu-2")
	for i := range 12 {
		hosts[i].Host.Tags.Region, hosts[i].Host.Tags.Zone = "us", "us-1"
	}
	zones := func(size int, zone string) map[string]int {
		m := newMaker(t, Options{SubsetSize: size})
		count := map[string]int{}
		for _, a := range shownTo(m, "node", zone, hosts) {
			i := slices.IndexFunc(hosts, func(v registry.View) bool { return v.Host.Address.String() == a })
			count[hosts[i].Host.Tags.Zone]++
		}
		return count
	}
	require.Equal(t, map[string]int{"eu-1": 10}, zones(10, "eu-1"))
	require.Equal(t, map[string]int{"eu-1": 14, "eu-2": 6}, zones(20, "eu-1"))
	require.Equal(t, map[string]int{"eu-1": 14, "eu-2": 14, "us-1": 2}, zones(30, "eu-1"))
	require.Equal(t, map[string]int{"eu-1": 14, "eu-2": 14, "us-1": 12}, zones(40, "eu-1"))
	require.Len(t, zones(20, ""), 3, "an asker without a zone")
}

func TestHostsThatAllDrainAreAllShown(t *testing.T) {
	hosts := manyHosts(9, "eu-1")
	for i := range hosts {
		hosts[i].State = registry.Draining
	}
	require.Len(t, shownTo(newMaker(t, Options{SubsetSize: 3}), "node", "eu-1", hosts), 9)
}
