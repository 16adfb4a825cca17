package rls

import (
	"fmt"
	"strconv"
	"time"

	"google.golang.org/protobuf/encoding/protowire"

	"github.com/weirproxy/weir/services/ratelimit/internal/limiter"
	"github.com/weirproxy/weir/services/ratelimit/internal/limits"
)

// Fields of the messages that are written, as tags. All are below 128, so that
// each is a byte.
const (
	responseOverallCode     = 1<<3 | varintType
	responseStatuses        = 2<<3 | bytesType
	responseHeaders         = 3<<3 | bytesType
	responseDynamicMetadata = 6<<3 | bytesType

	statusCode       = 1<<3 | varintType
	statusLimit      = 2<<3 | bytesType
	statusRemaining  = 3<<3 | varintType
	statusUntilReset = 4<<3 | bytesType

	currentRequestsPerUnit = 1<<3 | varintType
	currentUnit            = 2<<3 | varintType
	currentName            = 3<<3 | bytesType
	currentUnitMultiplier  = 4<<3 | bytesType

	durationSeconds = 1<<3 | varintType

	headerKey   = 1<<3 | bytesType
	headerValue = 2<<3 | bytesType
)

// appendAnswer appends the message of c.answer to dst, fields in the order of
// their numbers. The error is that dynamic metadata could not be written.
func (s *Service) appendAnswer(dst []byte, c *call, d *dialect) ([]byte, error) {
	dst = appendNumber(dst, responseOverallCode, code(c.answer.Over))
	for i := range c.answer.Statuses {
		dst = appendStatus(dst, &c.answer.Statuses[i], d)
	}
	if tightest := c.answer.Tightest; s.options.Headers != nil && d.headers && tightest >= 0 && tightest < len(c.answer.Statuses) {
		dst = s.options.Headers.append(dst, &c.answer.Statuses[tightest])
	}
	if s.options.DynamicMetadata && d.whole {
		dst, start := begin(dst, responseDynamicMetadata)
		dst, err := c.appendMetadata(dst)
		if err != nil {
			return nil, fmt.Errorf("write dynamic metadata: %w", err)
		}
		return end(dst, start), nil
	}
	return dst, nil
}

// code is UNKNOWN 0, OK 1, OVER_LIMIT 2, never the first.
func code(over bool) uint64 {
	if over {
		return 2
	}
	return 1
}

// resetSeconds is whole seconds, rounded up: who waits for them is in the next
// window.
func resetSeconds(status *limiter.Status) uint64 {
	return uint64((status.ResetIn + time.Second - 1) / time.Second)
}

// appendStatus appends a DescriptorStatus.
func appendStatus(dst []byte, status *limiter.Status, d *dialect) []byte {
	dst, start := begin(dst, responseStatuses)
	dst = appendNumber(dst, statusCode, code(status.Over))
	if status.Limited {
		dst = appendLimit(dst, status, d)
	}
	dst = appendNumber(dst, statusRemaining, uint64(status.Remaining))
	if status.Limited && d.whole {
		dst = appendWrapped(dst, statusUntilReset, durationSeconds, resetSeconds(status))
	}
	return end(dst, start)
}

// appendLimit appends a RateLimit.
func appendLimit(dst []byte, status *limiter.Status, d *dialect) []byte {
	dst, start := begin(dst, statusLimit)
	dst = appendNumber(dst, currentRequestsPerUnit, uint64(status.Rate.Requests))
	dst = appendNumber(dst, currentUnit, uint64(unitFor(status.Rate, d)))
	if d.names && status.Rule != nil && status.Rule.Name != "" {
		dst = appendText(dst, currentName, status.Rule.Name)
	}
	if m := status.Rate.Multiplier; d.whole && m > 1 {
		dst = appendWrapped(dst, currentUnitMultiplier, wrapperValue, uint64(m))
	}
	return end(dst, start)
}

// unitFor is the unit of a rate, or 0, UNKNOWN, where the version has no words
// for its window.
func unitFor(rate limits.Rate, d *dialect) limits.Unit {
	if rate.Unit > d.lastUnit || rate.Multiplier > 1 && !d.whole {
		return 0
	}
	return rate.Unit
}

// append appends the three headers that tell of status.
func (h *Headers) append(dst []byte, status *limiter.Status) []byte {
	dst = appendHeader(dst, h.Limit, uint64(status.Rate.Requests))
	dst = appendHeader(dst, h.Remaining, uint64(status.Remaining))
	return appendHeader(dst, h.Reset, resetSeconds(status))
}

func appendHeader(dst []byte, name string, value uint64) []byte {
	dst, start := begin(dst, responseHeaders)
	dst = appendText(dst, headerKey, name)
	dst, digits := begin(dst, headerValue)
	dst = strconv.AppendUint(dst, value, 10)
	return end(end(dst, digits), start)
}

// appendNumber appends a varint; 0 is left out.
func appendNumber(dst []byte, tag byte, value uint64) []byte {
	if value == 0 {
		return dst
	}
	return protowire.AppendVarint(append(dst, tag), value)
}

// appendWrapped appends a message with one number in it.
func appendWrapped(dst []byte, tag, inner byte, value uint64) []byte {
	dst, start := begin(dst, tag)
	return end(appendNumber(dst, inner, value), start)
}

func appendText(dst []byte, tag byte, text string) []byte {
	dst = protowire.AppendVarint(append(dst, tag), uint64(len(text)))
	return append(dst, text...)
}

// begin begins a field whose length is not known yet. Its bytes are to be
// appended; then end, with start, puts the length before them.
func begin(dst []byte, tag byte) (longer []byte, start int) {
	return append(dst, tag, 0), len(dst) + 2
}

// end ends the field whose bytes begin at start. A length of less than 128 has
// its place there; for a longer one the bytes move.
func end(dst []byte, start int) []byte {
	n := len(dst) - start
	if n < 0x80 {
		dst[start-1] = byte(n)
		return dst
	}
	more := protowire.SizeVarint(uint64(n)) - 1
	dst = append(dst, make([]byte, more)...)
	copy(dst[start+more:], dst[start:start+n])
	protowire.AppendVarint(dst[:start-1], uint64(n))
	return dst
}
