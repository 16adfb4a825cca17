package rls

import (
	"fmt"
	"strconv"
	"time"

	"google.golang.org/protobuf/encoding/protowire"

	"github.com/weirproxy/weir/services/ratelimit/internal/limiter"
	"github.com/weirproxy/weir/services/ratelimit/internal/limits"
)

// Numbers of the fields that are written, as protowire's functions take them.
const (
	responseOverallCode     protowire.Number = 1
	responseStatuses        protowire.Number = 2
	responseHeaders         protowire.Number = 3
	responseDynamicMetadata protowire.Number = 6

	statusCode       protowire.Number = 1
	statusLimit      protowire.Number = 2
	statusRemaining  protowire.Number = 3
	statusUntilReset protowire.Number = 4

	currentRequestsPerUnit protowire.Number = 1
	currentUnit            protowire.Number = 2
	currentName            protowire.Number = 3
	currentUnitMultiplier  protowire.Number = 4

	headerKey   protowire.Number = 1
	headerValue protowire.Number = 2

	wrapped protowire.Number = 1
)

// appendAnswer appends the message of c.answer to dst, fields in the order of
// their numbers. The error is that dynamic metadata could not be written.
func (s *Service) appendAnswer(dst []byte, c *call, d *dialect) ([]byte, error) {
	dst = appendNumber(dst, responseOverallCode, code(c.answer.Over))
	for i := range c.answer.Statuses {
		status := &c.answer.Statuses[i]
		dst = appendLength(dst, responseStatuses, sizeStatus(status, d))
		dst = appendStatus(dst, status, d)
	}
	if tightest := c.answer.Tightest; s.options.Headers != nil && d.headers && tightest >= 0 && tightest < len(c.answer.Statuses) {
		dst = s.options.Headers.append(dst, &c.answer.Statuses[tightest])
	}
	if s.options.DynamicMetadata && d.whole {
		metadata, err := c.appendMetadata(nil)
		if err != nil {
			return nil, fmt.Errorf("write dynamic metadata: %w", err)
		}
		dst = appendLength(dst, responseDynamicMetadata, len(metadata))
		dst = append(dst, metadata...)
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

// sizeStatus is the length of what appendStatus appends.
func sizeStatus(status *limiter.Status, d *dialect) int {
	size := sizeNumber(code(status.Over)) + sizeNumber(uint64(status.Remaining))
	if status.Limited {
		size += sizeMessage(sizeLimit(status, d))
		if d.whole {
			size += sizeMessage(sizeNumber(resetSeconds(status)))
		}
	}
	return size
}

// appendStatus appends a DescriptorStatus.
func appendStatus(dst []byte, status *limiter.Status, d *dialect) []byte {
	dst = appendNumber(dst, statusCode, code(status.Over))
	if status.Limited {
		dst = appendLength(dst, statusLimit, sizeLimit(status, d))
		dst = appendLimit(dst, status, d)
	}
	dst = appendNumber(dst, statusRemaining, uint64(status.Remaining))
	if status.Limited && d.whole {
		seconds := resetSeconds(status)
		dst = appendLength(dst, statusUntilReset, sizeNumber(seconds))
		dst = appendNumber(dst, wrapped, seconds)
	}
	return dst
}

// sizeLimit is the length of what appendLimit appends.
func sizeLimit(status *limiter.Status, d *dialect) int {
	size := sizeNumber(uint64(status.Rate.Requests)) + sizeNumber(uint64(unitFor(status.Rate, d)))
	if name := limitName(status, d); name != "" {
		size += sizeMessage(len(name))
	}
	if d.whole && status.Rate.Multiplier > 1 {
		size += sizeMessage(sizeNumber(uint64(status.Rate.Multiplier)))
	}
	return size
}

// appendLimit appends a RateLimit.
func appendLimit(dst []byte, status *limiter.Status, d *dialect) []byte {
	dst = appendNumber(dst, currentRequestsPerUnit, uint64(status.Rate.Requests))
	dst = appendNumber(dst, currentUnit, uint64(unitFor(status.Rate, d)))
	if name := limitName(status, d); name != "" {
		dst = appendLength(dst, currentName, len(name))
		dst = append(dst, name...)
	}
	if m := uint64(status.Rate.Multiplier); d.whole && m > 1 {
		dst = appendLength(dst, currentUnitMultiplier, sizeNumber(m))
		dst = appendNumber(dst, wrapped, m)
	}
	return dst
}

// unitFor is the unit of a rate, or 0, UNKNOWN, where the version has no words
// for its window.
func unitFor(rate limits.Rate, d *dialect) limits.Unit {
	if rate.Unit > d.lastUnit || rate.Multiplier > 1 && !d.whole {
		return 0
	}
	return rate.Unit
}

// limitName is the name that the rule gives its limit, if the version tells it.
func limitName(status *limiter.Status, d *dialect) string {
	if !d.names || status.Rule == nil {
		return ""
	}
	return status.Rule.Name
}

// append appends the three headers that tell of status.
func (h *Headers) append(dst []byte, status *limiter.Status) []byte {
	for _, header := range [...]struct {
		name  string
		value uint64
	}{
		{h.Limit, uint64(status.Rate.Requests)},
		{h.Remaining, uint64(status.Remaining)},
		{h.Reset, resetSeconds(status)},
	} {
		var digits [20]byte
		value := strconv.AppendUint(digits[:0], header.value, 10)
		dst = appendLength(dst, responseHeaders, sizeMessage(len(header.name))+sizeMessage(len(value)))
		dst = appendLength(dst, headerKey, len(header.name))
		dst = append(dst, header.name...)
		dst = appendLength(dst, headerValue, len(value))
		dst = append(dst, value...)
	}
	return dst
}

// sizeNumber is the length of a field with a number below 16; 0 is left out.
func sizeNumber(value uint64) int {
	if value == 0 {
		return 0
	}
	return 1 + protowire.SizeVarint(value)
}

// sizeMessage is the length of a field with a number below 16 and so many
// bytes.
func sizeMessage(length int) int { return 1 + protowire.SizeBytes(length) }

func appendNumber(dst []byte, field protowire.Number, value uint64) []byte {
	if value == 0 {
		return dst
	}
	dst = protowire.AppendTag(dst, field, protowire.VarintType)
	return protowire.AppendVarint(dst, value)
}

// appendLength begins a field of so many bytes.
func appendLength(dst []byte, field protowire.Number, length int) []byte {
	dst = protowire.AppendTag(dst, field, protowire.BytesType)
	return protowire.AppendVarint(dst, uint64(length))
}
