package sheet

import "encoding/binary"

// A list says much of what it says again and again: what comes again is kept as the
// place where it was. Lists are many, and read far more often than made, and to unpack
// one is little more than to copy it.

const (
	// shortest is how long a part must be to be worth its place.
	shortest = 8
	// places is how many places are remembered, by placeBits of a hash of the bytes
	// that are there.
	places    = 1 << placeBits
	placeBits = 11
	// leastPacked is how long a text must be for a look at what comes again.
	leastPacked = 256
)

// pack returns text packed, for unpack. The result has no spare capacity. It is
// a few bytes longer than text at most: a sequence of plain text and a part of what
// went before, over and over, as
//
//	uvarint  bytes of plain text
//	         these
//	uvarint  bytes of the part, 0 for none at the end
//	uvarint  how far it begins before the end of all so far
func pack(text []byte) []byte {
	if len(text) < leastPacked {
		return fit(append(appendPlain(nil, text), 0))
	}
	var last [places]uint32 // 1 more than where such bytes were last, 0 for nowhere
	packed := make([]byte, 0, len(text)/2+16)
	plain := 0 // where what is not packed yet begins
	for at := 0; at+shortest <= len(text); {
		place := &last[hash(text[at:])]
		from := int(*place) - 1
		*place = uint32(at) + 1
		if from < 0 {
			at++
			continue
		}
		length := 0
		for from+length < at && at+length < len(text) && text[from+length] == text[at+length] {
			length++
		}
		if length < shortest {
			at++
			continue
		}
		for at > plain && from > 0 && text[from-1] == text[at-1] && at-1 > from-1+length {
			from, at, length = from-1, at-1, length+1
		}
		packed = appendPlain(packed, text[plain:at])
		packed = binary.AppendUvarint(packed, uint64(length))
		packed = binary.AppendUvarint(packed, uint64(at-from))
		at += length
		plain = at
	}
	packed = appendPlain(packed, text[plain:])
	return fit(append(packed, 0))
}

// fit returns b without spare capacity.
func fit(b []byte) []byte { return append(make([]byte, 0, len(b)), b...) }

func appendPlain(packed, text []byte) []byte {
	packed = binary.AppendUvarint(packed, uint64(len(text)))
	return append(packed, text...)
}

// hash is which of the places is that of the shortest bytes at the beginning of b.
func hash(b []byte) uint64 {
	return binary.LittleEndian.Uint64(b) * 0x9e3779b97f4a7c15 >> (64 - placeBits)
}

// unpack appends to b the text that was packed, and nothing else.
func unpack(b, packed []byte) []byte {
	for {
		var length uint64
		length, packed = number(packed)
		b = append(b, packed[:length]...)
		packed = packed[length:]
		if length, packed = number(packed); length == 0 {
			return b
		}
		var distance uint64
		distance, packed = number(packed)
		from := uint64(len(b)) - distance
		b = append(b, b[from:from+length]...)
	}
}

// number takes a uvarint from the front of b: in one step where it has one byte or
// two, as nearly all have here.
func number(b []byte) (uint64, []byte) {
	switch {
	case b[0] < 0x80:
		return uint64(b[0]), b[1:]
	case b[1] < 0x80:
		return uint64(b[0]&0x7f) | uint64(b[1])<<7, b[2:]
	}
	n, size := binary.Uvarint(b)
	return n, b[size:]
}
