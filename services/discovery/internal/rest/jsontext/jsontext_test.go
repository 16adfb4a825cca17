package jsontext

import (
	"encoding/json"
	"testing"
	"unicode/utf8"

	"github.com/stretchr/testify/require"

	"github.com/weirproxy/weir/internal/servicetest"
)

func TestMain(m *testing.M) { servicetest.Main(m) }

func TestReadObject(t *testing.T) {
	for name, test := range map[string]struct {
		text  string
		want  map[string]string
		twice []string
		err   string
	}{
		"members":              {text: ` {"a": 1, "b":{"a":[":"]} } `, want: map[string]string{"a": "1", "b": `{"a":[":"]}`}},
		"no members":           {text: `{}`, want: map[string]string{}},
		"names twice":          {text: `{"b":1,"a:b":{"x":":","x":1},"\u0061:b":["\\\":",{}],"b":":","c":0}`, want: map[string]string{"a:b": `["\\\":",{}]`, "b": `":"`, "c": "0"}, twice: []string{"a:b", "b"}},
		"null":                 {text: `null`, err: "not a JSON object: null"},
		"an array":             {text: ` ["a"]`, err: "not a JSON object: an array"},
		"a string":             {text: `"{}"`, err: "not a JSON object: a string"},
		"a boolean":            {text: `true`, err: "not a JSON object: a boolean"},
		"a number":             {text: `-1`, err: "not a JSON object: a number"},
		"nothing":              {text: ``, err: "not a JSON object: unexpected end of JSON input"},
		"half an object":       {text: `{"a":1`, err: "not a JSON object: unexpected end of JSON input"},
		"more than one object": {text: `{} {}`, err: "not a JSON object: invalid character '{' after top-level value"},
	} {
		t.Run(name, func(t *testing.T) {
			members, twice, err := ReadObject([]byte(test.text))
			if test.err != "" {
				require.EqualError(t, err, test.err)
				return
			}
			require.NoError(t, err)
			require.Equal(t, test.twice, twice)
			got := map[string]string{}
			for name, value := range members {
				got[name] = string(value)
			}
			require.Equal(t, test.want, got)
		})
	}
}

// FuzzReadObject holds ReadObject against encoding/json: what it reads are the
// members, and a name is twice only if another decoder sees it twice.
func FuzzReadObject(f *testing.F) {
	for _, text := range []string{`{"a":1,"a":2}`, `{"a":{"a":[1,{}]},"\u0061":"\"}"}`, "[]", "null", "{", `{"a":"\\"}`, " {} "} {
		f.Add([]byte(text))
	}
	f.Fuzz(func(t *testing.T, text []byte) {
		members, twice, err := ReadObject(text)
		var want map[string]any
		if wantErr := json.Unmarshal(text, &want); wantErr != nil || want == nil {
			require.Error(t, err)
			return
		}
		require.NoError(t, err)
		require.Len(t, members, len(want))
		for _, name := range twice {
			require.Contains(t, members, name)
			require.True(t, utf8.ValidString(name))
		}
		if len(twice) == 0 {
			require.Equal(t, len(members), count(text))
		}
	})
}
