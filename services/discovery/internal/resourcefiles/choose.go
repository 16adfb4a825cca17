package resourcefiles

import (
	"cmp"
	"crypto/sha256"
	"errors"
	"fmt"
	"path/filepath"
	"slices"
	"strings"

	"github.com/weirproxy/weir/internal/filewatch"
)

// claim is what one file gives, as it is or as it was when it was last good.
type claim struct {
	path    string
	sum     [sha256.Size]byte // of the file's text
	entries []*entry
	rank    rank
}

// rank orders claims: who comes first keeps a name.
type rank int

const (
	inForce rank = iota // as before
	changed             // of a file that was in force with another text
	fresh               // of a file that was not
)

// choice is the claims that are in force, by file, and what is wrong with files.
type choice struct {
	claims map[string]*claim
	faults map[string]error
}

// choose reads files and says what is to be in force beside what was. A file that
// is bad, or that gives a resource which one before it gives, stays as it was
// when it was last good; the order is that of ranks, then that of paths. So what
// is in force stays with its file until that gives it up.
func (c choice) choose(files []filewatch.TreeFile) choice {
	next := choice{map[string]*claim{}, map[string]error{}}
	var claims []*claim
	for _, f := range files {
		read, err := c.read(f)
		if err != nil {
			next.faults[f.Path] = err
			claims = append(claims, c.kept(f.Path)...)
			continue
		}
		claims = append(claims, read)
	}
	for {
		slices.SortFunc(claims, func(a, b *claim) int { return cmp.Or(cmp.Compare(a.rank, b.rank), cmp.Compare(a.path, b.path)) })
		lost := conflicts(claims)
		if len(lost) == 0 {
			break
		}
		// What is put back was in force together, so that none of it loses again.
		claims = slices.DeleteFunc(claims, func(l *claim) bool { return lost[l] != nil })
		for l, err := range lost {
			next.faults[l.path] = err
			claims = append(claims, c.kept(l.path)...)
		}
	}
	for _, l := range claims {
		next.claims[l.path] = l
	}
	return next
}

// read reads a file, or returns what was read of it before if it is as it was.
func (c choice) read(f filewatch.TreeFile) (*claim, error) {
	if f.Err != nil {
		return nil, fmt.Errorf("%s: %w", f.Path, f.Err)
	}
	sum := sha256.Sum256(f.Text)
	before := c.claims[f.Path]
	if before != nil && before.sum == sum {
		return &claim{f.Path, sum, before.entries, inForce}, nil
	}
	entries, err := read(f.Path, f.Text)
	if err != nil {
		return nil, err
	}
	if before != nil {
		return &claim{f.Path, sum, entries, changed}, nil
	}
	return &claim{f.Path, sum, entries, fresh}, nil
}

// kept is what was in force of a file, or of all files below a directory that
// cannot be read.
func (c choice) kept(path string) (list []*claim) {
	for _, was := range c.claims {
		if was.path == path || strings.HasPrefix(was.path, path+string(filepath.Separator)) {
			list = append(list, &claim{was.path, was.sum, was.entries, inForce})
		}
	}
	return list
}

// maxConflicts is how many names of one file are told that others have.
const maxConflicts = 50

// conflicts returns the claims that have a name which one before them has, and
// what is wrong with them.
func conflicts(claims []*claim) map[*claim]error {
	lost := map[*claim]error{}
	taken := map[key]*entry{}
	for _, c := range claims {
		var faults []error
		for _, e := range c.entries {
			if first := taken[e.key]; first != nil && len(faults) < maxConflicts {
				faults = append(faults, fmt.Errorf("%s: %v is given at %s already", e.place, e.key, first.place))
			}
		}
		if faults != nil {
			lost[c] = errors.Join(faults...)
			continue
		}
		for _, e := range c.entries {
			taken[e.key] = e
		}
	}
	return lost
}
