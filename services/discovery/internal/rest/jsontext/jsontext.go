// Package jsontext reads JSON more strictly than encoding/json does: it tells of
// names that an object has twice, and of values that some readers could not
// take. The REST faces read bodies with it. It knows nothing of hosts.
package jsontext

import (
	"bytes"
	"encoding/json"
	"fmt"
	"iter"
	"slices"
	"strings"
	"unicode/utf8"
)

// MaxTwice is how many names that are there twice are told of: to look for more
// among those already told takes longer the more there are.
const MaxTwice = 100

// ReadObject reads a JSON object into its members. twice are the names that
// there are more than one of, in order, the first MaxTwice of them; of their
// values the last is kept. The error is that of CheckObject.
func ReadObject(text []byte) (members map[string]json.RawMessage, twice []string, err error) {
	if err := CheckObject(text); err != nil {
		return nil, nil, err
	}
	members = map[string]json.RawMessage{}
	for name, value := range Members(string(text)) {
		if _, known := members[name]; known && len(twice) < MaxTwice && !slices.Contains(twice, name) {
			twice = append(twice, name)
		}
		members[name] = json.RawMessage(value)
	}
	slices.Sort(twice)
	return members, twice, nil
}

// CheckObject returns an error that says why text is not a JSON object, or nil
// if it is one.
func CheckObject(text []byte) error {
	if !json.Valid(text) {
		var value json.RawMessage
		return fmt.Errorf("not a JSON object: %w", json.Unmarshal(text, &value)) // which says why
	}
	if first := bytes.TrimLeft(text, space)[0]; first != '{' {
		return fmt.Errorf("not a JSON object: %s", kind(first))
	}
	return nil
}

// kind says what a JSON text is that begins so and is no object.
func kind(first byte) string {
	switch first {
	case '[':
		return "an array"
	case '"':
		return "a string"
	case 't', 'f':
		return "a boolean"
	case 'n':
		return "null"
	default:
		return "a number"
	}
}

// Members goes through the members of a JSON object, in their order: what the
// name says, and the value as it is written. Both are parts of object, which
// must be valid, unless the name holds escapes.
func Members(object string) iter.Seq2[string, string] {
	return func(yield func(name, value string) bool) {
		name, value, rest := next(object)
		for rest != "" && yield(name, value) {
			name, value, rest = next(rest)
		}
	}
}

// next returns the member that an object's text begins with, be it the whole or
// what is left of it, and what is left then; nothing if there is no member.
func next(text string) (name, value, rest string) {
	text = strings.TrimLeft(text, space+"{,")
	if text[0] == '}' {
		return "", "", ""
	}
	quoted := text[:valueEnd(text)]
	text = strings.TrimLeft(text[len(quoted):], space+":")
	value = text[:valueEnd(text)]
	name, _ = Text(quoted)
	return name, value, text[len(value):]
}

// Text returns what a JSON string says, as a part of value unless it holds
// escapes. It returns false for a value that is no string.
func Text(value string) (string, bool) {
	if value[0] != '"' {
		return "", false
	}
	if text := value[1 : len(value)-1]; strings.IndexByte(text, '\\') < 0 && utf8.ValidString(text) {
		return text, true
	}
	var text string
	_ = json.Unmarshal([]byte(value), &text) // a valid string always can be
	return text, true
}

// space is what may stand between the tokens of JSON (RFC 8259 §2).
const space = " \t\r\n"

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
		case depth == 0 && strings.IndexByte(space+",", c) >= 0:
			return i
		}
	}
	return len(text)
}

// Compact returns a copy of a JSON value without the space between its tokens.
func Compact(value string) json.RawMessage {
	if value[0] != '{' && value[0] != '[' {
		return json.RawMessage(value)
	}
	var b bytes.Buffer
	_ = json.Compact(&b, []byte(value)) // a valid value always can be
	return b.Bytes()
}
