// Package uuid makes random UUIDs, which request ids and access logs have. They are
// to be unique, not secret.
package uuid

import (
	"encoding/hex"
	"math/rand/v2"
)

// Append appends the text of a new one, of version 4 (RFC 9562 §5.4).
func Append(b []byte) []byte {
	var raw [16]byte
	high, low := rand.Uint64(), rand.Uint64()
	for i := range 8 {
		raw[i], raw[8+i] = byte(high>>(8*i)), byte(low>>(8*i))
	}
	raw[6] = raw[6]&0x0f | 0x40
	raw[8] = raw[8]&0x3f | 0x80
	for i, part := range [][]byte{raw[0:4], raw[4:6], raw[6:8], raw[8:10], raw[10:16]} {
		if i > 0 {
			b = append(b, '-')
		}
		b = hex.AppendEncode(b, part)
	}
	return b
}
