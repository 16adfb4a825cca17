package limits

import (
	"strconv"
	"strings"
	"unicode"
)

// name is the path of a rule's descriptors in both of its spellings.
type name struct {
	// plain is as the peer spells it, "key_value.key2". Other paths may read
	// the same.
	plain string
	// quoted is `"key"="value"."key2"`. No other path reads the same.
	quoted string
}

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
	spelled := map[string]int{overrides: 1}
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
func readable(text string) bool {
	return !strings.ContainsFunc(text, func(r rune) bool { return r == '"' || !unicode.IsPrint(r) })
}
