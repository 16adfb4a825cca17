package hds

import (
	"net/netip"

	"github.com/cespare/xxhash/v2"
)

// bid is a checker's place in the order of a host.
type bid struct {
	checker *checker
	score   uint64
}

// before reports whether b comes before other.
func (b bid) before(other bid) bool {
	return b.score > other.score || b.score == other.score && b.checker.id < other.checker.id
}

// spread chooses n of the candidates that have room for a host, all if they are
// fewer. Each host has an order of its own by a hash of both (rendezvous hashing):
// hosts spread evenly over checkers; a checker that goes is replaced by one other
// at each of its hosts, and one that comes replaces at most one at each. n is
// mostCheckers at most.
func spread(candidates []*checker, host uint64, n int) []*checker {
	var first [mostCheckers]bid
	taken := 0
	for _, c := range candidates {
		if c.hosts >= mostHosts {
			continue
		}
		b := bid{c, mix(host ^ c.hash)}
		at := taken
		for ; at > 0 && b.before(first[at-1]); at-- {
			if at < n {
				first[at] = first[at-1]
			}
		}
		if at < n {
			first[at] = b
			taken = min(taken+1, n)
		}
	}
	chosen := make([]*checker, taken)
	for i := range chosen {
		chosen[i] = first[i].checker
	}
	return chosen
}

// hashOf is that of a host.
func hashOf(service string, address netip.AddrPort) uint64 {
	return xxhash.Sum64(address.AppendTo(append([]byte(service), 0)))
}

// mix spreads each bit over all: the finalizer of MurmurHash3.
func mix(x uint64) uint64 {
	x ^= x >> 33
	x *= 0xff51afd7ed558ccd
	x ^= x >> 33
	x *= 0xc4ceb9fe1a85ec53
	return x ^ x>>33
}
