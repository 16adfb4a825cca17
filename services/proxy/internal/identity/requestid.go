package identity

import (
	"encoding/hex"
	"math/rand/v2"
)

// uuid writes a random UUID (RFC 9562 §5.4). Request ids are to be unique, not
// secret.
func uuid(text *[36]byte) []byte {
	var raw [16]byte
	high, low := rand.Uint64(), rand.Uint64()
	for i := range 8 {
		raw[i], raw[8+i] = byte(high>>(8*i)), byte(low>>(8*i))
	}
	raw[6] = raw[6]&0x0f | 0x40
	raw[8] = raw[8]&0x3f | 0x80
	hex.Encode(text[0:], raw[0:4])
	hex.Encode(text[9:], raw[4:6])
	hex.Encode(text[14:], raw[6:8])
	hex.Encode(text[19:], raw[8:10])
	hex.Encode(text[24:], raw[10:16])
	text[8], text[13], text[18], text[23] = '-', '-', '-', '-'
	return text[:]
}
