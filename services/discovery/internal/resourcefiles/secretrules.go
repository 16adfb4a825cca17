package resourcefiles

import (
	"math"
	"slices"
	"strings"

	"go.yaml.in/yaml/v3"

	"github.com/weirproxy/weir/internal/protoyaml"
	"github.com/weirproxy/weir/services/discovery/internal/resources"
)

// SecretRules say which client may have which secret. They never change. Without
// any, which is the zero value, nobody may have one.
type SecretRules struct{ rules []secretRule }

// secretRule lets a client that is in each of the lists that are given have the
// secrets of names.
type secretRule struct {
	names, nodes, clusters, identities patterns
}

// patterns are names, or beginnings of names with a * behind; nil for what is
// not given.
type patterns []string

func (p patterns) match(name string) bool {
	return slices.ContainsFunc(p, func(pattern string) bool {
		if prefix, ok := strings.CutSuffix(pattern, "*"); ok {
			return strings.HasPrefix(name, prefix)
		}
		return name == pattern
	})
}

// Bounds of a file of rules.
const (
	maxRules   = 10_000
	maxPattern = 2048 // bytes, as the longest SPIFFE ID
)

// ReadSecretRules reads rules from YAML or JSON:
//
//	secrets:
//	- names: [edge-cert, "edge/*"]  # exactly, or all that begin so
//	  nodes: ["edge-*"]             # node ids
//	  clusters: [edge]              # the nodes' clusters
//	  identities: [edge-team]       # who opened the stream: a token's or a certificate's name
//
// A rule is for clients that are in each of the three lists that it has, of which
// it must have one. The error joins all that is wrong, each with file, line,
// column and field.
func ReadSecretRules(file string, text []byte) (*SecretRules, error) {
	f, root := protoyaml.Open(file, text)
	if root == nil {
		return nil, f.Err()
	}
	r := &SecretRules{}
	given := false
	for _, e := range f.Mapping(root, "", "a mapping with secrets") {
		if e.Key != "secrets" {
			f.FaultOf(e, "", "%.80q is not secrets", e.Key)
			continue
		}
		given = true
		for i, n := range f.List(e.Value, "secrets", maxRules) {
			r.rules = append(r.rules, readSecretRule(f, n, protoyaml.Path("secrets").Index(i)))
		}
	}
	if !given && f.Err() == nil {
		f.Fault(root, "", "secrets are missing; no rules are []")
	}
	if err := f.Err(); err != nil {
		return nil, err
	}
	return r, nil
}

func readSecretRule(f *protoyaml.File, n *yaml.Node, at protoyaml.Path) (r secretRule) {
	for _, e := range f.Mapping(n, at, "a mapping with names") {
		list := map[string]*patterns{"names": &r.names, "nodes": &r.nodes, "clusters": &r.clusters, "identities": &r.identities}[e.Key]
		if list == nil {
			f.FaultOf(e, at.Field(e.Key), "not one of names, nodes, clusters, identities")
			continue
		}
		*list = readPatterns(f, e.Value, at.Field(e.Key))
	}
	if r.names == nil {
		f.Add(at, "names are missing: one exactly, several by prefix*")
	}
	if r.nodes == nil && r.clusters == nil && r.identities == nil {
		f.Add(at, `one of nodes, clusters, identities must say who; everybody is nodes: ["*"]`)
	}
	return r
}

// readPatterns returns no nil, since an empty list says something too: nobody.
func readPatterns(f *protoyaml.File, n *yaml.Node, at protoyaml.Path) patterns {
	list := patterns{}
	for i, item := range f.List(n, at, math.MaxInt) {
		at := at.Index(i)
		switch {
		case item.Kind != yaml.ScalarNode || item.ShortTag() == "!!null" || item.Value == "":
			f.Fault(item, at, "want text")
		case len(item.Value) > maxPattern:
			f.Fault(item, at, "%d bytes, of %d at most", len(item.Value), maxPattern)
		case strings.Contains(strings.TrimSuffix(item.Value, "*"), "*"):
			f.Fault(item, at, "%.80q is not a name, or a prefix followed by *", item.Value)
		default:
			list = append(list, item.Value)
		}
	}
	return list
}

// Allowed reports whether a client may have the secret of a name. The identity is
// that of who opened the stream, empty for one that is not known; what a node
// says of itself is only as true as clients are held to it.
func (r *SecretRules) Allowed(secret string, node resources.Asker, identity string) bool {
	return slices.ContainsFunc(r.rules, func(rule secretRule) bool {
		return rule.names.match(secret) &&
			(rule.nodes == nil || rule.nodes.match(node.ID)) &&
			(rule.clusters == nil || rule.clusters.match(node.Cluster)) &&
			(rule.identities == nil || identity != "" && rule.identities.match(identity))
	})
}

// Named reports whether a rule is for the secret of a name.
func (r *SecretRules) Named(secret string) bool {
	return slices.ContainsFunc(r.rules, func(rule secretRule) bool { return rule.names.match(secret) })
}
