package check

import (
	"errors"
	"fmt"
	"strconv"
	"strings"

	"github.com/weirproxy/weir/services/ratelimit/internal/limits"
)

// descriptorFlag is the descriptors of a command line.
type descriptorFlag [][]limits.Entry

// String is part of flag.Value.
func (f *descriptorFlag) String() string { return "" }

// Set is part of flag.Value.
func (f *descriptorFlag) Set(text string) error {
	entries, err := parseDescriptor(text)
	if err == nil {
		*f = append(*f, entries)
	}
	return err
}

// parseDescriptor reads "key=value,key=value", in the spelling that the usage
// tells. An empty text is a descriptor without entries.
func parseDescriptor(text string) ([]limits.Entry, error) {
	var entries []limits.Entry
	for rest := text; rest != ""; {
		var e limits.Entry
		var err error
		if e.Key, rest, err = word(rest, "=,"); err != nil {
			return nil, err
		}
		if !strings.HasPrefix(rest, "=") {
			return nil, fmt.Errorf("%q is not key=value", e.Key)
		}
		if e.Value, rest, err = word(rest[1:], ","); err != nil {
			return nil, err
		}
		entries = append(entries, e)
		if rest == "" {
			break
		}
		if rest = rest[1:]; rest == "" {
			return nil, errors.New("nothing follows the last comma")
		}
	}
	return entries, nil
}

// word reads a key or a value, and returns what follows it: nothing, or
// something that begins with a byte of ends.
func word(text, ends string) (word, rest string, err error) {
	if strings.HasPrefix(text, `"`) {
		quoted, err := strconv.QuotedPrefix(text)
		if err != nil {
			return "", "", fmt.Errorf("%s is not a text in quotes", text)
		}
		if rest = text[len(quoted):]; rest != "" && !strings.Contains(ends, rest[:1]) {
			return "", "", fmt.Errorf("%s follows the text in quotes %s", rest, quoted)
		}
		word, err = strconv.Unquote(quoted)
		return word, rest, err
	}
	var b strings.Builder
	for i := 0; i < len(text); i++ {
		switch {
		case strings.IndexByte(ends, text[i]) >= 0:
			return b.String(), text[i:], nil
		case text[i] != '\\':
			b.WriteByte(text[i])
		case i+1 == len(text):
			return "", "", errors.New("nothing follows the last backslash")
		default:
			i++
			b.WriteByte(text[i])
		}
	}
	return b.String(), "", nil
}

// spell writes entries as parseDescriptor reads them.
func spell(entries []limits.Entry) string {
	var b strings.Builder
	for i, e := range entries {
		if i > 0 {
			b.WriteByte(',')
		}
		b.WriteString(spellWord(e.Key, "=,"))
		b.WriteByte('=')
		b.WriteString(spellWord(e.Value, ","))
	}
	return b.String()
}

// spellWord quotes a word where it would else not read as itself.
func spellWord(word, ends string) string {
	if strings.ContainsAny(word, ends+`\"`) || strconv.Quote(word) != `"`+word+`"` {
		return strconv.Quote(word)
	}
	return word
}
