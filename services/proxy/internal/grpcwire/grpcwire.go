// Package grpcwire is what gRPC says over HTTP/2 of statuses, messages and timeouts
// (grpc/doc/PROTOCOL-HTTP2.md). Filters, formats and the router read and write it in
// requests of clients, and grpccall in the proxy's own. It calls nobody.
package grpcwire

import (
	"math"
	"strconv"
	"strings"
	"time"
)

// ContentType is that of messages of gRPC.
const ContentType = "application/grpc"

// IsContentType says whether a content-type is one of gRPC, as Envoy has it: ContentType,
// or that with a format of messages behind it ("+proto"), but not with parameters.
func IsContentType(value []byte) bool {
	rest, ok := strings.CutPrefix(string(value), ContentType)
	return ok && (rest == "" || rest[0] == '+')
}

// Status reads a grpc-status; what is no number is no status.
func Status(value []byte) (code int64, ok bool) {
	if len(value) == 0 || len(value) > 9 {
		return 0, false
	}
	for _, c := range value {
		if c < '0' || c > '9' {
			return 0, false
		}
		code = code*10 + int64(c-'0')
	}
	return code, true
}

// OfHTTP is the status that a client takes one of HTTP for, where there is no grpc-status
// (grpc/doc/http-grpc-status-mapping.md): even 200 is UNKNOWN.
func OfHTTP(status int) int64 {
	switch status {
	case 400:
		return 13 // INTERNAL
	case 401:
		return 16 // UNAUTHENTICATED
	case 403:
		return 7 // PERMISSION_DENIED
	case 404:
		return 12 // UNIMPLEMENTED
	case 429, 502, 503, 504:
		return 14 // UNAVAILABLE
	}
	return 2 // UNKNOWN
}

// httpStatuses are those of HTTP that the statuses of gRPC stand for (google.rpc.Code).
var httpStatuses = [...]int{
	200, 499, 500, 400, 504, 404, 409, 403, 429, 400, 409, 400, 501, 500, 503, 500, 401,
}

// HTTP is the status of HTTP that one of gRPC stands for; of one that is not known it is
// 500.
func HTTP(code int64) int {
	if code < 0 || code >= int64(len(httpStatuses)) {
		return 500
	}
	return httpStatuses[code]
}

// Escape is a text as grpc-message has it: all but printable ASCII, and %, as %XX.
func Escape(text string) string {
	const digits = "0123456789ABCDEF"
	var b strings.Builder
	for _, c := range []byte(text) {
		if c < ' ' || c > '~' || c == '%' {
			b.Write([]byte{'%', digits[c>>4], digits[c&15]})
		} else {
			b.WriteByte(c)
		}
	}
	return b.String()
}

// Unescape is the text of a grpc-message. What is malformed stays as it is.
func Unescape(value []byte) string {
	var b strings.Builder
	for len(value) > 0 {
		if value[0] == '%' && len(value) >= 3 {
			if c, err := strconv.ParseUint(string(value[1:3]), 16, 8); err == nil {
				b.WriteByte(byte(c))
				value = value[3:]
				continue
			}
		}
		b.WriteByte(value[0])
		value = value[1:]
	}
	return b.String()
}

// Timeout is a duration as grpc-timeout has it, in the finest unit, from milliseconds up,
// of which it has no more than eight digits.
func Timeout(d time.Duration) string {
	const most = 99_999_999
	for _, unit := range []struct {
		length time.Duration
		name   string
	}{{time.Millisecond, "m"}, {time.Second, "S"}, {time.Minute, "M"}} {
		n := d / unit.length
		if d > 0 && n == 0 {
			n = 1 // for none is left where it says 0
		}
		if n <= most {
			return strconv.FormatInt(int64(n), 10) + unit.name
		}
	}
	return strconv.FormatInt(int64(min(d/time.Hour, most)), 10) + "H"
}

// ParseTimeout reads a grpc-timeout, up to eight digits and a unit; anything else is
// none. What is longer than the longest duration is that one.
func ParseTimeout(value []byte) (time.Duration, bool) {
	digits := len(value) - 1
	if digits < 1 || digits > 8 {
		return 0, false
	}
	unit := unitOf(value[digits])
	if unit == 0 {
		return 0, false
	}
	number := int64(0)
	for _, c := range value[:digits] {
		if c < '0' || c > '9' {
			return 0, false
		}
		number = number*10 + int64(c-'0')
	}
	if number > int64(math.MaxInt64/unit) {
		return math.MaxInt64, true
	}
	return time.Duration(number) * unit, true
}

// unitOf is a unit of grpc-timeout; 0 is none.
func unitOf(c byte) time.Duration {
	switch c {
	case 'H':
		return time.Hour
	case 'M':
		return time.Minute
	case 'S':
		return time.Second
	case 'm':
		return time.Millisecond
	case 'u':
		return time.Microsecond
	case 'n':
		return time.Nanosecond
	}
	return 0
}
