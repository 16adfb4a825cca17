package jsontext

import (
	"encoding/json"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

func TestValuesThatSomeReaderCouldNotTakeAreRefused(t *testing.T) {
	nested := func(depth int) string { return strings.Repeat("[", depth) + strings.Repeat("]", depth) }
	for text, want := range map[string]string{
		`{"a":1,"b":2,"\u0061":3}`:               `holds an object that has "a" twice`,
		`[1,{"b":{"c":[],"a":{},"a":0}}]`:        `holds an object that has "a" twice`,
		`1e999`:                                  `holds 1e999, which is beyond signed numbers of 64 bits`,
		`{"a":[-1e999]}`:                         `holds -1e999, which is beyond signed numbers of 64 bits`,
		`9223372036854775808`:                    `holds 9223372036854775808, which is beyond signed numbers of 64 bits`,
		`[-9223372036854775809]`:                 `holds -9223372036854775809, which is beyond signed numbers of 64 bits`,
		`{"a":1` + strings.Repeat("0", 99) + `}`: `holds 1` + strings.Repeat("0", 39) + `, which is beyond signed numbers of 64 bits`,
		nested(33):                               `holds values in each other more than 32 deep`,
		nested(9000):                             `holds values in each other more than 32 deep`,
	} {
		require.EqualError(t, CheckValue([]byte(text)), want)
	}
	for _, text := range []string{
		`""`, `"a"`, `null`, `true`, `false`, `0`, `-0`, `-1.5e300`, `1e-999`,
		`9223372036854775807`, `-9223372036854775808`, `9223372036854775808.0`, `[]`, `{}`, nested(32),
		`{"a":{"a":{"a":["a","a",{"a":"a"}]}},"b":[{"a":1},{"a":1}]}`,
	} {
		require.NoError(t, CheckValue([]byte(text)), text)
	}
}

// FuzzCheckValue wants of what is not refused that encoding/json reads it, and
// writes as many members as it read.
func FuzzCheckValue(f *testing.F) {
	for _, text := range []string{`{"a":{"b":[1,"x",null]},"c":1}`, `[[[{"a":1,"a":2}]]]`, `1e400`, `"a"`, `-0`} {
		f.Add([]byte(text))
	}
	f.Fuzz(func(t *testing.T, text []byte) {
		var raw json.RawMessage
		if json.Unmarshal(text, &raw) != nil || CheckValue(raw) != nil {
			return
		}
		var read any
		require.NoError(t, json.Unmarshal(raw, &read))
		again, err := json.Marshal(read)
		require.NoError(t, err)
		require.Equal(t, members(raw), members(again))
	})
}

// members counts all members of all objects in a JSON value.
func members(value []byte) (n int) {
	quoted := false
	for i := 0; i < len(value); i++ {
		switch c := value[i]; {
		case quoted && c == '\\':
			i++
		case c == '"':
			quoted = !quoted
		case c == ':' && !quoted:
			n++
		}
	}
	return n
}
