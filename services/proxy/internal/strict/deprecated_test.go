package strict

import (
	"bytes"
	"log/slog"
	"testing"

	clusterv3 "github.com/envoyproxy/go-control-plane/envoy/config/cluster/v3"
	"github.com/stretchr/testify/require"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/reflect/protoregistry"
	"google.golang.org/protobuf/types/descriptorpb"

	_ "github.com/envoyproxy/go-control-plane/envoy/config/bootstrap/v3"
	_ "github.com/envoyproxy/go-control-plane/envoy/extensions/load_balancing_policies/ring_hash/v3"
)

// TestReplacedFieldsAreThereAndDeprecated holds the list to the linked protos.
func TestReplacedFieldsAreThereAndDeprecated(t *testing.T) {
	for name, replacement := range instead {
		found, err := protoregistry.GlobalFiles.FindDescriptorByName(name)
		require.NoError(t, err, name)
		fd, ok := found.(protoreflect.FieldDescriptor)
		require.True(t, ok, name)
		require.True(t, fd.Options().(*descriptorpb.FieldOptions).GetDeprecated(), name)
		require.Equal(t, "deprecated: use "+replacement, (&Schema{}).WhyNot(fd))
	}
}

// TestDeprecatedFieldsThatAreTakenAreWarnedOf wants the same of a file and of xDS.
func TestDeprecatedFieldsThatAreTakenAreWarnedOf(t *testing.T) {
	schema, err := NewSchema(Fields{
		"envoy.config.cluster.v3.Cluster":           {"name", "dns_refresh_rate", "http2_protocol_options"},
		"envoy.config.core.v3.Http2ProtocolOptions": {},
	})
	require.NoError(t, err)
	m := &clusterv3.Cluster{}
	report := Load("a.yaml", []byte("name: a\nhttp2_protocol_options: {}\ndns_refresh_rate: 1s\n"), m, schema)
	require.NoError(t, report.Err())
	warnings := func(r *Report) string {
		var log bytes.Buffer
		LogWarnings(slog.New(slog.NewTextHandler(&log, &slog.HandlerOptions{ReplaceAttr: func(_ []string, a slog.Attr) slog.Attr {
			if a.Key == "warning" {
				return a
			}
			return slog.Attr{}
		}})), r)
		return log.String()
	}
	require.Equal(t, `warning="a.yaml:2:1: http2_protocol_options: deprecated: use http2_protocol_options of the HttpProtocolOptions in typed_extension_protocol_options"
warning="a.yaml:3:1: dns_refresh_rate: deprecated: use the dns_refresh_rate of a DnsCluster"
`, warnings(report))

	pushed := &Report{}
	Check(m, `clusters["a"]`, schema, pushed)
	require.NoError(t, pushed.Err())
	require.Len(t, pushed.Warnings(), 2)
	require.Contains(t, warnings(pushed), `clusters[\"a\"].dns_refresh_rate: deprecated: use the dns_refresh_rate of a DnsCluster`)

	plain := Load("a.yaml", []byte("name: a"), &clusterv3.Cluster{}, schema)
	require.Empty(t, plain.Warnings())
}
