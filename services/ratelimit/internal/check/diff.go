package check

import (
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"

	"github.com/weirproxy/weir/services/ratelimit/internal/builtin"
	"github.com/weirproxy/weir/services/ratelimit/internal/limits"
	"github.com/weirproxy/weir/services/ratelimit/internal/limitsource"
)

// diff says how the rules of two directories differ.
func (t *tool) diff(directories []string) int {
	var sets [2]*limits.Set
	refused := 0
	for i, directory := range directories {
		rules, wrong, err := t.read(directory)
		if err != nil {
			return t.unreadable(err)
		}
		for _, line := range limitsource.Bounded(wrong) {
			fmt.Fprintln(t.stderr, line)
		}
		sets[i], refused = rules, refused+len(wrong)
	}
	if refused > 0 {
		fmt.Fprintf(t.stderr, "ratelimit-check: %s, so that the rules cannot be compared\n", faults(refused))
		return unusable
	}
	changes := compare(sets[0], sets[1])
	if len(changes) == 0 {
		fmt.Fprintln(t.stdout, "the rules are the same")
		return fine
	}
	for _, line := range changes {
		fmt.Fprintln(t.stdout, line)
	}
	return found
}

// compare returns the differences as lines: each domain, and below it its
// descriptors in the order of their paths.
func compare(before, after *limits.Set) []string {
	var lines []string
	for _, name := range keysOf(domains(before), domains(after)) {
		a, b := before.Domain(name), after.Domain(name)
		heading := "domain " + spellWord(name, "")
		switch {
		case a == nil:
			heading += ": added"
		case b == nil:
			heading += ": removed"
		}
		changes := compareDomains(a, b)
		if len(changes) > 0 || a == nil || b == nil {
			lines = append(lines, heading)
			lines = append(lines, changes...)
		}
	}
	return lines
}

func domains(set *limits.Set) map[string]*limits.Domain {
	all := map[string]*limits.Domain{}
	for d := range set.Domains() {
		all[d.Name] = d
	}
	return all
}

// property is one thing that a rule file says of a descriptor.
type property struct{ name, value string }

// compareDomains compares what the descriptors of two domains say, either of
// which may be nil.
func compareDomains(a, b *limits.Domain) []string {
	before, after := entries(a), entries(b)
	var lines []string
	for _, path := range keysOf(before, after) {
		was, is := before[path], after[path]
		switch {
		case was == nil:
			lines = append(lines, "  + "+path+": "+say(is))
		case is == nil:
			lines = append(lines, "  - "+path+": "+say(was))
		default:
			if change := changed(was, is); change != "" {
				lines = append(lines, "  ~ "+path+": "+change)
			}
		}
	}
	if a != nil && b != nil {
		lines = append(lines, reordered(a, b)...)
	}
	return lines
}

// keysOf returns the keys of both maps, sorted.
func keysOf[V any](a, b map[string]V) []string {
	keys := slices.AppendSeq(slices.Collect(maps.Keys(a)), maps.Keys(b))
	slices.Sort(keys)
	return slices.Compact(keys)
}

// entries are the descriptors of a domain that change what a request meets, by
// their paths: those with a limit, and those that end a walk without one.
func entries(d *limits.Domain) map[string][]property {
	all := map[string][]property{}
	if d == nil {
		return all
	}
	for descriptor := range d.Descriptors() {
		if descriptor.Rule != nil || !descriptor.Below {
			all[pathOf(descriptor.Levels)] = properties(descriptor)
		}
	}
	return all
}

// pathOf spells the way to a descriptor: "user=alice / path".
func pathOf(levels []limits.Level) string {
	words := make([]string, len(levels))
	for i, l := range levels {
		words[i] = levelText(l)
	}
	return strings.Join(words, " / ")
}

// levelText spells a descriptor: "user=alice", or the key alone.
func levelText(l limits.Level) string {
	if l.Value == "" {
		return spellWord(l.Key, "=, ")
	}
	return spellWord(l.Key, "=, ") + "=" + spellWord(l.Value, ", ")
}

// properties are what is said of a descriptor, the limit first. Only the limit
// is there where all is as usual.
func properties(d limits.Descriptor) []property {
	if d.Rule == nil {
		return []property{{"", "no limit"}}
	}
	r := d.Rule
	all := []property{{"", limitText(r)}}
	add := func(name, value string, unusual bool) {
		if unusual {
			all = append(all, property{name, value})
		}
	}
	add("algorithm", r.Algorithm.Name(), r.Algorithm.Name() != builtin.Algorithms()[0].Name())
	add("name", spellWord(r.Name, ", "), r.Name != "")
	add("replaces", fmt.Sprintf("%q", r.Replaces), len(r.Replaces) > 0)
	add("shadow_mode", "true", r.ShadowMode)
	add("quota_mode", "true", r.QuotaMode)
	add("detailed_metric", "true", r.DetailedMetric())
	add("failure_mode_deny", strconv.FormatBool(r.OnStoreError == limits.DenyHits), r.OnStoreError != limits.FailRequest)
	for i, l := range r.Levels {
		add(fmt.Sprintf("value_to_metric (depth %d)", i+1), "true", l.ValueToMetric)
		add(fmt.Sprintf("share_threshold (depth %d)", i+1), "true", l.ShareThreshold)
	}
	if r.Metadata != nil {
		add("metadata", metadataText(r), true)
	}
	return all
}

// limitText is "10 per minute", "10 per 5 minute", or "unlimited".
func limitText(r *limits.Rule) string {
	if r.Unlimited {
		return "unlimited"
	}
	unit := strings.ToLower(r.Rate.Unit.String())
	if r.Rate.Multiplier > 1 {
		return fmt.Sprintf("%d per %d %ss", r.Rate.Requests, r.Rate.Multiplier, unit)
	}
	return fmt.Sprintf("%d per %s", r.Rate.Requests, unit)
}

// metadataText is the metadata as JSON.
func metadataText(r *limits.Rule) string {
	text, err := json.Marshal(r.Metadata.AsMap())
	if err != nil { // it holds a number that is none
		return fmt.Sprint(r.Metadata.AsMap())
	}
	return string(text)
}

// say tells all of a descriptor's properties.
func say(all []property) string {
	words := make([]string, len(all))
	for i, p := range all {
		words[i] = strings.TrimPrefix(p.name+" "+p.value, " ")
		if p.value == "true" {
			words[i] = p.name
		}
	}
	return strings.Join(words, ", ")
}

// changed tells the properties that differ, or nothing.
func changed(was, is []property) string {
	values := func(all []property) map[string]string {
		m := map[string]string{}
		for _, p := range all {
			m[p.name] = p.value
		}
		return m
	}
	before, after := values(was), values(is)
	var words []string
	for _, name := range keysOf(before, after) {
		if before[name] == after[name] {
			continue
		}
		from, to := before[name], after[name]
		if from == "" {
			from = "unset"
		}
		if to == "" {
			to = "unset"
		}
		words = append(words, strings.TrimPrefix(name+" "+from+" → "+to, " "))
	}
	return strings.Join(words, ", ")
}

// reordered tells of lists whose patterns are the same in another order: the
// first that matches is taken, so that the order is a part of the rules.
func reordered(a, b *limits.Domain) []string {
	before, after := patterns(a), patterns(b)
	var lines []string
	for _, parent := range keysOf(before, after) {
		was, is := common(before[parent], after[parent]), common(after[parent], before[parent])
		if !slices.Equal(was, is) {
			where := parent
			if where == "" {
				where = "(top)"
			}
			lines = append(lines, fmt.Sprintf("  ~ %s: order of patterns %s → %s", where, strings.Join(was, ", "), strings.Join(is, ", ")))
		}
	}
	return lines
}

// patterns are the descriptors with a *, by the path of those that they lie
// below.
func patterns(d *limits.Domain) map[string][]string {
	all := map[string][]string{}
	for descriptor := range d.Descriptors() {
		last := len(descriptor.Levels) - 1
		if l := descriptor.Levels[last]; strings.Contains(l.Key+l.Value, "*") {
			parent := pathOf(descriptor.Levels[:last])
			all[parent] = append(all[parent], levelText(l))
		}
	}
	return all
}

// common is those of list that are in other too, in the order of list.
func common(list, other []string) []string {
	var both []string
	for _, text := range list {
		if slices.Contains(other, text) {
			both = append(both, text)
		}
	}
	return both
}
