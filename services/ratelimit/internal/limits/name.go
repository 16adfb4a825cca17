package limits

import (
	"strconv"
	"unicode"
	"unicode/utf8"
)

// name is the path of a rule's descriptors in both of its spellings.
type name struct {
	// plain is as envoyproxy/ratelimit spells it, "key_value.key2". Other paths
	// may read the same.
	plain string
	// quoted is `"key"="value"."key2"`. No other path reads the same.
	quoted string
}

// The rule labels of what belongs to no rule's name: what requests' own limits
// decided, and what is left when there are too many names. No rule is called
// so. The latter is also the domain label of what is left of domains.
const (
	overrides = "(override)"
	others    = "(other)"
)

// join lengthens a name by one descriptor. An empty value stands for the key
// alone.
func (n name) join(key, value string) name {
	plain, quoted := key, strconv.Quote(key)
	if value != "" {
		plain += "_" + value
		quoted += "=" + strconv.Quote(value)
	}
	if n.plain == "" {
		return name{plain, quoted}
	}
	return name{n.plain + "." + plain, n.quoted + "." + quoted}
}

// giveKeys gives each rule of one domain a key of its own: the plain spelling
// of its name where no other rule is spelled so, else the quoted one. Of two
// that read the same neither gets the plain spelling, so that no rule takes
// over the counters that another had under it. Plain spellings with a quote
// are not used, so that none is another's quoted one.
func giveKeys(rules []*Rule, names []name) {
	spelled := map[string]int{overrides: 1, others: 1}
	for _, n := range names {
		spelled[n.plain]++
	}
	for i, n := range names {
		rules[i].Key = n.quoted
		if spelled[n.plain] == 1 && readable(n.plain) {
			rules[i].Key = n.plain
		}
	}
}

// readable says whether text may stand in a line without quotes.
func readable(text string) bool { return readableBytes([]byte(text)) }

func readableBytes(text []byte) bool {
	for len(text) > 0 {
		r, size := utf8.DecodeRune(text)
		if r == '"' || r == utf8.RuneError || !unicode.IsPrint(r) {
			return false
		}
		text = text[size:]
	}
	return true
}
