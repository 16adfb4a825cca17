package lb

import (
	"encoding/binary"
	"math/bits"
)

// Constants of MurmurHash2 for 64 bits, and libstdc++'s seed.
const (
	murmurFactor = 0xc6a4a7935bd1e995
	murmurSeed   = 0xc70f6907
)

// murmur2 is MurmurHash2 for 64 bits (variant A) as libstdc++'s std::hash has
// it, which is what MURMUR_HASH_2 means.
func murmur2(text []byte) uint64 {
	mix := func(h uint64) uint64 { return h ^ h>>47 }
	var factor uint64 = murmurFactor
	_, length := bits.Mul64(uint64(len(text)), factor)
	hash := murmurSeed ^ length
	for ; len(text) >= 8; text = text[8:] {
		hash ^= mix(binary.LittleEndian.Uint64(text)*factor) * factor
		hash *= factor
	}
	if len(text) > 0 {
		var rest [8]byte
		copy(rest[:], text)
		hash ^= binary.LittleEndian.Uint64(rest[:])
		hash *= factor
	}
	return mix(mix(hash) * factor)
}
