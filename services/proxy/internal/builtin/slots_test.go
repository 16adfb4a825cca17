package builtin

import (
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
	"google.golang.org/protobuf/reflect/protoreflect"
)

const (
	anyName = "google.protobuf.Any"
	// generic stands in many places, so that the field that it is in counts.
	generic = "envoy.config.core.v3.TypedExtensionConfig"
)

// known are the types that the refusal of another one names.
func known(t *testing.T, field, outer protoreflect.FieldDescriptor) string {
	schema, err := Schema()
	require.NoError(t, err)
	_, err = schema.FindFor("type.googleapis.com/envoy.Nothing", field, outer)
	require.Error(t, err)
	_, names, found := strings.Cut(err.Error(), "supported are: ")
	require.True(t, found)
	return names
}

// TestEveryFieldWithATypeHasTypesThatFit holds the slots to the supported fields.
func TestEveryFieldWithATypeHasTypesThatFit(t *testing.T) {
	left := slots()
	for _, part := range fields() {
		for message, names := range part {
			for _, name := range names {
				fd := field(t, message, name)
				inner := valueOf(fd).Message()
				if inner == nil || message == generic || inner.FullName() != anyName && inner.FullName() != generic {
					continue
				}
				require.Contains(t, slots(), fd.FullName())
				require.NotEmpty(t, known(t, fd, nil), fd.FullName())
				delete(left, fd.FullName())
			}
		}
	}
	require.Empty(t, left)
}

func TestARefusedTypeIsToldThoseOfItsPlace(t *testing.T) {
	for _, c := range []struct {
		message, outer protoreflect.FullName
		name, within   protoreflect.Name
		want           string
	}{
		{"envoy.config.listener.v3.Filter", "", "typed_config", "", "envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager"},
		{
			"envoy.config.accesslog.v3.AccessLog", "", "typed_config", "",
			"envoy.extensions.access_loggers.file.v3.FileAccessLog, envoy.extensions.access_loggers.stream.v3.StderrAccessLog, envoy.extensions.access_loggers.stream.v3.StdoutAccessLog",
		},
		{
			generic, "envoy.config.core.v3.Http1ProtocolOptions.HeaderKeyFormat", "typed_config", "stateful_formatter",
			"envoy.extensions.http.header_formatters.preserve_case.v3.PreserveCaseFormatterConfig",
		},
	} {
		var outer protoreflect.FieldDescriptor
		if c.outer != "" {
			outer = field(t, c.outer, c.within)
		}
		require.Equal(t, c.want, known(t, field(t, c.message, c.name), outer))
	}
	routes := known(t, field(t, "envoy.config.route.v3.Route", "typed_per_filter_config"), nil)
	require.Contains(t, routes, "RateLimitPerRoute")
	require.Contains(t, routes, "envoy.config.route.v3.FilterConfig")
	require.NotContains(t, routes, "Router")
	filters := known(t, field(t, "envoy.extensions.filters.network.http_connection_manager.v3.HttpFilter", "typed_config"), nil)
	require.Contains(t, filters, "envoy.extensions.filters.http.router.v3.Router")
	require.Contains(t, filters, "envoy.extensions.filters.http.buffer.v3.Buffer,")
	require.NotContains(t, filters, "PerRoute")
}
