// Package limits turns rule files and xDS resources into immutable trees, one
// for each domain, and finds the rule that a request's descriptor meets. The
// limiter asks it at each request, limitsource makes its Sets. It never counts
// hits against a limit; it only owns the counters that metrics show.
package limits

import (
	"cmp"
	"fmt"
	"iter"
	"maps"
	"slices"
	"strconv"
	"strings"

	"google.golang.org/protobuf/types/known/structpb"

	"github.com/weirproxy/weir/services/ratelimit/internal/algorithm"
)

// Set is the rules of all domains. It is immutable and used by many
// goroutines; its zero value has no domain.
type Set struct{ domains map[string]*Domain }

// NewSet makes a Set of domains that all have different names.
func NewSet(domains []*Domain) *Set {
	s := &Set{domains: make(map[string]*Domain, len(domains))}
	for _, d := range domains {
		s.domains[d.Name] = d
	}
	return s
}

// Domain returns the domain of that name, or nil.
func (s *Set) Domain(name string) *Domain { return s.domains[name] }

// Domains goes through the domains in the order of their names.
func (s *Set) Domains() iter.Seq[*Domain] {
	return func(yield func(*Domain) bool) {
		for _, name := range slices.Sorted(maps.Keys(s.domains)) {
			if !yield(s.domains[name]) {
				return
			}
		}
	}
}

// Domain is the rules of one file, or of several that name the same domain.
type Domain struct {
	Name string
	// Place is where the file, or the first of several, names the domain.
	Place Place
	// Rules are those of the whole tree, in the order of the files.
	Rules []*Rule
	// Overrides counts the hits that requests limit by an override of their
	// own in this domain.
	Overrides *Counters

	root node
}

// node is one descriptor of the rules: where a walk stands after some entries.
// The root of a tree stands for none.
type node struct {
	level Level
	place Place
	// rule applies to descriptors that end here; nil if the file sets none.
	rule *Rule
	// list is the next depth in the order of the file. What walks need of it
	// lies in children, by the key of the next entry, and in patterns, which
	// are those with a *, in the same order.
	list     []*node
	children map[string]*branch
	patterns []pattern
	texts    map[string]*node // the patterns by their text
}

// branch is the children of one node that share a key.
type branch struct {
	exact map[string]*node
	any   *node // taken when no value and no pattern is; may be nil
}

// Rule is one rate_limit of a file. It is immutable.
type Rule struct {
	// Domain and Key name the rule in metrics and in /rlconfig. Key is the
	// path of its descriptors, "key_value.key2", or where another rule of the
	// domain would be called the same, quoted: `"key"="value"."key2"`.
	Domain, Key string
	// Place is where the file has the rate_limit.
	Place Place
	// Levels are the descriptors on the way to the rule, the last its own: one
	// for each entry of the requests' descriptors that meet it.
	Levels []Level
	// Unlimited rules only count; their Rate has no Unit, and they have no
	// Limit.
	Unlimited bool
	Rate      Rate
	Limit     algorithm.Limit
	Algorithm algorithm.Algorithm
	// Near is the count above which hits are counted as near the limit.
	Near uint64
	// Name is how answers name the limit, and Replaces of other rules; "" if
	// the file gives none.
	Name string
	// Replaces are the names of limits that are not applied in a request that
	// meets this rule.
	Replaces []string
	// ShadowMode rules count and report, and answer OK.
	ShadowMode bool
	// QuotaMode rules make a request go over the limit only together.
	QuotaMode bool
	// Metadata goes into the dynamic metadata of requests that pass the rule;
	// nil if there is none. All requests share it: nobody may write to it.
	Metadata *structpb.Struct
	// OnStoreError is what is answered where the store does not.
	OnStoreError OnStoreError
	// Shares says that a level has ShareThreshold.
	Shares bool

	// counters are those of the rule's own name. Where keys or values of
	// requests may be part of the name, byRequest finds the others; else it is
	// nil.
	counters  *Counters
	byRequest *requestNames
}

// Level is one descriptor of the rules, as a step towards a Rule.
type Level struct {
	// Key and Value are as the file has them; Value is "" if it gives none.
	// Either may hold *, any run of characters.
	Key, Value string
	// ValueToMetric puts the request's value into the name of the counters.
	ValueToMetric bool
	// ShareThreshold has all values that the pattern matches share a counter.
	ShareThreshold bool
}

// OnStoreError is what a rule wants answered when its counter cannot be had.
type OnStoreError int

// The policies. The default leaves the decision to the caller, which a proxy
// takes by its own failure mode.
const (
	FailRequest OnStoreError = iota // the whole request is answered with an error
	AllowHits                       // failure_mode_deny: false
	DenyHits                        // failure_mode_deny: true
)

// CountersOf returns the counters of the hits that a descriptor with these
// entries, which Match led to r, makes. It does not allocate for a name that is
// known.
func (r *Rule) CountersOf(entries []Entry) *Counters {
	if r.byRequest == nil || len(entries) != len(r.Levels) {
		return r.counters
	}
	return r.byRequest.counters(r, entries)
}

// namedByRequests says that requests count under other names than the rule's
// own, but for a few.
func (r *Rule) namedByRequests() bool { return r.byRequest != nil && r.byRequest.usual == "" }

// String is the rule's line in /rlconfig. It begins as that of
// envoyproxy/ratelimit.
func (r *Rule) String() string {
	domain := r.Domain
	if strings.Contains(domain, ".") || !readable(domain) {
		domain = strconv.Quote(domain) // else it may read as domain and key
	}
	var b strings.Builder
	fmt.Fprintf(&b, "%s.%s: ", domain, r.Key)
	if r.Unlimited {
		b.WriteString("unlimited")
	} else {
		fmt.Fprintf(&b, "unit=%s requests_per_unit=%d", r.Rate.Unit, r.Rate.Requests)
	}
	fmt.Fprintf(&b, ", shadow_mode: %t, quota_mode: %t", r.ShadowMode, r.QuotaMode)
	if r.Rate.Multiplier > 1 {
		fmt.Fprintf(&b, ", unit_multiplier: %d", r.Rate.Multiplier)
	}
	if r.Name != "" {
		fmt.Fprintf(&b, ", name: %q", r.Name)
	}
	if len(r.Replaces) > 0 {
		fmt.Fprintf(&b, ", replaces: %q", r.Replaces)
	}
	if r.OnStoreError != FailRequest {
		fmt.Fprintf(&b, ", failure_mode_deny: %t", r.OnStoreError == DenyHits)
	}
	for i, l := range r.Levels {
		if l.ShareThreshold {
			fmt.Fprintf(&b, ", share_threshold: depth %d", i+1)
		}
	}
	if r.Metadata != nil {
		b.WriteString(", with metadata")
	}
	return b.String()
}

// text is the level as patterns see it, and as names spell it: key_value, or
// the key alone.
func (l Level) text() string {
	if l.Value == "" {
		return l.Key
	}
	return l.Key + "_" + l.Value
}

// Place is a position in what rules were read from: line and column, which
// count from 1, in a file, or a path in an xDS resource.
type Place struct {
	File         string // or what the resource is called
	Line, Column int    // 0 in a resource
	Path         string // "descriptors[2].rate_limit", "" in a file
}

func (p Place) String() string {
	switch {
	case p.Line > 0:
		return fmt.Sprintf("%s:%d:%d", p.File, p.Line, p.Column)
	case p.Path != "":
		return p.File + ": " + p.Path
	default:
		return p.File
	}
}

// Compare orders places by file, line and column. All places of one resource
// are equal.
func (p Place) Compare(q Place) int {
	return cmp.Or(cmp.Compare(p.File, q.File), cmp.Compare(p.Line, q.Line), cmp.Compare(p.Column, q.Column))
}
