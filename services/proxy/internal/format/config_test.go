package format_test

import (
	"encoding/json"
	"os"
	"path/filepath"
	"testing"

	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	"github.com/stretchr/testify/require"

	"github.com/weirproxy/weir/internal/servicetest"
	"github.com/weirproxy/weir/services/proxy/internal/format"
	"github.com/weirproxy/weir/services/proxy/internal/strict"
)

// parse reads a SubstitutionFormatString in YAML.
func parse(t testing.TB, yaml string) (*format.Line, error) {
	t.Helper()
	schema, err := strict.NewSchema(format.Fields())
	require.NoError(t, err)
	m := &corev3.SubstitutionFormatString{}
	report := strict.Load("line.yaml", []byte(yaml), m, schema)
	if report.Err() != nil {
		return nil, report.Err()
	}
	line := format.ParseLine(m, "", report)
	return line, report.Err()
}

func TestLines(t *testing.T) {
	cases := []struct{ name, yaml, want string }{
		{"text, to which nothing is added", `text_format_source: {inline_string: "%REQ(:METHOD)% %REQ(none)%"}`, "GET -"},
		{"text that omits", `{text_format_source: {inline_string: "%REQ(:METHOD)% [%REQ(none)%]\n"}, omit_empty_values: true}`, "GET []\n"},
		{"JSON is sorted, typed and ended", `json_format: {status: "%RESPONSE_CODE%", bytes: "%BYTES_SENT%", method: "%REQ(:METHOD)%", missing: "%REQ(none)%", duration: "%DURATION%"}`,
			`{"bytes":5,"duration":9,"method":"GET","missing":null,"status":200}` + "\n"},
		{"JSON of mixed texts", `json_format: {a: "%REQ(none)%x", b: "x%RESPONSE_CODE%", c: "", d: "100%%"}`, `{"a":"-x","b":"x200","c":"","d":"100%"}` + "\n"},
		{"JSON that nests", `json_format: {nest: {z: ["%PROTOCOL%", 1, 1.5, true, null], a: {}}}`, `{"nest":{"a":{},"z":["HTTP/1.1",1,1.5,true,null]}}` + "\n"},
		{"JSON that omits", `{json_format: {a: "%REQ(none)%", b: "%REQ(none)%x", nest: {a: "%REQ(none)%", z: ["%REQ(none)%", "%RESPONSE_CODE%", null]}}, omit_empty_values: true}`,
			`{"b":"x","nest":{"z":[200]}}` + "\n"},
		{"JSON that escapes", `json_format: {"k\"\n": "%REQ(x-quotes)%", t: "%REQ(x-tab)%", l: "q\"\u0001\r\n"}`,
			`{"k\"\n":"q\"\\é","l":"q\"\u0001\r\n","t":"a\tb"}` + "\n"},
		{"JSON that cuts", `json_format: {a: "%REQ(user-agent):2%"}`, `{"a":"cu"}` + "\n"},
		{"JSON of metadata", `json_format: {a: "%DYNAMIC_METADATA(ns:text)%", b: "%DYNAMIC_METADATA(ns:deep)%", c: "%DYNAMIC_METADATA(ns:x)%", d: "%DYNAMIC_METADATA(ns:number)%"}`,
			`{"a":"a\nb","b":{"list":[true,null]},"c":null,"d":3}` + "\n"},
		{"JSON of flags and ports", `json_format: {f: "%RESPONSE_FLAGS%", p: "%DOWNSTREAM_LOCAL_PORT%", s: "%RESP(:STATUS)%", t: "%START_TIME(%s)%", e: "%ENVIRONMENT(WEIR_NOT_SET)%"}`,
			`{"e":"-","f":"-","p":80,"s":"200","t":"1795729569"}` + "\n"},
		{"JSON of the first that is known", `json_format: {a: '%COALESCE({"operators": ["TRACE_ID", "RESPONSE_CODE", "PROTOCOL"]})%', b: '%COALESCE({"operators": ["PROTOCOL"]}):2%', c: '%COALESCE({"operators": ["TRACE_ID"]})%', d: '%COALESCE({"operators": ["TRACE_ID", {"command": "DYNAMIC_METADATA", "param": "ns:deep"}]})%'}`,
			`{"a":200,"b":"HT","c":null,"d":{"list":[true,null]}}` + "\n"},
		{"JSON, sorted by wish", `{json_format: {b: 1, a: 2}, json_format_options: {sort_properties: true}}`, `{"a":2,"b":1}` + "\n"},
	}
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			line, err := parse(t, c.yaml)
			require.NoError(t, err)
			got := line.Append(nil, facts(t))
			require.Equal(t, c.want, string(got))
			require.Equal(t, line.JSON, json.Valid(got) && got[0] == '{')
		})
	}
}

func TestBytesThatAreNoUTF8AreReplacedInJSON(t *testing.T) {
	line, err := parse(t, `json_format: {a: "%REQ(x-bad)%"}`)
	require.NoError(t, err)
	f := none()
	f.Request.Headers.Add("x-bad", "a\xffb\xc3")
	require.Contains(t, string(line.Append(nil, f)), "a\ufffdb\ufffd\"}")
}

func TestTextComesFromWhereItsSourceSays(t *testing.T) {
	path := filepath.Join(t.TempDir(), "format.txt")
	require.NoError(t, os.WriteFile(path, []byte("%PROTOCOL%!\n"), 0o600))
	line, err := parse(t, `{text_format_source: {filename: `+path+`}, content_type: "text/x"}`)
	require.NoError(t, err)
	require.Equal(t, "HTTP/1.1!\n", string(line.Append(nil, facts(t))))
	require.Equal(t, "text/x", line.ContentType)
	t.Setenv("WEIR_FORMAT_TEST", "%PROTOCOL%")
	line, err = parse(t, `text_format_source: {environment_variable: WEIR_FORMAT_TEST}`)
	require.NoError(t, err)
	require.Equal(t, "HTTP/1.1", string(line.Append(nil, facts(t))))
}

func TestFaultsOfLinesNameTheirPlace(t *testing.T) {
	for yaml, want := range map[string]string{
		`text_format_source: {inline_string: "a %NOPE%"}`:     "line.yaml:1:1: text_format_source: format: column 3: unknown operator NOPE",
		`json_format: {a: {b: ["%NOPE%"]}}`:                   `line.yaml:1:23: json_format["a"]["b"][0]: format "%NOPE%": column 1: unknown operator NOPE`,
		`text_format_source: {filename: /nowhere/format.txt}`: "line.yaml:1:1: text_format_source: format: open /nowhere/format.txt: no such file or directory",
	} {
		_, err := parse(t, yaml)
		require.EqualError(t, err, want, yaml)
	}
}

func TestTheOldTextFormatIsRefused(t *testing.T) {
	_, err := parse(t, `text_format: "x"`)
	require.ErrorContains(t, err, "line.yaml:1:1: text_format: ")
}

func TestJSONAllocatesNothing(t *testing.T) {
	line, err := parse(t, `json_format: {a: "%RESPONSE_CODE%", b: "%REQ(user-agent)%", c: {d: ["%REQ(none)%", "x%PROTOCOL%", 1]}}`)
	require.NoError(t, err)
	f := facts(t)
	line.Bytes(f)
	servicetest.Allocations(t, 0, func() { line.Bytes(f) })
}

func TestDefaultLineIsEnvoys(t *testing.T) {
	require.Equal(t, `[2026-11-26T21:46:09.912Z] "GET /up/x?a=%41b&b=xyz&e= HTTP/1.1" 200 - 10 5 9 7 "-" "curl/8" "def78d41-3818-4b6e-a21d-2062c8fb2d55" "Example.com:8080" "127.0.0.1:50447"`+"\n",
		string(format.DefaultLine().Append(nil, facts(t))))
	require.Regexp(t, `^\[0001-01-01T00:00:00.000Z\] "- - -" 0 - 0 0 \d+ - "-" "-" "-" "-" "-"\n$`, string(format.DefaultLine().Append(nil, none())))
}
