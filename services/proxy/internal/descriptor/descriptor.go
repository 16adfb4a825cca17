// Package descriptor makes rate-limit descriptors: the keys and values by which
// a rate-limit service tells requests apart. The route table parses policies
// with it, the filter that asks the service has it build the descriptors of
// each request. It knows no limit, asks nobody and refuses nothing.
package descriptor

import (
	"bytes"
	"net/netip"
	"unicode/utf8"

	"github.com/weirproxy/weir/services/proxy/internal/message"
)

// Input is what actions read of a request.
type Input struct {
	Request *message.Request
	// ClientAddress is the trusted address of the client; invalid where it has
	// none that is an IP.
	ClientAddress netip.Addr
	// Cluster is the name of the cluster that the request goes to.
	Cluster string
}

// Entry is one key and its value.
type Entry struct {
	Key string
	// Value is UTF-8. It is a view of the policy, of the request or of the
	// list that holds the entry: read only.
	Value []byte
}

// List gathers the descriptors of one request, each an ordered list of
// entries. A list that is used again costs no allocation. The zero value is
// empty.
type List struct {
	entries []Entry // of all descriptors, one behind the other
	ends    []int   // where each descriptor ends in entries
	// text holds the values that had to be written. It only grows until Reset,
	// so that views of it stay valid.
	text []byte
}

// Reset empties the list and keeps its memory.
func (l *List) Reset() {
	clear(l.entries) // lets go of the request
	l.entries, l.ends, l.text = l.entries[:0], l.ends[:0], l.text[:0]
}

// Len counts the descriptors.
func (l *List) Len() int { return len(l.ends) }

// At is descriptor i, a view that is valid until Reset.
func (l *List) At(i int) []Entry {
	start := 0
	if i > 0 {
		start = l.ends[i-1]
	}
	return l.entries[start:l.ends[i]:l.ends[i]]
}

// Append builds the policy's descriptor for a request and adds it to the list.
// It returns false, and adds nothing, if an action has no value or no entry
// comes of the actions at all. The request's bytes must stay as they are for
// as long as the list is read.
func (p *Policy) Append(l *List, in *Input) bool {
	start := len(l.entries)
	for i := range p.actions {
		if !p.actions[i].append(l, in) {
			l.entries = l.entries[:start]
			return false
		}
	}
	if len(l.entries) == start {
		return false
	}
	l.ends = append(l.ends, len(l.entries))
	return true
}

// append adds the action's entry; false means that it has no value, so that
// the descriptor is dropped.
func (a *action) append(l *List, in *Input) bool {
	switch a.kind {
	case requestHeader:
		value, ok := requestValue(in.Request, a.header)
		if !ok {
			return a.skipIfAbsent
		}
		l.entries = append(l.entries, Entry{a.key, l.valid(value)})
	case remoteAddress:
		if !in.ClientAddress.IsValid() {
			return false
		}
		start := len(l.text)
		l.text = in.ClientAddress.Unmap().WithZone("").AppendTo(l.text)
		l.entries = append(l.entries, Entry{a.key, l.text[start:]})
	case destinationCluster:
		start := len(l.text)
		l.text = append(l.text, in.Cluster...)
		l.entries = append(l.entries, Entry{a.key, l.text[start:]})
	case genericKey:
		l.entries = append(l.entries, Entry{a.key, a.value})
	}
	return true
}

// valid returns value as UTF-8. A protobuf string must be that; a service that
// refused the whole call for one stray byte would let a client choose to be
// counted by no limit.
func (l *List) valid(value []byte) []byte {
	if utf8.Valid(value) {
		return value
	}
	start := len(l.text)
	l.text = append(l.text, bytes.ToValidUTF8(value, []byte("\uFFFD"))...)
	return l.text[start:]
}

// requestValue is the first value of a header or pseudo header, and whether
// there is one.
func requestValue(r *message.Request, header string) ([]byte, bool) {
	switch header {
	case ":path":
		return r.Path, len(r.Path) > 0
	case ":method":
		return r.Method, true
	case ":authority", "host":
		return r.Authority, true
	case ":scheme":
		return plainScheme, true
	}
	return r.Headers.Get(header)
}

// plainScheme is the scheme of every request: no listener speaks TLS.
var plainScheme = []byte("http")
