package grpchttp2

import (
	"encoding/base64"
	"errors"
	"math"
	"strconv"
	"strings"
	"time"

	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"

	"github.com/weirproxy/weir/internal/http2"
)

// statusOf is how a call ends whose handler returned err: well if that is nil, as it
// says itself, or what it is if it comes of a context, else UNKNOWN.
func statusOf(err error) *status.Status {
	if err == nil {
		return nil
	}
	if s, ok := status.FromError(err); ok {
		return s
	}
	return status.FromContextError(err)
}

// appendStatus adds the fields of a status.
func appendStatus(f *http2.Fields, s *status.Status) {
	f.Add("grpc-status", strconv.Itoa(int(s.Code())))
	if s.Message() != "" {
		f.Add("grpc-message", encodeMessage(s.Message()))
	}
	if p := s.Proto(); len(p.GetDetails()) > 0 {
		if b, err := proto.Marshal(p); err == nil { // details are extra: without them the status is still one
			f.Add("grpc-status-details-bin", base64.RawStdEncoding.EncodeToString(b))
		}
	}
}

// encodeMessage is a message as a field may hold it: all but printable ASCII, and
// the percent sign, as bytes in percent encoding.
func encodeMessage(message string) string {
	const hex = "0123456789ABCDEF"
	plain := func(c byte) bool { return c >= ' ' && c <= '~' && c != '%' }
	n := 0
	for n < len(message) && plain(message[n]) {
		n++
	}
	// No field has space at its ends.
	if n == len(message) && message == strings.Trim(message, " ") {
		return message
	}
	var b strings.Builder
	for i := range len(message) {
		c := message[i]
		if plain(c) && (c != ' ' || i > 0 && i < len(message)-1) {
			b.WriteByte(c)
			continue
		}
		b.WriteByte('%')
		b.WriteByte(hex[c>>4])
		b.WriteByte(hex[c&15])
	}
	return b.String()
}

var errTimeout = errors.New("not up to eight digits and a unit")

// parseTimeout reads a grpc-timeout. More than a time.Duration holds is the
// longest.
func parseTimeout(text []byte) (time.Duration, error) {
	n := len(text) - 1
	if n < 1 || n > 8 {
		return 0, errTimeout
	}
	var unit time.Duration
	switch text[n] {
	case 'H':
		unit = time.Hour
	case 'M':
		unit = time.Minute
	case 'S':
		unit = time.Second
	case 'm':
		unit = time.Millisecond
	case 'u':
		unit = time.Microsecond
	case 'n':
		unit = time.Nanosecond
	default:
		return 0, errTimeout
	}
	var count time.Duration
	for _, c := range text[:n] {
		if c < '0' || c > '9' {
			return 0, errTimeout
		}
		count = 10*count + time.Duration(c-'0')
	}
	if count > math.MaxInt64/unit {
		return math.MaxInt64, nil
	}
	return count * unit, nil
}
