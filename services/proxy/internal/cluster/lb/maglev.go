package lb

import (
	"math/big"

	"github.com/cespare/xxhash/v2"
	clusterv3 "github.com/envoyproxy/go-control-plane/envoy/config/cluster/v3"
	maglevv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/load_balancing_policies/maglev/v3"
	"google.golang.org/protobuf/proto"

	"github.com/weirproxy/weir/services/proxy/internal/cluster"
	"github.com/weirproxy/weir/services/proxy/internal/layeredruntime"
	"github.com/weirproxy/weir/services/proxy/internal/stats"
	"github.com/weirproxy/weir/services/proxy/internal/strict"
)

// defaultTableSize is Envoy's of table_size.
const defaultTableSize = 65537

// Maglev sends requests of one hash to one host by a table that the hosts fill
// in turn, each by its own order of the places (MAGLEV; Eisenbud et al., "Maglev:
// A Fast and Reliable Software Network Load Balancer", NSDI 2016). It spreads
// better than a ring of the same size and picks faster, but moves a little more
// when hosts come or go.
func Maglev() cluster.Policy {
	return cluster.Policy{
		Name:   clusterv3.Cluster_MAGLEV,
		Config: "envoy.extensions.load_balancing_policies.maglev.v3.Maglev",
		Field:  "maglev_lb_config",
		Fields: with(strict.Fields{
			"envoy.config.cluster.v3.Cluster":                           {"maglev_lb_config"},
			"envoy.config.cluster.v3.Cluster.MaglevLbConfig":            {"table_size"},
			"envoy.extensions.load_balancing_policies.maglev.v3.Maglev": {"table_size", "consistent_hashing_lb_config", "locality_weighted_lb_config"},
		}),
		FromCluster: func(c *clusterv3.Cluster) proto.Message {
			return &maglevv3.Maglev{TableSize: c.GetMaglevLbConfig().GetTableSize(), ConsistentHashingLbConfig: hashingOfCluster(c)}
		},
		Parse: parseMaglev,
	}
}

func parseMaglev(config proto.Message, at strict.Path, report *strict.Report) cluster.Balancing {
	c := config.(*maglevv3.Maglev)
	size := uint64(defaultTableSize)
	if n := c.GetTableSize(); n != nil {
		size = n.GetValue()
	}
	if !new(big.Int).SetUint64(size).ProbablyPrime(0) { // certain below 2⁶⁴
		report.Add(at.Field("table_size"), "%d is not prime", size)
	}
	byHostname := c.GetConsistentHashingLbConfig().GetUseHostnameForHashing()
	return cluster.Balancing{
		New: func(hosts []cluster.WeightedHost, scope *stats.Scope, _ *layeredruntime.Runtime) cluster.Balancer {
			return newTable(keyed(hosts, byHostname), size, scope)
		},
		Hashing:          true,
		LocalityWeighted: c.GetLocalityWeightedLbConfig() != nil,
	}
}

// table has the index in hosts of each of its places.
type table struct {
	hosts  []keyedHost
	places []uint32
}

// filler is a host while the table is filled: its next choice is at, and the
// one after it skip further.
type filler struct {
	at, skip uint64
	// owed is when it is the host's turn again, in rounds times its share.
	owed  float64
	count int
}

// newTable fills a table of a prime size. In each round the heaviest host takes
// a place, and each other one as often as its share makes a whole of that.
func newTable(hosts []keyedHost, size uint64, scope *stats.Scope) *table {
	t := &table{hosts: hosts, places: make([]uint32, size)}
	fillers := make([]filler, len(hosts))
	heaviest := 0.0
	for i, h := range hosts {
		second := xxhash.NewWithSeed(1)
		_, _ = second.WriteString(h.key) // never fails
		fillers[i] = filler{at: xxhash.Sum64String(h.key) % size, skip: second.Sum64()%(size-1) + 1}
		heaviest = max(heaviest, h.share)
	}
	taken := make([]bool, size)
	for round, free := 1, size; free > 0; round++ {
		for i := 0; i < len(fillers) && free > 0; i++ {
			f := &fillers[i]
			if float64(round)*hosts[i].share < f.owed {
				continue
			}
			f.owed += heaviest
			for taken[f.at] {
				f.at = (f.at + f.skip) % size
			}
			taken[f.at] = true
			t.places[f.at] = uint32(i)
			f.count++
			free--
		}
	}
	fewest, most := fillers[0].count, fillers[0].count
	for i := range fillers {
		fewest, most = min(fewest, fillers[i].count), max(most, fillers[i].count)
	}
	scope.Gauge("maglev_lb.min_entries_per_host").Set(int64(fewest))
	scope.Gauge("maglev_lb.max_entries_per_host").Set(int64(most))
	return t
}

// Pick implements cluster.Balancer. Further attempts look elsewhere in the table.
func (t *table) Pick(hash uint64, attempt int) *cluster.Host {
	hash ^= -uint64(attempt)
	return t.hosts[t.places[hash%uint64(len(t.places))]].host
}
