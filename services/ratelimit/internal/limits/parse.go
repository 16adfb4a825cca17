package limits

import (
	"slices"

	"go.yaml.in/yaml/v3"

	"github.com/weirproxy/weir/services/ratelimit/internal/algorithm"
)

// keys is what a mapping of rule files may hold.
type keys struct {
	what  string // "a descriptor"
	home  string // where such a mapping stands, to say where a key belongs
	known []string
}

// The grammar of rule files, level by level.
var (
	rootKeys       = keys{"a rule file", "the top of the file", []string{"domain", "descriptors"}}
	descriptorKeys = keys{"a descriptor", "a descriptor, beside rate_limit", []string{
		"key", "value", "rate_limit", "descriptors",
		"shadow_mode", "quota_mode", "detailed_metric", "value_to_metric", "share_threshold", "metadata",
	}}
	rateLimitKeys = keys{"a rate_limit", "a rate_limit", []string{
		"unit", "requests_per_unit", "unlimited", "name", "replaces", "algorithm", "unit_multiplier", "failure_mode_deny",
	}}
	replacesKeys = keys{"an entry of replaces", "an entry of replaces", []string{"name"}}
)

// elsewhere says where a key belongs that does not belong here, or "".
func elsewhere(key string) string {
	for _, k := range []keys{descriptorKeys, rateLimitKeys, rootKeys} {
		if slices.Contains(k.known, key) {
			return k.home
		}
	}
	return ""
}

// Parser reads rules. All fields are required.
type Parser struct {
	// Algorithms are those that a rule may name; the first is the default.
	Algorithms []algorithm.Algorithm
	// NearLimitRatio is the share of a limit above which hits count as near.
	NearLimitRatio float64
	// Stats gives the rules their counters.
	Stats *Stats
}

// File is a rule file.
type File struct {
	Path string
	Text []byte
}

// Parse reads the text of one file into a domain. The error is a *ParseError
// with everything that is wrong; file names the file in it and in the rules.
func (p *Parser) Parse(file string, text []byte) (*Domain, error) {
	return p.ParseFiles([]File{{file, text}})
}

// ParseFiles reads several files of one domain as if their descriptors stood
// in one list, in the order of the files. What an earlier file has already is
// a fault of the later one. The error is a *ParseError.
func (p *Parser) ParseFiles(files []File) (*Domain, error) {
	b := builder{Parser: p, domain: &Domain{}}
	for _, f := range files {
		r := reader{document{file: f.Path, faults: &b.faults}, &b}
		if root := r.root(f.Text); root != nil {
			r.readFile(root)
		}
	}
	return b.finish()
}

// reader is the reading of one file.
type reader struct {
	document
	to *builder
}

func (r *reader) readFile(n *yaml.Node) {
	values := r.mapping(n, rootKeys)
	if values == nil {
		return
	}
	domain := r.text(values["domain"], "domain")
	if !domain.set {
		domain.at = r.at(n)
	}
	r.to.nameDomain(domain)
	r.readDescriptors(values["descriptors"], r.to.top())
}

// readDescriptors puts a list of descriptors below parent.
func (r *reader) readDescriptors(n *yaml.Node, parent spot) {
	if n == nil || r.to.tooDeep(parent, r.at(n)) {
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
		d := descriptor{
			at:             r.at(element),
			key:            r.text(values["key"], "key"),
			value:          r.text(values["value"], "value"),
			shadowMode:     r.bool(values["shadow_mode"], "shadow_mode").value,
			quotaMode:      r.bool(values["quota_mode"], "quota_mode").value,
			detailedMetric: r.bool(values["detailed_metric"], "detailed_metric").value,
			valueToMetric:  r.bool(values["value_to_metric"], "value_to_metric").value,
			shareThreshold: r.bool(values["share_threshold"], "share_threshold"),
			metadata:       r.metadata(values["metadata"]),
			limit:          r.readRateLimit(values["rate_limit"]),
		}
		r.readDescriptors(values["descriptors"], r.to.descriptor(parent, &d))
	}
}

// readRateLimit returns nil for null, which is no limit.
func (r *reader) readRateLimit(n *yaml.Node) *rateLimit {
	if n == nil || isNull(r.resolve(n)) {
		return nil
	}
	values := r.mapping(n, rateLimitKeys)
	if values == nil {
		return nil
	}
	limit := &rateLimit{
		at:         r.at(n),
		unit:       r.readUnit(values["unit"]),
		requests:   r.uint32(values["requests_per_unit"], "requests_per_unit"),
		multiplier: r.uint32(values["unit_multiplier"], "unit_multiplier"),
		unlimited:  r.bool(values["unlimited"], "unlimited").value,
		name:       r.text(values["name"], "name").value,
		replaces:   r.readReplaces(values["replaces"]),
		algorithm:  r.text(values["algorithm"], "algorithm"),
	}
	if deny := r.bool(values["failure_mode_deny"], "failure_mode_deny"); deny.value {
		limit.onStoreError = DenyHits
	} else if deny.set {
		limit.onStoreError = AllowHits
	}
	return limit
}

func (r *reader) readUnit(n *yaml.Node) given[Unit] {
	name := r.text(n, "unit")
	unit := given[Unit]{at: name.at, set: name.set, wrong: name.wrong}
	if unit.set && !unit.wrong {
		var err error
		if unit.value, err = ParseUnit(name.value); err != nil {
			r.add(unit.at, "%v", err)
			unit.wrong = true
		}
	}
	return unit
}

func (r *reader) readReplaces(n *yaml.Node) []given[string] {
	var list []given[string]
	for _, element := range r.sequence(n, "replaces") {
		if r.exhausted(element) {
			return nil
		}
		if values := r.mapping(element, replacesKeys); values != nil {
			name := r.text(values["name"], "name")
			if !name.set {
				name.at = r.at(element)
			}
			list = append(list, name)
		}
	}
	return list
}
