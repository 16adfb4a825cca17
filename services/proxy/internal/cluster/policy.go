package cluster

import (
	clusterv3 "github.com/envoyproxy/go-control-plane/envoy/config/cluster/v3"
	wrrlocalityv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/load_balancing_policies/wrr_locality/v3"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"

	"github.com/weirproxy/weir/services/proxy/internal/layeredruntime"
	"github.com/weirproxy/weir/services/proxy/internal/stats"
	"github.com/weirproxy/weir/services/proxy/internal/strict"
)

// Policy is one load-balancing policy that ships.
type Policy struct {
	// Name is the value of Cluster.lb_policy that chooses it.
	Name clusterv3.Cluster_LbPolicy
	// Config is the message that chooses it in load_balancing_policy.policies,
	// and configures it.
	Config protoreflect.FullName
	// Field is the one of Cluster.lb_config that is the policy's; empty for none.
	Field protoreflect.Name
	// Fields are the supported fields of Config, of Field and of the messages in
	// them.
	Fields strict.Fields
	// FromCluster is the Config of a cluster whose lb_policy is Name, which has
	// it in Field and in common_lb_config.
	FromCluster func(*clusterv3.Cluster) proto.Message
	// Parse reads a Config, whose fields lie below the path at. Faults go to
	// report; the result is for use only if there are none.
	Parse func(config proto.Message, at strict.Path, report *strict.Report) Balancing
}

// Balancing is a policy with its configuration.
type Balancing struct {
	// New makes the balancer of one snapshot's hosts, which are never empty, and
	// the balancer's to keep. Scope is the cluster's, for what the balancer tells
	// of itself; runtime has the values that it leaves to that, and may be nil.
	New func(hosts []WeightedHost, scope *stats.Scope, runtime *layeredruntime.Runtime) Balancer
	// Hashing says that requests of one hash go to one host. The priority is
	// chosen by the same hash then, and all localities share one balancer.
	Hashing bool
	// LocalityWeighted says that localities get requests by their weights.
	LocalityWeighted bool
}

// Balancer picks a host for each request, from many goroutines at once. It must
// not block, nor allocate.
type Balancer interface {
	// Pick returns a host, never nil. Hash is the request's where the policy is
	// Hashing, random for a request without; else it means nothing. Attempt is 0
	// at first, and counts up while the host is not wanted.
	Pick(hash uint64, attempt int) *Host
}

// WeightedHost is a host that gets requests, with its share of them.
type WeightedHost struct {
	*Host
	// Weight is more than 0: in proportion to the sum over all.
	Weight float64
	// Hostname may be empty.
	Hostname string
	// HashKey is what a policy that hashes knows the host by, if not empty.
	HashKey string
}

// parsePolicy reads which policy a cluster has, with its configuration.
func parsePolicy(c *clusterv3.Cluster, at strict.Path, policies []Policy, report *strict.Report) Balancing {
	if list := c.GetLoadBalancingPolicy(); list != nil {
		refuseOldLocalities(c, at, report)
		return parsePolicies(list, at.Field("load_balancing_policy"), policies, report)
	}
	for _, p := range policies {
		if p.Name != c.GetLbPolicy() {
			continue
		}
		message := c.ProtoReflect()
		set := message.WhichOneof(message.Descriptor().Oneofs().ByName("lb_config"))
		if set != nil && set.Name() != p.Field {
			report.Add(at.Field(string(set.Name())), "is for another policy than %s, which is the cluster's lb_policy", p.Name)
		}
		balancing := p.Parse(p.FromCluster(c), at.Field(string(p.Field)), report)
		balancing.LocalityWeighted = c.GetCommonLbConfig().GetLocalityWeightedLbConfig() != nil
		if c.GetCommonLbConfig().GetConsistentHashingLbConfig() != nil && !balancing.Hashing {
			report.Add(at.Field("common_lb_config").Field("consistent_hashing_lb_config"), "is for policies that hash, which %s does not", p.Name)
		}
		return balancing
	}
	if c.GetLbPolicy() == clusterv3.Cluster_LOAD_BALANCING_POLICY_CONFIG {
		report.Add(at.Field("lb_policy"), "%s needs load_balancing_policy", c.GetLbPolicy())
	} else {
		report.Add(at.Field("lb_policy"), "%s is not supported", c.GetLbPolicy())
	}
	return Balancing{}
}

// refuseOldLocalities refuses what a load_balancing_policy says otherwise.
func refuseOldLocalities(c *clusterv3.Cluster, at strict.Path, report *strict.Report) {
	common := c.GetCommonLbConfig()
	at = at.Field("common_lb_config")
	if common.GetLocalityWeightedLbConfig() != nil {
		report.Add(at.Field("locality_weighted_lb_config"), "stands in the policy's typed_config where there is a load_balancing_policy")
	}
	if common.GetConsistentHashingLbConfig() != nil {
		report.Add(at.Field("consistent_hashing_lb_config"), "stands in the policy's typed_config where there is a load_balancing_policy")
	}
}

// FirstKnown are the lists of which the first entry counts whose type is
// supported; those before it are for others.
func FirstKnown() []protoreflect.FullName {
	return []protoreflect.FullName{"envoy.config.cluster.v3.LoadBalancingPolicy.policies"}
}

// parsePolicies takes the first policy of the list that ships.
func parsePolicies(list *clusterv3.LoadBalancingPolicy, at strict.Path, policies []Policy, report *strict.Report) Balancing {
	for i, entry := range list.GetPolicies() {
		at := at.Field("policies").Index(i).Field("typed_extension_config").Field("typed_config")
		message, err := strict.Unpack(entry.GetTypedExtensionConfig().GetTypedConfig())
		if err != nil { // nobody here knows the type, or the schema's walk says what is wrong
			continue
		}
		if around, ok := message.(*wrrlocalityv3.WrrLocality); ok {
			balancing := parsePolicies(around.GetEndpointPickingPolicy(), at.Field("endpoint_picking_policy"), policies, report)
			balancing.LocalityWeighted = true
			return balancing
		}
		for _, p := range policies {
			if p.Config == message.ProtoReflect().Descriptor().FullName() {
				return p.Parse(message, at, report)
			}
		}
	}
	report.Add(at, "none of its policies is supported")
	return Balancing{}
}
