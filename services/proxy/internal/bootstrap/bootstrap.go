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
	"github.com/weirproxy/weir/services/proxy/internal/layeredruntime"
	"github.com/weirproxy/weir/services/proxy/internal/matcher"
	"github.com/weirproxy/weir/services/proxy/internal/strict"
)

// Fields are the supported fields of the bootstrap. Those of the messages that
// others share with it are coreconfig's. With ignore_global_conn_limit and without, no
// limit holds for the admin listener's connections.
func Fields() strict.Fields {
	return strict.Fields{
		"envoy.config.bootstrap.v3.Bootstrap":                  {"node", "static_resources", "dynamic_resources", "admin", "layered_runtime"},
		"envoy.config.bootstrap.v3.Bootstrap.StaticResources":  {"listeners", "clusters"},
		"envoy.config.bootstrap.v3.Bootstrap.DynamicResources": {"ads_config", "cds_config", "lds_config"},
		"envoy.config.bootstrap.v3.Admin":                      {"address", "access_log", "access_log_path", "allow_paths", "ignore_global_conn_limit"},

		"envoy.config.core.v3.Node": {
			"id", "cluster", "locality", "metadata", "client_features", "user_agent_name", "user_agent_version", "user_agent_build_version",
		},
		"envoy.config.core.v3.BuildVersion": {"version", "metadata"},
		"envoy.type.v3.SemanticVersion":     {"major_number", "minor_number", "patch"},
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
	// NodeID, NodeCluster and NodeZone, if set, win over the node in the texts.
	NodeID, NodeCluster, NodeZone string
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
	// AdminPaths are the conditions on paths, one of which must hold for an answer of
	// the admin listener; without any, all are answered.
	AdminPaths []*matcher.String
	Listeners  []Listener
	Clusters   []Cluster
	// ADS is nil without an aggregated control plane.
	ADS *ADS
	// CDS and LDS are nil where clusters or listeners come from the bootstrap
	// alone.
	CDS, LDS *Discovery
	// Runtime is never nil.
	Runtime *layeredruntime.Config
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
	// GRPC names the static cluster that serves it; that there is one is for the
	// caller to check, who parses the clusters.
	coreconfig.GRPC
	At strict.Path
}

// Discovery says how all resources of a type are asked for.
type Discovery struct {
	// Source is where they come from; that it is there is for the caller to
	// check.
	Source coreconfig.Source
	// InitialFetchTimeout is how long the start waits for them; 0 for ever.
	InitialFetchTimeout time.Duration
	At                  strict.Path
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
	b.Runtime = layeredruntime.Parse(b.Message.GetLayeredRuntime(), "layered_runtime", report)
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
	if source.NodeZone != "" {
		if b.Message.Node.Locality == nil {
			b.Message.Node.Locality = &corev3.Locality{}
		}
		b.Message.Node.Locality.Zone = source.NodeZone
	}
	b.Node = proto.CloneOf(b.Message.Node)
	if b.Node.UserAgentName == "" {
		b.Node.UserAgentName = "weir"
	}
}

func (b *Bootstrap) readAdmin(report *strict.Report) {
	for i, m := range b.Message.GetAdmin().GetAllowPaths() {
		b.AdminPaths = append(b.AdminPaths, matcher.ParseString(m, strict.Path("admin.allow_paths").Index(i), report))
	}
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
		at := at.Field("ads_config")
		b.ADS = &ADS{coreconfig.APIConfigSource(ads, at, report), at}
		b.needNode("dynamic_resources.ads_config", report)
	}
	b.CDS = b.readDiscovery(dynamic.GetCdsConfig(), at.Field("cds_config"), report)
	b.LDS = b.readDiscovery(dynamic.GetLdsConfig(), at.Field("lds_config"), report)
}

func (b *Bootstrap) readDiscovery(config *corev3.ConfigSource, at strict.Path, report *strict.Report) *Discovery {
	if config == nil {
		return nil
	}
	d := &Discovery{At: at}
	d.Source, d.InitialFetchTimeout = coreconfig.ConfigSource(config, at, report)
	switch {
	case d.Source.Self:
		report.Add(at.Field("self"), "a bootstrap is in no source of its own")
	case config.GetAds() != nil && b.ADS == nil:
		report.Add(at.Field("ads"), "needs dynamic_resources.ads_config")
	}
	return d
}

// needNode reports what is missing of the node for a control plane, which by
// names.
func (b *Bootstrap) needNode(by string, report *strict.Report) {
	if b.Node.GetId() == "" {
		report.Add("node.id", "required by %s: set it here or by --service-node", by)
	}
	if b.Node.GetCluster() == "" {
		report.Add("node.cluster", "required by %s: set it here or by --service-cluster", by)
	}
}
