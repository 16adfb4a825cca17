package resourcefiles

import (
	clusterv3 "github.com/envoyproxy/go-control-plane/envoy/config/cluster/v3"
	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	listenerv3 "github.com/envoyproxy/go-control-plane/envoy/config/listener/v3"
	routev3 "github.com/envoyproxy/go-control-plane/envoy/config/route/v3"
	hcmv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/network/http_connection_manager/v3"
	tcpv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/network/tcp_proxy/v3"
	tlsv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/transport_sockets/tls/v3"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/types/known/anypb"

	"github.com/weirproxy/weir/services/discovery/internal/resources"
)

// namedBy lists the resources that a message names and has from us, each once,
// in the order in which they are found; those in Anys too.
func namedBy(m proto.Message) []key {
	n := &naming{seen: map[key]bool{}}
	n.message(m.ProtoReflect())
	return n.list
}

// naming is the search for names in one message.
type naming struct {
	list []key
	seen map[key]bool
}

func (n *naming) add(t resources.Type, name string) {
	if k := (key{t, name}); name != "" && !n.seen[k] {
		n.seen[k] = true
		n.list = append(n.list, k)
	}
}

// from adds the name of what has a source, if that is this control plane.
func (n *naming) from(source *corev3.ConfigSource, t resources.Type, name string) {
	if source.GetAds() != nil || source.GetSelf() != nil {
		n.add(t, name)
	}
}

// message looks through a message and all in it.
func (n *naming) message(m protoreflect.Message) {
	switch m := m.Interface().(type) {
	case *anypb.Any:
		if content, err := m.UnmarshalNew(); err == nil {
			n.message(content.ProtoReflect())
		}
		return
	case *clusterv3.Cluster:
		if name := m.GetEdsClusterConfig().GetServiceName(); name != "" {
			n.from(m.GetEdsClusterConfig().GetEdsConfig(), resources.Endpoints, name)
		} else {
			n.from(m.GetEdsClusterConfig().GetEdsConfig(), resources.Endpoints, m.GetName())
		}
	case *routev3.RouteAction:
		n.add(resources.Clusters, m.GetCluster())
	case *routev3.RouteAction_RequestMirrorPolicy:
		n.add(resources.Clusters, m.GetCluster())
	case *routev3.WeightedCluster_ClusterWeight:
		n.add(resources.Clusters, m.GetName())
	case *tcpv3.TcpProxy:
		n.add(resources.Clusters, m.GetCluster())
	case *tcpv3.TcpProxy_WeightedCluster_ClusterWeight:
		n.add(resources.Clusters, m.GetName())
	case *hcmv3.Rds:
		n.from(m.GetConfigSource(), resources.Routes, m.GetRouteConfigName())
	case *hcmv3.HttpFilter:
		n.from(m.GetConfigDiscovery().GetConfigSource(), resources.Extensions, m.GetName())
	case *listenerv3.Filter:
		n.from(m.GetConfigDiscovery().GetConfigSource(), resources.Extensions, m.GetName())
	case *listenerv3.ListenerFilter:
		n.from(m.GetConfigDiscovery().GetConfigSource(), resources.Extensions, m.GetName())
	case *tlsv3.SdsSecretConfig:
		n.from(m.GetSdsConfig(), resources.Secrets, m.GetName())
	}
	fields := m.Descriptor().Fields()
	for i := range fields.Len() {
		if fd := fields.Get(i); m.Has(fd) {
			n.field(m.Get(fd), fd)
		}
	}
}

func (n *naming) field(v protoreflect.Value, fd protoreflect.FieldDescriptor) {
	switch {
	case fd.IsMap():
		if fd.MapValue().Message() != nil {
			v.Map().Range(func(_ protoreflect.MapKey, v protoreflect.Value) bool {
				n.message(v.Message())
				return true
			})
		}
	case fd.Message() == nil:
	case fd.IsList():
		for i := range v.List().Len() {
			n.message(v.List().Get(i).Message())
		}
	default:
		n.message(v.Message())
	}
}
