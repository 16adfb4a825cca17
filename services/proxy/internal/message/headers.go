// Package message holds HTTP messages as the proxy passes them on: heads as
// tables of offsets over one slab of bytes, and bodies that are pulled chunk
// by chunk. Codecs fill and write them, filters and routes read and change
// them; the package itself reads no socket and knows no version of HTTP.
package message

import (
	"bytes"

	"github.com/weirproxy/weir/internal/http2"
)

// Headers is an ordered list of header fields whose bytes lie in one slab, so
// that a reused Headers costs no allocation. Names are lower case. The zero
// value is an empty list.
//
// Views that it returns stay valid until Reset: the slab only grows, and
// removing a field forgets its place and not its bytes.
type Headers struct {
	slab   []byte
	fields []http2.Place
	// spelled is the head as it was received, capitals and all, if KeepSpelling
	// was called: its bytes lie where those of the slab do.
	spelled []byte
}

// Reset empties the list and keeps its memory.
func (h *Headers) Reset() {
	h.slab = h.slab[:0]
	h.fields = h.fields[:0]
	h.spelled = h.spelled[:0]
}

// Load empties the list and copies block, a whole head as it was received,
// into the slab. It returns the copy, for a codec to lower its names in place
// and to Mark the fields that it finds.
func (h *Headers) Load(block []byte) []byte {
	h.fields = h.fields[:0]
	h.spelled = h.spelled[:0]
	h.slab = append(h.slab[:0], block...)
	return h.slab
}

// Copy makes the list a copy of another, in its own memory. Its views are not valid any
// more, as after Reset.
func (h *Headers) Copy(other *Headers) {
	h.slab = append(h.slab[:0], other.slab...)
	h.fields = append(h.fields[:0], other.fields...)
	h.spelled = append(h.spelled[:0], other.spelled...)
}

// Swap makes the list that of f, which gets the memory of this one in its stead:
// nothing is copied. Views of f stay valid until Reset.
func (h *Headers) Swap(f *http2.Fields) {
	h.slab, f.Slab = f.Slab, h.slab
	h.fields, f.Places = f.Places, h.fields
	h.spelled = h.spelled[:0]
}

// KeepSpelling remembers how names are spelt in the block that Load returned,
// before a codec lowers them.
func (h *Headers) KeepSpelling() { h.spelled = append(h.spelled[:0], h.slab...) }

// Spelt says whether the names are remembered as they were received.
func (h *Headers) Spelt() bool { return len(h.spelled) > 0 }

// Spelling is the name of field i as it was received, if that is remembered. One
// that was added is spelt as a received one of that name, or else in lower case.
func (h *Headers) Spelling(i int) []byte {
	f := h.fields[i]
	if int(f.NameEnd) <= len(h.spelled) {
		return h.spelled[f.Name:f.NameEnd:f.NameEnd]
	}
	return h.SpellingOf(h.slab[f.Name:f.NameEnd:f.NameEnd])
}

// SpellingOf is the name, in lower case, as the head that was received spelt
// it, for a field that is no longer in the list. Without such a line it is the
// name itself.
func (h *Headers) SpellingOf(name []byte) []byte {
	for line := range bytes.Lines(h.spelled) {
		if len(line) > len(name) && line[len(name)] == ':' && bytes.EqualFold(line[:len(name)], name) {
			return line[:len(name):len(name)]
		}
	}
	return name
}

// Mark adds the field whose name and value lie at these offsets of the block
// that Load returned.
func (h *Headers) Mark(name, nameEnd, value, valueEnd int) {
	h.fields = append(h.fields, http2.Place{Name: uint32(name), NameEnd: uint32(nameEnd), Value: uint32(value), ValueEnd: uint32(valueEnd)})
}

// Len counts the fields.
func (h *Headers) Len() int { return len(h.fields) }

// At is field i, in the order of the message.
func (h *Headers) At(i int) (name, value []byte) {
	f := h.fields[i]
	return h.slab[f.Name:f.NameEnd:f.NameEnd], h.slab[f.Value:f.ValueEnd:f.ValueEnd]
}

// Get is the value of the first field of that name, and whether there is one.
// Name is lower case, here and below.
func (h *Headers) Get(name string) ([]byte, bool) {
	if i := h.find(name, 0); i >= 0 {
		f := h.fields[i]
		return h.slab[f.Value:f.ValueEnd:f.ValueEnd], true
	}
	return nil, false
}

// Has says whether a field of that name is there.
func (h *Headers) Has(name string) bool { return h.find(name, 0) >= 0 }

// Add appends a field. The caller vouches for its syntax.
func (h *Headers) Add(name, value string) {
	start := len(h.slab)
	h.slab = append(append(h.slab, name...), value...)
	h.Mark(start, start+len(name), start+len(name), len(h.slab))
}

// AddBytes is Add for a value in bytes, which are copied.
func (h *Headers) AddBytes(name string, value []byte) {
	start := len(h.slab)
	h.slab = append(append(h.slab, name...), value...)
	h.Mark(start, start+len(name), start+len(name), len(h.slab))
}

// Set gives the first field of that name the value and removes the others, or
// adds the field if there is none.
func (h *Headers) Set(name, value string) {
	i := h.find(name, 0)
	if i < 0 {
		h.Add(name, value)
		return
	}
	start := len(h.slab)
	h.slab = append(h.slab, value...)
	h.fields[i].Value, h.fields[i].ValueEnd = uint32(start), uint32(len(h.slab))
	h.removeFrom(name, i+1)
}

// Join makes one field of all of that name, their values and then value, with
// separator behind each that is not empty. It stands at the end.
func (h *Headers) Join(name, separator string, value []byte) {
	if h.find(name, 0) < 0 {
		h.AddBytes(name, value)
		return
	}
	start := len(h.slab)
	h.slab = append(h.slab, name...)
	at := len(h.slab)
	for _, f := range h.fields {
		if string(h.slab[f.Name:f.NameEnd]) == name && f.Value < f.ValueEnd {
			h.slab = append(append(h.slab, h.slab[f.Value:f.ValueEnd]...), separator...)
		}
	}
	h.slab = append(h.slab, value...)
	h.removeFrom(name, 0)
	h.Mark(start, at, at, len(h.slab))
}

// Remove takes out all fields of that name and says whether there were any.
func (h *Headers) Remove(name string) bool { return h.removeFrom(name, 0) }

func (h *Headers) removeFrom(name string, from int) bool {
	i := h.find(name, from)
	if i < 0 {
		return false
	}
	kept := h.fields[:i]
	for _, f := range h.fields[i+1:] {
		if string(h.slab[f.Name:f.NameEnd]) != name {
			kept = append(kept, f)
		}
	}
	h.fields = kept
	return true
}

// Keep takes out all fields for which keep is false. Keep must not change h.
func (h *Headers) Keep(keep func(name, value []byte) bool) {
	kept := h.fields[:0]
	for i, f := range h.fields {
		if keep(h.At(i)) {
			kept = append(kept, f)
		}
	}
	h.fields = kept
}

// find is the index of the first field of that name at or after from, or −1.
func (h *Headers) find(name string, from int) int {
	for i := from; i < len(h.fields); i++ {
		f := &h.fields[i]
		if int(f.NameEnd-f.Name) == len(name) && string(h.slab[f.Name:f.NameEnd]) == name {
			return i
		}
	}
	return -1
}

// Framing says whether a field of that name, in lower case, is one by which a codec
// finds the end of a message, or belongs to one connection (RFC 9110 §7.6.1): nobody
// but the codecs adds it.
func Framing(name string) bool {
	switch name {
	case "connection", "content-length", "expect", "http2-settings", "keep-alive", "proxy-connection", "te", "trailer",
		"transfer-encoding", "upgrade":
		return true
	}
	return false
}
