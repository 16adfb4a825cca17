package limits

import (
	"strings"

	"go.yaml.in/yaml/v3"

	"github.com/weirproxy/weir/services/ratelimit/internal/algorithm"
)

// maxDepth bounds how deep descriptors nest. Requests have a handful of
// entries; an alias that holds itself has no end.
const maxDepth = 64

// The grammar of rule files, level by level.
var (
	rootKeys       = keys{what: "a rule file", known: []string{"domain", "descriptors"}}
	descriptorKeys = keys{
		what:  "a descriptor",
		known: []string{"key", "value", "rate_limit", "descriptors"},
		later: []string{"shadow_mode", "quota_mode", "detailed_metric", "value_to_metric", "share_threshold", "metadata"},
	}
	rateLimitKeys = keys{
		what:  "a rate_limit",
		known: []string{"unit", "requests_per_unit", "unlimited", "algorithm"},
		later: []string{"name", "replaces"},
	}
)

// Parser reads rule files. All fields are required.
type Parser struct {
	// Algorithms are those that a rule may name; the first is the default.
	Algorithms []algorithm.Algorithm
	// NearLimitRatio is the share of a limit above which hits count as near.
	NearLimitRatio float64
	// Stats gives the rules their counters.
	Stats *Stats
}

// Parse reads the text of one file into a domain. The error is a *ParseError
// with everything that is wrong; file names the file in it and in the rules.
func (p *Parser) Parse(file string, text []byte) (*Domain, error) {
	r := reader{Parser: p, document: document{file: file}, domain: &Domain{}}
	if root := r.root(text); root != nil {
		r.readFile(root)
	}
	if err := r.err(r.domain.Name); err != nil {
		return nil, err
	}
	giveKeys(r.domain.Rules, r.names)
	r.domain.Overrides = p.Stats.Rule(r.domain.Name, overrides)
	for _, rule := range r.domain.Rules {
		rule.counters = p.Stats.Rule(rule.Domain, rule.Key)
	}
	return r.domain, nil
}

// reader is one Parse at work.
type reader struct {
	*Parser
	document
	domain *Domain
	names  []name // beside the domain's rules
}

func (r *reader) readFile(n *yaml.Node) {
	values := r.mapping(n, rootKeys)
	if values == nil {
		return
	}
	r.domain.Place = r.at(n)
	if name := values["domain"]; name != nil {
		r.domain.Place = r.at(name)
	}
	var ok bool
	if r.domain.Name, ok = r.text(values["domain"], "domain"); ok && r.domain.Name == "" {
		r.add(r.domain.Place, "the file names no domain")
	}
	r.readDescriptors(values["descriptors"], &r.domain.root, name{}, 1)
}

// readDescriptors puts a list of descriptors below parent, whose rules' names
// begin with path.
func (r *reader) readDescriptors(n *yaml.Node, parent *node, path name, depth int) {
	if n != nil && depth > maxDepth {
		r.add(r.at(n), "descriptors nest deeper than %d", maxDepth)
		return
	}
	for _, element := range r.sequence(n, "descriptors") {
		if r.exhausted(element) {
			return
		}
		values := r.mapping(element, descriptorKeys)
		if values == nil {
			continue
		}
		key, ok := r.text(values["key"], "key")
		value, _ := r.text(values["value"], "value")
		if ok && key == "" {
			r.add(r.at(element), "a descriptor has no key")
		}
		r.refuseWildcard(values["key"], key)
		r.refuseWildcard(values["value"], value)
		child, taken := parent.child(key, value)
		if taken && key != "" {
			r.add(r.at(element), "the descriptor %s stands twice in one list", describe(key, value))
		}
		name := path.join(key, value)
		if limit := values["rate_limit"]; limit != nil {
			child.rule = r.readRateLimit(limit, name)
		}
		r.readDescriptors(values["descriptors"], child, name, depth+1)
	}
}

// refuseWildcard keeps a pattern from being taken literally.
func (r *reader) refuseWildcard(n *yaml.Node, text string) {
	if strings.Contains(text, "*") {
		r.add(r.at(n), "%q: the wildcard * is not supported yet", text)
	}
}

// readRateLimit returns nil for null, which is no limit.
func (r *reader) readRateLimit(n *yaml.Node, called name) *Rule {
	if isNull(r.resolve(n)) {
		return nil
	}
	values := r.mapping(n, rateLimitKeys)
	if values == nil {
		return nil
	}
	unlimited := r.bool(values["unlimited"], "unlimited")
	rule := &Rule{
		Domain:    r.domain.Name,
		Place:     r.at(n),
		Unlimited: unlimited,
		Rate:      r.readRate(values, unlimited, r.at(n)),
		Algorithm: r.readAlgorithm(values["algorithm"]),
	}
	r.domain.Rules = append(r.domain.Rules, rule)
	r.names = append(r.names, called)
	if !rule.Unlimited && rule.Rate.Check() == nil {
		rule.Limit = rule.Rate.Limit()
		rule.Near = NearThreshold(rule.Rate.Requests, r.NearLimitRatio)
	}
	return rule
}

// readRate reads what a rate_limit grants; at is its place. An unlimited one
// may repeat how many requests it granted before, but must not have a unit.
func (r *reader) readRate(values map[string]*yaml.Node, unlimited bool, at Place) Rate {
	rate := Rate{Multiplier: 1}
	unit, requests := values["unit"], values["requests_per_unit"]
	switch {
	case requests != nil:
		rate.Requests = r.uint32(requests, "requests_per_unit")
	case !unlimited:
		r.add(at, "a rate_limit has no requests_per_unit; 0 refuses every request, unlimited grants every one")
	}
	switch {
	case unit != nil && unlimited:
		r.add(r.at(unit), "a rate_limit is unlimited or has a unit, not both")
	case unit != nil:
		name, ok := r.text(unit, "unit")
		var err error
		if rate.Unit, err = ParseUnit(name); ok && err != nil {
			r.add(r.at(unit), "%v", err)
		}
	case !unlimited:
		r.add(at, "a rate_limit has no unit")
	}
	return rate
}

// readAlgorithm returns the algorithm that a rule names, or the default.
func (r *reader) readAlgorithm(n *yaml.Node) algorithm.Algorithm {
	if n == nil {
		return r.Algorithms[0]
	}
	name, ok := r.text(n, "algorithm")
	var names []string
	for _, a := range r.Algorithms {
		if a.Name() == name {
			return a
		}
		names = append(names, a.Name())
	}
	if ok {
		r.add(r.at(n), "algorithm %q is none of %s", name, strings.Join(names, ", "))
	}
	return r.Algorithms[0]
}

// child returns the node for key and value below n, and whether it was there
// before. An empty value stands for the key alone.
func (n *node) child(key, value string) (child *node, taken bool) {
	if n.children == nil {
		n.children = map[string]*branch{}
	}
	b := n.children[key]
	if b == nil {
		b = &branch{exact: map[string]*node{}}
		n.children[key] = b
	}
	if value == "" {
		if b.any != nil {
			return b.any, true
		}
		b.any = &node{}
		return b.any, false
	}
	if child = b.exact[value]; child != nil {
		return child, true
	}
	child = &node{}
	b.exact[value] = child
	return child, false
}

func describe(key, value string) string {
	if value == "" {
		return key
	}
	return key + "=" + value
}
