package strict

import (
	"strconv"
	"strings"
)

// Path leads to a value of a message in Envoy's words:
// `static_resources.listeners[0].metadata.filter_metadata["x"]`. Fields have
// their proto names; an Any adds no step. The empty path is the message
// itself.
type Path string

// Field is the path of a field of the message at p. A name that is no
// identifier, as a misspelt one may be, is quoted.
func (p Path) Field(name string) Path {
	if !identifier(name) {
		return p.Key(name)
	}
	if p == "" {
		return Path(name)
	}
	return p + Path("."+name)
}

// Index is the path of an element of the list at p.
func (p Path) Index(i int) Path { return p + Path("["+strconv.Itoa(i)+"]") }

// Key is the path of an entry of the map at p.
func (p Path) Key(k string) Path { return p + Path("["+strconv.Quote(k)+"]") }

// step is one part of a path: a field or a key by name, or an index.
type step struct {
	name    string
	index   int
	isIndex bool
	isKey   bool
	// end is where the step ends in the path.
	end int
}

// steps takes p apart. What is no path ends the list early.
func (p Path) steps() []step {
	var list []step
	for i := 0; i < len(p); {
		rest := string(p[i:])
		switch {
		case strings.HasPrefix(rest, `["`):
			quoted, err := strconv.QuotedPrefix(rest[1:])
			if err != nil || !strings.HasPrefix(rest[1+len(quoted):], "]") {
				return list
			}
			name, _ := strconv.Unquote(quoted)
			i += len(quoted) + 2
			list = append(list, step{name: name, isKey: true, end: i})
		case rest[0] == '[':
			digits, _, ok := strings.Cut(rest[1:], "]")
			index, err := strconv.Atoi(digits)
			if !ok || err != nil {
				return list
			}
			i += len(digits) + 2
			list = append(list, step{index: index, isIndex: true, end: i})
		default:
			if rest[0] == '.' {
				rest = rest[1:]
				i++
			}
			n := strings.IndexAny(rest, ".[")
			if n < 0 {
				n = len(rest)
			}
			if n == 0 {
				return list
			}
			i += n
			list = append(list, step{name: rest[:n], end: i})
		}
	}
	return list
}

func identifier(name string) bool {
	for i, c := range name {
		letter := c == '_' || 'a' <= c && c <= 'z' || 'A' <= c && c <= 'Z'
		if !letter && (i == 0 || c < '0' || c > '9') {
			return false
		}
	}
	return name != ""
}
