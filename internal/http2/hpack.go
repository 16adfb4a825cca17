package http2

// fieldSink takes the fields of a header block in order. Name and value are
// views until it returns.
type fieldSink interface {
	field(name, value []byte, c class)
}

// decoder reads header blocks (RFC 7541). It allocates for what enters its
// table alone.
type decoder struct {
	table table
	// limit is the most that the peer may let the table hold.
	limit uint32
	// mustShrink says that the table is larger than the limit that the peer has
	// agreed to: the next block must begin with a smaller size (RFC 7541 §4.2).
	mustShrink bool
	// longest is how many bytes a string may take in the block; 0 is any number.
	longest int
}

func newDecoder() decoder {
	return decoder{table: table{max: defaultTableSize}, limit: defaultTableSize}
}

// defaultTableSize is the first size of dynamic tables (RFC 9113 §6.5.2).
const defaultTableSize = 4096

// setLimit changes the limit, once the peer has acknowledged it.
func (d *decoder) setLimit(limit uint32) {
	d.limit = limit
	d.mustShrink = d.table.max > limit
}

// decode hands the fields of a whole block to sink. Scratch is memory to use,
// which is returned, perhaps grown. An error is the connection's, of the kind
// COMPRESSION_ERROR: the tables of both sides are no longer the same.
func (d *decoder) decode(block, scratch []byte, sink fieldSink) ([]byte, error) {
	begun := false
	for len(block) > 0 {
		c := block[0]
		var err error
		switch {
		case c >= 0x80: // an indexed field (RFC 7541 §6.1)
			block, err = d.indexed(block, sink)
		case c >= 0x40: // a literal that is added to the table (§6.2.1)
			block, scratch, err = d.literal(block, 6, true, scratch, sink)
		case c >= 0x20: // the table's size (§6.3)
			if begun {
				return scratch, compressionError("table size within a header block")
			}
			block, err = d.sizeUpdate(block)
			if err != nil {
				return scratch, err
			}
			continue
		default: // a literal that is not added, or never by anybody (§6.2.2, §6.2.3)
			block, scratch, err = d.literal(block, 4, false, scratch, sink)
		}
		if err != nil {
			return scratch, err
		}
		if d.mustShrink {
			return scratch, compressionError("the header table is still larger than %d bytes", d.limit)
		}
		begun = true
	}
	return scratch, nil
}

func (d *decoder) sizeUpdate(block []byte) ([]byte, error) {
	size, block, ok := readInteger(block, 5)
	if !ok {
		return nil, compressionError("table size is no integer")
	}
	if size > d.limit {
		return nil, compressionError("table size %d is over the limit of %d", size, d.limit)
	}
	d.mustShrink = false
	d.table.resize(size)
	return block, nil
}

func (d *decoder) indexed(block []byte, sink fieldSink) ([]byte, error) {
	index, block, ok := readInteger(block, 7)
	switch {
	case !ok || index == 0:
		return nil, compressionError("no proper index")
	case index < uint32(len(staticTable)):
		f := &staticTable[index]
		sink.field(f.name, f.value, f.class)
	case index-uint32(len(staticTable)) < uint32(d.table.len()):
		e := d.table.at(int(index) - len(staticTable))
		name, value := d.table.field(e)
		sink.field(name, value, e.class)
	default:
		return nil, compressionError("index %d is not in the table", index)
	}
	return block, nil
}

func (d *decoder) literal(block []byte, prefix uint8, add bool, scratch []byte, sink fieldSink) ([]byte, []byte, error) {
	index, block, ok := readInteger(block, prefix)
	if !ok {
		return nil, scratch, compressionError("no proper index of a name")
	}
	scratch = scratch[:0]
	start := len(block)
	var name, value []byte
	var c class
	switch {
	case index == 0:
		if name, block, scratch, ok = readString(block, scratch); !ok {
			return nil, scratch, compressionError("a name that is no proper string")
		}
		c.name, c.tooLong = classifyName(name), d.isTooLong(start-len(block))
	case index < uint32(len(staticTable)):
		f := &staticTable[index]
		name, c.name = f.name, f.class.name
	case index-uint32(len(staticTable)) < uint32(d.table.len()):
		e := d.table.at(int(index) - len(staticTable))
		name, _ = d.table.field(e)
		c.name = e.class.name
		if add { // which may move the table's bytes
			scratch = append(scratch, name...)
			name = scratch
		}
	default:
		return nil, scratch, compressionError("index %d of a name is not in the table", index)
	}
	start = len(block)
	// The value behind the name in scratch: should that move, name stays what
	// it is in the old memory.
	if value, block, scratch, ok = readString(block, scratch); !ok {
		return nil, scratch, compressionError("a value that is no proper string")
	}
	c.badValue = badValue(value)
	c.tooLong = c.tooLong || d.isTooLong(start-len(block))
	sink.field(name, value, c)
	if add {
		d.table.add(name, value, c)
	}
	return block, scratch, nil
}

// isTooLong says whether a string that took n bytes, with up to 4 that tell its
// length, is longer than it may be.
func (d *decoder) isTooLong(n int) bool { return d.longest > 0 && n > d.longest+4 }

// readInteger reads an integer with a prefix of so many bits (RFC 7541 §5.1).
// One that 32 bits can't hold is not ok: nothing here counts so far.
func readInteger(b []byte, prefix uint8) (v uint32, rest []byte, ok bool) {
	most := uint32(1)<<prefix - 1
	v = uint32(b[0]) & most
	b = b[1:]
	if v < most {
		return v, b, true
	}
	sum := uint64(v)
	for shift := 0; shift < 35 && len(b) > 0; shift += 7 {
		c := b[0]
		b = b[1:]
		sum += uint64(c&0x7f) << shift
		if c < 0x80 {
			return uint32(sum), b, sum < 1<<32
		}
	}
	return 0, nil, false
}

// readString reads a string (RFC 7541 §5.2): a view of b or, if it was in the
// Huffman code, of what scratch grew by.
func readString(b, scratch []byte) (s, rest, grown []byte, ok bool) {
	if len(b) == 0 {
		return nil, nil, scratch, false
	}
	coded := b[0]&0x80 != 0
	length, b, ok := readInteger(b, 7)
	if !ok || uint64(length) > uint64(len(b)) {
		return nil, nil, scratch, false
	}
	s, rest = b[:length:length], b[length:]
	if !coded {
		return s, rest, scratch, true
	}
	start := len(scratch)
	scratch, ok = appendHuffmanDecoded(scratch, s)
	return scratch[start:len(scratch):len(scratch)], rest, scratch, ok
}

func compressionError(format string, args ...any) error {
	return connectionError(CompressionError, format, args...)
}
