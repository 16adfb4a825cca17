// Package accesslog is the access logs of a http_connection_manager: a filter,
// a line by package format, and a file that the line goes to. The connection
// manager calls each log at the end of a request, the router at that of an
// attempt, and both earlier where the configuration says so, Periodic while they
// go on; the lines are written behind their backs, so that a slow disk slows no
// request. It decides nothing about the request.
package accesslog

import (
	"fmt"
	"os"
	"path/filepath"

	accesslogv3 "github.com/envoyproxy/go-control-plane/envoy/config/accesslog/v3"
	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	filev3 "github.com/envoyproxy/go-control-plane/envoy/extensions/access_loggers/file/v3"
	streamv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/access_loggers/stream/v3"

	"github.com/weirproxy/weir/services/proxy/internal/format"
	"github.com/weirproxy/weir/services/proxy/internal/layeredruntime"
	"github.com/weirproxy/weir/services/proxy/internal/strict"
)

// Fields are the supported fields of the messages that Parse reads.
func Fields() strict.Fields {
	return strict.Fields{
		"envoy.config.accesslog.v3.AccessLog": {"name", "filter", "typed_config"},
		"envoy.config.accesslog.v3.AccessLogFilter": {
			"status_code_filter", "duration_filter", "not_health_check_filter", "traceable_filter", "runtime_filter", "and_filter", "or_filter",
			"header_filter", "response_flag_filter", "grpc_status_filter",
		},
		"envoy.config.accesslog.v3.StatusCodeFilter":                {"comparison"},
		"envoy.config.accesslog.v3.DurationFilter":                  {"comparison"},
		"envoy.config.accesslog.v3.ComparisonFilter":                {"op", "value"},
		"envoy.config.core.v3.RuntimeUInt32":                        {"default_value", "runtime_key"},
		"envoy.config.accesslog.v3.NotHealthCheckFilter":            {},
		"envoy.config.accesslog.v3.TraceableFilter":                 {},
		"envoy.config.accesslog.v3.RuntimeFilter":                   {"runtime_key", "percent_sampled", "use_independent_randomness"},
		"envoy.type.v3.FractionalPercent":                           {"numerator", "denominator"},
		"envoy.config.accesslog.v3.AndFilter":                       {"filters"},
		"envoy.config.accesslog.v3.OrFilter":                        {"filters"},
		"envoy.config.accesslog.v3.HeaderFilter":                    {"header"},
		"envoy.config.accesslog.v3.ResponseFlagFilter":              {"flags"},
		"envoy.config.accesslog.v3.GrpcStatusFilter":                {"statuses", "exclude"},
		"envoy.config.route.v3.HeaderMatcher":                       {"name", "string_match", "range_match", "present_match", "invert_match", "treat_missing_header_as_empty"},
		"envoy.type.matcher.v3.StringMatcher":                       {"exact", "prefix", "suffix", "contains", "safe_regex", "ignore_case"},
		"envoy.type.matcher.v3.RegexMatcher":                        {"regex"},
		"envoy.type.v3.Int64Range":                                  {"start", "end"},
		"envoy.extensions.access_loggers.file.v3.FileAccessLog":     {"path", "log_format"},
		"envoy.extensions.access_loggers.stream.v3.StdoutAccessLog": {"log_format"},
		"envoy.extensions.access_loggers.stream.v3.StderrAccessLog": {"log_format"},
	}
}

// Log is one access log. It is immutable and used by all connections.
type Log struct {
	filter filter // nil: every request
	line   *format.Line
	file   *output
}

// Write tells the log of a request, by the values of the runtime that
// hold then; nil is none. It does not block.
func (l *Log) Write(f *format.Facts, values *layeredruntime.Snapshot) {
	if l.filter == nil || l.filter(f, values) {
		l.file.write(l.line.Bytes(f))
	}
}

// Parse makes the logs of an access_log that lies at the path at. Faults go to
// report; the logs are for use only if there are none. Nothing is opened, but the
// directories of files must be there.
func (fs *Files) Parse(configs []*accesslogv3.AccessLog, at strict.Path, report *strict.Report) []*Log {
	var logs []*Log
	for i, config := range configs {
		if l := fs.parse(config, at.Index(i), report); l != nil {
			logs = append(logs, l)
		}
	}
	return logs
}

// At is a log of every request in Envoy's default format, to the file at path, which
// is not opened.
func (fs *Files) At(path string) *Log { return &Log{line: format.DefaultLine(), file: fs.path(path)} }

// parse makes one log, nil if its logger is not known.
func (fs *Files) parse(config *accesslogv3.AccessLog, at strict.Path, report *strict.Report) *Log {
	l := &Log{}
	if config.GetFilter() != nil {
		l.filter = parseFilter(config.GetFilter(), at.Field("filter"), report)
	}
	message, err := strict.Unpack(config.GetTypedConfig())
	at = at.Field("typed_config")
	if err != nil {
		if config.GetTypedConfig() == nil { // else the schema's walk has said so
			report.Add(at, "an access log needs a typed_config")
		}
		return nil
	}
	var line *corev3.SubstitutionFormatString
	switch logger := message.(type) {
	case *filev3.FileAccessLog:
		line, l.file = logger.GetLogFormat(), fs.path(logger.GetPath())
		if directory := filepath.Dir(logger.GetPath()); logger.GetPath() != "" {
			if info, err := os.Stat(directory); err != nil {
				report.Add(at.Field("path"), "no file can be made: %v", err)
			} else if !info.IsDir() {
				report.Add(at.Field("path"), "no file can be made: %s is no directory", directory)
			} else if info, err := os.Stat(logger.GetPath()); err == nil && info.IsDir() {
				report.Add(at.Field("path"), "%s is a directory", logger.GetPath())
			}
		}
	case *streamv3.StdoutAccessLog:
		line, l.file = logger.GetLogFormat(), fs.stdout
	case *streamv3.StderrAccessLog:
		line, l.file = logger.GetLogFormat(), fs.stderr
	default:
		report.Add(at, "%s is no access log known here; those are: %s", message.ProtoReflect().Descriptor().FullName(), known)
		return nil
	}
	if line == nil {
		l.line = format.DefaultLine()
	} else {
		l.line = format.ParseLine(line, at.Field("log_format"), report)
	}
	return l
}

// known are the loggers.
var known = fmt.Sprintf("%s, %s, %s", (&filev3.FileAccessLog{}).ProtoReflect().Descriptor().FullName(),
	(&streamv3.StdoutAccessLog{}).ProtoReflect().Descriptor().FullName(), (&streamv3.StderrAccessLog{}).ProtoReflect().Descriptor().FullName())
