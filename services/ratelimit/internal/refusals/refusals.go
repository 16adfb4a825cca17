// Package refusals remembers which descriptors were refused most in the last
// minutes, for whoever looks at the service's page. The limiter tells it of
// every refusal. It holds a bounded number of descriptors whatever requests
// say, so that its counts are bounds where there were more, and it decides
// nothing.
package refusals

import (
	"cmp"
	"slices"
	"strconv"
	"sync"
	"time"

	"github.com/weirproxy/weir/services/ratelimit/internal/limits"
)

const (
	// minutes is how far back counts reach.
	minutes = 5
	// slots is how many descriptors a minute holds. One that was refused in
	// more than a slots-th of the minute's hits is surely among them.
	slots = 256
	// longest is the bytes of a name that are kept; the rest is cut off.
	longest = 200
)

// Top is safe for use by many goroutines. Its zero value is ready.
type Top struct {
	mu    sync.Mutex
	spans [minutes]span
}

// span is the refusals of one minute, by the space-saving rule: a newcomer to a
// full span takes the place of the one with the fewest hits and inherits them.
type span struct {
	minute int64
	index  map[string]int // name → position in slots
	slots  []slot
}

// slot is one descriptor: refused at most hits times, of which inherited may be
// another's.
type slot struct {
	name            string
	hits, inherited uint64
}

// Add counts the hits of a refused descriptor now. It keeps nothing of entries
// and allocates only for a descriptor that is new in this minute.
func (t *Top) Add(domain string, entries []limits.Entry, hits uint64) {
	if hits == 0 {
		return
	}
	var memory [longest + 64]byte
	name := appendName(memory[:0], domain, entries)
	minute := time.Now().Unix() / 60
	t.mu.Lock()
	defer t.mu.Unlock()
	s := &t.spans[minute%minutes]
	if s.minute != minute || s.index == nil {
		*s = span{minute: minute, index: make(map[string]int, slots), slots: s.slots[:0]}
	}
	s.add(name, hits)
}

func (s *span) add(name []byte, hits uint64) {
	if i, known := s.index[string(name)]; known {
		s.slots[i].hits += hits
		return
	}
	if len(s.slots) < slots {
		s.index[string(name)] = len(s.slots)
		s.slots = append(s.slots, slot{name: string(name), hits: hits})
		return
	}
	least := 0
	for i := range s.slots {
		if s.slots[i].hits < s.slots[least].hits {
			least = i
		}
	}
	replaced := &s.slots[least]
	delete(s.index, replaced.name)
	*replaced = slot{name: string(name), hits: replaced.hits + hits, inherited: replaced.hits}
	s.index[replaced.name] = least
}

// appendName writes a descriptor as people read it: shop: user=alice, path=/x.
func appendName(dst []byte, domain string, entries []limits.Entry) []byte {
	dst = appendPart(dst, domain)
	for i := range entries {
		separator := ", "
		if i == 0 {
			separator = ": "
		}
		dst = append(dst, separator...)
		dst = appendPart(dst, entries[i].Key)
		if entries[i].Value != "" {
			dst = append(dst, '=')
			dst = appendPart(dst, entries[i].Value)
		}
		if len(dst) > longest {
			return append(dst[:longest], "…"...)
		}
	}
	return dst
}

// appendPart quotes what does not read well otherwise.
func appendPart(dst []byte, part string) []byte {
	cut := part[:min(len(part), longest)]
	for i := range len(cut) {
		if c := cut[i]; c <= ' ' || c >= 0x7f || c == '"' || c == '=' || c == ',' {
			return strconv.AppendQuoteToASCII(dst, cut)
		}
	}
	return append(dst, cut...)
}

// Refusal is one descriptor of List.
type Refusal struct {
	// Descriptor is the domain and the entries, as text.
	Descriptor string `json:"descriptor"`
	// Hits is how many were refused in the last minutes, at most; AtLeast is
	// how many there surely were.
	Hits    uint64 `json:"hits"`
	AtLeast uint64 `json:"at_least"`
}

// List returns the n descriptors with the most refused hits in this minute and
// the four before it, the most first. The slice is the caller's.
func (t *Top) List(n int) []Refusal {
	minute := time.Now().Unix() / 60
	sums := map[string]Refusal{}
	t.mu.Lock()
	for i := range t.spans {
		if minute-t.spans[i].minute >= minutes {
			continue
		}
		for _, s := range t.spans[i].slots {
			r := sums[s.name]
			sums[s.name] = Refusal{s.name, r.Hits + s.hits, r.AtLeast + s.hits - s.inherited}
		}
	}
	t.mu.Unlock()
	list := make([]Refusal, 0, len(sums))
	for _, r := range sums {
		list = append(list, r)
	}
	slices.SortFunc(list, func(a, b Refusal) int {
		return cmp.Or(cmp.Compare(b.Hits, a.Hits), cmp.Compare(a.Descriptor, b.Descriptor))
	})
	return list[:min(n, len(list))]
}
