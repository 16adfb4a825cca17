package http2

// entryOverhead is what each entry of a dynamic table counts beside its bytes
// (RFC 7541 §4.1).
const entryOverhead = 32

// entry is a field of a dynamic table.
type entry struct {
	start       uint32 // of the name, counted over all bytes that were ever added
	name, value uint32 // lengths; the value follows the name
	class       class
}

// table is a dynamic table (RFC 7541 §2.3.2), of the decoder or of the encoder.
// Its bytes lie in one slab that grows as it is filled; a table that nobody
// fills takes nothing.
type table struct {
	slab    []byte
	base    uint32 // of slab[0], counted as entry.start is
	entries []entry
	first   int    // the oldest entry that is still in the table
	added   uint16 // entries ever, as far as 16 bits tell
	size    uint32 // as the RFC counts
	max     uint32 // the most that size may be
}

// len counts the entries.
func (t *table) len() int { return len(t.entries) - t.first }

// at is entry i, 0 the newest.
func (t *table) at(i int) *entry { return &t.entries[len(t.entries)-1-i] }

// field is a view of an entry's bytes, until the next add.
func (t *table) field(e *entry) (name, value []byte) {
	start := e.start - t.base
	middle := start + e.name
	return t.slab[start:middle:middle], t.slab[middle : middle+e.value : middle+e.value]
}

// resize sets the most that the table may hold, and evicts what is over it.
func (t *table) resize(most uint32) {
	t.max = most
	t.evict(0)
}

// evict makes room for so much.
func (t *table) evict(room uint32) {
	for t.first < len(t.entries) && uint64(t.size)+uint64(room) > uint64(t.max) {
		e := &t.entries[t.first]
		t.size -= e.name + e.value + entryOverhead
		t.first++
	}
	if t.first == len(t.entries) {
		t.entries, t.first, t.slab = t.entries[:0], 0, t.slab[:0]
	}
}

// add puts a field in and says whether it fits. Name and value must not be
// views of the table.
func (t *table) add(name, value []byte, c class) bool {
	length := uint64(len(name)) + uint64(len(value))
	if length+entryOverhead > uint64(t.max) {
		t.evict(t.max) // RFC 7541 §4.4: everything goes
		return false
	}
	size := uint32(length) + entryOverhead
	t.evict(size)
	if len(t.entries) == cap(t.entries) && t.first > cap(t.entries)/4 {
		t.entries = t.entries[:copy(t.entries, t.entries[t.first:])]
		t.first = 0
	}
	if t.len() == 0 {
		t.base = 0
	}
	if len(t.slab)+int(length) > cap(t.slab) {
		t.compact(int(length))
	}
	t.entries = append(t.entries, entry{
		start: t.base + uint32(len(t.slab)), name: uint32(len(name)), value: uint32(len(value)), class: c,
	})
	t.slab = append(append(t.slab, name...), value...)
	t.size += size
	t.added++
	return true
}

// compact moves the live bytes to the front of the slab, or of a larger one if
// that would have to be done again soon.
func (t *table) compact(room int) {
	var live []byte
	if t.len() > 0 {
		start := t.entries[t.first].start - t.base
		live = t.slab[start:]
		t.base += start
	} else {
		t.base += uint32(len(t.slab))
	}
	if need := len(live) + room; need > cap(t.slab)/4*3 {
		larger := make([]byte, len(live), min(max(128, need*3/2), int(t.max)*3/2+room))
		copy(larger, live)
		t.slab = larger
		return
	}
	t.slab = t.slab[:copy(t.slab, live)]
}
