package limits

import (
	"slices"
	"strings"
	"unicode/utf8"

	"google.golang.org/protobuf/types/known/structpb"

	"github.com/weirproxy/weir/services/ratelimit/internal/algorithm"
)

// maxDepth bounds how deep descriptors nest. Requests have a handful of
// entries; an alias that holds itself has no end.
const maxDepth = 64

// given is a value as a file or a resource has it.
type given[T any] struct {
	value T
	at    Place
	set   bool // false if there is none; then only at may be set
	wrong bool // a fault was added already
}

// descriptor is one descriptor as it is given, without those below it.
type descriptor struct {
	at             Place
	key, value     given[string]
	shadowMode     bool
	quotaMode      bool
	detailedMetric bool
	valueToMetric  bool
	shareThreshold given[bool]
	metadata       *structpb.Struct
	limit          *rateLimit // nil if there is none
}

// rateLimit is one rate_limit as it is given.
type rateLimit struct {
	at           Place
	unit         given[Unit]
	requests     given[uint32]
	multiplier   given[uint32]
	unlimited    bool
	name         string
	replaces     []given[string]
	algorithm    given[string]
	onStoreError OnStoreError
}

// builder makes the tree of one domain, and checks all that files and
// resources have in common.
type builder struct {
	*Parser
	faults
	domain *Domain
	names  []name // beside the domain's rules
}

// spot is where in the tree descriptors are added.
type spot struct {
	node   *node
	path   name    // of the rules there
	levels []Level // on the way to there
}

func (b *builder) top() spot { return spot{node: &b.domain.root} }

// nameDomain gives the domain its name. Of several files, all give the same.
func (b *builder) nameDomain(name given[string]) {
	switch {
	case name.wrong:
	case name.value == "":
		b.add(name.at, "the file names no domain")
	case !utf8.ValidString(name.value):
		b.add(name.at, "the domain %q is not text", brief(name.value))
	case b.domain.Name == "":
		b.domain.Name, b.domain.Place = name.value, name.at
	case b.domain.Name != name.value:
		b.add(name.at, "the domain %q is not %q, which is given at %s", brief(name.value), brief(b.domain.Name), b.domain.Place)
	}
}

// tooDeep says, with a fault, that a list of descriptors lies too deep.
func (b *builder) tooDeep(parent spot, at Place) bool {
	if len(parent.levels) < maxDepth {
		return false
	}
	b.add(at, "descriptors nest deeper than %d", maxDepth)
	return true
}

// descriptor adds d below parent and returns where those below it go.
func (b *builder) descriptor(parent spot, d *descriptor) spot {
	level := Level{
		Key: d.key.value, Value: d.value.value,
		ValueToMetric: d.valueToMetric, ShareThreshold: d.shareThreshold.value,
	}
	if level.Key == "" && !d.key.wrong {
		b.add(d.at, "a descriptor has no key")
	}
	if level.ShareThreshold && !isPattern(level.text()) {
		b.add(d.shareThreshold.at, "share_threshold: %s has no *, so there is nothing to share", describe(level))
	}
	child := &node{} // of what cannot be read nothing else is to be said
	if level.Key != "" && !d.value.wrong {
		var other *node
		if child, other = parent.node.child(level, d.at); other != nil {
			b.duplicate(level, d.at, other)
		}
	}
	at := spot{
		node:   child,
		path:   parent.path.join(level.Key, level.Value),
		levels: append(slices.Clip(parent.levels), level),
	}
	if d.limit != nil {
		child.rule = b.rule(at, d)
	}
	return at
}

func (b *builder) duplicate(level Level, at Place, other *node) {
	switch {
	case other.place.File != at.File:
		b.add(at, "the descriptor %s is already given at %s", describe(level), other.place)
	case other.level.Key != level.Key:
		b.add(at, "the pattern %s stands twice in one list", level.text())
	default:
		b.add(at, "the descriptor %s stands twice in one list", describe(level))
	}
}

// child adds a node for level below n. If there is one already, or a pattern
// of the same text, which no entry would get past, that is other.
func (n *node) child(level Level, place Place) (child, other *node) {
	child = &node{level: level, place: place}
	if n.children == nil {
		n.children = map[string]*branch{}
	}
	b := n.children[level.Key]
	if b == nil {
		b = &branch{exact: map[string]*node{}}
		n.children[level.Key] = b
	}
	if level.Value == "" {
		other, b.any = b.any, child
	} else {
		other, b.exact[level.Value] = b.exact[level.Value], child
	}
	if text := level.text(); isPattern(text) {
		if n.texts == nil {
			n.texts = map[string]*node{}
		}
		other, n.texts[text] = n.texts[text], child
		n.patterns = append(n.patterns, newPattern(text, child))
	}
	n.list = append(n.list, child)
	return child, other
}

// rule makes the rule of d's rate_limit and adds it to the domain's.
func (b *builder) rule(at spot, d *descriptor) *Rule {
	limit := d.limit
	rule := &Rule{
		Domain:       b.domain.Name,
		Place:        limit.at,
		Levels:       at.levels,
		Unlimited:    limit.unlimited,
		Rate:         b.rate(limit),
		Algorithm:    b.algorithm(limit.algorithm),
		Name:         limit.name,
		Replaces:     b.replaces(limit),
		ShadowMode:   d.shadowMode,
		QuotaMode:    d.quotaMode,
		Metadata:     d.metadata,
		OnStoreError: limit.onStoreError,
	}
	for _, l := range at.levels {
		rule.Shares = rule.Shares || l.ShareThreshold
	}
	rule.byRequest = newRequestNames(b.Stats, at.levels, d.detailedMetric, at.path.plain)
	if !rule.Unlimited && rule.Rate.Check() == nil {
		rule.Limit = rule.Rate.Limit()
		rule.Near = NearThreshold(rule.Rate.Requests, b.NearLimitRatio)
	}
	b.domain.Rules = append(b.domain.Rules, rule)
	b.names = append(b.names, at.path)
	return rule
}

// rate checks what a rate_limit grants. An unlimited one may repeat how many
// requests it granted before, but must not have a unit.
func (b *builder) rate(limit *rateLimit) Rate {
	rate := Rate{Requests: limit.requests.value, Unit: limit.unit.value, Multiplier: 1}
	if limit.multiplier.set {
		rate.Multiplier = limit.multiplier.value
	}
	if limit.unlimited {
		if limit.unit.set {
			b.add(limit.unit.at, "a rate_limit is unlimited or has a unit, not both")
		}
		if limit.multiplier.set {
			b.add(limit.multiplier.at, "a rate_limit is unlimited or has a unit_multiplier, not both")
		}
		return rate
	}
	if !limit.requests.set {
		b.add(limit.at, "a rate_limit has no requests_per_unit; 0 refuses every request, unlimited grants every one")
	}
	if !limit.unit.set {
		b.add(limit.at, "a rate_limit has no unit")
	}
	if limit.unit.set && !limit.unit.wrong && !limit.multiplier.wrong {
		if err := rate.Check(); err != nil {
			at := limit.unit.at
			if limit.multiplier.set {
				at = limit.multiplier.at
			}
			b.add(at, "%v", err)
		}
	}
	return rate
}

// algorithm returns the algorithm that a rule names, or the default.
func (b *builder) algorithm(name given[string]) algorithm.Algorithm {
	if !name.set || name.wrong {
		return b.Algorithms[0]
	}
	var names []string
	for _, a := range b.Algorithms {
		if a.Name() == name.value {
			return a
		}
		names = append(names, a.Name())
	}
	b.add(name.at, "algorithm %q is none of %s", brief(name.value), strings.Join(names, ", "))
	return b.Algorithms[0]
}

func (b *builder) replaces(limit *rateLimit) []string {
	var names []string
	for _, r := range limit.replaces {
		switch {
		case r.wrong:
		case r.value == "":
			b.add(r.at, "an entry of replaces has no name")
		case r.value == limit.name:
			b.add(r.at, "replaces names the rule itself, %q", brief(r.value))
		default:
			names = append(names, r.value)
		}
	}
	return names
}

// finish gives the rules their names and counters. The error is a *ParseError
// with all faults; nothing was put into Stats then.
func (b *builder) finish() (*Domain, error) {
	if err := b.err(b.domain.Name); err != nil {
		return nil, err
	}
	giveKeys(b.domain.Rules, b.names)
	b.domain.Overrides = b.Stats.Rule(b.domain.Name, overrides)
	for _, rule := range b.domain.Rules {
		rule.counters = b.Stats.Rule(rule.Domain, rule.Key)
		if rule.byRequest != nil {
			rule.byRequest.others = b.Stats.Rule(rule.Domain, others)
		}
	}
	return b.domain, nil
}

func describe(l Level) string {
	if l.Value == "" {
		return brief(l.Key)
	}
	return brief(l.Key) + "=" + brief(l.Value)
}
