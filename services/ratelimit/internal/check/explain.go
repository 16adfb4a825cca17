package check

import (
	"fmt"
	"slices"
	"strconv"
	"strings"
	"unicode"
	"unicode/utf8"

	"github.com/weirproxy/weir/services/ratelimit/internal/limiter"
	"github.com/weirproxy/weir/services/ratelimit/internal/limits"
	"github.com/weirproxy/weir/services/ratelimit/internal/limitsource"
	"github.com/weirproxy/weir/services/ratelimit/internal/peerstats"
)

// explain says what the descriptors of one request meet.
func (t *tool) explain(directories []string) int {
	switch {
	case t.domain == "":
		return t.wrong("explain wants -domain")
	case len(t.descriptors) == 0:
		return t.wrong("explain wants a -descriptor at least")
	}
	rules, refused, err := t.read(directories[0])
	if err != nil {
		return t.unreadable(err)
	}
	for _, line := range limitsource.Bounded(refused) {
		fmt.Fprintln(t.stderr, line)
	}
	if domain := rules.Domain(t.domain); domain != nil {
		t.explainDomain(domain)
	} else {
		fmt.Fprintf(t.stdout, "domain %s has no rules: its requests are not limited; there are rules of %s\n",
			spellWord(t.domain, ""), domainNames(rules))
	}
	if len(refused) > 0 {
		return found
	}
	return fine
}

func domainNames(rules *limits.Set) string {
	var names []string
	for d := range rules.Domains() {
		names = append(names, spellWord(d.Name, ", "))
	}
	if len(names) == 0 {
		return "no domain"
	}
	return strings.Join(names, ", ")
}

// met is what one descriptor meets.
type met struct {
	rule    *limits.Rule // nil if none
	counter string       // its key; "" without a limit
	// replacedBy is the number of the descriptor whose rule takes the limit
	// out, or 0.
	replacedBy int
}

func (t *tool) explainDomain(domain *limits.Domain) {
	fmt.Fprintf(t.stdout, "domain %s, %s\n", spellWord(domain.Name, ""), domain.Place)
	all := make([]met, len(t.descriptors))
	for i, entries := range t.descriptors {
		fmt.Fprintf(t.stdout, "\ndescriptor %d: %s\n", i+1, spell(entries))
		walk := domain.Explain(entries)
		for _, step := range walk.Steps {
			t.explainStep(step)
		}
		if walk.Rule == nil {
			fmt.Fprintf(t.stdout, "  no rule: %s\n", walk.Why)
			continue
		}
		all[i].rule = walk.Rule
		if !walk.Rule.Unlimited {
			all[i].counter = string(limiter.CounterKey(t.keyPrefix, walk.Rule, entries))
		}
		t.explainRule(all[i], entries)
	}
	fmt.Fprintln(t.stdout, "\nthe request")
	replace(all)
	for _, line := range together(all) {
		fmt.Fprintln(t.stdout, "  "+line)
	}
}

// most bounds the candidates of a step that are shown and do not take the
// entry, and the keys that are named.
const most = 20

// explainStep shows the candidates for one entry: the one that takes it, and
// those that would take its key with some value. Of the others the keys are
// named.
func (t *tool) explainStep(step limits.Step) {
	fmt.Fprintf(t.stdout, "  %s\n", spell([]limits.Entry{step.Entry}))
	var shown []limits.Candidate
	var otherKeys []string
	left := 0
	for _, c := range step.Candidates {
		switch {
		case c.Verdict == limits.OtherKey:
			if key := spellWord(c.Level.Key, ", "); !slices.Contains(otherKeys, key) {
				otherKeys = append(otherKeys, key)
			}
		case c.Verdict != limits.Taken && len(shown) >= most:
			left++
		default:
			shown = append(shown, c)
		}
	}
	width := 0
	for _, c := range shown {
		width = max(width, utf8.RuneCountInString(levelText(c.Level)))
	}
	for _, c := range shown {
		mark, verdict := " ", c.Verdict.String()
		if c.Verdict == limits.Taken {
			mark, verdict = ">", "taken by "+step.By.String()
		}
		fmt.Fprintf(t.stdout, "    %s %-*s  %s, %s\n", mark, width, levelText(c.Level), verdict, c.Place)
	}
	if left > 0 {
		fmt.Fprintf(t.stdout, "      and %d more that do not take it\n", left)
	}
	if len(otherKeys) > 0 {
		more := ""
		if len(otherKeys) > most {
			more = fmt.Sprintf(" and %d more", len(otherKeys)-most)
			otherKeys = otherKeys[:most]
		}
		fmt.Fprintf(t.stdout, "      another key: %s%s\n", strings.Join(otherKeys, ", "), more)
	}
}

// explainRule shows the rule that a descriptor with entries meets.
func (t *tool) explainRule(m met, entries []limits.Entry) {
	r := m.rule
	fmt.Fprintf(t.stdout, "  rule     %s, %s\n", readable(r.Key), r.Place)
	fmt.Fprintf(t.stdout, "  limit    %s\n", say(properties(limits.Descriptor{Levels: r.Levels, Rule: r})))
	if r.Unlimited {
		fmt.Fprintf(t.stdout, "  counter  none, since all is granted; metrics count\n")
	} else {
		fmt.Fprintf(t.stdout, "  counter  %s\n", readable(m.counter))
	}
	name := t.stats.NameOf(r.CountersOf(entries))
	fmt.Fprintf(t.stdout, "  metrics  domain=%q, rule=%q\n", r.Domain, name)
	fmt.Fprintf(t.stdout, "  statsd   %s\n", peerstats.RuleName(r.Domain, name))
}

// readable quotes a text that has control characters or none of UTF-8.
func readable(text string) string {
	if !utf8.ValidString(text) || strings.ContainsFunc(text, func(r rune) bool { return !unicode.IsPrint(r) }) {
		return strconv.Quote(text)
	}
	return text
}

// replace finds the limits that other descriptors' rules take out, as the
// limiter does: a rule that is taken out itself still takes out others, and
// unlimited rules stay.
func replace(all []met) {
	for i := range all {
		r := all[i].rule
		if r == nil || r.Unlimited || r.Name == "" {
			continue
		}
		by := slices.IndexFunc(all, func(m met) bool { return m.rule != nil && slices.Contains(m.rule.Replaces, r.Name) })
		all[i].replacedBy = by + 1
	}
}

// together tells what the descriptors do to one another, and when the request
// as a whole is over its limit.
func together(all []met) []string {
	var lines []string
	var plain, quotas []int
	neverAll := false // a quota is never over, so that all of them never are
	counters := map[string]int{}
	for i, m := range all {
		number := i + 1
		switch r := m.rule; {
		case r == nil || r.Unlimited:
			continue
		case m.replacedBy > 0:
			lines = append(lines, fmt.Sprintf("descriptor %d is not limited: the rule of descriptor %d replaces %q",
				number, m.replacedBy, r.Name))
			continue
		case r.QuotaMode:
			quotas = append(quotas, number)
			neverAll = neverAll || r.ShadowMode
		case !r.ShadowMode:
			plain = append(plain, number)
		}
		if m.rule.ShadowMode {
			lines = append(lines, fmt.Sprintf("descriptor %d counts and is never over: its rule is in shadow mode", number))
		}
		if other := counters[m.counter]; other > 0 {
			lines = append(lines, fmt.Sprintf("descriptor %d counts in the counter of descriptor %d", number, other))
		} else {
			counters[m.counter] = number
		}
	}
	var when []string
	switch {
	case len(plain) == 1:
		when = append(when, fmt.Sprintf("descriptor %d is", plain[0]))
	case len(plain) > 1:
		when = append(when, "any of the descriptors "+numbers(plain)+" is")
	}
	switch {
	case len(quotas) == 0 || neverAll:
	case len(quotas) == 1:
		when = append(when, fmt.Sprintf("descriptor %d, the only quota, is", quotas[0]))
	default:
		when = append(when, "all of the quotas, the descriptors "+numbers(quotas)+", are")
	}
	if len(when) == 0 {
		return append(lines, "is never over its limit")
	}
	return append(lines, "is over its limit when "+strings.Join(when, ", or when "))
}

func numbers(list []int) string {
	words := make([]string, len(list))
	for i, n := range list {
		words[i] = strconv.Itoa(n)
	}
	return strings.Join(words, ", ")
}
