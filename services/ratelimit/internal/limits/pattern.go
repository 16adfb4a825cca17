package limits

import "strings"

// pattern is a text with at least one *, which stands for any run of bytes,
// also for none.
type pattern struct {
	first, last string   // before the first * and after the last
	middle      []string // between them, none of them empty
	least       int      // the bytes of all of these
	node        *node    // where it leads
}

func isPattern(text string) bool { return strings.Contains(text, "*") }

// newPattern takes apart a text that is a pattern.
func newPattern(text string, leads *node) pattern {
	pieces := strings.Split(text, "*")
	n := len(pieces) - 1
	p := pattern{first: pieces[0], last: pieces[n], least: len(text) - n, node: leads}
	for _, piece := range pieces[1:n] {
		if piece != "" {
			p.middle = append(p.middle, piece)
		}
	}
	return p
}

// matches says whether the pattern takes key_value, the key and the value of
// an entry. Each piece is looked for once, from the end of the one before, so
// that the time grows with the entry's length and not faster.
func (p *pattern) matches(key, value string) bool {
	t := joined{key, value}
	end := t.len() - len(p.last)
	if t.len() < p.least || !t.has(p.first, 0) || !t.has(p.last, end) {
		return false
	}
	from := len(p.first)
	for _, piece := range p.middle {
		at := t.index(piece, from, end)
		if at < 0 {
			return false
		}
		from = at + len(piece)
	}
	return true
}

// takesKey says whether there are values with which the pattern takes key.
func (p *pattern) takesKey(key string) bool {
	t := joined{key: key}
	return t.has(p.first[:min(len(p.first), t.len())], 0) // what comes after may be in the value
}

// joined is the text key_value, which is never put together.
type joined struct{ key, value string }

func (t joined) len() int { return len(t.key) + 1 + len(t.value) }

// has says whether piece stands at offset at. All of it must fit.
func (t joined) has(piece string, at int) bool {
	if n := len(t.key) - at; n > 0 {
		n = min(n, len(piece))
		if t.key[at:at+n] != piece[:n] {
			return false
		}
		piece, at = piece[n:], at+n
	}
	if piece != "" && at == len(t.key) {
		if piece[0] != '_' {
			return false
		}
		piece, at = piece[1:], at+1
	}
	return piece == "" || t.value[at-len(t.key)-1:][:len(piece)] == piece
}

// index returns the first offset from which piece stands between from and end,
// or -1. Both lie in the text.
func (t joined) index(piece string, from, end int) int {
	// 1. All of it in the key.
	if from < len(t.key) {
		if i := strings.Index(t.key[from:min(end, len(t.key))], piece); i >= 0 {
			return from + i
		}
	}
	// 2. The underscore is part of it.
	for at := max(from, len(t.key)+1-len(piece)); at <= len(t.key) && at+len(piece) <= end; at++ {
		if t.has(piece, at) {
			return at
		}
	}
	// 3. All of it in the value.
	begin := len(t.key) + 1
	if at := max(from, begin); at < end {
		if i := strings.Index(t.value[at-begin:end-begin], piece); i >= 0 {
			return at + i
		}
	}
	return -1
}
