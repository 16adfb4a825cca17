package format

import (
	"fmt"
	"strconv"
	"strings"
	"sync/atomic"
	"time"
)

func start(f *Facts) time.Time { return f.Start }

func now(*Facts) time.Time { return time.Now() }

// timeOperator makes START_TIME(format) and its like, of which the format is strftime's;
// none is 2006-01-02T15:04:05.000Z, or of local time 2006-01-02T15:04:05.000+0000.
func timeOperator(of func(*Facts) time.Time, local bool) func(string) (operator, error) {
	return func(argument string) (operator, error) {
		switch {
		case argument == "" && !local:
			c := &clock{}
			return operator{write: func(b []byte, f *Facts) ([]byte, bool) { return c.append(b, of(f)), true }}, nil
		case argument == "":
			argument = "%FT%T.%3f%z"
		}
		zone := time.Time.UTC
		if local {
			zone = time.Time.Local
		}
		t, err := parseTimeFormat(argument)
		return operator{write: func(b []byte, f *Facts) ([]byte, bool) { return t.append(b, zone(of(f))), true }}, err
	}
}

// timeFormat is a parsed format of strftime.
type timeFormat []func(b []byte, t time.Time) []byte

func (p timeFormat) append(b []byte, t time.Time) []byte {
	for _, piece := range p {
		b = piece(b, t)
	}
	return b
}

// clock writes 2006-01-02T15:04:05.000Z. It is what nearly every line of a log begins
// with, so that the text of the last second is kept.
type clock struct{ last atomic.Pointer[second] }

// second is a second and its text, up to the milliseconds.
type second struct {
	unix int64
	text [len("2006-01-02T15:04:05.")]byte
}

func (c *clock) append(b []byte, t time.Time) []byte {
	last, unix := c.last.Load(), t.Unix()
	switch {
	case last == nil || last.unix < unix:
		last = &second{unix: unix}
		t.UTC().AppendFormat(last.text[:0], "2006-01-02T15:04:05.")
		c.last.Store(last)
	case last.unix > unix: // of a request that took long
		return t.UTC().AppendFormat(b, "2006-01-02T15:04:05.000Z")
	}
	b = append(b, last.text[:]...)
	return append(padded(b, t.Nanosecond()/1e6, 3), 'Z')
}

// padded writes a number of so many digits, of 9 at most.
func padded(b []byte, n, digits int) []byte {
	var text [9]byte
	for i := digits - 1; i >= 0; i-- {
		text[i] = byte('0' + n%10)
		n /= 10
	}
	return append(b, text[:digits]...)
}

// layouts are the specifiers of strftime that are layouts of time.
var layouts = map[byte]string{
	'Y': "2006", 'y': "06", 'm': "01", 'd': "02", 'e': "_2", 'j': "002",
	'H': "15", 'I': "03", 'M': "04", 'S': "05", 'p': "PM",
	'b': "Jan", 'h': "Jan", 'B': "January", 'a': "Mon", 'A': "Monday",
	'z': "-0700", 'Z': "MST", 'F': "2006-01-02", 'T': "15:04:05", 'R': "15:04", 'D': "01/02/06",
	'c': "Mon Jan _2 15:04:05 2006", 'x': "01/02/06", 'X': "15:04:05",
}

// parseTimeFormat reads a format: the specifiers of layouts, %s (seconds since
// 1970), %f (nanoseconds) and %1f to %9f (so many digits of them), %%.
func parseTimeFormat(text string) (timeFormat, error) {
	var p timeFormat
	for text != "" {
		literal, rest, found := strings.Cut(text, "%")
		if literal != "" {
			p = append(p, func(b []byte, _ time.Time) []byte { return append(b, literal...) })
		}
		if !found {
			break
		}
		digits := 9
		if rest != "" && '1' <= rest[0] && rest[0] <= '9' {
			digits = int(rest[0] - '0')
			rest = rest[1:]
			if rest == "" || rest[0] != 'f' {
				return nil, fmt.Errorf("%%%d is not followed by f", digits)
			}
		}
		if rest == "" {
			return nil, fmt.Errorf("a %% without specifier at the end")
		}
		switch c := rest[0]; c {
		case '%':
			p = append(p, func(b []byte, _ time.Time) []byte { return append(b, '%') })
		case 's':
			p = append(p, func(b []byte, t time.Time) []byte { return strconv.AppendInt(b, t.Unix(), 10) })
		case 'f':
			p = append(p, func(b []byte, t time.Time) []byte {
				return padded(b, t.Nanosecond(), 9)[:len(b)+digits]
			})
		default:
			layout, ok := layouts[c]
			if !ok {
				return nil, fmt.Errorf("unknown specifier %%%c", c)
			}
			p = append(p, func(b []byte, t time.Time) []byte { return t.AppendFormat(b, layout) })
		}
		text = rest[1:]
	}
	return p, nil
}
