package auth

import (
	"crypto/sha256"
	"crypto/subtle"
	"crypto/x509"
	"hash/maphash"
	"net/netip"
	"slices"
	"strings"
)

// rule is what one caller may do.
type rule struct {
	// name is the caller's; empty where it is named by its certificate.
	name string
	// services are those that it may change.
	services names
	// nodes and clusters are the ids, and the clusters, by which it may go as a
	// node of xDS where rules say such; it may go by none if they are empty.
	nodes, clusters names
	// addresses are where its hosts may be beside its own address, which may be
	// nowhere; nil if the rule says nothing of that.
	addresses []netip.Prefix
	// operator may do everything.
	operator bool
}

// allows reports whether the rule is for a service.
func (r *rule) allows(service string) bool { return r.operator || r.services.has(service) }

// allowsNode reports whether the rule is for a node. One that names no cluster
// claims to be of none.
func (r *rule) allowsNode(id, cluster string) bool {
	return r.operator || r.nodes.has(id) && (cluster == "" || r.clusters.has(cluster))
}

// names are some by name, and all that begin so. The zero value has none.
type names struct {
	exact    map[string]bool
	prefixes []string
}

func (n *names) has(name string) bool {
	return n.exact[name] || slices.ContainsFunc(n.prefixes, func(prefix string) bool { return strings.HasPrefix(name, prefix) })
}

// kind is what names an identity: the name of its key in the file.
type kind string

const (
	spiffe kind = "spiffe"
	dns    kind = "dns"
)

// maxSPIFFE is the longest SPIFFE ID (SPIFFE-ID §2.4), in bytes.
const maxSPIFFE = 2048

// identity is a name in a certificate, or a pattern of such.
type identity struct {
	kind kind
	name string
}

// digested is a token by its digest.
type digested struct {
	digest [sha256.Size]byte
	rule   *rule
}

// patterned is a rule of all identities that match a pattern.
type patterned struct {
	pattern identity
	rule    *rule
}

// rules are those of one file. They never change once read.
type rules struct {
	// tokens are found by a hash of the digest of which no stranger knows the
	// seed, and compared in constant time: how long that takes tells nothing.
	seed   maphash.Seed
	tokens map[uint64][]digested
	// exact are the identities without a *; patterns are the others in the
	// order of the file.
	exact    map[identity]*rule
	patterns []patterned
	// binds says that a rule names nodes: from then on nobody is a node that no
	// rule of its own lets it be.
	binds bool
}

func newRules() *rules {
	return &rules{seed: maphash.MakeSeed(), tokens: map[uint64][]digested{}, exact: map[identity]*rule{}}
}

func (r *rules) empty() bool { return len(r.tokens) == 0 && len(r.exact) == 0 && len(r.patterns) == 0 }

func (r *rules) addToken(digest [sha256.Size]byte, by *rule) {
	key := maphash.Bytes(r.seed, digest[:])
	r.tokens[key] = append(r.tokens[key], digested{digest, by})
}

func (r *rules) addIdentity(id identity, by *rule) {
	if strings.Contains(id.name, "*") {
		r.patterns = append(r.patterns, patterned{id, by})
		return
	}
	r.exact[id] = by
}

// ofToken returns the rule of the token of a digest, or nil if nobody knows it.
func (r *rules) ofToken(digest [sha256.Size]byte) *rule {
	var found *rule
	for _, t := range r.tokens[maphash.Bytes(r.seed, digest[:])] {
		if subtle.ConstantTimeCompare(t.digest[:], digest[:]) == 1 {
			found = t.rule
		}
	}
	return found
}

// ofIdentities returns the rule of one of a certificate's names, and which name
// that is: the first that a rule names exactly, else the first of the file's
// patterns that one of them matches. The rule is nil if there is none.
func (r *rules) ofIdentities(names []identity) (identity, *rule) {
	for _, name := range names {
		if found := r.exact[name]; found != nil {
			return name, found
		}
	}
	for _, p := range r.patterns {
		for _, name := range names {
			if name.kind == p.pattern.kind && name.kind.matches(p.pattern.name, name.name) {
				return name, p.rule
			}
		}
	}
	return identity{}, nil
}

// identitiesOf returns the names by which rules may know a certificate: its
// SPIFFE ID, which is one only where the certificate has no other URI
// (X509-SVID §2), and its host names. A name that is itself a pattern is none.
func identitiesOf(certificate *x509.Certificate) []identity {
	var names []identity
	if len(certificate.URIs) == 1 && strings.EqualFold(certificate.URIs[0].Scheme, "spiffe") {
		names = append(names, identity{spiffe, certificate.URIs[0].String()})
	}
	for _, name := range certificate.DNSNames {
		if !strings.Contains(name, "*") {
			names = append(names, identity{dns, strings.ToLower(name)})
		}
	}
	return names
}
