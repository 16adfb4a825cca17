package format

import (
	"os"

	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"

	"github.com/weirproxy/weir/services/proxy/internal/strict"
)

// Fields are the supported fields of the messages that ParseLine reads.
func Fields() strict.Fields {
	return strict.Fields{
		"envoy.config.core.v3.SubstitutionFormatString": {
			"text_format_source", "json_format", "omit_empty_values", "content_type", "json_format_options",
		},
		"envoy.config.core.v3.JsonFormatOptions": {"sort_properties"},
		"envoy.config.core.v3.DataSource":        {"inline_string", "inline_bytes", "filename", "environment_variable"},
	}
}

// Line is a parsed SubstitutionFormatString: a line of a log, or the body of a
// reply. It is immutable.
type Line struct {
	// ContentType is the body's, empty if none was given.
	ContentType string
	// JSON says that the line is a JSON object, with its line end.
	JSON bool

	write node
}

// Append appends the line of a request to b. A text has no line end but what it
// was given.
func (l *Line) Append(b []byte, f *Facts) []byte {
	b, _ = l.write(b, f)
	return b
}

// Bytes is Append to a buffer of the facts' own, valid until the next call.
func (l *Line) Bytes(f *Facts) []byte {
	f.scratch = l.Append(f.scratch[:0], f)
	return f.scratch
}

// ParseLine reads a format that lies at the path at. Faults go to report; the
// line is for use only if there are none.
func ParseLine(m *corev3.SubstitutionFormatString, at strict.Path, report *strict.Report) *Line {
	style := Log
	if m.GetOmitEmptyValues() {
		style = LogOmitting
	}
	l := &Line{ContentType: m.GetContentType()}
	switch kind := m.GetFormat().(type) {
	case *corev3.SubstitutionFormatString_TextFormatSource:
		at := at.Field("text_format_source")
		text, err := source(kind.TextFormatSource)
		if err == nil {
			l.write, err = textLine(text, style)
		}
		if err != nil {
			report.Add(at, "format: %v", err)
		}
	case *corev3.SubstitutionFormatString_JsonFormat:
		p := parser{style, report}
		object := p.object(kind.JsonFormat, at.Field("json_format"))
		l.JSON = true
		l.write = func(b []byte, f *Facts) ([]byte, bool) {
			b, _ = object(b, f)
			return append(b, '\n'), true
		}
	default:
		report.Add(at, "a text_format_source or a json_format is needed")
	}
	return l
}

func textLine(text string, style Style) (node, error) {
	t, err := Parse(text, style)
	if err != nil {
		return nil, err
	}
	return func(b []byte, f *Facts) ([]byte, bool) { return t.Append(b, f), true }, nil
}

// source reads a text from where a DataSource says, once.
func source(s *corev3.DataSource) (string, error) {
	switch kind := s.GetSpecifier().(type) {
	case *corev3.DataSource_InlineString:
		return kind.InlineString, nil
	case *corev3.DataSource_InlineBytes:
		return string(kind.InlineBytes), nil
	case *corev3.DataSource_Filename:
		text, err := os.ReadFile(kind.Filename)
		return string(text), err
	case *corev3.DataSource_EnvironmentVariable:
		return os.Getenv(kind.EnvironmentVariable), nil
	}
	return "", nil
}

// defaultText is Envoy's format of an access log that has none.
const defaultText = "[%START_TIME%] \"%REQUEST_HEADER(:METHOD)% %REQUEST_HEADER(X-ENVOY-ORIGINAL-PATH?:PATH)% %PROTOCOL%\" " +
	"%RESPONSE_CODE% %RESPONSE_FLAGS% %BYTES_RECEIVED% %BYTES_SENT% %DURATION% " +
	"%RESPONSE_HEADER(X-ENVOY-UPSTREAM-SERVICE-TIME)% \"%REQUEST_HEADER(X-FORWARDED-FOR)%\" \"%REQUEST_HEADER(USER-AGENT)%\" " +
	"\"%REQUEST_HEADER(X-REQUEST-ID)%\" \"%REQUEST_HEADER(:AUTHORITY)%\" \"%UPSTREAM_HOST%\"\n"

// DefaultLine is Envoy's format of an access log that has none.
func DefaultLine() *Line {
	write, err := textLine(defaultText, Log)
	if err != nil {
		panic(err) // it is ours, and a test reads it
	}
	return &Line{write: write}
}
