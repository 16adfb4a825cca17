package limitsource

import (
	"cmp"
	"errors"
	"fmt"
	"io/fs"
	"path/filepath"
	"slices"
	"strings"

	"github.com/weirproxy/weir/services/ratelimit/internal/limits"
)

// part is what one good file gives: a domain, or, where domains are merged, a
// part of one.
type part struct {
	limits.File
	domain *limits.Domain // of this file alone
	// spare parts stand in where nothing else gives the domain.
	spare bool
}

// choice is the parts that are in force, and the domains that they make.
type choice struct {
	parts   []part
	domains map[string]*limits.Domain
}

// choose parses files and returns the rules to put in force, and a line for
// each thing that is wrong. Files claim their domains in this order:
//
//  1. those that gave the domain before and are as they were;
//  2. those that gave it before, and have changed;
//  3. the others, by path.
//
// A file that claims what is taken is refused; what may be taken is the domain,
// or, where domains are merged, each descriptor. What a bad or refused file
// gave before stays: where domains are merged, as if the file were unchanged,
// else if nobody else gives the domain now. A domain that no file gives any
// more is gone, unless a bad file names it.
func (s *Source) choose(files []file) (choice, []string) {
	var refused []string
	var claims []part
	var named []string // the domains that bad files name
	for _, f := range files {
		domain, err := s.parse(f)
		if err == nil {
			claims = append(claims, part{File: limits.File{Path: f.path, Text: f.text}, domain: domain})
			continue
		}
		refused = append(refused, strings.Split(err.Error(), "\n")...)
		claims = append(claims, s.before(f.path)...)
		if parse, ok := errors.AsType[*limits.ParseError](err); ok {
			named = append(named, parse.Domain)
		}
	}
	for {
		slices.SortStableFunc(claims, func(a, b part) int { return cmp.Compare(s.rank(a), s.rank(b)) })
		domains, wrong, lines := s.conflict(claims)
		if wrong < 0 {
			return s.complete(choice{claims, domains}, named), refused
		}
		p := claims[wrong]
		claims = slices.Delete(claims, wrong, wrong+1)
		if !p.spare {
			refused = append(refused, lines...)
		}
		if !p.spare && s.rank(p) > 0 {
			claims = append(claims, s.before(p.Path)...)
		}
	}
}

func (s *Source) parse(f file) (*limits.Domain, error) {
	if f.err != nil {
		cause := f.err
		if e, ok := errors.AsType[*fs.PathError](cause); ok && e.Path == f.path {
			cause = e.Err // the path is told once
		}
		return nil, fmt.Errorf("read rule file %s: %w", f.path, cause)
	}
	return s.options.Parser.Parse(f.path, f.text)
}

// rank orders claims.
func (s *Source) rank(p part) int {
	if p.spare {
		return 3
	}
	for _, was := range s.chosen.parts {
		if was.Path == p.Path && was.domain.Name == p.domain.Name {
			if string(was.Text) == string(p.Text) {
				return 0
			}
			return 1
		}
	}
	return 2
}

// before returns the parts in force that a bad or refused file gave when it was
// good. Of a directory that cannot be read, these are those of all files below.
func (s *Source) before(path string) []part {
	var list []part
	for _, p := range s.chosen.parts {
		if p.Path == path || strings.HasPrefix(p.Path, path+string(filepath.Separator)) {
			p.spare = !s.options.MergeDomains
			list = append(list, p)
		}
	}
	return list
}

// conflict makes the domains of claims. Where one claims what an earlier one
// has, it returns the index of the first such, else -1, and what is wrong.
func (s *Source) conflict(claims []part) (domains map[string]*limits.Domain, wrong int, lines []string) {
	domains = map[string]*limits.Domain{}
	several := map[string]bool{}
	for i, p := range claims {
		name := p.domain.Name
		switch other := domains[name]; {
		case other == nil:
			domains[name] = p.domain
		case s.options.MergeDomains:
			several[name] = true
		default:
			return nil, i, []string{limits.Fault{
				Place: p.domain.Place, Text: fmt.Sprintf("the domain %q is already given at %s", name, other.Place),
			}.Error()}
		}
	}
	for name := range several {
		merged, err := s.merge(name, claims, byPath)
		if err == nil {
			domains[name] = merged
			continue
		}
		// In the order of the claims, the faults are those of who came later.
		if _, err = s.merge(name, claims, nil); err != nil {
			wrong, lines = blame(claims, err)
			return nil, wrong, lines
		}
	}
	return domains, -1, nil
}

func byPath(a, b limits.File) int { return cmp.Compare(a.Path, b.Path) }

// merge makes one domain of the claims on it, in their order or another.
func (s *Source) merge(name string, claims []part, order func(a, b limits.File) int) (*limits.Domain, error) {
	var files []limits.File
	for _, p := range claims {
		if p.domain.Name == name {
			files = append(files, p.File)
		}
	}
	if order != nil {
		slices.SortStableFunc(files, order)
	}
	return s.options.Parser.ParseFiles(files)
}

// blame returns the first claim whose file has faults, and those. All faults
// are in files of claims.
func blame(claims []part, err error) (int, []string) {
	parse, _ := errors.AsType[*limits.ParseError](err)
	for i, p := range claims {
		var lines []string
		for _, f := range parse.Faults {
			if f.Place.File == p.Path {
				lines = append(lines, f.Error())
			}
		}
		if lines != nil {
			return i, lines
		}
	}
	return len(claims) - 1, []string{err.Error()}
}

// complete adds the domains, as they were, that nobody gives, and that a bad
// file names.
func (s *Source) complete(c choice, named []string) choice {
	for _, name := range named {
		if c.domains[name] != nil || s.chosen.domains[name] == nil {
			continue
		}
		c.domains[name] = s.chosen.domains[name]
		for _, p := range s.chosen.parts {
			if p.domain.Name == name {
				c.parts = append(c.parts, p)
			}
		}
	}
	for i := range c.parts {
		c.parts[i].spare = false
	}
	return c
}

// set is the choice as the limiter takes it.
func (c choice) set() *limits.Set {
	domains := make([]*limits.Domain, 0, len(c.domains))
	for _, d := range c.domains {
		domains = append(domains, d)
	}
	return limits.NewSet(domains)
}
