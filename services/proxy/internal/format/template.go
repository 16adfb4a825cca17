// Package format is Envoy's substitution format: texts such as
// "%REQ(:METHOD)% %RESPONSE_CODE%" in which operators stand for what is known
// of a request. Access logs and header mutations parse them once, when the
// configuration is read, and append them to a buffer for each request, which
// allocates nothing. What is known comes as Facts, which others fill in; the
// package knows no route, no cluster and no stream.
//
// An operator is %NAME%, %NAME(argument)%, %NAME(argument):7% with at most 7
// bytes of its value; %% is a percent sign. A text that is not made so is
// refused, and so are unknown operators and arguments.
package format

import (
	"errors"
	"fmt"
	"strconv"
	"strings"
)

// Style is what a text is made for.
type Style int

// The styles. Bytes of others that could break a line are written as \xHH.
const (
	// Log is a line of a log: what is missing is "-".
	Log Style = iota
	// LogOmitting is Log where what is missing is left out
	// (omit_empty_values).
	LogOmitting
	// Header is the value of a header field: what is missing is left out, and a
	// tab, which a field may have, stays one.
	Header
)

func (s Style) missing() string {
	if s == Log {
		return "-"
	}
	return ""
}

// Template is a parsed text. It is immutable.
type Template struct {
	parts []part
	style Style
}

// part is a text and the operator behind it, if there is one.
type part struct {
	literal string
	operator
}

// Parse reads a text. The error names all that is wrong, each with its column,
// counted from 1 in bytes.
func Parse(text string, style Style) (*Template, error) {
	t := &Template{style: style}
	var literal strings.Builder
	var faults []string
	for at := 0; at < len(text); {
		rest := text[at:]
		switch {
		case rest[0] != '%':
			n := strings.IndexByte(rest, '%')
			if n < 0 {
				n = len(rest)
			}
			literal.WriteString(rest[:n])
			at += n
		case strings.HasPrefix(rest, "%%"):
			literal.WriteByte('%')
			at += 2
		default:
			op, n, err := parseOperator(rest)
			if err != nil {
				faults = append(faults, fmt.Sprintf("column %d: %v", at+1, err))
			}
			t.parts = append(t.parts, part{literal.String(), op})
			literal.Reset()
			at += n
		}
	}
	if len(faults) > 0 {
		return nil, errors.New(strings.Join(faults, "; "))
	}
	if literal.Len() > 0 {
		t.parts = append(t.parts, part{literal: literal.String()})
	}
	return t, nil
}

// parseOperator reads the operator that text begins with, and counts its bytes. Of
// one that is malformed these are as many as can be no other's.
func parseOperator(text string) (op operator, n int, err error) {
	end := 1
	for end < len(text) && nameByte(text[end]) {
		end++
	}
	name := text[1:end]
	if name == "" {
		n = 1 + len(text[1:]) - len(strings.TrimLeft(text[1:], "abcdefghijklmnopqrstuvwxyz_"))
		if n > 1 && n < len(text) && text[n] == '%' { // in the wrong case
			return operator{}, n + 1, errNoOperator
		}
		return operator{}, 1, errNoOperator
	}
	argument, length, given, n, err := parseArgument(name, text, end)
	if _, known := operators[name]; known && err != nil {
		return operator{}, n, err
	}
	op, err = newOperator(name, argument, given, length)
	return op, n, err
}

// newOperator makes the operator of a name with an argument, if one is given, and with a
// length; −1 is none.
func newOperator(name, argument string, given bool, length int) (operator, error) {
	spec, ok := operators[name]
	switch {
	case !ok:
		return operator{}, fmt.Errorf("unknown operator %s", name)
	case given && spec.argument == noArgument:
		return operator{}, fmt.Errorf("%s takes no argument", name)
	case argument == "" && spec.argument == needsArgument:
		return operator{}, fmt.Errorf("%s needs an argument", name)
	case length >= 0 && !spec.length:
		return operator{}, fmt.Errorf("%s takes no length", name)
	}
	if name == coalesceName {
		return coalesce(argument, length)
	}
	op, err := spec.make(argument)
	if err != nil {
		return operator{}, fmt.Errorf("%s(%s): %w", name, argument, err)
	}
	op.most = length
	return op, nil
}

var errNoOperator = errors.New("no operator follows the % (%% is a percent sign)")

// parseArgument reads what follows an operator's name, which ends at end: perhaps an
// argument, perhaps a length, which else is −1, and the %. It counts the bytes from
// the text's begin as parseOperator does.
func parseArgument(name, text string, end int) (argument string, length int, given bool, n int, err error) {
	length = -1
	if given = end < len(text) && text[end] == '('; given {
		closing := strings.IndexByte(text[end:], ')')
		if closing < 0 {
			return "", length, given, len(text), fmt.Errorf("%s: the argument has no closing bracket", name)
		}
		argument = text[end+1 : end+closing]
		end += closing + 1
	}
	if end < len(text) && text[end] == ':' {
		digits := end + 1
		for end++; end < len(text) && '0' <= text[end] && text[end] <= '9'; {
			end++
		}
		if length, err = strconv.Atoi(text[digits:end]); err != nil {
			err = fmt.Errorf("%s: a length of digits must follow the colon", name)
		}
	}
	if end < len(text) && text[end] == '%' {
		return argument, length, given, end + 1, err
	}
	if err == nil {
		err = fmt.Errorf("%s: the operator does not end in %%", name)
	}
	if closing := strings.IndexByte(text[end:], '%'); closing >= 0 {
		return argument, length, given, end + closing + 1, err
	}
	return argument, length, given, len(text), err
}

func nameByte(c byte) bool { return 'A' <= c && c <= 'Z' || '0' <= c && c <= '9' || c == '_' }

// Constant says whether the text has no operator, and what it then is.
func (t *Template) Constant() (text string, ok bool) {
	switch len(t.parts) {
	case 0:
		return "", true
	case 1:
		return t.parts[0].literal, t.parts[0].write == nil
	}
	return "", false
}

// Single says whether the text is one operator and nothing else.
func (t *Template) Single() bool {
	return len(t.parts) == 1 && t.parts[0].write != nil && t.parts[0].literal == ""
}

// Append appends the text of a request to b.
func (t *Template) Append(b []byte, f *Facts) []byte {
	for i := range t.parts {
		p := &t.parts[i]
		b = append(b, p.literal...)
		if p.write == nil {
			continue
		}
		start := len(b)
		var known bool
		if b, known = p.value(b, f); !known {
			b = append(b, t.style.missing()...)
		} else if p.foreign {
			b = escapeControls(b, start, t.style == Header)
		}
	}
	return b
}

// Bytes is Append to a buffer of the facts' own, valid until the next call.
func (t *Template) Bytes(f *Facts) []byte {
	f.scratch = t.Append(f.scratch[:0], f)
	return f.scratch
}

// operator writes one value.
type operator struct {
	// write appends the value as text, or returns false if it is not known. It
	// is nil in a part without operator.
	write func(b []byte, f *Facts) (_ []byte, known bool)
	// json appends the value as JSON; nil where that is the text, quoted or not.
	json func(b []byte, f *Facts) (_ []byte, known bool)
	// number says that the text is a number in JSON.
	number bool
	// foreign says that the value has bytes of others.
	foreign bool
	// most bounds the text's bytes; −1 does not.
	most int
}

// value appends the text, cut to its bound.
func (o *operator) value(b []byte, f *Facts) ([]byte, bool) {
	start := len(b)
	b, known := o.write(b, f)
	if !known {
		return b[:start], false
	}
	if o.most >= 0 && len(b)-start > o.most {
		b = b[:start+o.most]
	}
	return b, true
}
