package xds

import (
	"fmt"
	"unicode/utf8"

	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"

	"github.com/weirproxy/weir/services/discovery/internal/resources"
)

// node is what is kept of a client's Node for as long as its stream lasts. Its
// metadata and the list of a proxy's extensions, of tens of kilobytes, are not.
type node struct {
	id, cluster           string
	region, zone, subZone string
	agent                 string // user_agent_name
	features              features
}

// features are the client features that make a difference.
type features struct {
	// ttl says that resources may carry a time to live.
	ttl bool
	// wrapped says that in the state of the world too resources may come within
	// a Resource, without which they can carry none.
	wrapped bool
}

// asker is what of a node decides what it is shown.
func (n *node) asker() resources.Asker {
	return resources.Asker{ID: n.id, Cluster: n.cluster, Region: n.region, Zone: n.zone}
}

// message is the node as messages have it.
func (n *node) message() *corev3.Node {
	return &corev3.Node{
		Id: n.id, Cluster: n.cluster, UserAgentName: n.agent,
		Locality: &corev3.Locality{Region: n.region, Zone: n.zone, SubZone: n.subZone},
	}
}

// maxNodeText bounds each text of a node, in bytes.
const maxNodeText = 1024

// readNode reads an envoy.config.core.v3.Node. The error says what is wrong.
func readNode(message []byte) (node, error) {
	var n node
	for f, err := range fieldsOf(message) {
		if err != nil {
			return n, fmt.Errorf("node: %w", err)
		}
		switch f.number {
		case 1:
			err = readText(&n.id, "id", f.bytes)
		case 2:
			err = readText(&n.cluster, "cluster", f.bytes)
		case 4:
			err = n.readLocality(f.bytes)
		case 6:
			err = readText(&n.agent, "user_agent_name", f.bytes)
		case 10:
			n.features.read(f.bytes)
		}
		if err != nil {
			return n, err
		}
	}
	return n, nil
}

func (n *node) readLocality(message []byte) error {
	for f, err := range fieldsOf(message) {
		if err != nil {
			return fmt.Errorf("node: locality: %w", err)
		}
		switch f.number {
		case 1:
			err = readText(&n.region, "locality.region", f.bytes)
		case 2:
			err = readText(&n.zone, "locality.zone", f.bytes)
		case 3:
			err = readText(&n.subZone, "locality.sub_zone", f.bytes)
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// readText reads a text of a node, which is shown to operators.
func readText(to *string, field string, text []byte) error {
	if len(text) > maxNodeText {
		return fmt.Errorf("node: %s of %d bytes: %d are the most", field, len(text), maxNodeText)
	}
	if !utf8.Valid(text) {
		return fmt.Errorf("node: %s %q: not UTF-8", field, text)
	}
	*to = string(text)
	return nil
}

// read takes in one client feature. That of wrapped resources has two names:
// the documented one, and the one that gRPC sends.
func (f *features) read(name []byte) {
	switch string(name) {
	case "xds.config.supports-resource-ttl":
		f.ttl = true
	case "xds.config.supports-resource-in-sotw", "xds.config.resource-in-sotw":
		f.wrapped = true
	}
}
