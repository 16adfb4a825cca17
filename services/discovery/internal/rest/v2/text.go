package v2

import (
	"fmt"
	"strconv"
	"strings"
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

func leaseText(l registry.Lease) string   { return fmt.Sprintf("%016x", uint64(l)) }
func indexText(v registry.Version) string { return fmt.Sprintf("%016x", uint64(v)) }

// readHex reads what appendHex writes between the quotes.
func readHex(text string) (number uint64, ok bool) {
	if len(text) != hexDigits || strings.ContainsAny(text, "ABCDEF") {
		return 0, false
	}
	number, err := strconv.ParseUint(text, 16, 64)
	return number, err == nil
}
