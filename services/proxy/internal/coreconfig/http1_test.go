package coreconfig_test

import (
	"testing"

	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	"github.com/stretchr/testify/require"
	"google.golang.org/protobuf/types/known/wrapperspb"

	"github.com/weirproxy/weir/services/proxy/internal/coreconfig"
	"github.com/weirproxy/weir/services/proxy/internal/strict"
)

func TestHTTP1OfBothSides(t *testing.T) {
	report := &strict.Report{}
	down := coreconfig.DownstreamHTTP1(nil, "", report)
	require.Zero(t, down)
	down = coreconfig.DownstreamHTTP1(&corev3.Http1ProtocolOptions{
		AcceptHttp_10: true, DefaultHostForHttp_10: "a", EnableTrailers: true, AllowAbsoluteUrl: wrapperspb.Bool(false),
		HeaderKeyFormat: &corev3.Http1ProtocolOptions_HeaderKeyFormat{HeaderFormat: &corev3.Http1ProtocolOptions_HeaderKeyFormat_ProperCaseWords_{}},
	}, "", report)
	require.NoError(t, report.Err())
	require.True(t, down.ProperCase)
	require.True(t, down.Options.AcceptHTTP10)
	require.True(t, down.Options.Trailers)
	require.True(t, down.Options.RefuseAbsolute)
	require.Equal(t, "a", down.Options.DefaultHost)

	up := coreconfig.UpstreamHTTP1(&corev3.Http1ProtocolOptions{EnableTrailers: true}, "", report)
	require.NoError(t, report.Err())
	require.True(t, up.Options.Trailers)
	coreconfig.UpstreamHTTP1(&corev3.Http1ProtocolOptions{AcceptHttp_10: true, AllowAbsoluteUrl: wrapperspb.Bool(true)}, "o", report)
	require.EqualError(t, report.Err(), `o.accept_http_10: has no meaning for a cluster: it is for the connection manager
o.allow_absolute_url: has no meaning for a cluster: it is for the connection manager`)
}
