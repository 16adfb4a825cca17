package protoyaml

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

// outer is the path of the value that the one at p lies in, or a part of it that
// ends within a key and is no path: going outwards from p meets every value that
// it lies in, and ends at the top.
func (p Path) outer() Path { return p[:max(0, strings.LastIndexAny(string(p), ".["))] }

// within says whether p leads to the value at outer or into it.
func (p Path) within(outer Path) bool {
	rest, ok := strings.CutPrefix(string(p), string(outer))
	return ok && (rest == "" || outer == "" || rest[0] == '.' || rest[0] == '[')
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
