package lb

import (
	"cmp"
	"math"
	"slices"
	"strconv"

	"github.com/cespare/xxhash/v2"
	clusterv3 "github.com/envoyproxy/go-control-plane/envoy/config/cluster/v3"
	commonv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/load_balancing_policies/common/v3"
	ringhashv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/load_balancing_policies/ring_hash/v3"
	"google.golang.org/protobuf/proto"

	"github.com/weirproxy/weir/services/proxy/internal/cluster"
	"github.com/weirproxy/weir/services/proxy/internal/layeredruntime"
	"github.com/weirproxy/weir/services/proxy/internal/stats"
	"github.com/weirproxy/weir/services/proxy/internal/strict"
)

// Envoy's defaults of the sizes of a ring.
const (
	defaultSmallestRing = 1024
	defaultLargestRing  = 8 << 20
)

// RingHash sends requests of one hash to one host, and few of them elsewhere
// when hosts come or go: each host has many places on a ring, and a request
// goes to the first at its hash or behind it (RING_HASH, also known as ketama).
func RingHash() cluster.Policy {
	return cluster.Policy{
		Name:   clusterv3.Cluster_RING_HASH,
		Config: "envoy.extensions.load_balancing_policies.ring_hash.v3.RingHash",
		Field:  "ring_hash_lb_config",
		Fields: with(strict.Fields{
			"envoy.config.cluster.v3.Cluster":                  {"ring_hash_lb_config"},
			"envoy.config.cluster.v3.Cluster.RingHashLbConfig": {"minimum_ring_size", "maximum_ring_size", "hash_function"},
			"envoy.extensions.load_balancing_policies.ring_hash.v3.RingHash": {
				"hash_function", "minimum_ring_size", "maximum_ring_size", "consistent_hashing_lb_config", "locality_weighted_lb_config",
			},
		}),
		FromCluster: func(c *clusterv3.Cluster) proto.Message {
			old := c.GetRingHashLbConfig()
			made := &ringhashv3.RingHash{
				HashFunction:    ringhashv3.RingHash_XX_HASH,
				MinimumRingSize: old.GetMinimumRingSize(), MaximumRingSize: old.GetMaximumRingSize(),
				ConsistentHashingLbConfig: hashingOfCluster(c),
			}
			if old.GetHashFunction() == clusterv3.Cluster_RingHashLbConfig_MURMUR_HASH_2 {
				made.HashFunction = ringhashv3.RingHash_MURMUR_HASH_2
			}
			return made
		},
		Parse: parseRingHash,
	}
}

// hashingOfCluster is what a cluster says in common_lb_config for the policies
// that hash.
func hashingOfCluster(c *clusterv3.Cluster) *commonv3.ConsistentHashingLbConfig {
	return &commonv3.ConsistentHashingLbConfig{
		UseHostnameForHashing: c.GetCommonLbConfig().GetConsistentHashingLbConfig().GetUseHostnameForHashing(),
	}
}

func parseRingHash(config proto.Message, at strict.Path, report *strict.Report) cluster.Balancing {
	c := config.(*ringhashv3.RingHash)
	o := ringOptions{smallest: defaultSmallestRing, largest: defaultLargestRing, hash: xxhash.Sum64}
	if n := c.GetMinimumRingSize(); n != nil {
		o.smallest = n.GetValue()
	}
	if n := c.GetMaximumRingSize(); n != nil {
		o.largest = n.GetValue()
	}
	if o.smallest > o.largest {
		report.Add(at.Field("minimum_ring_size"), "%d is more than maximum_ring_size, %d", o.smallest, o.largest)
	}
	if c.GetHashFunction() == ringhashv3.RingHash_MURMUR_HASH_2 {
		o.hash = murmur2
	}
	o.byHostname = c.GetConsistentHashingLbConfig().GetUseHostnameForHashing()
	return cluster.Balancing{
		New: func(hosts []cluster.WeightedHost, scope *stats.Scope, _ *layeredruntime.Runtime) cluster.Balancer {
			return newRing(hosts, o, scope)
		},
		Hashing:          true,
		LocalityWeighted: c.GetLocalityWeightedLbConfig() != nil,
	}
}

type ringOptions struct {
	// smallest and largest bound the number of places.
	smallest, largest uint64
	hash              func([]byte) uint64
	byHostname        bool
}

// place is where a host stands on the ring.
type place struct {
	hash uint64
	host *cluster.Host
}

// ring is sorted by hash.
type ring []place

// newRing makes the ring: as many places as the smallest size needs for the
// lightest host to have a whole number of them, as far as the largest allows,
// shared by weight. The place i of a host is at the hash of "<key>_<i>".
func newRing(hosts []cluster.WeightedHost, o ringOptions, scope *stats.Scope) ring {
	list := keyed(hosts, o.byHostname)
	lightest := 1.0
	for _, h := range list {
		lightest = min(lightest, h.share)
	}
	scale := min(math.Ceil(lightest*float64(o.smallest))/lightest, float64(o.largest))
	r := make(ring, 0, int(math.Ceil(scale)))
	fewest, most := math.MaxInt, 0
	wanted := 0.0 // places of the hosts so far, not rounded: so nothing is lost to the next
	var text []byte
	for _, h := range list {
		wanted += scale * h.share
		text = append(append(text[:0], h.key...), '_')
		n := 0
		for ; float64(len(r)) < wanted; n++ {
			r = append(r, place{o.hash(strconv.AppendInt(text, int64(n), 10)), h.host})
		}
		fewest, most = min(fewest, n), max(most, n)
	}
	slices.SortStableFunc(r, func(a, b place) int { return cmp.Compare(a.hash, b.hash) })
	scope.Gauge("ring_hash_lb.size").Set(int64(len(r)))
	scope.Gauge("ring_hash_lb.min_hashes_per_host").Set(int64(fewest))
	scope.Gauge("ring_hash_lb.max_hashes_per_host").Set(int64(most))
	return r
}

// Pick implements cluster.Balancer. Further attempts go on around the ring.
func (r ring) Pick(hash uint64, attempt int) *cluster.Host {
	low, high := 0, len(r)
	for low < high {
		if middle := int(uint(low+high) / 2); r[middle].hash < hash {
			low = middle + 1
		} else {
			high = middle
		}
	}
	return r[(low+attempt)%len(r)].host
}

// keyedHost is a host as policies that hash see it.
type keyedHost struct {
	key   string
	share float64 // of 1
	host  *cluster.Host
}

// keyed makes the hosts' keys and shares, in the order of the keys: the order
// in which an assignment has them must not decide who gets what.
func keyed(hosts []cluster.WeightedHost, byHostname bool) []keyedHost {
	sum := 0.0
	for i := range hosts {
		sum += hosts[i].Weight
	}
	list := make([]keyedHost, len(hosts))
	for i := range hosts {
		h := &hosts[i]
		list[i] = keyedHost{h.HashKey, h.Weight / sum, h.Host}
		switch {
		case h.HashKey != "":
		case byHostname && h.Hostname != "":
			list[i].key = h.Hostname
		default:
			list[i].key = h.Address.String()
		}
	}
	slices.SortStableFunc(list, func(a, b keyedHost) int { return cmp.Compare(a.key, b.key) })
	return list
}
