// Package normalize brings paths and hosts of requests into one form, so that
// routes, filters and servers read them alike. The connection manager calls it
// before anything else sees a request. It is pure: it decides what a text
// becomes, never what is done with the request.
package normalize

import (
	"bytes"
	"slices"
)

// EscapedSlashes is what happens to %2F and %5C in a path
// (path_with_escaped_slashes_action).
type EscapedSlashes int

// The ways to deal with escaped slashes.
const (
	KeepEscaped EscapedSlashes = iota
	Reject
	UnescapeAndRedirect
	UnescapeAndForward
)

// Paths is how paths are normalised. The zero value leaves them alone.
type Paths struct {
	EscapedSlashes EscapedSlashes
	// Normalize removes dot segments, and decodes and encodes by RFC 3986 §6.2.2
	// as browsers do (normalize_path).
	Normalize bool
	// MergeSlashes makes one slash of several (merge_slashes).
	MergeSlashes bool
}

// Outcome is what is to become of a request.
type Outcome int

// The outcomes.
const (
	Forward  Outcome = iota
	Redirect         // to the path
	Refuse           // as a bad request
)

// Path brings a path with its query into its form, which is in new memory if it
// differs. The query is not looked at. Steps, as in Envoy: escaped slashes, then
// dot segments and escapes, then slashes.
func (p Paths) Path(path []byte) ([]byte, Outcome) {
	if len(path) == 0 || path[0] != '/' { // "*", and that of a CONNECT
		return path, Forward
	}
	text, query := path, []byte(nil)
	if i := bytes.IndexByte(path, '?'); i >= 0 {
		text, query = path[:i], path[i:]
	}
	outcome := Forward
	changed := false
	if p.EscapedSlashes != KeepEscaped && hasEscapedSlash(text) {
		if p.EscapedSlashes == Reject {
			return path, Refuse
		}
		if p.EscapedSlashes == UnescapeAndRedirect {
			outcome = Redirect
		}
		text, changed = unescapeSlashes(text), true
	}
	if p.Normalize && !normal(text) {
		var ok bool
		if text, ok = escapes(text); !ok {
			return path, Refuse
		}
		text, changed = dotSegments(text), true
	}
	if p.MergeSlashes && bytes.Contains(text, []byte("//")) {
		text, changed = mergeSlashes(text), true
	}
	if !changed {
		return path, outcome
	}
	return append(slices.Clip(text), query...), outcome
}

// escapedSlash is the slash that an escape at the start of b stands for, 0 if it
// is none.
func escapedSlash(b []byte) byte {
	if len(b) < 3 || b[0] != '%' {
		return 0
	}
	switch string(b[1:3]) {
	case "2f", "2F":
		return '/'
	case "5c", "5C":
		return '\\'
	}
	return 0
}

func hasEscapedSlash(path []byte) bool {
	for i := range path {
		if escapedSlash(path[i:]) != 0 {
			return true
		}
	}
	return false
}

func unescapeSlashes(path []byte) []byte {
	out := make([]byte, 0, len(path))
	for i := 0; i < len(path); i++ {
		if c := escapedSlash(path[i:]); c != 0 {
			out = append(out, c)
			i += 2
		} else {
			out = append(out, path[i])
		}
	}
	return out
}

// normal says whether a path is in its form already, as nearly all are: without
// escapes, characters to be escaped, and segments that begin with a dot.
func normal(path []byte) bool {
	for i, c := range path {
		if treatment[c] != keep || c == '%' || c == '.' && path[max(i-1, 0)] == '/' {
			return false
		}
	}
	return true
}

// How a character of a path is written.
const (
	keep   = iota
	escape // as %XX
	slash  // as a slash
)

// treatment is how the URL standard's path percent-encode set has it, with the
// backslash as a slash.
var treatment = func() (t [256]byte) {
	for c := range t {
		if c <= ' ' || c >= 0x7f {
			t[c] = escape
		}
	}
	for _, c := range "\"<>`{}|^#" {
		t[c] = escape
	}
	t['\\'] = slash
	return t
}()

// unreserved marks the characters that need no escape (RFC 3986 §2.3).
var unreserved = func() (t [256]bool) {
	for _, c := range "-._~0123456789abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ" {
		t[c] = true
	}
	return t
}()

// escapes decodes what needs no escape, and escapes what needs one. A percent
// sign that begins no escape stays, unless what is decoded behind it would make
// it one: then it is escaped itself. A NUL, escaped or not, makes the path bad.
func escapes(path []byte) (_ []byte, ok bool) {
	const digits = "0123456789ABCDEF"
	out := make([]byte, 0, len(path)+8)
	bare := -1 // where the last bare percent sign stands in out
	for i := 0; i < len(path); i++ {
		c := path[i]
		if c == '%' && i+2 < len(path) {
			high, low := hex(path[i+1]), hex(path[i+2])
			if high >= 0 && low >= 0 {
				decoded := byte(high<<4 | low)
				switch {
				case decoded == 0:
					return nil, false
				case unreserved[decoded]:
					out = append(out, decoded)
					if becomesEscape(out[max(bare, 0):], path[i+3:]) {
						out = slices.Insert(out, bare+1, '2', '5')
					}
				default:
					out = append(out, path[i:i+3]...)
				}
				i += 2
				continue
			}
		}
		switch c {
		case 0:
			return nil, false
		case '%':
			bare = len(out)
		}
		switch treatment[c] {
		case escape:
			out = append(out, '%', digits[c>>4], digits[c&15])
		case slash:
			out = append(out, '/')
		default:
			out = append(out, c)
		}
	}
	return out, true
}

// becomesEscape says whether end, what is written since a percent sign that began
// no escape, begins one together with the character that comes next.
func becomesEscape(end, next []byte) bool {
	if end[0] != '%' || len(end) > 3 || len(end) == 2 && len(next) == 0 {
		return false
	}
	second := next
	if len(end) == 3 {
		second = end[2:]
	}
	return hex(end[1]) >= 0 && hex(second[0]) >= 0
}

func hex(c byte) int {
	switch {
	case '0' <= c && c <= '9':
		return int(c - '0')
	case 'a' <= c && c <= 'f':
		return int(c-'a') + 10
	case 'A' <= c && c <= 'F':
		return int(c-'A') + 10
	}
	return -1
}

// dotSegments removes "." and ".." (RFC 3986 §5.2.4), in place, with parameters
// ("..;a=b") too: there are servers that do not look at those.
func dotSegments(path []byte) []byte {
	out := path[:0]
	for at := 0; at < len(path); {
		// path[at] is a slash: the segment goes to the next one.
		end := at + 1
		for end < len(path) && path[end] != '/' {
			end++
		}
		name, _, _ := bytes.Cut(path[at+1:end], []byte(";"))
		switch last := end == len(path); string(name) {
		case ".":
			if last {
				out = append(out, '/')
			}
		case "..":
			out = out[:max(bytes.LastIndexByte(out, '/'), 0)]
			if last {
				out = append(out, '/')
			}
		default:
			out = append(out, path[at:end]...)
		}
		at = end
	}
	return out
}

func mergeSlashes(path []byte) []byte {
	out := make([]byte, 0, len(path))
	for i, c := range path {
		if c != '/' || i == 0 || path[i-1] != '/' {
			out = append(out, c)
		}
	}
	return out
}
