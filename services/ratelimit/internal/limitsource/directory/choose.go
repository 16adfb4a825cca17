package directory

import (
	"errors"
	"fmt"
	"io/fs"
	"path/filepath"
	"slices"
	"strings"

	"github.com/weirproxy/weir/services/ratelimit/internal/limits"
	"github.com/weirproxy/weir/services/ratelimit/internal/limitsource"
)

// part is what one good file gives: a domain, or, where domains are merged, a
// part of one.
type part struct {
	limits.File
	domain *limits.Domain // of this file alone
}

// unread is a bad file.
type unread struct {
	path   string
	domain string // that it names, if that much could be read, else ""
}

// gave says whether a file that is bad now was the one of that path, or below
// it if it is a directory that cannot be read.
func (u unread) gave(path string) bool {
	return path == u.path || strings.HasPrefix(path, u.path+string(filepath.Separator))
}

// choose parses files and returns the domains to put in force, the parts that
// make them where domains are merged, and a line for each thing that is wrong.
// A bad file keeps the domain that it gave, and the one that it names now, as
// they were, unless another file gives it; where domains are merged see merge.
func (s *Source) choose(files []file) (next limitsource.Domains, parts []part, refused []string) {
	good, bad, refused := s.parse(files)
	if s.options.MergeDomains {
		next, parts, taken := s.merge(good, bad)
		return next, parts, append(refused, taken...)
	}
	var claims []limitsource.Claim
	for _, p := range good {
		claims = append(claims, limitsource.Claim{Domain: p.domain, By: []string{p.Path}})
	}
	kept := s.Domains().Which(func(c limitsource.Claim) bool {
		return slices.ContainsFunc(bad, func(u unread) bool {
			return c.Domain.Name == u.domain || slices.ContainsFunc(c.By, u.gave)
		})
	})
	next, taken := s.Domains().Choose(claims, kept)
	return next, nil, append(refused, taken...)
}

// parse parts the files into those that are good and those that are not, and
// says what is wrong with these.
func (s *Source) parse(files []file) (good []part, bad []unread, refused []string) {
	refused = []string{}
	for _, f := range files {
		domain, err := s.parseOne(f)
		if err == nil {
			good = append(good, part{limits.File{Path: f.path, Text: f.text}, domain})
			continue
		}
		refused = append(refused, limitsource.Lines(err)...)
		u := unread{path: f.path}
		if parse, ok := errors.AsType[*limits.ParseError](err); ok {
			u.domain = parse.Domain
		}
		bad = append(bad, u)
	}
	return good, bad, refused
}

func (s *Source) parseOne(f file) (*limits.Domain, error) {
	if f.err != nil {
		cause := f.err
		if e, ok := errors.AsType[*fs.PathError](cause); ok && e.Path == f.path {
			cause = e.Err // the path is told once
		}
		return nil, fmt.Errorf("read rule file %s: %w", f.path, cause)
	}
	return s.options.Parser.Parse(f.path, f.text)
}
