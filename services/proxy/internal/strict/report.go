package strict

import (
	"cmp"
	"fmt"
	"slices"
	"strings"
)

// Fault is one thing wrong with a configuration.
type Fault struct {
	// File is empty for a message that came by xDS.
	File string
	// Line and Column count from 1; 0 is unknown.
	Line, Column int
	// Path is empty where the text is no message yet.
	Path Path
	Text string
}

// String is `file:line:column path: text` without the parts that are empty.
func (f Fault) String() string {
	var b strings.Builder
	b.WriteString(f.File)
	if f.Line > 0 {
		fmt.Fprintf(&b, ":%d", f.Line)
	}
	if f.Column > 0 {
		fmt.Fprintf(&b, ":%d", f.Column)
	}
	if f.Path != "" {
		if b.Len() > 0 {
			b.WriteByte(' ')
		}
		b.WriteString(string(f.Path))
	}
	if b.Len() > 0 {
		b.WriteString(": ")
	}
	b.WriteString(f.Text)
	return strings.TrimPrefix(b.String(), ":")
}

// Report collects the faults of one configuration. The zero value is ready for
// a message without a file; Load makes one that finds lines. It belongs to one
// goroutine.
type Report struct {
	faults  []Fault
	sources []*source
	// settled are the paths of values that could not be read or are not
	// supported.
	settled map[Path]bool
	// partly are the paths of values of which a part was left out as they were
	// read, such as the second of two equal keys.
	partly map[Path]bool
}

// Add notes a fault of the value at path. Where the configuration came from a
// file it gets the position of the longest part of path that the file has. A
// value that was refused as it was read is not there for those who look at it
// later, and so what they say of it, or of what is in it, is left out.
func (r *Report) Add(path Path, format string, args ...any) {
	if !r.isSettled(path) {
		r.add(path, format, args...)
	}
}

func (r *Report) add(path Path, format string, args ...any) {
	f := Fault{Path: path, Text: fmt.Sprintf(format, args...)}
	if len(r.sources) > 0 {
		f.File, f.Line, f.Column = locate(r.sources, path)
	}
	r.faults = append(r.faults, f)
}

// settle notes that there is no more to say of the value at path.
func (r *Report) settle(path Path) {
	if r.settled == nil {
		r.settled = map[Path]bool{}
	}
	r.settled[path] = true
}

// isSettled says whether the value at path, or one that it lies in, is
// settled.
func (r *Report) isSettled(path Path) bool {
	if len(r.settled) == 0 {
		return false
	}
	for _, step := range path.steps() {
		if r.settled[path[:step.end]] {
			return true
		}
	}
	return r.settled[path] || r.settled[""]
}

// leaveOut notes that the value at path is not all that was written.
func (r *Report) leaveOut(path Path) {
	if r.partly == nil {
		r.partly = map[Path]bool{}
	}
	r.partly[path] = true
}

// Missing says whether the value at path is not, or not all, that was written:
// it, or what it lies in, was refused as it was read. Who looks for something in
// such a value and does not find it has found no fault of its own.
func (r *Report) Missing(path Path) bool {
	for at := range r.partly {
		if within(path, at) {
			return true
		}
	}
	return r.isSettled(path)
}

// Whole says whether the value at path is not Missing, and nothing in it is.
func (r *Report) Whole(path Path) bool {
	for _, refused := range []map[Path]bool{r.settled, r.partly} {
		for at := range refused {
			if within(at, path) {
				return false
			}
		}
	}
	return !r.Missing(path)
}

// within says whether path leads to the value at outer or into it.
func within(path, outer Path) bool {
	rest, ok := strings.CutPrefix(string(path), string(outer))
	return ok && (rest == "" || outer == "" || rest[0] == '.' || rest[0] == '[')
}

// Faults is what was found, sorted by file, position and path. The slice is
// the caller's.
func (r *Report) Faults() []Fault {
	sorted := slices.Clone(r.faults)
	slices.SortStableFunc(sorted, func(a, b Fault) int {
		return cmp.Or(r.rank(a.File)-r.rank(b.File), a.Line-b.Line, a.Column-b.Column,
			cmp.Compare(a.Path, b.Path), cmp.Compare(a.Text, b.Text))
	})
	return slices.Compact(sorted)
}

// rank orders files as they were read.
func (r *Report) rank(file string) int {
	return slices.IndexFunc(r.sources, func(s *source) bool { return s.file == file })
}

// Err is nil without faults; else its text has every fault on a line of its
// own.
func (r *Report) Err() error {
	if len(r.faults) == 0 {
		return nil
	}
	return faultsError(r.Faults())
}

type faultsError []Fault

func (e faultsError) Error() string {
	lines := make([]string, len(e))
	for i, f := range e {
		lines[i] = f.String()
	}
	return strings.Join(lines, "\n")
}
