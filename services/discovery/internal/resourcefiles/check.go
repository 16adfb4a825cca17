package resourcefiles

import (
	"strings"

	clusterv3 "github.com/envoyproxy/go-control-plane/envoy/config/cluster/v3"
	routev3 "github.com/envoyproxy/go-control-plane/envoy/config/route/v3"
	tlsv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/transport_sockets/tls/v3"
	"google.golang.org/protobuf/proto"

	"github.com/weirproxy/weir/internal/protoyaml"
)

// check notes what the generated validators do not see of the message at a path,
// and every Envoy refuses: with it a response as a whole.
func check(f *protoyaml.File, m proto.Message, path protoyaml.Path) {
	switch m := m.(type) {
	case *clusterv3.Cluster:
		if m.GetType() == clusterv3.Cluster_EDS && m.GetClusterType() == nil && m.GetEdsClusterConfig().GetEdsConfig() == nil {
			f.Add(path.Field("eds_cluster_config"), "a cluster of type EDS wants an eds_config")
		}
	case *routev3.RouteConfiguration:
		checkDomains(f, m, path)
	case *tlsv3.Secret:
		if m.GetType() == nil {
			f.Add(path, "a secret holds one of tls_certificate, session_ticket_keys, validation_context, generic_secret")
		}
	}
}

// checkDomains notes the domains that two virtual hosts have, or one has twice,
// whatever case they are written in.
func checkDomains(f *protoyaml.File, c *routev3.RouteConfiguration, path protoyaml.Path) {
	taken := map[string]string{}
	for i, host := range c.GetVirtualHosts() {
		for j, domain := range host.GetDomains() {
			at := path.Field("virtual_hosts").Index(i).Field("domains").Index(j)
			domain = strings.ToLower(domain)
			if first := taken[domain]; first != "" {
				f.Add(at, "the domain %q is given at %s already", domain, first)
				continue
			}
			taken[domain] = f.Place(at)
		}
	}
}
