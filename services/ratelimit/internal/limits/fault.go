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
	// Faults are in the order of their places; there is at least one.
	Faults []Fault
}

// Error has one line for each fault.
func (e *ParseError) Error() string {
	lines := make([]string, len(e.Faults))
	for i, f := range e.Faults {
		lines[i] = f.Error()
	}
	return strings.Join(lines, "\n")
}

// faults collects what is wrong while rules are read.
type faults struct{ list []Fault }

func (f *faults) add(at Place, format string, args ...any) {
	f.list = append(f.list, Fault{at, fmt.Sprintf(format, args...)})
}

// err is nil if nothing was wrong.
func (f *faults) err(domain string) error {
	if len(f.list) == 0 {
		return nil
	}
	slices.SortStableFunc(f.list, func(a, b Fault) int { return a.Place.Compare(b.Place) })
	return &ParseError{Domain: domain, Faults: f.list}
}
