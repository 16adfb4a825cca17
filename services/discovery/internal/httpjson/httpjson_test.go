package httpjson_test

import (
	"encoding/json"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/weirproxy/weir/internal/servicetest"
	"github.com/weirproxy/weir/services/discovery/internal/httpjson"
)

func TestMain(m *testing.M) { servicetest.Main(m) }

func TestTextIsAppendedAsJSONWants(t *testing.T) {
	for _, text := range []string{"", "plain ~text", `a "quote"`, `back\slash`, "line\nbreak", "<&>", "\x7f", "é", "\u2028", "\xff"} {
		want, err := json.Marshal(text)
		require.NoError(t, err)
		require.Equal(t, "x"+string(want), string(httpjson.AppendText([]byte("x"), text)))
	}
}

func TestABodyHasItsLength(t *testing.T) {
	w := httptest.NewRecorder()
	httpjson.Write(w, []byte("{}\n"))
	require.Equal(t, 200, w.Code)
	require.Equal(t, "{}\n", w.Body.String())
	require.Equal(t, "3", w.Header().Get("Content-Length"))
	require.Equal(t, "application/json", w.Header().Get("Content-Type"))
}

func TestAnAnswerIsJSON(t *testing.T) {
	w := httptest.NewRecorder()
	httpjson.Answer(w, 404, map[string]string{"error": "no"})
	require.Equal(t, 404, w.Code)
	require.JSONEq(t, `{"error":"no"}`, w.Body.String())
	require.Equal(t, "application/json", w.Header().Get("Content-Type"))
}

func TestWhatTheCallerHasIsNotSentAgain(t *testing.T) {
	const tag = `W/"0a"`
	for name, test := range map[string]struct {
		lines      []string
		unmodified bool
	}{
		"nothing":                      {nil, false},
		"the tag":                      {[]string{`W/"0a"`}, true},
		"the tag as a strong one":      {[]string{`"0a"`}, true},
		"another tag":                  {[]string{`W/"0b"`}, false},
		"any":                          {[]string{`*`}, true},
		"a list with the tag":          {[]string{`"0b", W/"0a"`}, true},
		"a list of others":             {[]string{`"0b",W/"0c"`}, false},
		"several lines":                {[]string{`"0b"`, "\t" + `W/"0a" , "0c"`}, true},
		"the tag without quotes":       {[]string{`0a`}, false},
		"a tag that holds the comma":   {[]string{`"x,0a,y"`}, false},
		"an empty line":                {[]string{``}, false},
		"a line of commas":             {[]string{`,,,`}, false},
		"w in lower case, which is no": {[]string{`w/"0a"`}, false},
		"many, as a rude caller might": {[]string{strings.Repeat(`"0b",`, 10_000)}, false},
	} {
		t.Run(name, func(t *testing.T) {
			r := httptest.NewRequest("GET", "/", nil)
			r.Header["If-None-Match"] = test.lines
			w := httptest.NewRecorder()
			require.Equal(t, test.unmodified, httpjson.Unmodified(w, r, tag))
			require.Equal(t, tag, w.Header().Get("ETag"))
			if test.unmodified {
				require.Equal(t, 304, w.Code)
				require.Empty(t, w.Body)
			}
		})
	}
}
