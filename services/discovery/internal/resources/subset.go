package resources

import (
	"cmp"
	"slices"

	"github.com/cespare/xxhash/v2"

	"github.com/weirproxy/weir/services/discovery/internal/registry"
)

// share returns the hosts that an asker is shown of hosts, which are ordered by
// address and stay so: all of them if the subset's size is not exceeded. Else
// each asker has an order of its own in which it takes hosts until it has enough
// that take work, those of its zone before those of its region and both before
// others; what drains on the way comes along, so that it is let go of in order.
//
// The order is by a hash of asker and host (rendezvous hashing): askers spread
// evenly over hosts; a host that goes is replaced by one other for those who had
// it, and a host that comes replaces at most one for each asker. It is equal on
// every replica.
func (m *Maker) share(a Asker, hosts []*registry.View) []*registry.View {
	if m.options.SubsetSize == 0 || len(hosts) <= m.options.SubsetSize {
		return hosts
	}
	order := rendezvous(a, hosts)
	taken, serving := 0, 0
	for taken < len(order) && serving < m.options.SubsetSize {
		if order[taken].host.TakesWork() {
			serving++
		}
		taken++
	}
	shown := make([]*registry.View, taken)
	for i := range shown {
		shown[i] = order[i].host
	}
	slices.SortFunc(shown, func(x, y *registry.View) int { return x.Host.Address.Compare(y.Host.Address) })
	return shown
}

// bid is a host's place in an asker's order: the nearest first, then the highest.
type bid struct {
	host     *registry.View
	distance int
	score    uint64
}

// rendezvous returns hosts in the order of an asker.
func rendezvous(a Asker, hosts []*registry.View) []bid {
	bids := make([]bid, len(hosts))
	text := append([]byte(a.ID), 0)
	asker := len(text)
	for i, v := range hosts {
		text = v.Host.Address.AppendTo(text[:asker])
		bids[i] = bid{v, a.distance(&v.Host.Tags), xxhash.Sum64(text)}
	}
	slices.SortFunc(bids, func(x, y bid) int {
		return cmp.Or(
			cmp.Compare(x.distance, y.distance),
			cmp.Compare(y.score, x.score),
			x.host.Host.Address.Compare(y.host.Host.Address))
	})
	return bids
}
