package rls

import (
	"errors"
	"fmt"
	"unicode/utf8"

	"github.com/weirproxy/weir/services/ratelimit/internal/limiter"
	"github.com/weirproxy/weir/services/ratelimit/internal/limits"
)

// The most parts of one request. Each is a byte or two on the wire and a few
// hundred in memory, so that a message within gRPC's bounds could take all of
// it; proxies send a handful.
const (
	// MaxDescriptors is the most that Options may allow.
	MaxDescriptors = 10_000
	maxEntries     = 100_000 // of all descriptors together
)

var (
	errMalformed = errors.New("not a protobuf message")
	errNotUTF8   = errors.New("not UTF-8")
)

// Fields of the messages that are read, as tags. One of these numbers with
// another type on the wire is passed over like a field of an unknown number.
const (
	requestDomain      = 1<<3 | bytesType
	requestDescriptors = 2<<3 | bytesType
	requestHitsAddend  = 3<<3 | varintType

	descriptorEntries        = 1<<3 | bytesType
	descriptorLimit          = 2<<3 | bytesType
	descriptorHitsAddend     = 3<<3 | bytesType
	descriptorIsNegativeHits = 4<<3 | varintType

	entryKey   = 1<<3 | bytesType
	entryValue = 2<<3 | bytesType

	limitRequestsPerUnit = 1<<3 | varintType
	limitUnit            = 2<<3 | varintType
	limitUnitMultiplier  = 3<<3 | bytesType

	wrapperValue = 1<<3 | varintType
)

// decode reads a RateLimitRequest into c by protobuf's rules: of a field that
// comes twice the last counts, of a message the sum of both. It judges nothing
// but the encoding; see check. Keys and values are parts of message, which
// they keep alive.
func (c *call) decode(message string, d *dialect) error {
	c.request.Domain, c.addend = "", 0
	c.request.Descriptors, c.own, c.entries = c.request.Descriptors[:0], c.own[:0], c.entries[:0]
	f := fields{rest: message}
	for f.next() {
		switch f.tag {
		case requestDomain:
			if !utf8.ValidString(f.bytes) {
				return fmt.Errorf("domain: %w: %.64q", errNotUTF8, f.bytes)
			}
			c.request.Domain = f.bytes
		case requestDescriptors:
			if err := c.decodeDescriptor(f.bytes, d); err != nil {
				return fmt.Errorf("descriptors[%d]%w", len(c.request.Descriptors), err)
			}
		case requestHitsAddend:
			c.addend = uint32(f.number)
		}
	}
	if f.malformed {
		return errMalformed
	}
	return nil
}

// partError is what is wrong with a part of a descriptor: its path from the
// descriptor on, then the cause.
func partError(path string, err error) error { return fmt.Errorf("%s: %w", path, err) }

// decodeDescriptor reads one more descriptor.
func (c *call) decodeDescriptor(message string, d *dialect) error {
	if len(c.request.Descriptors) == MaxDescriptors {
		return partError("", errTooManyDescriptors)
	}
	var out limiter.Descriptor
	var set own
	first := len(c.entries)
	f := fields{rest: message}
	for f.next() {
		if f.tag == descriptorEntries {
			if err := c.decodeEntry(f.bytes); err != nil {
				return fmt.Errorf(".entries[%d]%w", len(c.entries)-first, err)
			}
			continue
		}
		if !d.own {
			continue
		}
		switch f.tag {
		case descriptorLimit:
			if !out.HasOverride {
				out.HasOverride, out.Override.Multiplier = true, 1
			}
			if !decodeOverride(f.bytes, &out.Override, &set) {
				return partError(".limit", errMalformed)
			}
		case descriptorHitsAddend:
			set.hits = true
			if !decodeWrapper(f.bytes, &out.Hits) {
				return partError(".hits_addend", errMalformed)
			}
		case descriptorIsNegativeHits:
			out.Refund = f.number != 0
		}
	}
	if f.malformed {
		return partError("", errMalformed)
	}
	out.Entries = c.entries[first:len(c.entries):len(c.entries)]
	c.request.Descriptors = append(c.request.Descriptors, out)
	c.own = append(c.own, set)
	return nil
}

var (
	errTooManyDescriptors = fmt.Errorf("more than %d descriptors", MaxDescriptors)
	errTooManyEntries     = fmt.Errorf("more than %d entries in all", maxEntries)
)

// decodeEntry reads one more entry.
func (c *call) decodeEntry(message string) error {
	if len(c.entries) == maxEntries {
		return partError("", errTooManyEntries)
	}
	var out limits.Entry
	f := fields{rest: message}
	for f.next() {
		switch f.tag {
		case entryKey:
			out.Key = f.bytes
		case entryValue:
			out.Value = f.bytes
		default:
			continue
		}
		if !utf8.ValidString(f.bytes) {
			name := [...]string{".key", ".value"}[f.tag>>3-1]
			return fmt.Errorf("%s: %w: %.64q", name, errNotUTF8, f.bytes)
		}
	}
	if f.malformed {
		return partError("", errMalformed)
	}
	c.entries = append(c.entries, out)
	return nil
}

// decodeOverride adds a limit's message to rate. It returns false if that is
// malformed.
func decodeOverride(message string, rate *limits.Rate, set *own) bool {
	f := fields{rest: message}
	for f.next() {
		switch f.tag {
		case limitRequestsPerUnit:
			rate.Requests = uint32(f.number)
		case limitUnit:
			rate.Unit = limits.Unit(int32(f.number))
		case limitUnitMultiplier:
			value := uint64(rate.Multiplier)
			if !set.multiplier {
				set.multiplier, value = true, 0
			}
			if !decodeWrapper(f.bytes, &value) {
				return false
			}
			rate.Multiplier = uint32(value)
		}
	}
	return !f.malformed
}

// decodeWrapper reads a message whose only field is a number. It returns false
// if that is malformed.
func decodeWrapper(message string, value *uint64) bool {
	f := fields{rest: message}
	for f.next() {
		if f.tag == wrapperValue {
			*value = f.number
		}
	}
	return !f.malformed
}
