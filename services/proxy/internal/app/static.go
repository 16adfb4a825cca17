package app

import (
	"os"

	"github.com/weirproxy/weir/services/proxy/internal/bootstrap"
	"github.com/weirproxy/weir/services/proxy/internal/cluster"
	"github.com/weirproxy/weir/services/proxy/internal/coreconfig"
	"github.com/weirproxy/weir/services/proxy/internal/strict"
)

// staticClusters are the clusters of the bootstrap by name. What could not be
// read of them is a fault of its own, and what others miss for that is none.
type staticClusters struct {
	boot   *bootstrap.Bootstrap
	byName map[string]*cluster.Config
	// unread says that there may be more of them.
	unread bool
	// unclear are those of which it is not known whether they speak HTTP/2.
	unclear map[string]bool
}

func newStaticClusters(boot *bootstrap.Bootstrap, report *strict.Report) *staticClusters {
	return &staticClusters{
		boot: boot, byName: map[string]*cluster.Config{}, unclear: map[string]bool{},
		unread: report.Missing("static_resources.clusters"),
	}
}

// add takes in a cluster that stands at the path at.
func (s *staticClusters) add(config *cluster.Config, at strict.Path, report *strict.Report) {
	if s.byName[config.Name] != nil {
		report.Add(at.Field("name"), "cluster %q is there twice", config.Name)
		return
	}
	s.byName[config.Name] = config
	s.unread = s.unread || config.Name == ""
	s.unclear[config.Name] = !report.Whole(at.Field("typed_extension_protocol_options"))
}

// get is the cluster of that name, nil if there is none.
func (s *staticClusters) get(name string) *cluster.Config {
	if config := s.byName[name]; config != nil || !s.unread {
		return config
	}
	return &cluster.Config{Name: name}
}

// checkGRPC holds a cluster to what gRPC needs: it speaks HTTP/2. It may come by CDS,
// if there is one, at any time: then calls tell what is wrong with it.
func (s *staticClusters) checkGRPC(name string, at strict.Path, report *strict.Report) {
	switch config := s.byName[name]; {
	case config == nil && !s.unread && s.boot.CDS == nil:
		report.Add(at, "unknown cluster %q: it is not in the bootstrap, and there is no cds_config", name)
	case config != nil && !config.HTTP2 && !s.unclear[name]:
		report.Add(at, "cluster %q needs http2_protocol_options in its typed_extension_protocol_options, since gRPC is HTTP/2", name)
	}
}

// checkPlane holds a control plane's cluster to what is needed to reach it
// before there is any xDS.
func (s *staticClusters) checkPlane(name string, at strict.Path, report *strict.Report) {
	config := s.byName[name]
	if config == nil {
		if !s.unread {
			report.Add(at, "unknown cluster %q: the control plane's cluster must be in the bootstrap", name)
		}
		return
	}
	s.checkGRPC(name, at, report)
	if config.ServiceName != "" && config.Source.Path == "" {
		report.Add(at, "cluster %q is of type EDS: the control plane's cluster must know its hosts without one, by STATIC, DNS or a file", name)
	}
}

// checkSource reports what is wrong with a source of resources that stands at the
// path at, beyond what is wrong in its own fields.
func (s *staticClusters) checkSource(source coreconfig.Source, at strict.Path, report *strict.Report) {
	switch {
	case source.Path != "":
		if _, err := os.Stat(source.Path); err != nil {
			report.Add(at.Field("path_config_source").Field("path"), "%v", err)
		}
		if source.WatchedDirectory == "" {
			break
		}
		if _, err := os.ReadDir(source.WatchedDirectory); err != nil {
			report.Add(at.Field("path_config_source").Field("watched_directory").Field("path"), "%v", err)
		}
	case source.GRPC.Cluster != "":
		at := at.Field("api_config_source")
		s.checkPlane(source.GRPC.Cluster, at, report)
		if s.boot.Node.GetId() == "" || s.boot.Node.GetCluster() == "" {
			report.Add(at, "a control plane wants to know who asks: set node.id and node.cluster, or --service-node and --service-cluster")
		}
	case source.GRPC != coreconfig.GRPC{}: // a service that could not be read
	case source.IsADS() && s.boot.ADS == nil:
		report.Add(at.Field("ads"), "needs dynamic_resources.ads_config")
	case source.Self && s.boot.ADS == nil && s.boot.CDS == nil && s.boot.LDS == nil:
		report.Add(at.Field("self"), "nothing comes from a source here, and so there is none to share")
	}
}

// checkSources does so for all that the bootstrap names, but for what listeners
// do.
func (s *staticClusters) checkSources(clusters []*cluster.Config, report *strict.Report) {
	if s.boot.ADS != nil {
		s.checkPlane(s.boot.ADS.Cluster, s.boot.ADS.At, report)
	}
	for _, d := range []*bootstrap.Discovery{s.boot.CDS, s.boot.LDS} {
		if d != nil && !d.Source.Self && !d.Source.IsADS() { // the bootstrap has looked at those
			s.checkSource(d.Source, d.At, report)
		}
	}
	for _, config := range clusters {
		if config.ServiceName != "" {
			s.checkSource(config.Source, config.SourceAt, report)
		}
	}
}
