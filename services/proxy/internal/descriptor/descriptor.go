// Package descriptor makes rate-limit descriptors: the keys and values by which
// a rate limiter tells requests apart (envoy.config.route.v3.RateLimit). The
// route table and filters parse policies with it, the filters that limit have it
// build the descriptors of each request. It knows no limit, asks nobody and
// refuses nothing.
package descriptor

import (
	"bytes"
	"net/netip"
	"unicode/utf8"

	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	typev3 "github.com/envoyproxy/go-control-plane/envoy/type/v3"

	"github.com/weirproxy/weir/services/proxy/internal/format"
	"github.com/weirproxy/weir/services/proxy/internal/layeredruntime"
	"github.com/weirproxy/weir/services/proxy/internal/message"
)

// Input is what policies read of a request.
type Input struct {
	Request *message.Request
	// ClientAddress is the trusted address of the client; invalid where it has
	// none that is an IP.
	ClientAddress netip.Addr
	// Service is the name of the cluster that the proxy itself is of, and Cluster
	// that of the cluster that the request goes to.
	Service, Cluster string
	// Facts has the dynamic metadata, and what formats tell; nil is nothing.
	Facts *format.Facts
	// RouteMetadata is that of the route; nil is none.
	RouteMetadata *corev3.Metadata
	// Runtime has the values that hold for the request; nil is none.
	Runtime *layeredruntime.Snapshot
}

// Entry is one key and its value.
type Entry struct {
	Key string
	// Value is UTF-8. It is a view of the policy, of the request or of the
	// list that holds the entry: read only.
	Value []byte
}

// Limit is what a descriptor is to be limited by in the place of what the
// limiter knows. The zero value is none.
type Limit struct {
	Requests uint32 // per unit
	// Unit is 0, UNKNOWN, where there is no Limit.
	Unit typev3.RateLimitUnit
}

// Hits is how much a request counts. The zero value leaves it to the limiter.
type Hits struct {
	Set    bool
	Number uint64 // 0 only asks; at most 1,000,000,000
	// Negative gives hits back.
	Negative bool
}

// Option says whether the limits of a descriptor are shown to the client
// (RateLimit.x_ratelimit_option).
type Option int

// The options. Unspecified leaves it to the filter.
const (
	Unspecified Option = iota
	Off
	Draft03
)

// Details is what a descriptor has beside its entries.
type Details struct {
	Limit  Limit
	Hits   Hits
	Option Option
}

// List gathers the descriptors of one request, each an ordered list of
// entries. A list that is used again costs no allocation. The zero value is
// empty.
type List struct {
	entries []Entry // of all descriptors, one behind the other
	ends    []end
	// text holds the values that had to be written. It only grows until Reset,
	// so that views of it stay valid.
	text []byte
}

// end is where a descriptor ends in entries, and the rest of it.
type end struct {
	at int
	Details
}

// Reset empties the list and keeps its memory.
func (l *List) Reset() {
	clear(l.entries) // lets go of the request
	l.entries, l.ends, l.text = l.entries[:0], l.ends[:0], l.text[:0]
}

// Len counts the descriptors.
func (l *List) Len() int { return len(l.ends) }

// At is the entries of descriptor i, a view that is valid until Reset.
func (l *List) At(i int) []Entry {
	start := 0
	if i > 0 {
		start = l.ends[i-1].at
	}
	return l.entries[start:l.ends[i].at:l.ends[i].at]
}

// Details is what descriptor i has beside its entries.
func (l *List) Details(i int) Details { return l.ends[i].Details }

// Copy is a list like l that holds nothing of the request.
func (l *List) Copy() *List {
	made := &List{ends: append([]end(nil), l.ends...)}
	for _, e := range l.entries {
		start := len(made.text)
		made.text = append(made.text, e.Value...)
		made.entries = append(made.entries, Entry{e.Key, made.text[start:]})
	}
	return made
}

// Append builds the policy's descriptor for a request and adds it to the list.
// It returns false, and adds nothing, if an action has no value, no entry comes
// of the actions at all, or the hits are no number. The request's bytes must
// stay as they are for as long as the list is read.
func (p *Policy) Append(l *List, in *Input) bool {
	start := len(l.entries)
	for i := range p.actions {
		if !p.actions[i].append(l, in) {
			l.entries = l.entries[:start]
			return false
		}
	}
	hits, ok := p.hits.of(l, in)
	if len(l.entries) == start || !ok {
		l.entries = l.entries[:start]
		return false
	}
	l.ends = append(l.ends, end{len(l.entries), Details{p.limit.of(in), hits, p.option}})
	return true
}

// AnyStage is the stage of none and all.
const AnyStage = -1

// AppendAll builds the descriptors of those policies that are of a stage, that are
// to be sent when the stream is over, or before that, and that the runtime does not
// turn off.
func AppendAll(policies []Policy, stage int, onStreamDone bool, l *List, in *Input) {
	for i := range policies {
		p := &policies[i]
		if p.OnStreamDone == onStreamDone && (stage == AnyStage || p.Stage == uint32(stage)) && p.Enabled(in.Runtime) {
			p.Append(l, in)
		}
	}
}

// write adds an entry whose value append makes.
func (l *List) write(key string, appendTo func(b []byte) []byte) {
	start := len(l.text)
	l.text = appendTo(l.text)
	l.entries = append(l.entries, Entry{key, l.text[start:]})
}

// writeString adds an entry with a value that is not the policy's or the
// request's.
func (l *List) writeString(key, value string) {
	start := len(l.text)
	l.text = append(l.text, value...)
	l.entries = append(l.entries, Entry{key, l.text[start:]})
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
