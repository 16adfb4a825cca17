package v1

import (
	"bytes"
	"encoding/json"
	"errors"
	"iter"
	"strings"
)

// checkObject returns why text is not a JSON object, or nil if it is one.
func checkObject(text string) error {
	if trimmed := strings.TrimLeft(text, jsonSpace); strings.HasPrefix(trimmed, "{") && json.Valid([]byte(text)) {
		return nil
	}
	var object map[string]json.RawMessage
	if err := json.Unmarshal([]byte(text), &object); err != nil {
		return err
	}
	return errors.New("null") // which leaves a map as it is
}

// members goes through the members of a JSON object, in their order: what the
// name says, and the value as it is written. Both are parts of object, which
// must be valid, unless the name holds escapes.
func members(object string) iter.Seq2[string, string] {
	return func(yield func(name, value string) bool) {
		rest := strings.TrimLeft(object, jsonSpace)[1:] // behind the brace
		for {
			rest = strings.TrimLeft(rest, jsonSpace+",")
			if rest[0] == '}' {
				return
			}
			name := rest[:valueEnd(rest)]
			rest = strings.TrimLeft(rest[len(name):], jsonSpace+":")
			value := rest[:valueEnd(rest)]
			rest = rest[len(value):]
			if !yield(textOf(name), value) {
				return
			}
		}
	}
}

// jsonSpace is what may stand between the tokens of JSON (RFC 8259 §2).
const jsonSpace = " \t\r\n"

// valueEnd returns the length of the JSON value that text begins with.
func valueEnd(text string) int {
	depth, quoted := 0, false
	for i := 0; i < len(text); i++ {
		switch c := text[i]; {
		case quoted && c == '\\':
			i++
		case c == '"':
			quoted = !quoted
			if !quoted && depth == 0 {
				return i + 1
			}
		case quoted:
		case c == '{' || c == '[':
			depth++
		case c == '}' || c == ']':
			if depth == 0 {
				return i // the end of what the value is in
			}
			if depth--; depth == 0 {
				return i + 1
			}
		case depth == 0 && strings.IndexByte(jsonSpace+",", c) >= 0:
			return i
		}
	}
	return len(text)
}

// isText reports whether a JSON value is a string.
func isText(value string) bool { return value[0] == '"' }

// textOf returns what a JSON string says.
func textOf(value string) string {
	if strings.IndexByte(value, '\\') < 0 {
		return value[1 : len(value)-1]
	}
	var text string
	_ = json.Unmarshal([]byte(value), &text) // a valid string always can be
	return text
}

// compact returns a copy of a JSON value without the space between its tokens.
func compact(value string) json.RawMessage {
	if value[0] != '{' && value[0] != '[' {
		return json.RawMessage(value)
	}
	var b bytes.Buffer
	_ = json.Compact(&b, []byte(value)) // a valid value always can be
	return b.Bytes()
}
