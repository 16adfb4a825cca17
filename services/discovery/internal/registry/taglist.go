package registry

import (
	"bytes"
	"encoding/json"
	"slices"
	"strings"
)

// Tag is a tag that means nothing to the registry. Value is compact JSON.
type Tag struct {
	Name  string
	Value json.RawMessage
}

// TagList is tags ordered by name, names once. It takes a fraction of a map's
// memory, and is told in the same order each time.
type TagList []Tag

// TagListOf makes a list of tags by their names. It keeps the values.
func TagListOf(tags map[string]json.RawMessage) TagList {
	if len(tags) == 0 {
		return nil
	}
	list := make(TagList, 0, len(tags))
	for name, value := range tags {
		list = append(list, Tag{name, value})
	}
	slices.SortFunc(list, func(a, b Tag) int { return strings.Compare(a.Name, b.Name) })
	return list
}

// Get returns the value of a tag, and whether it is there.
func (l TagList) Get(name string) (json.RawMessage, bool) {
	i, ok := slices.BinarySearchFunc(l, name, func(t Tag, name string) int { return strings.Compare(t.Name, name) })
	if !ok {
		return nil, false
	}
	return l[i].Value, true
}

// merge returns newer laid over l: what newer does not have stays. It may be one
// of the two.
func (l TagList) merge(newer TagList) TagList {
	if len(newer) == 0 {
		return l
	}
	if len(l) == 0 {
		return newer
	}
	merged := make(TagList, 0, len(l)+len(newer))
	for len(l) > 0 && len(newer) > 0 {
		switch order := strings.Compare(l[0].Name, newer[0].Name); {
		case order < 0:
			merged, l = append(merged, l[0]), l[1:]
		case order > 0:
			merged, newer = append(merged, newer[0]), newer[1:]
		default:
			merged, l, newer = append(merged, newer[0]), l[1:], newer[1:]
		}
	}
	return slices.Clip(append(append(merged, l...), newer...))
}

// with is l, in which the tags of some names, which are in order, are as newer has them,
// or gone if it does not.
func (l TagList) with(names []string, newer TagList) TagList {
	if len(names) == 0 {
		return l
	}
	var list TagList
	for _, tag := range l.merge(newer) {
		from := l
		if _, named := slices.BinarySearch(names, tag.Name); named {
			from = newer
		}
		if value, ok := from.Get(tag.Name); ok {
			list = append(list, Tag{tag.Name, value})
		}
	}
	return list
}

// covers reports whether laying newer over l would change nothing.
func (l TagList) covers(newer TagList) bool {
	for _, tag := range newer {
		if held, ok := l.Get(tag.Name); !ok || !bytes.Equal(held, tag.Value) {
			return false
		}
	}
	return true
}

// differing are the names of the tags that newer has otherwise, or has not, or has
// alone; in order.
func (l TagList) differing(newer TagList) (names []string) {
	for _, tag := range l.merge(newer) {
		before, was := l.Get(tag.Name)
		after, is := newer.Get(tag.Name)
		if was != is || !bytes.Equal(before, after) {
			names = append(names, tag.Name)
		}
	}
	return names
}
