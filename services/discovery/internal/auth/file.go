package auth

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"net/netip"
	"path"
	"regexp"
	"slices"
	"strings"
	"unicode"

	"go.yaml.in/yaml/v3"
)

// What a file of rules may be: its bytes, the shortest token that it may hold in
// the clear, the longest name of a caller or service, and of a node or its
// cluster, and how many faults of it are told.
const (
	maxFile   = 4 << 20
	minToken  = 16
	maxName   = 255
	maxNode   = 1024
	maxFaults = 50
)

// The grammar of a file of rules.
var (
	fileKeys     = []string{"tokens", "identities"}
	ruleKeys     = []string{"services", "addresses", "nodes", "clusters", "operator"}
	tokenKeys    = append([]string{"name", "token", "sha256"}, ruleKeys...)
	identityKeys = append([]string{"spiffe", "dns"}, ruleKeys...)
)

// readRules reads a file of rules. The error joins all that is wrong with it,
// each with name, the file's, line and column; no token is in it.
func readRules(name string, text []byte) (*rules, error) {
	f := &reader{file: name, into: newRules(), lines: map[any]int{}}
	if root := f.root(text); root != nil {
		top := f.mapping(root, "the file", fileKeys)
		for _, n := range f.sequence(top["tokens"], "tokens") {
			f.readToken(n)
		}
		for _, n := range f.sequence(top["identities"], "identities") {
			f.readIdentity(n)
		}
		if len(f.faults) == 0 && f.into.empty() {
			// More likely a file that is being written than a wish to lock all out.
			f.fault(root, "no tokens and no identities")
		}
	}
	if len(f.faults) > 0 {
		return nil, errors.Join(f.faults...)
	}
	return f.into, nil
}

// reader is the reading of one file.
type reader struct {
	file   string
	into   *rules
	lines  map[any]int // where a digest or an identity was found before
	faults []error
}

// fault notes what is wrong at a node. The last that is noted says that there
// are more.
func (f *reader) fault(n *yaml.Node, format string, args ...any) {
	switch {
	case len(f.faults) == maxFaults:
		f.faults = append(f.faults, fmt.Errorf("%s: and more", f.file))
	case len(f.faults) < maxFaults:
		f.faults = append(f.faults, fmt.Errorf("%s:%d:%d: %s", f.file, n.Line, n.Column, fmt.Sprintf(format, args...)))
	}
}

// root returns the top of the only document, or nil after noting why there is
// none.
func (f *reader) root(text []byte) *yaml.Node {
	start := &yaml.Node{Line: 1, Column: 1}
	if len(text) > maxFile {
		f.fault(start, "%d bytes, of %d at most", len(text), maxFile)
		return nil
	}
	decoder := yaml.NewDecoder(bytes.NewReader(text))
	var document, next yaml.Node
	err := decoder.Decode(&document)
	if errors.Is(err, io.EOF) {
		f.fault(start, "no tokens and no identities")
		return nil
	}
	if err != nil {
		f.faults = append(f.faults, fmt.Errorf("%s: %w", f.file, err))
		return nil
	}
	if err := decoder.Decode(&next); !errors.Is(err, io.EOF) {
		f.fault(start, "more than one YAML document")
		return nil
	}
	return document.Content[0]
}

// mapping returns the values of a mapping by key, or nil after noting that it
// is none.
func (f *reader) mapping(n *yaml.Node, what string, known []string) map[string]*yaml.Node {
	if n.Kind != yaml.MappingNode {
		f.fault(n, "%s: want a mapping", what)
		return nil
	}
	values := map[string]*yaml.Node{}
	for pair := range slices.Chunk(n.Content, 2) {
		key := pair[0]
		switch {
		case key.Kind != yaml.ScalarNode || !slices.Contains(known, key.Value):
			f.fault(key, "%s: a key that is not one of %s", what, strings.Join(known, ", "))
		case values[key.Value] != nil:
			f.fault(key, "%s: %s is there twice", what, key.Value)
		default:
			values[key.Value] = pair[1]
		}
	}
	return values
}

// sequence returns the elements of a list, which may be missing.
func (f *reader) sequence(n *yaml.Node, what string) []*yaml.Node {
	if n == nil || n.Tag == "!!null" {
		return nil
	}
	if n.Kind != yaml.SequenceNode {
		f.fault(n, "%s: want a list", what)
		return nil
	}
	return n.Content
}

// text returns a scalar as it is written, or "" after noting that it is none.
func (f *reader) text(n *yaml.Node, what string) string {
	if n == nil {
		return ""
	}
	if n.Kind != yaml.ScalarNode || n.Tag == "!!null" || n.Value == "" {
		f.fault(n, "%s: want text", what)
		return ""
	}
	return n.Value
}

// readToken reads an entry of tokens.
func (f *reader) readToken(n *yaml.Node) {
	values := f.mapping(n, "a token", tokenKeys)
	if values == nil {
		return
	}
	name := f.text(values["name"], "name")
	if values["name"] == nil {
		f.fault(n, "a token: name is missing")
	} else if name != "" && !isName(name, maxName) {
		f.fault(values["name"], "name %q: not up to %d printable bytes", name, maxName)
	}
	r := f.readRule(n, name, values)
	digest, ok := f.readDigest(n, values)
	if !ok {
		return
	}
	if line := f.lines[digest]; line != 0 {
		f.fault(n, "token %q: the token of line %d again", name, line)
		return
	}
	f.lines[digest] = n.Line
	f.into.addToken(digest, r)
}

// readDigest returns the SHA-256 of an entry's token.
func (f *reader) readDigest(n *yaml.Node, values map[string]*yaml.Node) (digest [sha256.Size]byte, ok bool) {
	open, hashed := values["token"], values["sha256"]
	switch {
	case (open == nil) == (hashed == nil):
		f.fault(n, "a token: want one of token and sha256")
	case open != nil:
		token := f.text(open, "token")
		if strings.ContainsFunc(token, func(r rune) bool { return r <= ' ' || r > '~' }) {
			f.fault(open, "token: not of printable ASCII without spaces")
		} else if len(token) < minToken && token != "" {
			f.fault(open, "token: shorter than %d characters, so that it may be guessed", minToken)
		} else if token != "" {
			return sha256.Sum256([]byte(token)), true
		}
	default:
		text := f.text(hashed, "sha256")
		read, err := hex.DecodeString(text)
		if err == nil && len(read) == sha256.Size {
			return [sha256.Size]byte(read), true
		}
		if text != "" {
			f.fault(hashed, "sha256: not of %d hexadecimal digits", 2*sha256.Size)
		}
	}
	return digest, false
}

// readIdentity reads an entry of identities.
func (f *reader) readIdentity(n *yaml.Node) {
	values := f.mapping(n, "an identity", identityKeys)
	if values == nil {
		return
	}
	r := f.readRule(n, "", values)
	kind, at := spiffe, values["spiffe"]
	if (at == nil) == (values["dns"] == nil) {
		f.fault(n, "an identity: want one of spiffe and dns")
		return
	}
	if at == nil {
		kind, at = dns, values["dns"]
	}
	pattern := f.text(at, string(kind))
	if pattern == "" {
		return
	}
	if kind == dns {
		pattern = strings.ToLower(pattern)
	}
	if !kind.allows(pattern) {
		f.fault(at, "%s %q: want %s", kind, pattern, kind.form())
		return
	}
	key := identity{kind, pattern}
	if line := f.lines[key]; line != 0 {
		f.fault(n, "%s %q: the identity of line %d again", kind, pattern, line)
		return
	}
	f.lines[key] = n.Line
	f.into.addIdentity(key, r)
}

var (
	spiffeForm = regexp.MustCompile(`^spiffe://[a-z0-9._-]+(/[A-Za-z0-9._*-]+)*$`)
	dnsForm    = regexp.MustCompile(`^[a-z0-9_*-]+(\.[a-z0-9_*-]+)*$`)
)

// allows reports whether a pattern is of the kind's form. Such a pattern is
// never a bad one to path.Match.
func (k kind) allows(pattern string) bool {
	if k == spiffe {
		return len(pattern) <= maxSPIFFE && spiffeForm.MatchString(pattern)
	}
	return len(pattern) <= maxName && dnsForm.MatchString(pattern)
}

// form is what a pattern of the kind looks like.
func (k kind) form() string {
	if k == spiffe {
		return "spiffe://domain/path, in whose path * stands for any part of a segment"
	}
	return "a host name, in which * stands for any part of a label"
}

// readRule reads what the entry at n lets its caller do.
func (f *reader) readRule(n *yaml.Node, name string, values map[string]*yaml.Node) *rule {
	r := &rule{name: name}
	if at := values["operator"]; at != nil {
		if at.Tag != "!!bool" || at.Decode(&r.operator) != nil {
			f.fault(at, "operator: want true or false")
		}
	}
	r.services = f.readNames(values["services"], "services", maxName)
	r.nodes = f.readNames(values["nodes"], "nodes", maxNode)
	r.clusters = f.readNames(values["clusters"], "clusters", maxNode)
	binds := values["nodes"] != nil
	if binds != (values["clusters"] != nil) {
		// One alone would leave the other open, or shut, to whose surprise?
		f.fault(n, "nodes and clusters: one needs the other; any are [\"*\"]")
	}
	f.into.binds = f.into.binds || binds
	if values["services"] == nil && !r.operator && !binds {
		f.fault(n, "services are missing: one by name, several by prefix* or all by *; an operator needs none, nor does who has nodes")
	}
	if values["addresses"] != nil {
		r.addresses = []netip.Prefix{} // an empty list says something, too
	}
	for _, a := range f.sequence(values["addresses"], "addresses") {
		if text := f.text(a, "addresses"); text != "" {
			f.readRange(a, text, r)
		}
	}
	return r
}

// readNames reads a list, which may be missing, of names of so many bytes at
// most.
func (f *reader) readNames(list *yaml.Node, what string, longest int) names {
	read := names{exact: map[string]bool{}}
	for _, n := range f.sequence(list, what) {
		text := f.text(n, what)
		prefix, all := strings.CutSuffix(text, "*")
		switch {
		case text == "":
		case strings.Contains(prefix, "*") || prefix != "" && !isName(prefix, longest):
			f.fault(n, "%s: %q is not a name, or a prefix followed by *", what, text)
		case all:
			read.prefixes = append(read.prefixes, prefix)
		default:
			read.exact[text] = true
		}
	}
	return read
}

func (f *reader) readRange(n *yaml.Node, text string, r *rule) {
	if a, err := netip.ParseAddr(text); err == nil && a.Zone() == "" {
		a = plain(a)
		r.addresses = append(r.addresses, netip.PrefixFrom(a, a.BitLen()))
		return
	}
	p, err := netip.ParsePrefix(text)
	switch {
	case err != nil:
		f.fault(n, "addresses: %q is not an address or a range such as 10.0.0.0/8", text)
	case p.Addr().Is4In6():
		f.fault(n, "addresses: %q: want the range as IPv4", text)
	case p != p.Masked():
		f.fault(n, "addresses: %q: the range of that is %v", text, p.Masked())
	default:
		r.addresses = append(r.addresses, p)
	}
}

// isName reports whether text may be a name of so many bytes at most.
func isName(text string, longest int) bool {
	return text != "" && len(text) <= longest && !strings.ContainsFunc(text, unicode.IsControl)
}

// matches reports whether a name is one of a pattern.
func (k kind) matches(pattern, name string) bool {
	if k == dns {
		pattern, name = strings.ReplaceAll(pattern, ".", "/"), strings.ReplaceAll(name, ".", "/")
	}
	matched, err := path.Match(pattern, name)
	return matched && err == nil
}
