package protoyaml

import (
	"cmp"
	"fmt"
	"slices"
	"strings"

	"google.golang.org/protobuf/reflect/protoreflect"
)

// maxFaults is how many faults are kept; that there were more is told.
const maxFaults = 100

// Fault is one thing wrong with a configuration.
type Fault struct {
	// File is empty for a message that came from none.
	File string
	// Line and Column count from 1; 0 is unknown.
	Line, Column int
	// Path is empty where the text is no message yet.
	Path Path
	Text string
}

// String is `file:line:column: path: text` without the parts that are empty.
func (f Fault) String() string {
	var parts []string
	switch {
	case f.Column > 0:
		parts = append(parts, fmt.Sprintf("%s:%d:%d", f.File, f.Line, f.Column))
	case f.Line > 0:
		parts = append(parts, fmt.Sprintf("%s:%d", f.File, f.Line))
	case f.File != "":
		parts = append(parts, f.File)
	}
	if f.Path != "" {
		parts = append(parts, string(f.Path))
	}
	return strings.Join(append(parts, f.Text), ": ")
}

// Report collects the faults of one configuration. The zero value is ready; the
// files that Open adds to it are where it finds lines. It belongs to one
// goroutine.
type Report struct {
	faults, warnings []Fault

	more   bool     // than maxFaults
	files  []string // as they were read
	places map[Path]place
	// refused are the paths of values that could not be read or are not
	// supported.
	refused map[Path]bool
	// partly are the paths of values of which a part was left out as they were
	// read, such as the second of two equal keys.
	partly map[Path]bool
}

// place is where a value stands, or its key.
type place struct {
	file         string
	line, column int
}

// Add notes a fault of the value at path. Where the configuration came from a
// file it gets the position of the longest part of path that the file has. A
// value that was refused as it was read is not there for those who look at it
// later, and so what they say of it, or of what is in it, is left out.
func (r *Report) Add(path Path, format string, args ...any) {
	if r.isRefused(path) {
		return
	}
	at := r.find(path)
	r.note(Fault{File: at.file, Line: at.line, Column: at.column, Path: path, Text: fmt.Sprintf(format, args...)})
}

// Warn notes what there is to say of the value at path although it is no fault. Of an
// empty text, and of too many, there is nothing.
func (r *Report) Warn(path Path, text string) {
	if text == "" || len(r.warnings) == maxFaults {
		return
	}
	at := r.find(path)
	r.warnings = append(r.warnings, Fault{File: at.file, Line: at.line, Column: at.column, Path: path, Text: text})
}

// Warnings is what Warn noted, sorted as Faults is. The slice is the caller's.
func (r *Report) Warnings() []Fault { return r.sorted(r.warnings) }

// Refuse notes a fault of the value at path, as Add does, and that there is no
// more to say of it.
func (r *Report) Refuse(path Path, format string, args ...any) {
	r.Add(path, format, args...)
	r.refuse(path)
}

// RefuseField refuses a field of the message at path, and with it the oneof that
// it is of: that this is missing is no fault of its own.
func (r *Report) RefuseField(path Path, fd protoreflect.FieldDescriptor, format string, args ...any) {
	r.Refuse(path.Field(string(fd.Name())), format, args...)
	r.refuseField(path, fd)
}

func (r *Report) refuse(path Path) {
	if r.refused == nil {
		r.refused = map[Path]bool{}
	}
	r.refused[path] = true
}

func (r *Report) refuseField(path Path, fd protoreflect.FieldDescriptor) {
	r.refuse(path.Field(string(fd.Name())))
	if oneof := fd.ContainingOneof(); oneof != nil {
		r.refuse(path.Field(string(oneof.Name())))
	}
}

// leaveOut notes that the value at path is not all that was written.
func (r *Report) leaveOut(path Path) {
	if r.partly == nil {
		r.partly = map[Path]bool{}
	}
	r.partly[path] = true
}

func (r *Report) note(f Fault) {
	if len(r.faults) == maxFaults {
		r.more = true
		return
	}
	r.faults = append(r.faults, f)
}

// isRefused says whether the value at path, or one that it lies in, was refused.
func (r *Report) isRefused(path Path) bool {
	if len(r.refused) == 0 {
		return false
	}
	for ; path != ""; path = path.outer() {
		if r.refused[path] {
			return true
		}
	}
	return r.refused[""]
}

// find is the place of the longest part of path that has one.
func (r *Report) find(path Path) place {
	for ; ; path = path.outer() {
		if at, ok := r.places[path]; ok {
			return at
		}
		if path == "" {
			break
		}
	}
	if len(r.files) == 0 {
		return place{}
	}
	return place{file: r.files[0]}
}

// Place is where the value at path, or the longest part of path that a file has,
// stands: "file:line:column".
func (r *Report) Place(path Path) string {
	at := r.find(path)
	return fmt.Sprintf("%s:%d:%d", at.file, at.line, at.column)
}

// Apart is a report without faults that finds the lines of the same files. It
// belongs to the goroutine of r.
func (r *Report) Apart() *Report { return &Report{files: r.files, places: r.places} }

// Missing says whether the value at path is not, or not all, that was written:
// it, or what it lies in, was refused as it was read. Who looks for something in
// such a value and does not find it has found no fault of its own.
func (r *Report) Missing(path Path) bool {
	for at := range r.partly {
		if path.within(at) {
			return true
		}
	}
	return r.isRefused(path)
}

// Whole says whether the value at path is not Missing, and nothing in it is.
func (r *Report) Whole(path Path) bool {
	for _, left := range []map[Path]bool{r.refused, r.partly} {
		for at := range left {
			if at.within(path) {
				return false
			}
		}
	}
	return !r.Missing(path)
}

// Faults is what was found, sorted by file, position and path. The slice is
// the caller's.
func (r *Report) Faults() []Fault { return r.sorted(r.faults) }

func (r *Report) sorted(faults []Fault) []Fault {
	sorted := slices.Clone(faults)
	slices.SortStableFunc(sorted, func(a, b Fault) int {
		return cmp.Or(r.rank(a.File)-r.rank(b.File), a.Line-b.Line, a.Column-b.Column,
			cmp.Compare(a.Path, b.Path), cmp.Compare(a.Text, b.Text))
	})
	return slices.Compact(sorted)
}

// rank orders files as they were read.
func (r *Report) rank(file string) int { return slices.Index(r.files, file) }

// Err is nil without faults; else its text has every fault on a line of its
// own.
func (r *Report) Err() error {
	if len(r.faults) == 0 {
		return nil
	}
	faults := r.Faults()
	if r.more {
		faults = append(faults, Fault{File: faults[len(faults)-1].File, Text: "and more"})
	}
	return faultsError(faults)
}

type faultsError []Fault

func (e faultsError) Error() string {
	lines := make([]string, len(e))
	for i, f := range e {
		lines[i] = f.String()
	}
	return strings.Join(lines, "\n")
}
