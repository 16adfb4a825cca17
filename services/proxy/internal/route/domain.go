package route

import (
	"slices"
	"strings"

	"github.com/weirproxy/weir/services/proxy/internal/matcher"
)

// domains finds the virtual host of an authority. There are four kinds of
// domains, tried in this order: the whole name, "*.suffix" with the longest
// suffix first, "prefix.*" with the longest prefix first, and "*"
// (VirtualHost.domains). All texts are in lower case.
type domains struct {
	exact    map[string]*domain
	suffixes []wildcards
	prefixes []wildcards
	fallback *domain
}

// domain is one domain of a virtual host.
type domain struct {
	name string
	host *virtualHost
}

// wildcards are domains with a *, cut off, whose texts are of the same length.
type wildcards struct {
	length int
	byText map[string]*domain
}

// add files a domain. Known says that it was there before, ok that its * stands
// where one can.
func (d *domains) add(name string, host *virtualHost) (known, ok bool) {
	entry := &domain{name, host}
	switch strings.Count(name, "*") {
	case 0:
		if d.exact == nil {
			d.exact = map[string]*domain{}
		}
		return put(d.exact, name, entry), true
	case 1:
		if name == "*" {
			known = d.fallback != nil
			d.fallback = entry
			return known, true
		}
		if suffix, ok := strings.CutPrefix(name, "*"); ok {
			return put(group(&d.suffixes, len(suffix)), suffix, entry), true
		}
		if prefix, ok := strings.CutSuffix(name, "*"); ok {
			return put(group(&d.prefixes, len(prefix)), prefix, entry), true
		}
	}
	return false, false
}

func put(in map[string]*domain, text string, entry *domain) (known bool) {
	known = in[text] != nil
	in[text] = entry
	return known
}

// group is the map of the texts of that length.
func group(list *[]wildcards, length int) map[string]*domain {
	for _, w := range *list {
		if w.length == length {
			return w.byText
		}
	}
	w := wildcards{length, map[string]*domain{}}
	*list = append(*list, w)
	return w.byText
}

// sort brings the wildcards into the order in which they are tried.
func (d *domains) sort() {
	longestFirst := func(a, b wildcards) int { return b.length - a.length }
	slices.SortFunc(d.suffixes, longestFirst)
	slices.SortFunc(d.prefixes, longestFirst)
}

// longestName is how long an authority can be to match a domain: RFC 1035
// allows 253 bytes of name, and a port follows.
const longestName = 260

// find is the domain of an authority, nil if there is none.
func (d *domains) find(authority []byte) *domain {
	if d.exact == nil && d.suffixes == nil && d.prefixes == nil || len(authority) > longestName {
		return d.fallback
	}
	var lowered [longestName]byte
	name := lowered[:len(authority)]
	for i, c := range authority {
		name[i] = matcher.Lower(c)
	}
	if found, ok := d.exact[string(name)]; ok {
		return found
	}
	// A * stands for at least one character.
	for _, w := range d.suffixes {
		if rest := len(name) - w.length; rest > 0 {
			if found, ok := w.byText[string(name[rest:])]; ok {
				return found
			}
		}
	}
	for _, w := range d.prefixes {
		if len(name) > w.length {
			if found, ok := w.byText[string(name[:w.length])]; ok {
				return found
			}
		}
	}
	return d.fallback
}
