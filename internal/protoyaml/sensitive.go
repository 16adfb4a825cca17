package protoyaml

import (
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/reflect/protoregistry"
)

// sensitiveOption is how Envoy's messages mark fields whose content is not to be
// shown, as private keys and passwords.
const sensitiveOption = "udpa.annotations.sensitive"

// secret is the message of which nothing but the name is to be shown.
const secret = "envoy.extensions.transport_sockets.tls.v3.Secret"

// hush has faults tell where they are and not what stands there, until undo, if a
// message is a secret or has a sensitive field, of which a bad line beside it may
// be a part.
func (f *File) hush(m protoreflect.MessageDescriptor) (undo func()) {
	holds, known := f.sensitive[m.FullName()]
	if !known {
		holds = holdsSensitive(m)
		f.sensitive[m.FullName()] = holds
	}
	if !holds {
		return func() {}
	}
	f.hushed++
	return func() { f.hushed-- }
}

func holdsSensitive(m protoreflect.MessageDescriptor) bool {
	for i := range m.Fields().Len() {
		if isSensitive(m.Fields().Get(i)) {
			return true
		}
	}
	return m.FullName() == secret
}

func isSensitive(fd protoreflect.FieldDescriptor) bool {
	option, err := protoregistry.GlobalTypes.FindExtensionByName(sensitiveOption)
	if err != nil {
		return false // no message is linked that has such fields
	}
	marked, _ := proto.GetExtension(fd.Options(), option).(bool)
	return marked
}
