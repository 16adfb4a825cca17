package rls

// Types of fields on the wire.
const (
	varintType     = 0
	fixed64Type    = 1
	bytesType      = 2
	startGroupType = 3
	endGroupType   = 4
	fixed32Type    = 5
)

const (
	// maxNumber is the largest number of a message's field. Within groups,
	// which are skipped, protobuf-go takes larger ones too, and so does this.
	maxNumber        = 1<<29 - 1
	maxNumberInGroup = 1<<31 - 1
	// maxGroups bounds how deep groups nest, as protobuf-go does.
	maxGroups = 10000
)

// fields goes through the fields of one protobuf message, in the order of its
// bytes. The message is a string, so that what is cut out of it is shared and
// not copied.
type fields struct {
	// tag is number<<3 | type of the field that was read last.
	tag uint64
	// number is its value if it is a varint, bytes if it has a length. The
	// values of other types are skipped.
	number uint64
	bytes  string

	rest      string
	malformed bool
}

// next reads the next field. It returns false after the last, and at what is
// no field; malformed tells which.
func (f *fields) next() bool {
	if f.rest == "" {
		return false
	}
	tag, ok := f.varint()
	ok = ok && tag>>3 > 0 && tag>>3 <= maxNumber
	if ok {
		f.tag = tag
		switch tag & 7 {
		case varintType:
			f.number, ok = f.varint()
		case bytesType:
			f.bytes, ok = f.lengthy()
		default:
			ok = f.skip(tag, maxGroups)
		}
	}
	f.malformed = !ok
	return ok
}

// varint reads a number of 7 bits in each byte, the lowest first.
func (f *fields) varint() (n uint64, ok bool) {
	if len(f.rest) > 0 && f.rest[0] < 0x80 {
		n, f.rest = uint64(f.rest[0]), f.rest[1:]
		return n, true
	}
	for i := range min(len(f.rest), 10) {
		b := f.rest[i]
		if i == 9 && b > 1 {
			break // more than 64 bits
		}
		n |= uint64(b&0x7f) << (7 * i)
		if b < 0x80 {
			f.rest = f.rest[i+1:]
			return n, true
		}
	}
	return 0, false
}

// lengthy reads a length and so many bytes.
func (f *fields) lengthy() (bytes string, ok bool) {
	n, ok := f.varint()
	if !ok || n > uint64(len(f.rest)) {
		return "", false
	}
	bytes, f.rest = f.rest[:n], f.rest[n:]
	return bytes, true
}

// skip passes over the value of a field with that tag. Groups within it may
// nest depth deep.
func (f *fields) skip(tag uint64, depth int) (ok bool) {
	switch tag & 7 {
	case varintType:
		_, ok = f.varint()
		return ok
	case bytesType:
		_, ok = f.lengthy()
		return ok
	case fixed64Type:
		return f.drop(8)
	case fixed32Type:
		return f.drop(4)
	case startGroupType:
		return f.group(tag>>3, depth)
	}
	return false
}

// group passes over the rest of the group of that number.
func (f *fields) group(number uint64, depth int) bool {
	if depth < 0 {
		return false
	}
	for {
		tag, ok := f.varint()
		if !ok || tag>>3 == 0 || tag>>3 > maxNumberInGroup {
			return false
		}
		if tag&7 == endGroupType {
			return tag>>3 == number
		}
		if !f.skip(tag, depth-1) {
			return false
		}
	}
}

func (f *fields) drop(n int) bool {
	if n > len(f.rest) {
		return false
	}
	f.rest = f.rest[n:]
	return true
}
