package format

import "unicode/utf8"

const hexDigits = "0123456789abcdef"

// escapeControls writes the control bytes of b from start on as \xHH, so that
// nobody can forge a line of a log or end a header field. A tab may stay.
func escapeControls(b []byte, start int, keepTab bool) []byte {
	for _, c := range b[start:] {
		if control(c, keepTab) {
			return replace(b, start, func(b, value []byte) []byte {
				for _, c := range value {
					if control(c, keepTab) {
						b = append(b, '\\', 'x', hexDigits[c>>4], hexDigits[c&15])
					} else {
						b = append(b, c)
					}
				}
				return b
			})
		}
	}
	return b
}

func control(c byte, keepTab bool) bool {
	return c < ' ' && (c != '\t' || !keepTab) || c == 0x7f
}

// escapeJSON makes b from start on the inside of a JSON string (RFC 8259 §7).
// Bytes that are no UTF-8 become U+FFFD.
func escapeJSON(b []byte, start int) []byte {
	for i := start; i < len(b); i++ {
		if c := b[i]; c < ' ' || c == '"' || c == '\\' || c >= utf8.RuneSelf {
			return replace(b, start, appendJSON)
		}
	}
	return b
}

func appendJSON(b, value []byte) []byte {
	for len(value) > 0 {
		c := value[0]
		switch {
		case c >= utf8.RuneSelf:
			r, n := utf8.DecodeRune(value)
			b = utf8.AppendRune(b, r) // U+FFFD for a wrong byte
			value = value[n:]
			continue
		case c == '"' || c == '\\':
			b = append(b, '\\', c)
		case c == '\n':
			b = append(b, '\\', 'n')
		case c == '\r':
			b = append(b, '\\', 'r')
		case c == '\t':
			b = append(b, '\\', 't')
		case c < ' ':
			b = append(b, '\\', 'u', '0', '0', hexDigits[c>>4], hexDigits[c&15])
		default:
			b = append(b, c)
		}
		value = value[1:]
	}
	return b
}

// replace puts what change makes of b from start on in its place.
func replace(b []byte, start int, change func(b, value []byte) []byte) []byte {
	end := len(b)
	b = change(b, b[start:end:end])
	return b[:start+copy(b[start:], b[end:])]
}
