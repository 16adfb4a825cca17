package route

import (
	"bytes"
	"slices"

	"github.com/weirproxy/weir/services/proxy/internal/message"
)

// Match returns the route of a request, or nil if there is none. Steps: the
// virtual host by the authority, then the first of its routes whose path
// matches, the query left out. A CONNECT, which has no path, matches none. It
// never blocks and allocates nothing.
func (t *Table) Match(r *message.Request) *Route {
	host := t.virtualHost(r.Authority)
	if host == nil || len(r.Path) == 0 {
		return nil
	}
	path := r.Path
	if i := bytes.IndexByte(path, '?'); i >= 0 {
		path = path[:i]
	}
	for i := range host.routes {
		if route := &host.routes[i]; route.matches(path) {
			return route
		}
	}
	return nil
}

func (r *Route) matches(path []byte) bool {
	if r.prefix {
		return len(path) >= len(r.path) && string(path[:len(r.path)]) == r.path
	}
	return string(path) == r.path
}

// longestName is how long an authority can be to match a domain: RFC 1035
// allows 253 bytes of name, and a port follows.
const longestName = 260

func (t *Table) virtualHost(authority []byte) *virtualHost {
	if len(t.exact) == 0 && t.suffixes == nil && t.prefixes == nil || len(authority) > longestName {
		return t.fallback
	}
	var lowered [longestName]byte
	name := lowered[:len(authority)]
	for i, c := range authority {
		if 'A' <= c && c <= 'Z' {
			c += 'a' - 'A'
		}
		name[i] = c
	}
	if host, ok := t.exact[string(name)]; ok {
		return host
	}
	// A * stands for at least one character.
	for _, w := range t.suffixes {
		if rest := len(name) - len(w.text); rest > 0 && string(name[rest:]) == w.text {
			return w.host
		}
	}
	for _, w := range t.prefixes {
		if len(name) > len(w.text) && string(name[:len(w.text)]) == w.text {
			return w.host
		}
	}
	return t.fallback
}

func longestFirst(list []wildcard) {
	slices.SortStableFunc(list, func(a, b wildcard) int { return len(b.text) - len(a.text) })
}
