package resources

import (
	clusterv3 "github.com/envoyproxy/go-control-plane/envoy/config/cluster/v3"
	"go.yaml.in/yaml/v3"
	"google.golang.org/protobuf/proto"

	"github.com/weirproxy/weir/internal/protoyaml"
)

// Template says what the clusters of services are made of. It never changes.
type Template struct {
	// base is the cluster of a service that has none of its own below; neither
	// has a name.
	base     *clusterv3.Cluster
	services map[string]*clusterv3.Cluster
}

// plainTemplate is the template of a file that sets nothing.
func plainTemplate() *Template { return &Template{base: plainCluster()} }

// Services is how many services have a cluster that is not that of all.
func (t *Template) Services() int { return len(t.services) }

// ReadTemplate reads a template from YAML or JSON:
//
//	cluster:            # fields of envoy.config.cluster.v3.Cluster, for every service
//	  connect_timeout: 0.25s
//	services:           # laid over them, for one service and its subsets
//	  users:
//	    lb_policy: LEAST_REQUEST
//
// What is not given is as in plainCluster. Fields are laid over
// others as protoyaml.File.Fill says. The error joins all that is wrong, each
// with file, line, column and field.
func ReadTemplate(file string, text []byte) (*Template, error) {
	t := plainTemplate()
	f, root := protoyaml.Open(file, text)
	if root == nil {
		return nil, f.Err()
	}
	var services *yaml.Node
	for _, e := range f.Mapping(root, "", "a mapping") {
		switch e.Key {
		case "cluster":
			fillCluster(f, e.Value, t.base, "cluster")
		case "services":
			services = e.Value
		default:
			f.FaultOf(e, "", "%.80q is not one of cluster, services", e.Key)
		}
	}
	base := t.base
	if f.Err() != nil {
		base = plainCluster() // what is wrong for every service is not told again for each
	}
	if services != nil {
		t.services = readServices(f, services, base)
	}
	if err := f.Err(); err != nil {
		return nil, err
	}
	return t, nil
}

// readServices reads the clusters of single services, each over a copy of base.
func readServices(f *protoyaml.File, n *yaml.Node, base *clusterv3.Cluster) map[string]*clusterv3.Cluster {
	services := map[string]*clusterv3.Cluster{}
	for _, e := range f.Mapping(n, "services", "a mapping by service") {
		path := protoyaml.Path("services").Key(e.Key)
		if n, _ := readName(Clusters, e.Key); n.service != e.Key {
			f.FaultOf(e, path, "want a service's name: its subsets have the cluster of the service")
			continue
		}
		made := proto.CloneOf(base)
		fillCluster(f, e.Value, made, path)
		services[e.Key] = made
	}
	return services
}
