package http2

import (
	"sync"
	"time"
)

// Place is where a field lies in the slab of a Fields: its name and its value,
// each from its start to before its end.
type Place struct{ Name, NameEnd, Value, ValueEnd uint32 }

// Fields is an ordered list of header fields, whose bytes lie in one slab. Names
// are in lower case. Who has got one may take Slab and Places over, to go on with
// in a table of his own, and leave others in their stead.
type Fields struct {
	Slab   []byte
	Places []Place
}

// Len counts the fields.
func (f *Fields) Len() int { return len(f.Places) }

// At is field i, in the order of the message.
func (f *Fields) At(i int) (name, value []byte) {
	p := f.Places[i]
	return f.Slab[p.Name:p.NameEnd:p.NameEnd], f.Slab[p.Value:p.ValueEnd:p.ValueEnd]
}

// Add appends a field.
func (f *Fields) Add(name, value string) {
	start := len(f.Slab)
	f.Slab = append(append(f.Slab, name...), value...)
	f.Places = append(f.Places, Place{
		uint32(start), uint32(start + len(name)), uint32(start + len(name)), uint32(len(f.Slab)),
	})
}

// Get is the value of the first field of that name, and whether there is one.
func (f *Fields) Get(name string) ([]byte, bool) {
	for i := range f.Places {
		if n, v := f.At(i); string(n) == name {
			return v, true
		}
	}
	return nil, false
}

// Reset empties the list and keeps its memory.
func (f *Fields) Reset() { f.Slab, f.Places = f.Slab[:0], f.Places[:0] }

// FieldList is a list of header fields to send: names in lower case, and neither
// pseudo-header fields nor such as belong to one connection. The caller vouches
// for the syntax.
type FieldList interface {
	Len() int
	At(i int) (name, value []byte)
}

// Request is the head of a request. Its views are the sender's, or lie in the
// slab of Fields.
type Request struct {
	Method    []byte
	Scheme    []byte // empty for CONNECT
	Authority []byte // empty if there is none
	Path      []byte // empty for CONNECT
	Protocol  []byte // of an extended CONNECT (RFC 8441), else empty
}

// Head is the head of a message as it was received: of a request or, with
// Status, of a response, interim ones (1xx) included. The zero value is ready to
// be read into; one that is used again costs no allocation.
type Head struct {
	Request
	// Status is 100 to 999 but 101, and 0 in a request.
	Status int
	// Fields holds the regular fields. Cookies of a request are one field.
	Fields Fields
	// ContentLength is what content-length says; −1 if there is none.
	ContentLength int64
	// Began is when the header block began to come, and zero if it came at once.
	Began time.Time
	// TooLarge says which limit a request's head is over, where such heads are served
	// (Options.ServeTooLarge): "more than 100 fields". Then no more of the head is there
	// than End. Else it is empty.
	TooLarge string
	// End says that no body and no trailers follow.
	End bool
}

// heads are the memory of heads that were received and not read yet.
var heads = sync.Pool{New: func() any { return new(received) }}

// received is a head or a trailer section that waits for ReadHead or
// ReadTrailers.
type received struct {
	head Head
	next *received
}

// keepHead is the most memory that a head may have to be used again.
const keepHead = 16 << 10

func (r *received) release() {
	r.next = nil
	if cap(r.head.Fields.Slab) > keepHead {
		return
	}
	fields := r.head.Fields
	fields.Reset()
	r.head = Head{Fields: fields}
	heads.Put(r)
}
