package limits

import (
	"fmt"
	"slices"
	"strings"
)

// Fault is one thing that is wrong in a rule file or an xDS resource.
type Fault struct {
	Place Place
	Text  string
}

// Error is "file:line:column: text", or "resource name: path: text".
func (f Fault) Error() string { return f.Place.String() + ": " + f.Text }

// ParseError is everything that is wrong in one domain's files, or its xDS
// resource.
type ParseError struct {
	// Domain is the domain's name if that much could be read, else "".
	Domain string
	// Faults are the first MaxFaults, in the order of their places; there is at
	// least one. More is how many others there are.
	Faults []Fault
	More   int
}

// MaxFaults is how many faults are told: who wrote a file will not read more of
// them at once, and a file may have one in each of its bytes.
const MaxFaults = 100

// Lines has one for each fault, and one for those that are not told.
func (e *ParseError) Lines() []string {
	lines := make([]string, len(e.Faults), len(e.Faults)+1)
	for i, f := range e.Faults {
		lines[i] = f.Error()
	}
	if e.More > 0 {
		lines = append(lines, fmt.Sprintf("%s: … and %d more faults", e.Faults[0].Place.File, e.More))
	}
	return lines
}

// Error is the lines.
func (e *ParseError) Error() string { return strings.Join(e.Lines(), "\n") }

// faults collects what is wrong while rules are read.
type faults struct {
	list []Fault
	more int // that are not in the list, since it is full
}

// maxText is how long a fault's text may be, in bytes. What it quotes is cut long
// before, by brief, where it can be told from the rest.
const maxText = 512

func (f *faults) add(at Place, format string, args ...any) {
	if len(f.list) >= MaxFaults {
		f.more++
		return
	}
	f.addAnyhow(at, format, args...)
}

// addAnyhow is add of a fault that is told after however many others, since it
// explains them.
func (f *faults) addAnyhow(at Place, format string, args ...any) {
	f.list = append(f.list, Fault{at, cut(fmt.Sprintf(format, args...), maxText)})
}

// maxQuoted is how much of a text of the file a fault shows, in bytes.
const maxQuoted = 100

// brief is a text as a fault shows it: of one that is long only the begin, with
// its length.
func brief(text string) string { return cut(text, maxQuoted) }

// cut is text itself, or if it is longer than most its begin, and its length in
// bytes.
func cut(text string, most int) string {
	if len(text) <= most {
		return text
	}
	return fmt.Sprintf("%s… (%d bytes)", strings.ToValidUTF8(text[:most], ""), len(text))
}

// err is nil if nothing was wrong.
func (f *faults) err(domain string) error {
	if len(f.list) == 0 {
		return nil
	}
	slices.SortStableFunc(f.list, func(a, b Fault) int { return a.Place.Compare(b.Place) })
	return &ParseError{Domain: domain, Faults: f.list, More: f.more}
}
