package v2

import (
	"fmt"
	"time"

	"github.com/weirproxy/weir/services/discovery/internal/httpjson"
	"github.com/weirproxy/weir/services/discovery/internal/registry"
)

// timeForm is how times are written: RFC 3339 in UTC, to the millisecond.
var timeForm = httpjson.RFC3339(3)

// stamp is a time as text.
func stamp(t time.Time) string { return string(appendStamp(nil, t)) }

// appendStamp appends what stamp is.
func appendStamp(b []byte, t time.Time) []byte { return timeForm.AppendTime(b, t) }

// hexDigits is how many digits a lease or an index has.
const hexDigits = 16

// hexText is a lease or an index as text.
func hexText[N registry.Lease | registry.Version](number N) string {
	return fmt.Sprintf("%0*x", hexDigits, uint64(number))
}

// readHex reads what httpjson.AppendHex writes between the quotes.
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
