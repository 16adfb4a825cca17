package jsontext

import (
	"encoding/json"
	"testing"
	"unicode/utf8"

	"github.com/stretchr/testify/require"
)

func TestTextThatReadersWouldTakeForAnotherIsRefused(t *testing.T) {
	for text, want := range map[string]string{
		`{"größe":"\u00e4\ud83d\ude00"}`: "",
		`"\\ud800"`:                      "", // a backslash, and letters
		"\"\xff\"":                       "not UTF-8",
		`["\ud800"]`:                     `holds half of a surrogate pair: \ud800`,
		`"\ud800\u0041"`:                 `holds half of a surrogate pair: \ud800`,
		`{"\uDFFF":1}`:                   `holds half of a surrogate pair: \uDFFF`,
		`"\`:                             "", // no JSON, which is for others to say
	} {
		if err := CheckText([]byte(text)); want == "" {
			require.NoError(t, err, text)
		} else {
			require.EqualError(t, err, want, text)
		}
	}
}

// FuzzCheckText reads any text: what is taken and is a JSON string says no
// character that it does not hold.
func FuzzCheckText(f *testing.F) {
	f.Add(`"\ud83d\ude00"`)
	f.Add(`"\ud800\\ud800"`)
	f.Add("\"\xff\"")
	f.Fuzz(func(t *testing.T, text string) {
		var said string
		if CheckText([]byte(text)) != nil || json.Unmarshal([]byte(text), &said) != nil {
			return
		}
		again, err := json.Marshal(said)
		require.NoError(t, err)
		var back string
		require.NoError(t, json.Unmarshal(again, &back))
		require.Equal(t, said, back)
		require.True(t, utf8.ValidString(text))
	})
}
