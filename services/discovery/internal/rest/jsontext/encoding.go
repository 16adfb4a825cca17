package jsontext

import (
	"bytes"
	"errors"
	"fmt"
	"strconv"
	"unicode/utf8"
)

// CheckText returns an error if a JSON text is no UTF-8, or an escape in it would
// make none of what it says: encoding/json puts another character in its place
// without a word, and some readers refuse it.
func CheckText(text []byte) error {
	if !utf8.Valid(text) {
		return errors.New("not UTF-8")
	}
	for rest := text; ; {
		at := bytes.Index(rest, []byte(`\`))
		if at < 0 {
			return nil
		}
		rest = rest[at:]
		unit := escapedUnit(rest)
		switch {
		case unit < 0:
			rest = rest[min(2, len(rest)):] // another escape, perhaps of a backslash
		case unit >= 0xd800 && unit < 0xdc00:
			if low := escapedUnit(rest[6:]); low < 0xdc00 || low > 0xdfff {
				return fmt.Errorf("holds half of a surrogate pair: %s", rest[:6])
			}
			rest = rest[12:]
		case unit >= 0xdc00 && unit <= 0xdfff:
			return fmt.Errorf("holds half of a surrogate pair: %s", rest[:6])
		default:
			rest = rest[6:]
		}
	}
}

// escapedUnit is the number of a \uXXXX that text begins with, else -1.
func escapedUnit(text []byte) int {
	if len(text) < 6 || text[0] != '\\' || text[1] != 'u' {
		return -1
	}
	unit, err := strconv.ParseUint(string(text[2:6]), 16, 16)
	if err != nil {
		return -1
	}
	return int(unit)
}
