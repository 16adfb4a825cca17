package limits

import (
	"strconv"
	"strings"
)

// maxName is the length in bytes up to which a name that a request makes gets
// counters of its own, since keys and values may be as long as their sender
// likes.
const maxName = 512

// requestNames finds the counters of a rule in whose name keys or values of
// requests stand.
type requestNames struct {
	stats *Stats
	// detailed puts the whole request into the name. Else the keys stand there
	// that patterns take, and the values of levels with ValueToMetric.
	detailed bool
	// shares says that a level has ShareThreshold.
	shares bool
	// patterns are the texts of the levels that are patterns, "" of the others.
	patterns []string
	// usual is the rule's own name where nearly all requests make it, since no
	// key is a pattern: a pattern in a value sees the end of a longer key only.
	// Else it is "".
	usual string
	// others are the counters for when there are too many names.
	others *Counters
}

// newRequestNames returns nil if all requests that meet the rule make the same
// name, which is own.
func newRequestNames(stats *Stats, levels []Level, detailed bool, own string) *requestNames {
	n := &requestNames{stats: stats, detailed: detailed, usual: own}
	needed := false
	for _, l := range levels {
		text := ""
		if isPattern(l.text()) {
			text = l.text()
		}
		n.patterns = append(n.patterns, text)
		n.shares = n.shares || l.ShareThreshold
		told := l.open() && (detailed || l.ValueToMetric) && !l.ShareThreshold
		if told || isPattern(l.Key) {
			n.usual = ""
		}
		needed = needed || told || text != ""
	}
	if !needed {
		return nil
	}
	return n
}

// open says whether entries of different text take the level.
func (l Level) open() bool { return l.Value == "" || isPattern(l.Key) || isPattern(l.Value) }

// counters returns those of the name that entries make.
func (n *requestNames) counters(r *Rule, entries []Entry) *Counters {
	var memory [maxName]byte
	name, ok := n.appendName(memory[:0], r.Levels, entries)
	switch {
	case !ok:
		return n.others
	case n.usual != "" && string(name) == n.usual:
		return r.counters
	case len(name) == 0 || name[0] == '(' || !readableBytes(name):
		return n.quoted(r, name)
	}
	return n.stats.ofRequest(ruleHits, r.Domain, name, n.others)
}

// appendName appends the name that entries make to dst, as envoyproxy/ratelimit
// spells it, or what fits of it and false where that is not all.
func (n *requestNames) appendName(dst []byte, levels []Level, entries []Entry) ([]byte, bool) {
	for i, l := range levels {
		key, value := l.Key, l.Value
		underscore := value != ""
		switch {
		case !l.open():
		case n.patterns[i] != "" && (l.ShareThreshold || !n.detailed && !l.ValueToMetric):
			key, value = entries[i].Key, behind(n.patterns[i], entries[i].Key)
			underscore = value != ""
		case n.detailed:
			key, value = entries[i].Key, entries[i].Value
			underscore = value != "" || !n.shares
		case l.ValueToMetric:
			key, value = entries[i].Key, entries[i].Value
			underscore = value != ""
		}
		if len(dst)+len(key)+len(value)+2 > maxName {
			return dst, false
		}
		if i > 0 {
			dst = append(dst, '.')
		}
		dst = append(dst, key...)
		if underscore {
			dst = append(dst, '_')
		}
		dst = append(dst, value...)
	}
	return dst, true
}

// behind is a pattern without key and underscore where it begins with them:
// of path_/x* behind path it is /x*. Of w* behind wx it is all.
func behind(pattern, key string) string {
	if rest, ok := strings.CutPrefix(pattern, key); ok && strings.HasPrefix(rest, "_") {
		return rest[1:]
	}
	return pattern
}

// quoted is counters for a name that may not stand in a line as it is, or may
// look like one that is given to no rule.
func (n *requestNames) quoted(r *Rule, name []byte) *Counters {
	quoted := strconv.AppendQuote(nil, string(name))
	if len(quoted) > maxName {
		return n.others
	}
	return n.stats.ofRequest(ruleHits, r.Domain, quoted, n.others)
}
