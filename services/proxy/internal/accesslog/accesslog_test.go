package accesslog_test

import (
	"context"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	hcmv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/network/http_connection_manager/v3"
	"github.com/stretchr/testify/require"

	"github.com/weirproxy/weir/internal/servicetest"
	"github.com/weirproxy/weir/services/proxy/internal/accesslog"
	"github.com/weirproxy/weir/services/proxy/internal/format"
	"github.com/weirproxy/weir/services/proxy/internal/layeredruntime/runtimetest"
	"github.com/weirproxy/weir/services/proxy/internal/message"
	"github.com/weirproxy/weir/services/proxy/internal/stats"
	"github.com/weirproxy/weir/services/proxy/internal/strict"
)

func TestMain(m *testing.M) { servicetest.Main(m) }

const fileType = "type.googleapis.com/envoy.extensions.access_loggers.file.v3.FileAccessLog"

// parse reads the access_log of a connection manager in YAML.
func parse(t testing.TB, files *accesslog.Files, yaml string) ([]*accesslog.Log, error) {
	t.Helper()
	schema, err := strict.NewSchema(accesslog.Fields(), format.Fields(), strict.Fields{
		"envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager": {"access_log", "stat_prefix", "route_config"},
	})
	require.NoError(t, err)
	m := &hcmv3.HttpConnectionManager{}
	report := strict.LoadMerged(m, schema, strict.Source{File: "base.yaml", Text: []byte("{stat_prefix: x, route_config: {}}")}, strict.Source{File: "log.yaml", Text: []byte(yaml)})
	if report.Err() != nil {
		return nil, report.Err()
	}
	logs := files.Parse(m.GetAccessLog(), "access_log", report)
	return logs, report.Err()
}

func newFiles() (*accesslog.Files, *stats.Registry) {
	registry := stats.NewRegistry()
	return accesslog.NewFiles(registry, slog.New(slog.DiscardHandler)), registry
}

// one is an access_log to a file with an inline text and perhaps a filter.
func one(path, text, filter string) string {
	if filter != "" {
		filter = ", filter: " + filter
	}
	return fmt.Sprintf("access_log: [{name: x, typed_config: {\"@type\": %q, path: %q, log_format: {text_format_source: {inline_string: %q}}}%s}]", fileType, path, text, filter)
}

func facts(change func(*format.Facts)) *format.Facts {
	r := &message.Request{Method: []byte("GET"), Path: []byte("/x"), Authority: []byte("h")}
	r.Headers.Add("x-request-id", "000000c8-3818-4b6e-a21d-2062c8fb2d55") // 200
	r.Headers.Add("x-n", "5")
	r.Headers.Add("x-n", "Seven")
	f := &format.Facts{}
	f.Reset(r, &message.Response{Status: 200}, nil)
	f.Start = time.Now()
	f.Mark(format.SendEnd, f.Start.Add(30*time.Millisecond))
	f.ResponseCode = 200
	if change != nil {
		change(f)
	}
	return f
}

// run runs the files until the returned function is called, or the test ends.
func run(t testing.TB, files *accesslog.Files) (stop func()) {
	t.Helper()
	require.NoError(t, files.Open())
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- files.Run(ctx) }() // ends with stop
	stop = sync.OnceFunc(func() {
		cancel()
		require.NoError(t, <-done)
	})
	t.Cleanup(stop)
	return stop
}

func read(t testing.TB, path string) string {
	t.Helper()
	text, err := os.ReadFile(path)
	require.NoError(t, err)
	return string(text)
}

func TestFilters(t *testing.T) {
	header := func(matcher string) string { return "{header_filter: {header: {" + matcher + "}}}" }
	yes, no := "{not_health_check_filter: {}}", "{response_flag_filter: {}}"
	cases := []struct {
		filter string
		change func(*format.Facts)
		want   bool
	}{
		{"{status_code_filter: {comparison: {op: GE, value: {default_value: 200, runtime_key: a}}}}", nil, true},
		{"{status_code_filter: {comparison: {op: GE, value: {default_value: 400, runtime_key: a}}}}", nil, false},
		{"{status_code_filter: {comparison: {op: LE, value: {default_value: 200, runtime_key: a}}}}", nil, true},
		{"{status_code_filter: {comparison: {op: EQ, value: {default_value: 201, runtime_key: a}}}}", nil, false},
		{"{status_code_filter: {comparison: {op: NE, value: {default_value: 201, runtime_key: a}}}}", nil, true},
		{"{duration_filter: {comparison: {op: GE, value: {default_value: 30, runtime_key: a}}}}", nil, true},
		{"{duration_filter: {comparison: {op: GE, value: {default_value: 31, runtime_key: a}}}}", nil, false},
		{"{not_health_check_filter: {}}", nil, true},
		{"{not_health_check_filter: {}}", func(f *format.Facts) { f.HealthCheck = true }, false},
		{"{traceable_filter: {}}", nil, false},
		{"{traceable_filter: {}}", func(f *format.Facts) { f.ForcedTrace = true }, true},
		{"{traceable_filter: {}}", func(f *format.Facts) { f.ForcedTrace, f.HealthCheck = true, true }, false},
		{"{runtime_filter: {runtime_key: a}}", nil, false},
		{"{runtime_filter: {runtime_key: a, percent_sampled: {numerator: 1}}}", nil, true},                               // 200 % 100 < 1
		{"{runtime_filter: {runtime_key: a, percent_sampled: {numerator: 200, denominator: TEN_THOUSAND}}}", nil, false}, // 200 < 200
		{"{runtime_filter: {runtime_key: a, percent_sampled: {numerator: 201, denominator: MILLION}}}", nil, true},
		{"{runtime_filter: {runtime_key: a, percent_sampled: {numerator: 100}, use_independent_randomness: true}}", nil, true},
		{"{status_code_filter: {comparison: {op: GE, value: {default_value: 200, runtime_key: status}}}}", nil, false}, // 500
		{"{status_code_filter: {comparison: {op: GE, value: {default_value: 200, runtime_key: word}}}}", nil, true},
		{"{runtime_filter: {runtime_key: sampled, percent_sampled: {numerator: 100}}}", nil, false},
		{"{runtime_filter: {runtime_key: status, percent_sampled: {denominator: TEN_THOUSAND}}}", nil, true}, // 200 < 500
		{"{runtime_filter: {runtime_key: word, percent_sampled: {numerator: 1}}}", nil, true},
		{"{and_filter: {filters: [" + yes + "," + yes + "]}}", nil, true},
		{"{and_filter: {filters: [" + yes + "," + no + "]}}", nil, false},
		{"{or_filter: {filters: [" + no + "," + yes + "]}}", nil, true},
		{"{or_filter: {filters: [" + no + "," + no + "]}}", nil, false},
		{no, func(f *format.Facts) { f.Flags = format.NoRouteFound }, true},
		{"{response_flag_filter: {flags: [UH, NR]}}", func(f *format.Facts) { f.Flags = format.NoRouteFound }, true},
		{"{response_flag_filter: {flags: [UH]}}", func(f *format.Facts) { f.Flags = format.NoRouteFound }, false},
		{"{grpc_status_filter: {statuses: [UNKNOWN]}}", nil, true},
		{"{grpc_status_filter: {statuses: [PERMISSION_DENIED]}}", func(f *format.Facts) { f.Response.Headers.Add("grpc-status", "7") }, true},
		{"{grpc_status_filter: {statuses: [PERMISSION_DENIED], exclude: true}}", func(f *format.Facts) { f.Response.Headers.Add("grpc-status", "7") }, false},
		{header("name: X-N"), nil, true},
		{header("name: x-none"), nil, false},
		{header("name: x-none, invert_match: true"), nil, true},
		{header("name: x-n, present_match: false"), nil, false},
		{header(`name: ":path", string_match: {exact: /x}`), nil, true},
		{header(`name: ":method", string_match: {exact: POST}`), nil, false},
		{header("name: host, string_match: {prefix: h}"), nil, true},
		{header("name: x-n, string_match: {exact: Seven}"), nil, true}, // any value
		{header("name: x-n, string_match: {exact: seven}"), nil, false},
		{header("name: x-n, string_match: {exact: sEVEN, ignore_case: true}"), nil, true},
		{header("name: x-n, string_match: {suffix: ven}"), nil, true},
		{header("name: x-n, string_match: {contains: eve}"), nil, true},
		{header("name: x-n, string_match: {safe_regex: {regex: 'S.*n'}}"), nil, true},
		{header("name: x-n, string_match: {safe_regex: {regex: 'S'}}"), nil, false},
		{header("name: x-n, string_match: {exact: Seven}, invert_match: true"), nil, false},
		{header("name: x-n, range_match: {start: 5, end: 6}"), nil, true},
		{header("name: x-n, range_match: {start: 6, end: 9}"), nil, false},
		{header("name: x-none, string_match: {exact: a}, invert_match: true"), nil, false},
		{header("name: x-none, string_match: {exact: a}, invert_match: true, treat_missing_header_as_empty: true"), nil, true},
	}
	for i, c := range cases {
		t.Run(c.filter, func(t *testing.T) {
			path := filepath.Join(t.TempDir(), fmt.Sprint(i))
			files, _ := newFiles()
			logs, err := parse(t, files, one(path, "logged", c.filter))
			require.NoError(t, err)
			stop := run(t, files)
			logs[0].Write(facts(c.change), runtimetest.Values(t, "{status: 500, sampled: 0, word: a}"))
			stop()
			require.Equal(t, c.want, read(t, path) == "logged")
		})
	}
}

func TestFaults(t *testing.T) {
	for yaml, want := range map[string]string{
		one("/x", "%NOPE%", ""):          "log_format.text_format_source: format: column 1: unknown operator NOPE",
		one("/nowhere/at/all/x", "", ""): "access_log[0].typed_config.path: no file can be made: stat /nowhere/at/all: no such file or directory",
		one("/dev/null/x", "", ""):       "access_log[0].typed_config.path: no file can be made: /dev/null is no directory",
		one("/dev", "", ""):              "access_log[0].typed_config.path: /dev is a directory",
		`access_log: [{name: x}]`:        "access_log[0].typed_config: an access log needs a typed_config",
		one("/x", "", "{header_filter: {header: {name: a, string_match: {safe_regex: {regex: '('}}}}}"): `safe_regex.regex: "(" is no regular expression`,
		one("/x", "", "{response_flag_filter: {flags: [XX]}}"):                                          "access_log[0].filter.response_flag_filter.flags[0]",
		`access_log: [{name: x, typed_config: {"@type": "` + fileType + `", path: /x, format: "a"}}]`:   "access_log[0].typed_config.format: ",
		`access_log: [{name: x, typed_config: {"@type": "` + fileType + `", path: ""}}]`:                "access_log[0].typed_config.path",
	} {
		files, _ := newFiles()
		_, err := parse(t, files, yaml)
		require.ErrorContains(t, err, want, yaml)
	}
}

func TestLinesAreWrittenWithinASecondOrSoAndAtTheStop(t *testing.T) {
	path := filepath.Join(t.TempDir(), "access.log")
	files, registry := newFiles()
	logs, err := parse(t, files, one(path, "%RESPONSE_CODE%\n", ""))
	require.NoError(t, err)
	_, err = os.Stat(path)
	require.ErrorIs(t, err, os.ErrNotExist, "nothing is opened by the parse")
	stop := run(t, files)
	logs[0].Write(facts(nil), nil)
	servicetest.Eventually(t, "the line is there", func() bool { return read(t, path) == "200\n" })
	logs[0].Write(facts(func(f *format.Facts) { f.ResponseCode = 404 }), nil)
	stop()
	require.Equal(t, "200\n404\n", read(t, path))
	require.EqualValues(t, 2, stat(registry, "filesystem.write_buffered"))
	require.EqualValues(t, 2, stat(registry, "filesystem.write_completed"))
	require.EqualValues(t, 0, stat(registry, "filesystem.write_dropped"))
	require.EqualValues(t, 0, stat(registry, "filesystem.write_total_buffered"))
	logs[0].Write(facts(nil), nil)
	require.EqualValues(t, len("200\n"), stat(registry, "filesystem.write_total_buffered"), "nobody writes any more")
}

func stat(registry *stats.Registry, name string) (value int64) {
	value = -1
	registry.Each(func(m stats.Metric) {
		if m.Name == name {
			value = m.Value
		}
	})
	return value
}

func TestReopenLosesNoLine(t *testing.T) {
	directory := t.TempDir()
	path := filepath.Join(directory, "access.log")
	files, _ := newFiles()
	logs, err := parse(t, files, one(path, "%RESPONSE_CODE%\n", ""))
	require.NoError(t, err)
	stop := run(t, files)
	for i := range 20 {
		for range 50 {
			logs[0].Write(facts(nil), nil)
		}
		require.NoError(t, os.Rename(path, fmt.Sprint(path, ".", i)))
		files.Reopen()
		servicetest.Eventually(t, "the file is there again", func() bool {
			_, err := os.Stat(path)
			return err == nil
		})
	}
	stop()
	lines := 0
	entries, err := os.ReadDir(directory)
	require.NoError(t, err)
	require.Len(t, entries, 21)
	for _, e := range entries {
		lines += strings.Count(read(t, filepath.Join(directory, e.Name())), "200\n")
	}
	require.Equal(t, 20*50, lines)
}

func TestLogsOfOnePathShareAFile(t *testing.T) {
	path := filepath.Join(t.TempDir(), "access.log")
	files, _ := newFiles()
	a, err := parse(t, files, one(path, "a\n", ""))
	require.NoError(t, err)
	stop := run(t, files)
	b, err := parse(t, files, one(path, "b\n", "")) // by a listener that comes later
	require.NoError(t, err)
	other, err := parse(t, files, one(path+".other", "c\n", ""))
	require.NoError(t, err)
	for _, logs := range [][]*accesslog.Log{a, b, a, other} {
		logs[0].Write(facts(nil), nil)
	}
	stop()
	require.Equal(t, "a\nb\na\n", read(t, path))
	require.Equal(t, "c\n", read(t, path+".other"))
}

func TestAFileThatCannotBeOpenedIsNamed(t *testing.T) {
	files, _ := newFiles()
	path := filepath.Join(t.TempDir(), "access.log")
	_, err := parse(t, files, one(path, "x", ""))
	require.NoError(t, err)
	require.NoError(t, os.Mkdir(path, 0o700))
	require.EqualError(t, files.Open(), "open an access log: open "+path+": is a directory")
}

func TestStandardStreamsAndTheDefaultFormat(t *testing.T) {
	files, _ := newFiles()
	logs, err := parse(t, files, `access_log: [{name: a, typed_config: {"@type": type.googleapis.com/envoy.extensions.access_loggers.stream.v3.StdoutAccessLog}},
  {name: b, typed_config: {"@type": type.googleapis.com/envoy.extensions.access_loggers.stream.v3.StderrAccessLog, log_format: {json_format: {a: "%RESPONSE_CODE%"}}}}]`)
	require.NoError(t, err)
	require.Len(t, logs, 2)
}

func TestWriteAllocatesNothing(t *testing.T) {
	path := filepath.Join(t.TempDir(), "access.log")
	files, _ := newFiles()
	logs, err := parse(t, files, `access_log: [{name: x, typed_config: {"@type": "`+fileType+`", path: `+path+`}}]`)
	require.NoError(t, err)
	f := facts(nil)
	for range 8000 { // to grow the buffer
		logs[0].Write(f, nil)
	}
	stop := run(t, files)
	servicetest.Eventually(t, "it is written", func() bool { return strings.Count(read(t, path), "\n") == 8000 })
	servicetest.Allocations(t, 0, func() { logs[0].Write(f, nil) })
	stop()
}

// BenchmarkWrite is the whole cost of a line of the default format for the
// request, the write to the file left out.
func BenchmarkWrite(b *testing.B) {
	files, _ := newFiles()
	logs, err := parse(b, files, `access_log: [{name: x, typed_config: {"@type": "`+fileType+`", path: /dev/null}}]`)
	require.NoError(b, err)
	stop := run(b, files)
	f := facts(nil)
	b.ReportAllocs()
	for b.Loop() {
		logs[0].Write(f, nil)
	}
	stop()
}

func TestTheExampleOfTheReadmeIsOne(t *testing.T) {
	text := read(t, "../../README.md")
	_, example, found := strings.Cut(text, "```yaml\naccess_log:")
	require.True(t, found)
	example, _, _ = strings.Cut("access_log:"+example, "```")
	files, _ := newFiles()
	logs, err := parse(t, files, strings.ReplaceAll(example, "/var/log/proxy/", t.TempDir()+"/"))
	require.NoError(t, err)
	require.Len(t, logs, 1)
}
