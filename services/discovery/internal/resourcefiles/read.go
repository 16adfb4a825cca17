package resourcefiles

import (
	"fmt"
	"math"
	"strings"
	"time"

	clusterv3 "github.com/envoyproxy/go-control-plane/envoy/config/cluster/v3"
	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	endpointv3 "github.com/envoyproxy/go-control-plane/envoy/config/endpoint/v3"
	listenerv3 "github.com/envoyproxy/go-control-plane/envoy/config/listener/v3"
	routev3 "github.com/envoyproxy/go-control-plane/envoy/config/route/v3"
	tlsv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/transport_sockets/tls/v3"
	discoveryv3 "github.com/envoyproxy/go-control-plane/envoy/service/discovery/v3"
	runtimev3 "github.com/envoyproxy/go-control-plane/envoy/service/runtime/v3"
	"go.yaml.in/yaml/v3"
	"google.golang.org/protobuf/proto"

	"github.com/weirproxy/weir/internal/protoyaml"
	"github.com/weirproxy/weir/services/discovery/internal/resources"
)

// entry is one resource of a file. It never changes once read.
type entry struct {
	key
	resource *resources.Resource
	// place is where its name stands: "file:line:column".
	place string
	// names are the resources that it names.
	names []key
}

// key is what is unique over all files.
type key struct {
	typ  resources.Type
	name string
}

// String is a key as faults and warnings tell it.
func (k key) String() string { return fmt.Sprintf("%q of %s", k.name, k.typ) }

// read reads a file of YAML or JSON. Each of its documents is one resource, with
// @type beside the fields, or a list of such, or has such a list as resources, as
// the files have that Envoy itself watches:
//
//	version_info: "7"    # means nothing here: versions are made of content
//	type_url: type.googleapis.com/envoy.config.cluster.v3.Cluster # may be left out
//	resources:
//	- "@type": type.googleapis.com/envoy.config.cluster.v3.Cluster
//	  name: users
//
// A resource may be wrapped into an envoy.service.discovery.v3.Resource, to give
// it a TTL. The error joins all that is wrong, each with file, line, column and
// field.
func read(path string, text []byte) ([]*entry, error) {
	f, documents := protoyaml.OpenAll(path, text)
	r := &reader{file: f, places: map[key]string{}}
	empty := true
	for i, d := range documents {
		if d.Kind == yaml.ScalarNode && d.ShortTag() == "!!null" {
			continue // nothing between two lines of ---
		}
		empty = false
		var at protoyaml.Path
		if len(documents) > 1 {
			at = protoyaml.Path("document").Index(i)
		}
		r.document(d, at)
	}
	if empty && f.Err() == nil {
		// More likely a file that is being written than a wish to take all away.
		f.Fault(&yaml.Node{Line: 1, Column: 1}, "", "there is nothing in it; no resources are []")
	}
	if err := f.Err(); err != nil {
		return nil, err
	}
	return r.entries, nil
}

// reader is the reading of one file.
type reader struct {
	file    *protoyaml.File
	entries []*entry
	places  map[key]string
}

// document reads one document at a path, which is empty where it is the only one.
func (r *reader) document(n *yaml.Node, at protoyaml.Path) {
	switch {
	case n.Kind == yaml.SequenceNode:
		r.list(n, at, "")
	case n.Kind == yaml.MappingNode && hasKey(n, "resources") && !hasKey(n, "@type"):
		r.response(n, at)
	default:
		r.resource(n, at, "")
	}
}

func hasKey(n *yaml.Node, key string) bool {
	for i := 0; i < len(n.Content); i += 2 {
		if n.Content[i].Value == key {
			return true
		}
	}
	return false
}

// response reads a mapping that has a list of resources.
func (r *reader) response(n *yaml.Node, at protoyaml.Path) {
	var list *yaml.Node
	var wanted string
	for _, e := range r.file.Mapping(n, at, "a mapping") {
		switch e.Key {
		case "resources":
			list = e.Value
		case "version_info", "versionInfo":
		case "type_url", "typeUrl":
			wanted = e.Value.Value
			if _, ok := resources.OfURL(wanted); !ok {
				r.file.Fault(e.Value, at.Field(e.Key), "%.200q is not that of one of %s", wanted, known())
				wanted = ""
			}
		default:
			r.file.FaultOf(e, at.Field(e.Key), "not one of version_info, type_url, resources")
		}
	}
	if list != nil {
		r.list(list, at.Field("resources"), wanted)
	}
}

// list reads a list of resources, of one type alone if a URL is wanted.
func (r *reader) list(n *yaml.Node, at protoyaml.Path, wanted string) {
	for i, item := range r.file.List(n, at, math.MaxInt) {
		r.resource(item, at.Index(i), wanted)
	}
}

// resource reads one resource.
func (r *reader) resource(n *yaml.Node, at protoyaml.Path, wanted string) {
	m := r.file.Typed(n, at)
	if m == nil {
		return
	}
	inside, ttl := at, time.Duration(0)
	if wrapped, ok := m.(*discoveryv3.Resource); ok {
		inside = at.Field("resource")
		if m, ttl = r.unwrap(wrapped, at); m == nil {
			return
		}
	}
	t, ok := typeOf(m)
	if !ok {
		r.file.Add(at, "@type: %s is not one of %s", m.ProtoReflect().Descriptor().FullName(), known())
		return
	}
	if wanted != "" && t.URL() != wanted {
		r.file.Add(at, "@type: %s beside type_url %s", t.URL(), wanted)
	}
	field, name := nameOf(m)
	k := key{t, name}
	place := r.file.Place(inside.Field(field))
	switch first := r.places[k]; {
	case name == "":
		r.file.Add(inside.Field(field), "a resource must have a name")
	case name == "*":
		r.file.Add(inside.Field(field), "* means all resources and cannot be the name of one")
	case first != "":
		r.file.Add(inside.Field(field), "%v is given at %s already", k, first)
	default:
		r.places[k] = place
	}
	check(r.file, m, inside)
	resource, err := resources.New(t, name, m, ttl)
	if err != nil {
		r.file.Add(inside, "%v", err)
		return
	}
	r.entries = append(r.entries, &entry{key: k, resource: resource, place: place, names: namedBy(m)})
}

// unwrap returns what a resource with a TTL holds, and that; nil after noting why
// it can't be had.
func (r *reader) unwrap(w *discoveryv3.Resource, at protoyaml.Path) (proto.Message, time.Duration) {
	known := &discoveryv3.Resource{Name: w.GetName(), Resource: w.GetResource(), Ttl: w.GetTtl()}
	if !proto.Equal(known, w) {
		r.file.Add(at, "of a Resource only name, resource and ttl can be given")
	}
	ttl := w.GetTtl().AsDuration()
	if w.GetTtl() != nil && ttl < resources.LeastTTL {
		r.file.Add(at.Field("ttl"), "%v: want %v or more, for clients are told once a second at most that they keep it", ttl, resources.LeastTTL)
	}
	m, err := w.GetResource().UnmarshalNew()
	if err != nil {
		r.file.Add(at.Field("resource"), "a Resource must hold a resource")
		return nil, 0
	}
	if _, name := nameOf(m); w.GetName() != "" && w.GetName() != name {
		r.file.Add(at.Field("name"), "%q holds %q: leave it out", w.GetName(), name)
	}
	return m, ttl
}

// typeOf is the type of a message, if it is a resource.
func typeOf(m proto.Message) (resources.Type, bool) {
	return resources.OfURL("type.googleapis.com/" + string(m.ProtoReflect().Descriptor().FullName()))
}

// nameOf is the field that a resource is named by, and what it says; both are
// empty for what is no resource.
func nameOf(m proto.Message) (field, name string) {
	switch m := m.(type) {
	case *clusterv3.Cluster:
		return "name", m.GetName()
	case *endpointv3.ClusterLoadAssignment:
		return "cluster_name", m.GetClusterName()
	case *listenerv3.Listener:
		return "name", m.GetName()
	case *routev3.RouteConfiguration:
		return "name", m.GetName()
	case *tlsv3.Secret:
		return "name", m.GetName()
	case *runtimev3.Runtime:
		return "name", m.GetName()
	case *corev3.TypedExtensionConfig:
		return "name", m.GetName()
	}
	return "", ""
}

// known lists the types of resources.
func known() string {
	var list []string
	for t := range resources.Types {
		list = append(list, strings.TrimPrefix(t.URL(), "type.googleapis.com/"))
	}
	return strings.Join(list, ", ")
}
