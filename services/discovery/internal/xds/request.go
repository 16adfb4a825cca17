package xds

import (
	"errors"
	"fmt"
	"iter"
	"unicode/utf8"

	"google.golang.org/grpc/mem"
	"google.golang.org/protobuf/encoding/protowire"

	"github.com/weirproxy/weir/services/discovery/internal/resources"
)

// request is a client's message, of either variant. It is read by hand: a proxy
// repeats its whole node in every request, tens of kilobytes of extensions and
// metadata that nobody here asks for, and all the names that it ever named, as
// a rule the same as before. So node and names are left where they are in the
// message, which buffer keeps, until somebody wants them.
type request struct {
	delta   bool // the variant, set before it is read
	message []byte
	buffer  mem.Buffer // what holds message; may be nil

	typeURL string // only if typ is none that is served
	typ     resources.Type
	served  bool
	node    []byte // the last one, if there is one
	version string // of the state of the world
	nonce   string
	// names is how many names the message holds: all of them in the state of the
	// world, else those that are new.
	names, dropped, initial int
	refused                 bool // error_detail is set
	reason                  string
}

// The numbers of the fields of both messages.
type requestFields struct {
	version, node, names, dropped, initial, typeURL, nonce, errorDetail protowire.Number
}

var (
	sotwFields  = requestFields{version: 1, node: 2, names: 3, typeURL: 4, nonce: 5, errorDetail: 6}
	deltaFields = requestFields{node: 1, typeURL: 2, names: 3, dropped: 4, initial: 5, nonce: 6, errorDetail: 7}
)

func (r *request) fields() *requestFields {
	if r.delta {
		return &deltaFields
	}
	return &sotwFields
}

// maxName bounds the name of a resource, in bytes.
const maxName = 1024

// read takes in a message, which must stay as it is until the request was dealt
// with. The error says what is wrong with the message.
func (r *request) read(message []byte) error {
	*r = request{delta: r.delta, message: message}
	f := r.fields()
	for field, err := range fieldsOf(message) {
		if err != nil {
			return err
		}
		if err := r.take(f, field); err != nil {
			return err
		}
	}
	return nil
}

// take takes in one field.
func (r *request) take(f *requestFields, field field) error {
	if field.bytes == nil {
		return nil // a number, of which the messages have none
	}
	switch field.number {
	case f.version:
		r.version = string(field.bytes)
	case f.node:
		r.node = field.bytes
	case f.names:
		r.names++
		return checkName(field.bytes)
	case f.dropped:
		r.dropped++
		return checkName(field.bytes)
	case f.initial:
		r.initial++
		name, _ := entryOf(field.bytes)
		return checkName(name)
	case f.typeURL:
		if r.typ, r.served = resources.OfURL(field.bytes); !r.served {
			r.typeURL = string(field.bytes)
		}
	case f.nonce:
		r.nonce = string(field.bytes)
	case f.errorDetail:
		r.refused = true
		for field, err := range fieldsOf(field.bytes) {
			if err != nil {
				return fmt.Errorf("error_detail: %w", err)
			}
			if field.number == 2 {
				r.reason = string(field.bytes)
			}
		}
	}
	return nil
}

// free lets go of the message.
func (r *request) free() {
	r.message, r.node = nil, nil
	if r.buffer != nil {
		r.buffer.Free()
		r.buffer = nil
	}
}

// checkName returns what is wrong with the name of a resource, or nil. A name is
// sent back as it came, so it must be what a message may hold.
func checkName(name []byte) error {
	if len(name) > maxName {
		return fmt.Errorf("a name of %d bytes: %d are the most", len(name), maxName)
	}
	if !utf8.Valid(name) {
		return fmt.Errorf("name %q: not UTF-8", name)
	}
	return nil
}

// each gives the contents of every field of a number.
func (r *request) each(number protowire.Number) iter.Seq[[]byte] {
	return func(yield func([]byte) bool) {
		if number == 0 {
			return
		}
		for field, err := range fieldsOf(r.message) {
			if err != nil || field.number == number && field.bytes != nil && !yield(field.bytes) {
				return
			}
		}
	}
}

// allNames are the names of a request, as bytes of the message.
func (r *request) allNames() iter.Seq[[]byte] { return r.each(r.fields().names) }

// droppedNames are those that the client does not want any more.
func (r *request) droppedNames() iter.Seq[[]byte] { return r.each(r.fields().dropped) }

// initialVersions are the resources that the client has, and their versions, as
// bytes of the message.
func (r *request) initialVersions() iter.Seq2[[]byte, []byte] {
	return func(yield func(name, version []byte) bool) {
		for entry := range r.each(r.fields().initial) {
			if !yield(entryOf(entry)) {
				return
			}
		}
	}
}

// entryOf takes an entry of a map of strings apart.
func entryOf(entry []byte) (key, value []byte) {
	for field, err := range fieldsOf(entry) {
		switch {
		case err != nil:
			return key, value
		case field.number == 1:
			key = field.bytes
		case field.number == 2:
			value = field.bytes
		}
	}
	return key, value
}

// field is one field of a message. bytes is nil if it is a number.
type field struct {
	number protowire.Number
	bytes  []byte
}

var errMessage = errors.New("not a message of protobuf")

// fieldsOf goes through the fields of a message. An error ends it.
func fieldsOf(message []byte) iter.Seq2[field, error] {
	return func(yield func(field, error) bool) {
		for len(message) > 0 {
			number, kind, n := protowire.ConsumeTag(message)
			if n < 0 {
				yield(field{}, errMessage)
				return
			}
			message = message[n:]
			f := field{number: number}
			if kind == protowire.BytesType {
				f.bytes, n = protowire.ConsumeBytes(message)
			} else {
				n = protowire.ConsumeFieldValue(number, kind, message)
			}
			if n < 0 {
				yield(field{}, errMessage)
				return
			}
			message = message[n:]
			if !yield(f, nil) {
				return
			}
		}
	}
}
