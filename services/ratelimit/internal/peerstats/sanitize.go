package peerstats

import (
	"strings"
	"unicode"
)

// Sanitize makes text fit to be a flat name, as the peer does: colon and pipe
// become underscores, and so do the dots of IPv4 addresses, which would read
// as more depths. What is no printable character becomes one too, since a line
// break would end the statistic's line.
func Sanitize(text string) string {
	text = strings.Map(func(r rune) rune {
		if r == ':' || r == '|' || !unicode.IsPrint(r) {
			return '_'
		}
		return r
	}, text)
	var out []byte // nil as long as it is the same
	for at := 0; at < len(text); {
		n := addressLength(text[at:])
		if n == 0 {
			at++
			continue
		}
		if out == nil {
			out = []byte(text)
		}
		for i := at; i < at+n; i++ {
			if out[i] == '.' {
				out[i] = '_'
			}
		}
		at += n
	}
	if out == nil {
		return text
	}
	return string(out)
}

// addressLength is how many bytes at the start of text look like an IPv4
// address: four groups of one to three digits between dots. 0 if they don't.
// Digits may stand before and after.
func addressLength(text string) int {
	n := 0
	for group := range 4 {
		if group > 0 {
			if n >= len(text) || text[n] != '.' {
				return 0
			}
			n++
		}
		digits := 0
		for digits < 3 && n < len(text) && text[n] >= '0' && text[n] <= '9' {
			digits++
			n++
		}
		if digits == 0 {
			return 0
		}
	}
	return n
}
