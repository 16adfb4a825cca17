package redis

import (
	"bytes"
	"context"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"maps"
	"sync"
	"sync/atomic"
	"time"

	goredis "github.com/redis/go-redis/v9"
)

// nodes is the servers of a Cluster. The driver knows which of them has which
// slots, and learns of changes from answers that say so and by asking once a
// minute; while one of them is away, the probe has it ask more often.
type nodes struct {
	store  *Store
	client *goredis.ClusterClient
	// known is closed once the layout has been read.
	known chan struct{}
	// fault is why it has not been so yet.
	fault atomic.Pointer[error]

	mu     sync.Mutex // of writers of shards
	shards atomic.Pointer[map[*goredis.Client]*shard]
}

func newNodes(s *Store, client *goredis.ClusterClient) *nodes {
	n := &nodes{store: s, client: client, known: make(chan struct{})}
	n.shards.Store(&map[*goredis.Client]*shard{})
	return n
}

// learn reads the layout, again and again until it is there or the store is
// closed. Until then no call has to ask for it, one beside the other.
func (n *nodes) learn() {
	defer n.store.work.Done()
	for {
		err := n.each(n.store.running, func(context.Context, *goredis.Client) error { return nil })
		if err == nil {
			close(n.known)
			return
		}
		n.fault.Store(&err)
		select {
		case <-n.store.running.Done():
			return
		case <-time.After(probeInterval):
		}
	}
}

// layoutWait is the most that reading the layout may take.
const layoutWait = time.Second

// each asks one of the servers for the layout and calls f for every master at
// the same time. The error is the first.
func (n *nodes) each(ctx context.Context, f func(context.Context, *goredis.Client) error) error {
	ctx, cancel := context.WithTimeout(ctx, layoutWait)
	defer cancel()
	return n.client.ForEachMaster(ctx, f)
}

// ready says whether the layout is known.
func (n *nodes) ready() bool {
	select {
	case <-n.known:
		return true
	default:
		return false
	}
}

// wait returns an error if the layout is not known within the store's timeout
// or before ctx ends.
func (n *nodes) wait(ctx context.Context) error {
	if n.ready() {
		return nil
	}
	ctx, cancel := context.WithTimeout(ctx, n.store.options.Timeout)
	defer cancel()
	select {
	case <-n.known:
		return nil
	case <-ctx.Done():
	}
	err := ctx.Err()
	if fault := n.fault.Load(); fault != nil {
		err = *fault
	}
	return fmt.Errorf("learn the layout of the redis cluster at %v: %w", n.store.place, err)
}

// shardOf is the shard that has the slot of a key. The error is that the layout
// became unknown.
func (n *nodes) shardOf(key []byte) (*shard, error) {
	client, err := n.client.MasterForKey(context.Background(), string(key))
	if err != nil {
		return nil, fmt.Errorf("find the server of a key in the redis cluster at %v: %w", n.store.place, err)
	}
	if h := (*n.shards.Load())[client]; h != nil {
		return h, nil
	}
	return n.add(client), nil
}

// idle is how long a shard goes unused before it may be forgotten.
const idle = 10 * time.Minute

// add makes the shard of a server. It forgets those of servers that seem to
// have left, and an older one of the same server: the driver makes another
// client for one that left and came again.
func (n *nodes) add(client *goredis.Client) *shard {
	n.mu.Lock()
	defer n.mu.Unlock()
	old := *n.shards.Load()
	if h := old[client]; h != nil {
		return h
	}
	h := newShard(n.store, client.Options().Addr, client)
	shards := map[*goredis.Client]*shard{client: h}
	for c, other := range old {
		switch {
		case other.name == h.name:
		case other.idleSince(time.Now().Add(-idle)):
			n.store.stats.forget(other.name)
		default:
			shards[c] = other
		}
	}
	n.shards.Store(&shards)
	return h
}

// forget takes a shard out whose client the driver has closed. What was counted
// of the server stays if another shard has come for it.
func (n *nodes) forget(h *shard) {
	n.mu.Lock()
	defer n.mu.Unlock()
	shards := maps.Clone(*n.shards.Load())
	delete(shards, h.client)
	n.shards.Store(&shards)
	for _, other := range shards {
		if other.name == h.name {
			return
		}
	}
	n.store.stats.forget(h.name)
}

// ping asks every master.
func (n *nodes) ping(ctx context.Context) error {
	err := n.each(ctx, func(ctx context.Context, client *goredis.Client) error {
		begin := time.Now()
		err := n.store.ask(ctx, client, client.Options().Addr)
		// One without a shard has no calls to refuse yet.
		if h := (*n.shards.Load())[client]; h != nil {
			h.breaker.noteOf(ctx, time.Since(begin), err)
		}
		return err
	})
	if err != nil {
		return fmt.Errorf("ping the redis cluster at %v: %w", n.store.place, err)
	}
	return nil
}

// at is the client of the server at an address, nil if it is no master. It asks
// for the layout, since it is called when that has changed.
func (n *nodes) at(address string) *goredis.Client {
	var found atomic.Pointer[goredis.Client]
	_ = n.each(n.store.running, func(_ context.Context, client *goredis.Client) error {
		if client.Options().Addr == address || client.NodeAddress() == address {
			found.Store(client)
		}
		return nil
	})
	return found.Load()
}

// appendTag appends, in a Cluster, what decides in which slot a key comes to
// lie, to be put between prefix and rest. A part of a key in braces, if it is
// the first, decides it alone:
//
//   - with DomainTags a hash of the domain is put in braces, so that all keys of
//     the domain share a slot, whatever bytes it holds;
//   - else empty braces, which decide nothing, go before a key that has a brace.
//     Otherwise values like /users/{id} would put every key with them into one
//     slot, and whoever sends requests could choose it.
//
// Braces in the prefix are the operator's choice and come first.
func (s *Store) appendTag(dst, rest []byte, domain string) []byte {
	switch {
	case s.nodes == nil:
		return dst
	case s.options.DomainTags:
		sum := uint32(2166136261) // FNV-1a
		for i := range len(domain) {
			sum = (sum ^ uint32(domain[i])) * 16777619
		}
		dst = hex.AppendEncode(append(dst, '{'), binary.BigEndian.AppendUint32(nil, sum))
		return append(dst, '}')
	case bytes.IndexByte(rest, '{') >= 0:
		return append(dst, "{}"...)
	}
	return dst
}

// errManySlots is the error of a call that is one step in a Cluster where its
// counters lie apart.
var errManySlots = errors.New("the counters of one step must share a slot of the redis cluster, and do so with DomainTags only")
