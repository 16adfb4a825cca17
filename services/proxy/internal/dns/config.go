package dns

import (
	"time"

	clusterv3 "github.com/envoyproxy/go-control-plane/envoy/config/cluster/v3"
	commondnsv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/clusters/common/dns/v3"
	dnsv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/clusters/dns/v3"
	"google.golang.org/protobuf/reflect/protoreflect"

	"github.com/weirproxy/weir/services/proxy/internal/coreconfig"
	"github.com/weirproxy/weir/services/proxy/internal/strict"
)

// Fields are the supported fields of the messages that Parse and OfCluster
// read.
func Fields() strict.Fields {
	return strict.Fields{
		"envoy.config.cluster.v3.Cluster":             ownFields(),
		"envoy.config.cluster.v3.Cluster.RefreshRate": {"base_interval", "max_interval"},
		"envoy.extensions.clusters.dns.v3.DnsCluster": {
			"dns_refresh_rate", "dns_failure_refresh_rate", "dns_jitter", "dns_lookup_family", "all_addresses_in_single_endpoint",
		},
		"envoy.extensions.clusters.dns.v3.DnsCluster.RefreshRate": {"base_interval", "max_interval"},
	}
}

// defaultRefreshRate is Envoy's of dns_refresh_rate.
const defaultRefreshRate = 5 * time.Second

// Config says how names are looked up.
type Config struct {
	// Logical says that all addresses of a name are one host, which is at the
	// first of them (LOGICAL_DNS); else each is a host of its own (STRICT_DNS).
	Logical bool

	// refresh is the time from an answer to the next lookup; jitter is added to
	// it at random.
	refresh, jitter time.Duration
	// failureBase is the time from a failed lookup to the next, which doubles at
	// each further one up to failureMost.
	failureBase, failureMost time.Duration
	// families are asked in their order until one has addresses, or, if all, to
	// the last.
	families []string
	all      bool
}

// families are what each dns_lookup_family asks for.
var families = map[commondnsv3.DnsLookupFamily][]string{
	commondnsv3.DnsLookupFamily_UNSPECIFIED:  {"ip6", "ip4"},
	commondnsv3.DnsLookupFamily_AUTO:         {"ip6", "ip4"},
	commondnsv3.DnsLookupFamily_V4_ONLY:      {"ip4"},
	commondnsv3.DnsLookupFamily_V6_ONLY:      {"ip6"},
	commondnsv3.DnsLookupFamily_V4_PREFERRED: {"ip4", "ip6"},
	commondnsv3.DnsLookupFamily_ALL:          {"ip6", "ip4"},
}

// OfCluster is what a cluster says of DNS in fields of its own.
//
//nolint:staticcheck // they are deprecated, as is the type, and in wide use
func OfCluster(c *clusterv3.Cluster) *dnsv3.DnsCluster {
	made := &dnsv3.DnsCluster{
		DnsRefreshRate:               c.GetDnsRefreshRate(),
		DnsJitter:                    c.GetDnsJitter(),
		AllAddressesInSingleEndpoint: c.GetType() == clusterv3.Cluster_LOGICAL_DNS,
		DnsLookupFamily:              commondnsv3.DnsLookupFamily(commondnsv3.DnsLookupFamily_value[c.GetDnsLookupFamily().String()]),
	}
	if rate := c.GetDnsFailureRefreshRate(); rate != nil {
		made.DnsFailureRefreshRate = &dnsv3.DnsCluster_RefreshRate{BaseInterval: rate.GetBaseInterval(), MaxInterval: rate.GetMaxInterval()}
	}
	return made
}

// Parse reads a DnsCluster, which may be nil and whose fields are those at the
// path at.
func Parse(m *dnsv3.DnsCluster, at strict.Path, report *strict.Report) *Config {
	d := &Config{
		Logical:  m.GetAllAddressesInSingleEndpoint(),
		refresh:  defaultRefreshRate,
		jitter:   coreconfig.Duration(m.GetDnsJitter(), 0, at.Field("dns_jitter"), report),
		families: families[m.GetDnsLookupFamily()],
		all:      m.GetDnsLookupFamily() == commondnsv3.DnsLookupFamily_ALL,
	}
	if m.GetDnsRefreshRate() != nil {
		d.refresh = m.GetDnsRefreshRate().AsDuration()
	}
	d.failureBase, d.failureMost = d.refresh, d.refresh
	if rate := m.GetDnsFailureRefreshRate(); rate != nil {
		d.failureBase = rate.GetBaseInterval().AsDuration()
		d.failureMost = 10 * d.failureBase
		if rate.GetMaxInterval() != nil {
			d.failureMost = rate.GetMaxInterval().AsDuration()
		}
		if d.failureMost < d.failureBase {
			report.Add(at.Field("dns_failure_refresh_rate").Field("max_interval"), "%v is less than base_interval, %v", d.failureMost, d.failureBase)
		}
	}
	return d
}

// RefuseFields refuses the cluster's own fields for DNS, which say nothing in a
// cluster of another type.
func RefuseFields(c *clusterv3.Cluster, at strict.Path, report *strict.Report) {
	message := c.ProtoReflect()
	for _, name := range ownFields() {
		if message.Has(message.Descriptor().Fields().ByName(name)) {
			report.Add(at.Field(string(name)), "only a cluster of type STRICT_DNS or LOGICAL_DNS has one")
		}
	}
}

// ownFields are those that a cluster has for DNS beside DnsCluster.
func ownFields() []protoreflect.Name {
	return []protoreflect.Name{"dns_refresh_rate", "dns_failure_refresh_rate", "dns_jitter", "dns_lookup_family"}
}
