package http2

import (
	"bytes"
	"hash/maphash"
)

// encoder writes header blocks (RFC 7541). What it finds in its table it writes
// as an index; what is likely to come again it adds.
type encoder struct {
	table table
	// most is the table's size that Options wants; the peer may want less.
	most uint32
	// shrunk is the least size since the last block, and resized says that the
	// next must begin with it (RFC 7541 §4.2).
	shrunk  uint32
	resized bool
	plain   bool   // never the Huffman code
	fields  uint64 // bytes of the names and values of the present block
	// places says where in the table a name, or a name and value, may be: the
	// lower bits of a hash lead to the number of the last entry that had them, as
	// far as 16 bits tell. Made when the first entry is added.
	places *[128]uint16
}

func newEncoder(most uint32, plain bool) encoder {
	// The peer's table holds 4096 bytes at first; less is said in the first block.
	size := min(most, defaultTableSize)
	return encoder{table: table{max: size}, most: most, shrunk: size, resized: size < defaultTableSize, plain: plain}
}

// setLimit follows the peer's SETTINGS_HEADER_TABLE_SIZE.
func (e *encoder) setLimit(limit uint32) {
	size := min(limit, e.most)
	if size == e.table.max {
		return
	}
	if !e.resized || size < e.shrunk {
		e.shrunk = size
	}
	e.resized = true
	e.table.resize(size)
}

// begin begins a block.
func (e *encoder) begin(dst []byte) []byte {
	e.fields = 0
	if !e.resized {
		return dst
	}
	e.resized = false
	if most := e.table.max; e.shrunk < most {
		// By way of an empty table, which all decoders take: not all take two
		// sizes while there is something in the table.
		e.table.resize(0)
		e.table.resize(most)
		dst = appendInteger(dst, 5, 0x20, 0)
	}
	return appendInteger(dst, 5, 0x20, e.table.max)
}

// How a field is treated.
type indexing uint8

const (
	addField    indexing = iota // to the table
	passField                   // it is not likely to come again
	secretField                 // no hop may ever add it: its value must not be guessed by the size of a table
)

// indexingOf chooses by the name. Of a name in the static table, static is its
// index.
func indexingOf(static uint8, value []byte) indexing {
	switch static {
	case 4, // :path
		21,             // age
		28,             // content-length
		34,             // etag
		39, 40, 41, 42, // if-…
		44, // last-modified
		46, // location
		55: // set-cookie
		return passField
	case 23, 49: // authorization, proxy-authorization
		return secretField
	case 32: // cookie: a short one can be guessed byte by byte
		if len(value) < 20 {
			return secretField
		}
	}
	return addField
}

var hashSeed = maphash.MakeSeed()

// field appends one field. Its name must be in lower case.
func (e *encoder) field(dst, name, value []byte) []byte {
	e.fields += uint64(len(name) + len(value))
	static := staticNames[string(name)]
	how := indexingOf(static, value)
	if static != 0 && len(value) > 0 {
		for i := static; int(i) < len(staticTable) && len(staticTable[i].value) > 0 && bytes.Equal(staticTable[i].name, name); i++ {
			if bytes.Equal(staticTable[i].value, value) {
				return appendInteger(dst, 7, 0x80, uint32(i))
			}
		}
	}
	if how == addField && len(name)+len(value)+entryOverhead > int(e.table.max)/2 {
		how = passField // it would push out too much
	}
	index := uint32(static)
	var nameHash, wholeHash uint64
	if how == addField || static == 0 {
		nameHash = maphash.Bytes(hashSeed, name)
		wholeHash = nameHash*31 + maphash.Bytes(hashSeed, value)
		if e.places != nil {
			if i, ok := e.find(wholeHash); ok {
				n, v := e.table.field(e.table.at(i))
				if bytes.Equal(n, name) && bytes.Equal(v, value) {
					return appendInteger(dst, 7, 0x80, uint32(i+len(staticTable)))
				}
			}
			if index == 0 {
				if i, ok := e.find(nameHash); ok {
					if n, _ := e.table.field(e.table.at(i)); bytes.Equal(n, name) {
						index = uint32(i + len(staticTable))
					}
				}
			}
		}
	}
	switch how {
	case addField:
		dst = appendInteger(dst, 6, 0x40, index)
	case passField:
		dst = appendInteger(dst, 4, 0, index)
	case secretField:
		dst = appendInteger(dst, 4, 0x10, index)
	}
	if index == 0 {
		dst = e.string(dst, name)
	}
	dst = e.string(dst, value)
	if how == addField && e.table.add(name, value, class{}) {
		if e.places == nil {
			e.places = new([128]uint16)
		}
		e.places[nameHash%128] = e.table.added
		e.places[wholeHash%128] = e.table.added
	}
	return dst
}

// find is the index of the entry that a hash may lead to, if it is in the table.
func (e *encoder) find(hash uint64) (int, bool) {
	age := int(e.table.added - e.places[hash%128])
	return age, age < e.table.len()
}

// string appends a string, in the code that is shorter.
func (e *encoder) string(dst, s []byte) []byte {
	if !e.plain {
		if n := huffmanLen(s); n < len(s) {
			return appendHuffman(appendInteger(dst, 7, 0x80, uint32(n)), s)
		}
	}
	return append(appendInteger(dst, 7, 0, uint32(len(s))), s...)
}

// appendInteger appends an integer with a prefix of so many bits (RFC 7541
// §5.1), below the bits of pattern.
func appendInteger(dst []byte, prefix uint8, pattern byte, v uint32) []byte {
	most := uint32(1)<<prefix - 1
	if v < most {
		return append(dst, pattern|byte(v))
	}
	dst = append(dst, pattern|byte(most))
	for v -= most; v >= 0x80; v >>= 7 {
		dst = append(dst, byte(v)|0x80)
	}
	return append(dst, byte(v))
}
