package coreconfig_test

import (
	"testing"
	"time"

	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	typev3 "github.com/envoyproxy/go-control-plane/envoy/type/v3"
	"github.com/stretchr/testify/require"
	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/wrapperspb"

	"github.com/weirproxy/weir/internal/http2"
	"github.com/weirproxy/weir/services/proxy/internal/coreconfig"
	"github.com/weirproxy/weir/services/proxy/internal/strict"
)

func TestHTTP2(t *testing.T) {
	report := &strict.Report{}
	require.Equal(t, http2.Options{StreamWindow: 1 << 20, ConnectionWindow: 8 << 20}, coreconfig.HTTP2(nil, "", report))
	o := coreconfig.HTTP2(&corev3.Http2ProtocolOptions{
		HpackTableSize: wrapperspb.UInt32(100), MaxConcurrentStreams: wrapperspb.UInt32(7), InitialStreamWindowSize: wrapperspb.UInt32(65535),
		EnableHuffmanEncoding: wrapperspb.Bool(false), StreamResetBurst: wrapperspb.UInt64(5), StreamResetRate: wrapperspb.UInt64(6),
		ConnectionKeepalive:  &corev3.KeepaliveSettings{Interval: durationpb.New(time.Second)},
		MaxHeaderFieldSizeKb: wrapperspb.UInt32(64), DisallowObsText: wrapperspb.Bool(true),
	}, "", report)
	require.NoError(t, report.Err())
	require.Equal(t, http2.Options{
		HeaderTableSize: 100, EncoderTableSize: 100, MaxConcurrentStreams: 7, StreamWindow: 65535, ConnectionWindow: 8 << 20,
		NoHuffman: true, StreamResetBurst: 5, StreamResetRate: 6, KeepaliveInterval: time.Second, KeepaliveJitter: 0.15, KeepaliveTimeout: 20 * time.Second,
		MaxFieldBytes: 64 << 10, NoObsText: true,
	}, o)
	none := coreconfig.HTTP2(&corev3.Http2ProtocolOptions{
		HpackTableSize: wrapperspb.UInt32(0), MaxConsecutiveInboundFramesWithEmptyPayload: wrapperspb.UInt32(0), MaxInboundPriorityFramesPerStream: wrapperspb.UInt32(0),
		StreamResetBurst: wrapperspb.UInt64(0), StreamResetRate: wrapperspb.UInt64(0),
	}, "", report)
	require.Equal(t, http2.Options{
		HeaderTableSize: http2.None, EncoderTableSize: http2.None, StreamWindow: 1 << 20, ConnectionWindow: 8 << 20,
		MaxConsecutiveEmptyFrames: http2.None, MaxPriorityFramesPerStream: http2.None, StreamResetBurst: http2.None, StreamResetRate: http2.None,
	}, none)
	keepalive := &corev3.KeepaliveSettings{Interval: durationpb.New(time.Second), IntervalJitter: &typev3.Percent{Value: 50}}
	o = coreconfig.HTTP2(&corev3.Http2ProtocolOptions{ConnectionKeepalive: keepalive}, "", report)
	require.InDelta(t, 0.5, o.KeepaliveJitter, 0)
	require.NoError(t, report.Err())
}
