package resources

import (
	"time"

	clusterv3 "github.com/envoyproxy/go-control-plane/envoy/config/cluster/v3"
	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	"go.yaml.in/yaml/v3"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/durationpb"

	"github.com/weirproxy/weir/internal/protoyaml"
)

// plainCluster is what a file's fields are laid over: a cluster whose hosts come
// by EDS on the same stream.
func plainCluster() *clusterv3.Cluster {
	return &clusterv3.Cluster{
		ClusterDiscoveryType: &clusterv3.Cluster_Type{Type: clusterv3.Cluster_EDS},
		EdsClusterConfig: &clusterv3.Cluster_EdsClusterConfig{
			EdsConfig: &corev3.ConfigSource{
				ConfigSourceSpecifier: &corev3.ConfigSource_Ads{Ads: &corev3.AggregatedConfigSource{}},
				ResourceApiVersion:    corev3.ApiVersion_V3,
			},
		},
		ConnectTimeout: durationpb.New(time.Second),
		LbPolicy:       clusterv3.Cluster_ROUND_ROBIN,
	}
}

// cluster is the cluster of a service or of a subset of its hosts. Its assignment
// has its name.
func (t *Template) cluster(n name) *clusterv3.Cluster {
	made := t.services[n.service]
	if made == nil {
		made = t.base
	}
	made = proto.CloneOf(made)
	made.Name = n.cluster
	return made
}

// fillCluster lays the fields at a node over a cluster and notes what is wrong
// with it then. A cluster that passed has no name.
func fillCluster(f *protoyaml.File, n *yaml.Node, c *clusterv3.Cluster, path protoyaml.Path) {
	f.Fill(n, c, path)
	refuse := func(field protoyaml.Path, why string) { f.Add(path+"."+field, "%s", why) }
	if c.GetName() != "" {
		refuse("name", "every cluster bears the name of its service")
	}
	if _, custom := c.GetClusterDiscoveryType().(*clusterv3.Cluster_ClusterType); custom {
		refuse("cluster_type", "hosts come by EDS")
	} else if c.GetType() != clusterv3.Cluster_EDS {
		refuse("type", "hosts come by EDS")
	}
	if c.GetLoadAssignment() != nil {
		refuse("load_assignment", "hosts come by EDS")
	}
	if c.GetLbPolicy() == clusterv3.Cluster_CLUSTER_PROVIDED {
		refuse("lb_policy", "no cluster whose hosts come by EDS provides one")
	}
	if c.GetEdsClusterConfig().GetServiceName() != "" {
		refuse("eds_cluster_config.service_name", "assignments bear the names of their clusters")
	}
	source := c.GetEdsClusterConfig().GetEdsConfig()
	// Envoy knows no self: one that has no ADS stream must be told by
	// api_config_source the way that it knows discovery by.
	if source.GetAds() == nil && source.GetSelf() == nil && source.GetApiConfigSource() == nil {
		refuse("eds_cluster_config.eds_config", "hosts come from here: want ads, self or api_config_source")
	}
	if source.GetResourceApiVersion() != corev3.ApiVersion_V3 {
		refuse("eds_cluster_config.eds_config.resource_api_version", "want V3")
	}
	c.Name = "a" // as one made from it has
	f.Validate(c, path)
	c.Name = ""
}
