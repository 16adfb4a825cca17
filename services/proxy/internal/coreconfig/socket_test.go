package coreconfig_test

import (
	"testing"

	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	"github.com/stretchr/testify/require"

	"github.com/weirproxy/weir/services/proxy/internal/coreconfig"
	"github.com/weirproxy/weir/services/proxy/internal/strict"
)

func TestTransportSocket(t *testing.T) {
	schema, err := strict.NewSchema(coreconfig.Fields())
	require.NoError(t, err)
	for _, c := range []struct{ text, fault string }{
		{`{name: raw, typed_config: {"@type": type.googleapis.com/envoy.extensions.transport_sockets.raw_buffer.v3.RawBuffer}}`, ""},
		{`{name: raw}`, `f:1:1: typed_config: transport socket "raw" needs one`},
		{`{name: p, typed_config: {"@type": type.googleapis.com/envoy.extensions.http.header_formatters.preserve_case.v3.PreserveCaseFormatterConfig}}`,
			`f:1:11: typed_config: envoy.extensions.http.header_formatters.preserve_case.v3.PreserveCaseFormatterConfig is no transport socket known here: ` +
				`use envoy.extensions.transport_sockets.raw_buffer.v3.RawBuffer`},
	} {
		message := &corev3.TransportSocket{}
		report := strict.Load("f", []byte(c.text), message, schema)
		coreconfig.TransportSocket(message, "", report)
		require.Equal(t, c.fault, faults(report))
	}
	report := &strict.Report{}
	coreconfig.TransportSocket(nil, "transport_socket", report)
	require.NoError(t, report.Err(), "none is TCP, too")
}
