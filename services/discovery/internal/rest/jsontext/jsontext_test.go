package jsontext

import (
	"bytes"
	"encoding/json"
	"fmt"
	"slices"
	"testing"

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

func TestSoManyNamesThatAreThereTwiceAreToldOf(t *testing.T) {
	text := []byte("{")
	for i := range 2 * (MaxTwice + 1) {
		text = fmt.Appendf(text, `"%04d":%d,`, i/2, i)
	}
	members, twice, err := ReadObject(append(text, `"last":0}`...))
	require.NoError(t, err)
	require.Len(t, twice, MaxTwice)
	require.Equal(t, "0000", twice[0])
	require.Len(t, members, MaxTwice+2)
	require.Equal(t, "201", string(members["0100"]), "the last value, of the others too")
}

func TestMembersAreReadWithoutAllocating(t *testing.T) {
	const object = ` { "az" : "eu-1" , "other":{"a":["]", "\""]},"n":1,"last":true } `
	count := 0
	servicetest.Allocations(t, 0, func() {
		for name, value := range Members(object) {
			if text, ok := Text(value); ok && name == "az" && text == "eu-1" {
				count++
			}
		}
	})
	require.Positive(t, count)
}

func TestTextOfAString(t *testing.T) {
	for value, want := range map[string]string{`""`: "", `"a b"`: "a b", `"\u0061\n\""`: "a\n\"", "\"\xff\"": "\ufffd"} {
		text, ok := Text(value)
		require.True(t, ok)
		require.Equal(t, want, text)
	}
	for _, value := range []string{`1`, `null`, `{}`, `["a"]`, `true`} {
		_, ok := Text(value)
		require.False(t, ok)
	}
}

func TestAValueIsCompact(t *testing.T) {
	for value, want := range map[string]string{`1`: `1`, `" a "`: `" a "`, `[ 1 , " 2 " ]`: `[1," 2 "]`, "{ \"a\" :\n{ } }": `{"a":{}}`} {
		require.Equal(t, want, string(Compact(value)))
	}
}

// FuzzReadObject holds ReadObject against encoding/json: what it reads are the
// members with the last value of each name, and a name is twice only if another
// decoder sees it twice.
func FuzzReadObject(f *testing.F) {
	for _, text := range []string{`{"a":1,"a":2}`, `{"a":{"a":[1,{}]},"\u0061":"\"}"}`, "[]", "null", "{", `{"a":"\\"}`, " {} ", "{\"\xff\":1}", `{"a" : -1e5 , "" : null}`} {
		f.Add([]byte(text))
	}
	f.Fuzz(func(t *testing.T, text []byte) {
		members, twice, err := ReadObject(text)
		var want map[string]json.RawMessage
		if wantErr := json.Unmarshal(text, &want); wantErr != nil || want == nil {
			require.Error(t, err)
			return
		}
		require.NoError(t, err)
		require.Equal(t, want, members)
		seen := map[string]int{}
		decoder := json.NewDecoder(bytes.NewReader(text))
		_, err = decoder.Token()
		for err == nil && decoder.More() {
			var name json.Token
			if name, err = decoder.Token(); err == nil {
				seen[name.(string)]++
				err = decoder.Decode(new(json.RawMessage))
			}
		}
		require.NoError(t, err)
		for name, times := range seen {
			require.Equal(t, times > 1, slices.Contains(twice, name), name)
		}
	})
}
