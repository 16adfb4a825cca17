package coreconfig

import (
	"time"

	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	"google.golang.org/protobuf/types/known/wrapperspb"

	"github.com/weirproxy/weir/internal/http2"
	"github.com/weirproxy/weir/services/proxy/internal/strict"
)

// http2Fields are the supported fields of HTTP/2's settings.
var http2Fields = strict.Fields{
	"envoy.config.core.v3.Http2ProtocolOptions": {
		"hpack_table_size", "max_concurrent_streams", "initial_stream_window_size", "initial_connection_window_size",
		"max_outbound_frames", "max_outbound_control_frames", "max_consecutive_inbound_frames_with_empty_payload",
		"max_inbound_priority_frames_per_stream", "max_inbound_window_update_frames_per_data_frame_sent",
		"override_stream_error_on_invalid_http_message", "connection_keepalive", "enable_huffman_encoding", "allow_connect",
		"stream_reset_burst", "stream_reset_rate", "max_header_field_size_kb", "disallow_obs_text",
	},
	"envoy.config.core.v3.KeepaliveSettings": {"interval", "timeout", "interval_jitter"},
	"envoy.type.v3.Percent":                  {"value"},
}

// streamWindow and connectionWindow bound what one stream, and all of a
// connection, hold in memory of bodies that nobody takes. Envoy's are 16 and
// 24 MiB, of which its buffer limits leave 1 MiB a stream, unless they are set: that of
// a listener is the connection manager's to heed.
const (
	streamWindow     = 1 << 20
	connectionWindow = 8 << 20
)

// defaultJitter is the part of an interval that is added to it at most
// (KeepaliveSettings.interval_jitter).
const defaultJitter = 0.15

// FieldSize refuses a max_header_field_size_kb of o, at the path at, that is more
// than the most KiB of a whole head, which the field whole says.
func FieldSize(o *corev3.Http2ProtocolOptions, most int, whole string, at strict.Path, report *strict.Report) {
	if n := o.GetMaxHeaderFieldSizeKb(); n != nil && int(n.GetValue()) > most {
		report.Add(at.Field("max_header_field_size_kb"), "%d is more than the %d of %s", n.GetValue(), most, whole)
	}
}

// HTTP2 reads http2_protocol_options, which may be nil, at the path at. What an
// HTTP/1 message has as well, such as the limits of heads, is left to the caller.
func HTTP2(o *corev3.Http2ProtocolOptions, at strict.Path, report *strict.Report) http2.Options {
	options := http2.Options{
		HeaderTableSize:            count(o.GetHpackTableSize()),
		EncoderTableSize:           count(o.GetHpackTableSize()),
		MaxConcurrentStreams:       o.GetMaxConcurrentStreams().GetValue(),
		StreamWindow:               window(o.GetInitialStreamWindowSize(), streamWindow),
		ConnectionWindow:           window(o.GetInitialConnectionWindowSize(), connectionWindow),
		MaxOutboundFrames:          count(o.GetMaxOutboundFrames()),
		MaxOutboundControlFrames:   count(o.GetMaxOutboundControlFrames()),
		MaxConsecutiveEmptyFrames:  count(o.GetMaxConsecutiveInboundFramesWithEmptyPayload()),
		MaxPriorityFramesPerStream: count(o.GetMaxInboundPriorityFramesPerStream()),
		MaxWindowUpdatesPerData:    count(o.GetMaxInboundWindowUpdateFramesPerDataFrameSent()),
		NoHuffman:                  o.GetEnableHuffmanEncoding() != nil && !o.GetEnableHuffmanEncoding().GetValue(),
		StreamResetBurst:           count64(o.GetStreamResetBurst()),
		MaxFieldBytes:              o.GetMaxHeaderFieldSizeKb().GetValue() << 10,
		NoObsText:                  o.GetDisallowObsText().GetValue(),
		StreamResetRate:            count64(o.GetStreamResetRate()),
	}
	if keepalive := o.GetConnectionKeepalive(); keepalive != nil {
		at := at.Field("connection_keepalive")
		options.KeepaliveInterval = Duration(keepalive.GetInterval(), 0, at.Field("interval"), report)
		options.KeepaliveJitter = defaultJitter
		if jitter := keepalive.GetIntervalJitter(); jitter != nil {
			options.KeepaliveJitter = jitter.GetValue() / 100
		}
		options.KeepaliveTimeout = Duration(keepalive.GetTimeout(), 20*time.Second, at.Field("timeout"), report)
	}
	return options
}

// window is a flow-control window (RFC 9113 §6.9.2), in bytes. The messages' own rules
// bound it.
func window(v *wrapperspb.UInt32Value, fallback uint32) uint32 {
	if v == nil {
		return fallback
	}
	return v.GetValue()
}

// count is a limit as http2.Options has it, where 0 is one.
func count(v *wrapperspb.UInt32Value) int {
	if v == nil {
		return 0
	}
	return count64(wrapperspb.UInt64(uint64(v.GetValue())))
}

// count64 is count for a larger number.
func count64(v *wrapperspb.UInt64Value) int {
	switch {
	case v == nil:
		return 0 // the default
	case v.GetValue() == 0:
		return http2.None
	}
	return int(min(v.GetValue(), 1<<30))
}
