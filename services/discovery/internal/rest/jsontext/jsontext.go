// Package jsontext reads JSON more strictly than encoding/json does: it tells of
// names that an object has twice, and of values that some readers could not
// take. The REST faces read bodies with it. It knows nothing of hosts.
package jsontext

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"slices"
)

// ReadObject reads a JSON object into its members. twice are the names that
// there are more than one of, in order; of their values the last is kept. The
// error says why text is no object; it names the text where that is short.
func ReadObject(text []byte) (members map[string]json.RawMessage, twice []string, err error) {
	if err := json.Unmarshal(text, &members); err != nil {
		if _, ok := errors.AsType[*json.UnmarshalTypeError](err); ok {
			return nil, nil, fmt.Errorf("not a JSON object: %s", kind(text))
		}
		return nil, nil, fmt.Errorf("not a JSON object: %w", err)
	}
	if members == nil {
		return nil, nil, errors.New("not a JSON object: null")
	}
	if count(text) != len(members) {
		twice = repeated(text)
	}
	return members, twice, nil
}

// kind says what a JSON text is that is no object.
func kind(text []byte) string {
	switch c := bytes.TrimSpace(text)[0]; c {
	case '[':
		return "an array"
	case '"':
		return "a string"
	case 't', 'f':
		return "a boolean"
	default:
		return "a number"
	}
}

// count counts the members of a JSON object, which must be one.
func count(object []byte) int {
	members, depth, quoted := 0, 0, false
	for i := 0; i < len(object); i++ {
		switch c := object[i]; {
		case quoted && c == '\\':
			i++
		case c == '"':
			quoted = !quoted
		case quoted:
		case c == '{' || c == '[':
			depth++
		case c == '}' || c == ']':
			depth--
		case c == ':' && depth == 1:
			members++
		}
	}
	return members
}

// repeated are the names that a JSON object has more than once, in order.
func repeated(object []byte) []string {
	decoder := json.NewDecoder(bytes.NewReader(object))
	_, err := decoder.Token() // the brace; nothing fails here, since the object was read before
	times := map[string]int{}
	for err == nil && decoder.More() {
		var name json.Token
		if name, err = decoder.Token(); err == nil {
			times[fmt.Sprint(name)]++
			err = decoder.Decode(new(json.RawMessage))
		}
	}
	maps.DeleteFunc(times, func(_ string, n int) bool { return n == 1 })
	return slices.Sorted(maps.Keys(times))
}
