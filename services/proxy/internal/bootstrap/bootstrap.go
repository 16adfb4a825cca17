// Package bootstrap reads the configuration that the proxy starts with: Envoy's
// v3 Bootstrap, from a file, from text on the command line, or from both. App
// loads it once and hands its listeners and clusters to the packages that
// parse them. It opens nothing, and what stands inside a listener or a cluster
// is not its business.
package bootstrap

import (
	"time"

	bootstrapv3 "github.com/envoyproxy/go-control-plane/envoy/config/bootstrap/v3"
	clusterv3 "github.com/envoyproxy/go-control-plane/envoy/config/cluster/v3"
	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	listenerv3 "github.com/envoyproxy/go-control-plane/envoy/config/listener/v3"
	"google.golang.org/protobuf/proto"

	"github.com/weirproxy/weir/services/proxy/internal/coreconfig"
	"github.com/weirproxy/weir/services/proxy/internal/strict"
)

// Fields are the supported fields of the bootstrap. Those of the messages that
// others share with it are coreconfig's.
func Fields() strict.Fields {
	return strict.Fields{
		"envoy.config.bootstrap.v3.Bootstrap":                  {"node", "static_resources", "dynamic_resources", "admin"},
		"envoy.config.bootstrap.v3.Bootstrap.StaticResources":  {"listeners", "clusters"},
		"envoy.config.bootstrap.v3.Bootstrap.DynamicResources": {"ads_config", "cds_config"},
		"envoy.config.bootstrap.v3.Admin":                      {"address"},

		"envoy.config.core.v3.Node":            {"id", "cluster", "locality", "metadata"},
		"envoy.config.core.v3.ApiConfigSource": {"api_type", "transport_api_version", "grpc_services", "set_node_on_first_message_only"},
	}
}

// Source says where a bootstrap comes from.
type Source struct {
	// File is the name of the file that Text was read from; empty for none.
	File string
	Text []byte
	// Overlay is merged over the file: it adds to lists, and replaces or fills
	// what else it names. Empty for none.
	Overlay []byte
	// NodeID and NodeCluster, if set, win over the node in the texts.
	NodeID, NodeCluster string
}

// overlayName stands for a file's name in faults of the overlay.
const overlayName = "--config-yaml"

// Bootstrap is a loaded bootstrap.
type Bootstrap struct {
	// Message is the whole, as merged, with the node of the flags.
	Message *bootstrapv3.Bootstrap
	// Node is how the proxy names itself to a control plane. Never nil.
	Node *corev3.Node
	// AdminAddress is "host:port"; empty for no admin listener.
	AdminAddress string
	Listeners    []Listener
	Clusters     []Cluster
	// ADS is nil without a control plane.
	ADS *ADS
	// CDS is nil where clusters do not come from the control plane.
	CDS *CDS
}

// Listener is a static listener and where it stands.
type Listener struct {
	Message *listenerv3.Listener
	At      strict.Path
}

// Cluster is a static cluster and where it stands.
type Cluster struct {
	Message *clusterv3.Cluster
	At      strict.Path
}

// ADS says where the aggregated discovery service is.
type ADS struct {
	// Cluster is the name of the static cluster that serves it by gRPC; that
	// there is one is for the caller to check, who parses the clusters.
	Cluster string
	// NodeOnFirstMessageOnly leaves the node out of all but the first request
	// of a stream.
	NodeOnFirstMessageOnly bool
	At                     strict.Path
}

// CDS says how the list of clusters is asked for.
type CDS struct {
	// InitialFetchTimeout is how long the start waits for it; 0 for ever.
	InitialFetchTimeout time.Duration
}

// Load reads a bootstrap. The result is for use only if the report, to which
// those who parse its listeners and clusters then add, has no faults. Names
// are not compared: that is for those who look things up by them.
func Load(source Source, schema *strict.Schema) (*Bootstrap, *strict.Report) {
	var texts []strict.Source
	if source.File != "" || len(source.Overlay) == 0 {
		texts = append(texts, strict.Source{File: source.File, Text: source.Text})
	}
	if len(source.Overlay) > 0 {
		texts = append(texts, strict.Source{File: overlayName, Text: source.Overlay})
	}
	b := &Bootstrap{Message: &bootstrapv3.Bootstrap{}}
	report := strict.LoadMerged(b.Message, schema, texts...)
	b.readNode(source)
	b.readAdmin(report)
	b.readStatic()
	b.readDynamic(report)
	return b, report
}

func (b *Bootstrap) readNode(source Source) {
	if b.Message.Node == nil {
		b.Message.Node = &corev3.Node{}
	}
	if source.NodeID != "" {
		b.Message.Node.Id = source.NodeID
	}
	if source.NodeCluster != "" {
		b.Message.Node.Cluster = source.NodeCluster
	}
	b.Node = proto.CloneOf(b.Message.Node)
	b.Node.UserAgentName = "weir"
}

func (b *Bootstrap) readAdmin(report *strict.Report) {
	if b.Message.GetAdmin().GetAddress() == nil {
		return
	}
	if address, ok := coreconfig.Address(b.Message.GetAdmin().GetAddress(), "admin.address", report); ok {
		b.AdminAddress = address.String()
	}
}

// readStatic lists the static resources.
func (b *Bootstrap) readStatic() {
	at := strict.Path("static_resources")
	for i, m := range b.Message.GetStaticResources().GetClusters() {
		b.Clusters = append(b.Clusters, Cluster{m, at.Field("clusters").Index(i)})
	}
	for i, m := range b.Message.GetStaticResources().GetListeners() {
		b.Listeners = append(b.Listeners, Listener{m, at.Field("listeners").Index(i)})
	}
}

func (b *Bootstrap) readDynamic(report *strict.Report) {
	dynamic := b.Message.GetDynamicResources()
	at := strict.Path("dynamic_resources")
	if ads := dynamic.GetAdsConfig(); ads != nil {
		b.readADS(ads, at.Field("ads_config"), report)
	}
	cds := dynamic.GetCdsConfig()
	if cds == nil {
		return
	}
	at = at.Field("cds_config")
	if cds.GetAds() != nil && dynamic.GetAdsConfig() == nil {
		report.Add(at.Field("ads"), "needs dynamic_resources.ads_config")
	}
	b.CDS = &CDS{InitialFetchTimeout: coreconfig.ConfigSource(cds, at, report)}
}

func (b *Bootstrap) readADS(ads *corev3.ApiConfigSource, at strict.Path, report *strict.Report) {
	b.ADS = &ADS{NodeOnFirstMessageOnly: ads.GetSetNodeOnFirstMessageOnly(), At: at}
	if t := ads.GetApiType(); t != corev3.ApiConfigSource_GRPC {
		report.Add(at.Field("api_type"), "%s is not supported: use GRPC", t)
	}
	coreconfig.WantV3(ads.GetTransportApiVersion(), at.Field("transport_api_version"), report)
	if b.Node.GetId() == "" {
		report.Add("node.id", "required by dynamic_resources.ads_config: set it here or by --service-node")
	}
	if b.Node.GetCluster() == "" {
		report.Add("node.cluster", "required by dynamic_resources.ads_config: set it here or by --service-cluster")
	}
	at = at.Field("grpc_services")
	if n := len(ads.GetGrpcServices()); n != 1 {
		report.Add(at, "want one service, got %d", n)
		return
	}
	// That there is one is held by the message's own rules.
	b.ADS.Cluster = ads.GetGrpcServices()[0].GetEnvoyGrpc().GetClusterName()
}
