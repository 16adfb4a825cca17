package rlsclient

import (
	"bytes"
	"fmt"
	"math"
	"strings"
	"time"

	rlsv3 "github.com/envoyproxy/go-control-plane/envoy/service/ratelimit/v3"
	"golang.org/x/net/http/httpguts"
	"google.golang.org/protobuf/encoding/protowire"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/structpb"

	"github.com/weirproxy/weir/services/proxy/internal/descriptor"
	"github.com/weirproxy/weir/services/proxy/internal/message"
)

// Request is what the proxy sends of a RateLimitRequest.
type Request struct {
	Domain string
	// Descriptors are not kept beyond the call.
	Descriptors *descriptor.List
}

// Response is what the proxy reads of a RateLimitResponse.
type Response struct {
	// Code is OK, OVER_LIMIT, or what else the service sent.
	Code rlsv3.RateLimitResponse_Code
	// RequestHeaders and ResponseHeaders are to be added to the request and to
	// its response. Fields that are no valid HTTP or that frame a message are
	// left out.
	RequestHeaders, ResponseHeaders []Header
	// Body is that of the answer if the request is over its limit.
	Body string
	// Statuses are those of the descriptors, in their order. They are memory that
	// the next call uses again.
	Statuses []Status
	// Metadata is for the filters behind (dynamic_metadata); nil is none.
	Metadata *structpb.Struct
}

// Status is what a service says of one descriptor.
type Status struct {
	Code rlsv3.RateLimitResponse_Code
	// Limited says that there is a limit, of so many requests in a window.
	Limited  bool
	Requests uint32
	Window   time.Duration // 0 is one of a unit that is not known
	Name     string        // of the limit; may be empty
	// Remaining is how many requests are left in the window, which ends after
	// Reset.
	Remaining uint32
	Reset     time.Duration
}

// Header is one header field, its name in lower case.
type Header struct{ Name, Value string }

// Numbers of the fields of RateLimitRequest, RateLimitDescriptor and its Entry,
// RateLimitResponse and HeaderValue.
const (
	requestDomain      protowire.Number = 1
	requestDescriptors protowire.Number = 2

	descriptorEntries protowire.Number = 1
	entryKey          protowire.Number = 1
	entryValue        protowire.Number = 2

	descriptorLimit    protowire.Number = 2
	descriptorHits     protowire.Number = 3
	descriptorNegative protowire.Number = 4
	limitRequests      protowire.Number = 1
	limitUnit          protowire.Number = 2
	uint64Value        protowire.Number = 1

	responseCode            protowire.Number = 1
	responseResponseHeaders protowire.Number = 3
	responseRequestHeaders  protowire.Number = 4
	responseBody            protowire.Number = 5
	responseStatuses        protowire.Number = 2
	responseMetadata        protowire.Number = 6

	statusCode      protowire.Number = 1
	statusLimit     protowire.Number = 2
	statusRemaining protowire.Number = 3
	statusReset     protowire.Number = 4

	currentRequests   protowire.Number = 1
	currentUnit       protowire.Number = 2
	currentName       protowire.Number = 3
	currentMultiplier protowire.Number = 4

	durationSeconds protowire.Number = 1
	durationNanos   protowire.Number = 2

	headerKey      protowire.Number = 1
	headerValue    protowire.Number = 2
	headerRawValue protowire.Number = 3
)

// AppendTo implements grpccall.Question: it appends a RateLimitRequest, without the
// message that generated code would have to build.
func (r *Request) AppendTo(b []byte) []byte {
	b = protowire.AppendTag(b, requestDomain, protowire.BytesType)
	b = protowire.AppendString(b, r.Domain)
	for i := range r.Descriptors.Len() {
		entries, details := r.Descriptors.At(i), r.Descriptors.Details(i)
		b = protowire.AppendTag(b, requestDescriptors, protowire.BytesType)
		b = protowire.AppendVarint(b, uint64(descriptorSize(entries, details)))
		for _, e := range entries {
			b = protowire.AppendTag(b, descriptorEntries, protowire.BytesType)
			b = protowire.AppendVarint(b, uint64(entrySize(e)))
			b = protowire.AppendTag(b, entryKey, protowire.BytesType)
			b = protowire.AppendString(b, e.Key)
			b = protowire.AppendTag(b, entryValue, protowire.BytesType)
			b = protowire.AppendBytes(b, e.Value)
		}
		b = appendDetails(b, details)
	}
	return b
}

// fieldSize is the size of a field of length bytes with its tag, the number of
// which is below 16.
func fieldSize(length int) int { return 1 + protowire.SizeBytes(length) }

// appendDetails appends what a descriptor has beside its entries.
func appendDetails(b []byte, d descriptor.Details) []byte {
	if d.Limit.Unit != 0 {
		b = protowire.AppendTag(b, descriptorLimit, protowire.BytesType)
		b = protowire.AppendVarint(b, uint64(limitSize(d.Limit)))
		b = protowire.AppendTag(b, limitRequests, protowire.VarintType)
		b = protowire.AppendVarint(b, uint64(d.Limit.Requests))
		b = protowire.AppendTag(b, limitUnit, protowire.VarintType)
		b = protowire.AppendVarint(b, uint64(d.Limit.Unit))
	}
	if d.Hits.Set {
		b = protowire.AppendTag(b, descriptorHits, protowire.BytesType)
		b = protowire.AppendVarint(b, uint64(varintSize(d.Hits.Number)))
		b = protowire.AppendTag(b, uint64Value, protowire.VarintType)
		b = protowire.AppendVarint(b, d.Hits.Number)
	}
	if d.Hits.Negative {
		b = protowire.AppendTag(b, descriptorNegative, protowire.VarintType)
		b = protowire.AppendVarint(b, 1)
	}
	return b
}

func detailsSize(d descriptor.Details) int {
	size := 0
	if d.Limit.Unit != 0 {
		size += fieldSize(limitSize(d.Limit))
	}
	if d.Hits.Set {
		size += fieldSize(varintSize(d.Hits.Number))
	}
	if d.Hits.Negative {
		size += varintSize(1)
	}
	return size
}

func limitSize(l descriptor.Limit) int {
	return varintSize(uint64(l.Requests)) + varintSize(uint64(l.Unit))
}

// varintSize is the size of a number with its tag.
func varintSize(n uint64) int { return 1 + protowire.SizeVarint(n) }

func descriptorSize(entries []descriptor.Entry, details descriptor.Details) int {
	size := detailsSize(details)
	for _, e := range entries {
		size += fieldSize(entrySize(e))
	}
	return size
}

func entrySize(e descriptor.Entry) int { return fieldSize(len(e.Key)) + fieldSize(len(e.Value)) }

// Decode implements grpccall.Answer: it reads a RateLimitResponse, and passes over what it
// doesn't know.
func (r *Response) Decode(b []byte) error {
	*r = Response{Statuses: r.Statuses[:0]}
	for len(b) > 0 {
		f, rest, err := nextField(b)
		if err != nil {
			return fmt.Errorf("decode a RateLimitResponse: %w", err)
		}
		b = rest
		switch {
		case f.is(responseCode, protowire.VarintType):
			r.Code = rlsv3.RateLimitResponse_Code(f.varint)
		case f.is(responseResponseHeaders, protowire.BytesType):
			r.ResponseHeaders, err = appendHeader(r.ResponseHeaders, f.bytes)
		case f.is(responseRequestHeaders, protowire.BytesType):
			r.RequestHeaders, err = appendHeader(r.RequestHeaders, f.bytes)
		case f.is(responseBody, protowire.BytesType):
			r.Body = string(f.bytes)
		case f.is(responseStatuses, protowire.BytesType):
			var s Status
			s, err = decodeStatus(f.bytes)
			r.Statuses = append(r.Statuses, s)
		case f.is(responseMetadata, protowire.BytesType):
			if r.Metadata == nil {
				r.Metadata = &structpb.Struct{}
			}
			if err = (proto.UnmarshalOptions{Merge: true}).Unmarshal(f.bytes, r.Metadata); err != nil {
				err = fmt.Errorf("decode dynamic_metadata of a RateLimitResponse: %w", err)
			}
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// decodeStatus reads a DescriptorStatus.
func decodeStatus(b []byte) (s Status, err error) {
	err = each(b, func(f field) error {
		switch {
		case f.is(statusCode, protowire.VarintType):
			s.Code = rlsv3.RateLimitResponse_Code(f.varint)
		case f.is(statusLimit, protowire.BytesType):
			s.Limited = true
			return s.decodeLimit(f.bytes)
		case f.is(statusRemaining, protowire.VarintType):
			s.Remaining = uint32(f.varint)
		case f.is(statusReset, protowire.BytesType):
			s.Reset, err = decodeDuration(f.bytes)
			return err
		}
		return nil
	})
	if err != nil {
		return s, fmt.Errorf("decode a status of a RateLimitResponse: %w", err)
	}
	return s, nil
}

// decodeDuration reads a Duration; one below zero is zero.
func decodeDuration(b []byte) (time.Duration, error) {
	var seconds, nanos int64
	err := each(b, func(f field) error {
		switch {
		case f.is(durationSeconds, protowire.VarintType):
			seconds = int64(f.varint)
		case f.is(durationNanos, protowire.VarintType):
			nanos = int64(f.varint)
		}
		return nil
	})
	seconds, nanos = min(max(seconds, 0), maxSeconds), min(max(nanos, 0), int64(time.Second)-1)
	return time.Duration(seconds)*time.Second + time.Duration(nanos), err
}

// maxSeconds is the longest time that a status can tell, 68 years.
const maxSeconds = 1 << 31

// decodeLimit reads the RateLimit of a status.
func (s *Status) decodeLimit(b []byte) error {
	unit, multiplier := rlsv3.RateLimitResponse_RateLimit_UNKNOWN, uint64(1)
	err := each(b, func(f field) error {
		switch {
		case f.is(currentRequests, protowire.VarintType):
			s.Requests = uint32(f.varint)
		case f.is(currentUnit, protowire.VarintType):
			unit = rlsv3.RateLimitResponse_RateLimit_Unit(f.varint)
		case f.is(currentName, protowire.BytesType):
			s.Name = string(f.bytes)
		case f.is(currentMultiplier, protowire.BytesType):
			return each(f.bytes, func(f field) error {
				if f.is(uint64Value, protowire.VarintType) {
					multiplier = f.varint
				}
				return nil
			})
		}
		return nil
	})
	if length := windows[unit]; length > 0 { // of more than a Duration has, as much as it has
		s.Window = length * time.Duration(max(1, min(multiplier, uint64(math.MaxInt64/length))))
	}
	return err
}

// windows are the lengths of the units; a month has 30 days and a year 365.
var windows = map[rlsv3.RateLimitResponse_RateLimit_Unit]time.Duration{
	rlsv3.RateLimitResponse_RateLimit_SECOND: time.Second,
	rlsv3.RateLimitResponse_RateLimit_MINUTE: time.Minute,
	rlsv3.RateLimitResponse_RateLimit_HOUR:   time.Hour,
	rlsv3.RateLimitResponse_RateLimit_DAY:    24 * time.Hour,
	rlsv3.RateLimitResponse_RateLimit_WEEK:   7 * 24 * time.Hour,
	rlsv3.RateLimitResponse_RateLimit_MONTH:  30 * 24 * time.Hour,
	rlsv3.RateLimitResponse_RateLimit_YEAR:   365 * 24 * time.Hour,
}

// appendHeader reads a HeaderValue and appends it if it may be sent.
func appendHeader(list []Header, b []byte) ([]Header, error) {
	var name, value, raw []byte
	for len(b) > 0 {
		f, rest, err := nextField(b)
		if err != nil {
			return list, fmt.Errorf("decode a header of a RateLimitResponse: %w", err)
		}
		b = rest
		switch {
		case f.is(headerKey, protowire.BytesType):
			name = f.bytes
		case f.is(headerValue, protowire.BytesType):
			value = f.bytes
		case f.is(headerRawValue, protowire.BytesType):
			raw = f.bytes
		}
	}
	if len(value) == 0 {
		value = raw
	}
	h := Header{strings.ToLower(string(name)), string(bytes.Trim(value, " \t"))}
	if !httpguts.ValidHeaderFieldName(h.Name) || !httpguts.ValidHeaderFieldValue(h.Value) || h.Name == "host" || message.Framing(h.Name) {
		return list, nil
	}
	return append(list, h), nil
}

// field is one field of a message: a number, or bytes, which are a view. Fields
// of other wire types have neither.
type field struct {
	number protowire.Number
	kind   protowire.Type
	varint uint64
	bytes  []byte
}

func (f *field) is(number protowire.Number, kind protowire.Type) bool {
	return f.number == number && f.kind == kind
}

// each calls read for the fields of a message.
func each(b []byte, read func(field) error) error {
	for len(b) > 0 {
		f, rest, err := nextField(b)
		if err != nil {
			return err
		}
		if err := read(f); err != nil {
			return err
		}
		b = rest
	}
	return nil
}

// nextField reads the first field of b.
func nextField(b []byte) (f field, rest []byte, err error) {
	number, kind, n := protowire.ConsumeTag(b)
	if n < 0 {
		return f, nil, protowire.ParseError(n)
	}
	b = b[n:]
	f = field{number: number, kind: kind}
	switch kind {
	case protowire.VarintType:
		f.varint, n = protowire.ConsumeVarint(b)
	case protowire.BytesType:
		f.bytes, n = protowire.ConsumeBytes(b)
	default:
		n = protowire.ConsumeFieldValue(number, kind, b)
	}
	if n < 0 {
		return f, nil, protowire.ParseError(n)
	}
	return f, b[n:], nil
}
