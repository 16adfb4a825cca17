package redis

import (
	"hash/maphash"
	"sync/atomic"
)

// memo remembers keys that were given a time to live, so that a key is given
// one once and not with each hit. It is a table of fixed size in which newer
// keys push out older ones; one that was pushed out, or taken for another, costs
// no more than a command that changes nothing, for a key that is new to Redis is
// given its time to live whatever the memo says.
type memo struct {
	seed  maphash.Seed
	epoch atomic.Uint64
	slots []atomic.Uint64
}

// memoSlots is the size of the table, a power of two: half a megabyte.
const memoSlots = 1 << 16

func newMemo() *memo {
	return &memo{seed: maphash.MakeSeed(), slots: make([]atomic.Uint64, memoSlots)}
}

// hash is what the memo knows a key by.
func (m *memo) hash(key []byte) uint64 { return maphash.Bytes(m.seed, key) + m.epoch.Load() }

func (m *memo) has(hash uint64) bool { return m.slots[hash%memoSlots].Load() == hash }
func (m *memo) add(hash uint64)      { m.slots[hash%memoSlots].Store(hash) }

// clear forgets all keys: it is called when Redis may have lost what it was
// told. The step is odd and large, so that hashes of before and after differ.
func (m *memo) clear() { m.epoch.Add(0x9e3779b97f4a7c15) }
