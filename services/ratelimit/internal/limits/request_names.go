package limits

import "strconv"

// maxName is the length in bytes up to which a name that a request makes gets
// counters of its own, since values may be as long as their sender likes.
const maxName = 512

// requestNames finds the counters of a rule in whose name values of requests
// stand.
type requestNames struct {
	stats *Stats
	// detailed puts the whole request into the name, else only the values of
	// levels with ValueToMetric stand there.
	detailed bool
	// others are the counters for when there are too many names.
	others *Counters
}

// byRequest says whether requests that meet the same rule may make different
// names.
func byRequest(levels []Level, detailed bool) bool {
	for _, l := range levels {
		if l.open() && (detailed || l.ValueToMetric) && !l.ShareThreshold {
			return true
		}
	}
	return false
}

// open says whether entries of different text take the level.
func (l Level) open() bool { return l.Value == "" || isPattern(l.Key) || isPattern(l.Value) }

// counters returns those of the name that entries make.
func (n *requestNames) counters(r *Rule, entries []Entry) *Counters {
	var memory [maxName]byte
	name, ok := n.appendName(memory[:0], r.Levels, entries)
	if !ok {
		return n.others
	}
	if name[0] == '(' || !readableBytes(name) {
		return n.quoted(r, name)
	}
	return n.stats.ofRequest(ruleHits, r.Domain, name, n.others)
}

// appendName appends the name that entries make to dst, or what fits of it and
// false where that is not all.
func (n *requestNames) appendName(dst []byte, levels []Level, entries []Entry) ([]byte, bool) {
	for i, l := range levels {
		key, value := l.Key, l.Value
		underscore := value != ""
		if l.open() && !l.ShareThreshold {
			switch {
			case n.detailed:
				key, value, underscore = entries[i].Key, entries[i].Value, true
			case l.ValueToMetric:
				key, value = entries[i].Key, entries[i].Value
				underscore = value != ""
			}
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

// quoted is counters for a name that may not stand in a line as it is, or may
// look like one that is given to no rule.
func (n *requestNames) quoted(r *Rule, name []byte) *Counters {
	quoted := strconv.AppendQuote(nil, string(name))
	if len(quoted) > maxName {
		return n.others
	}
	return n.stats.ofRequest(ruleHits, r.Domain, quoted, n.others)
}
