package coreconfig

import (
	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	preservecasev3 "github.com/envoyproxy/go-control-plane/envoy/extensions/http/header_formatters/preserve_case/v3"

	"github.com/weirproxy/weir/services/proxy/internal/http1"
	"github.com/weirproxy/weir/services/proxy/internal/strict"
)

// http1Fields are the supported fields of HTTP/1's settings.
var http1Fields = strict.Fields{
	"envoy.config.core.v3.Http1ProtocolOptions": {
		"allow_absolute_url", "accept_http_10", "default_host_for_http_10", "header_key_format", "enable_trailers",
		"override_stream_error_on_invalid_http_message",
	},
	"envoy.config.core.v3.Http1ProtocolOptions.HeaderKeyFormat":                            {"proper_case_words", "stateful_formatter"},
	"envoy.config.core.v3.Http1ProtocolOptions.HeaderKeyFormat.ProperCaseWords":            {},
	"envoy.config.core.v3.TypedExtensionConfig":                                            {"name", "typed_config"},
	"envoy.extensions.http.header_formatters.preserve_case.v3.PreserveCaseFormatterConfig": {},
}

// HTTP1 is how one side of the proxy speaks HTTP/1.
type HTTP1 struct {
	// Options are those of what is read.
	Options http1.Options
	// ProperCase is how names are written, http1.Writer.ProperCase.
	ProperCase bool
}

// DownstreamHTTP1 reads a connection manager's http_protocol_options, which may
// be nil, at the path at.
func DownstreamHTTP1(o *corev3.Http1ProtocolOptions, at strict.Path, report *strict.Report) HTTP1 {
	h := commonHTTP1(o, at, report)
	h.Options.AcceptHTTP10 = o.GetAcceptHttp_10()
	h.Options.DefaultHost = o.GetDefaultHostForHttp_10()
	h.Options.RefuseAbsolute = o.GetAllowAbsoluteUrl() != nil && !o.GetAllowAbsoluteUrl().GetValue()
	return h
}

// UpstreamHTTP1 reads a cluster's http_protocol_options, which may be nil, at the
// path at.
func UpstreamHTTP1(o *corev3.Http1ProtocolOptions, at strict.Path, report *strict.Report) HTTP1 {
	for _, field := range []struct {
		name string
		set  bool
	}{
		{"allow_absolute_url", o.GetAllowAbsoluteUrl() != nil},
		{"accept_http_10", o.GetAcceptHttp_10()},
		{"default_host_for_http_10", o.GetDefaultHostForHttp_10() != ""},
		{"override_stream_error_on_invalid_http_message", o.GetOverrideStreamErrorOnInvalidHttpMessage() != nil},
	} {
		if field.set {
			report.Add(at.Field(field.name), "has no meaning for a cluster: it is for the connection manager")
		}
	}
	return commonHTTP1(o, at, report)
}

// commonHTTP1 reads what holds for both sides.
func commonHTTP1(o *corev3.Http1ProtocolOptions, at strict.Path, report *strict.Report) HTTP1 {
	h := HTTP1{Options: http1.Options{Trailers: o.GetEnableTrailers()}}
	switch format := o.GetHeaderKeyFormat().GetHeaderFormat().(type) {
	case *corev3.Http1ProtocolOptions_HeaderKeyFormat_ProperCaseWords_:
		h.ProperCase = true
	case *corev3.Http1ProtocolOptions_HeaderKeyFormat_StatefulFormatter:
		formatter, err := strict.Unpack(format.StatefulFormatter.GetTypedConfig())
		if _, ok := formatter.(*preservecasev3.PreserveCaseFormatterConfig); err == nil && !ok {
			report.Add(at.Field("header_key_format").Field("stateful_formatter").Field("typed_config"),
				"%s is no formatter known here: use envoy.extensions.http.header_formatters.preserve_case.v3.PreserveCaseFormatterConfig",
				formatter.ProtoReflect().Descriptor().FullName())
		}
		h.Options.KeepSpelling = true
	}
	return h
}
