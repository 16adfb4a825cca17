package v2

import (
	"fmt"
	"time"

	"github.com/weirproxy/weir/services/discovery/internal/registry"
)

// timeForm is how times are written: RFC 3339 in UTC, to the millisecond.
const timeForm = "2006-01-02T15:04:05.000Z"

func stamp(t time.Time) string { return t.UTC().Format(timeForm) }

// hexDigits is how many digits a lease or an index has.
const hexDigits = 16

// appendHex appends a lease or an index in quotes, as JSON has it.
func appendHex(b []byte, number uint64) []byte {
	b = append(b, '"')
	for shift := 4 * (hexDigits - 1); shift >= 0; shift -= 4 {
		b = append(b, "0123456789abcdef"[number>>shift&0xf])
	}
	return append(b, '"')
}

// hexText is a lease or an index as text.
func hexText[N registry.Lease | registry.Version](number N) string {
	return fmt.Sprintf("%0*x", hexDigits, uint64(number))
}

// readHex reads what appendHex writes between the quotes.
func readHex[T string | ~[]byte](digits T) (number uint64, ok bool) {
	if len(digits) != hexDigits {
		return 0, false
	}
	for _, c := range []byte(digits) {
		switch {
		case c >= '0' && c <= '9':
			number = number<<4 | uint64(c-'0')
		case c >= 'a' && c <= 'f':
			number = number<<4 | uint64(c-'a'+10)
		default:
			return 0, false
		}
	}
	return number, true
}
