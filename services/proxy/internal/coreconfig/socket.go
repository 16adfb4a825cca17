package coreconfig

import (
	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	rawbufferv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/transport_sockets/raw_buffer/v3"

	"github.com/weirproxy/weir/services/proxy/internal/strict"
)

// socketFields are the supported fields of transport sockets.
var socketFields = strict.Fields{
	"envoy.config.core.v3.TransportSocket":                       {"name", "typed_config"},
	"envoy.extensions.transport_sockets.raw_buffer.v3.RawBuffer": {},
}

// TransportSocket holds a transport_socket, which may be nil, at the path at to the
// one that there is: raw_buffer, which says that bytes go over TCP as they are.
func TransportSocket(m *corev3.TransportSocket, at strict.Path, report *strict.Report) {
	if m == nil {
		return
	}
	at = at.Field("typed_config")
	if m.GetTypedConfig() == nil {
		report.Add(at, "transport socket %q needs one", m.GetName())
		return
	}
	socket, err := strict.Unpack(m.GetTypedConfig())
	if _, ok := socket.(*rawbufferv3.RawBuffer); err == nil && !ok {
		report.Add(at, "%s is no transport socket known here: use envoy.extensions.transport_sockets.raw_buffer.v3.RawBuffer",
			socket.ProtoReflect().Descriptor().FullName())
	}
}
