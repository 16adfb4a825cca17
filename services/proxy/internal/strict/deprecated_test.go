package strict

import (
	"testing"

	"github.com/stretchr/testify/require"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/reflect/protoregistry"
	"google.golang.org/protobuf/types/descriptorpb"

	_ "github.com/envoyproxy/go-control-plane/envoy/config/bootstrap/v3"
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
