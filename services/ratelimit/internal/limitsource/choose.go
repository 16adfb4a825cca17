package limitsource

import (
	"errors"
	"fmt"
	"path/filepath"
	"slices"
	"strings"

	"github.com/weirproxy/weir/services/ratelimit/internal/limits"
)

// choose parses files and returns the rules to put in force, and a line for
// each thing that is wrong. For each domain it takes, in this order:
//
//  1. the good file that gave the domain before;
//  2. the first good file, by path, that gives it now;
//  3. the domain as it was, if a file that may be its own is bad now.
//
// A domain that no file gives any more is gone.
func (s *Source) choose(files []file) (*limits.Set, []string) {
	var refused []string
	var good []*limits.Domain
	var bad []*limits.Domain // as they were
	for _, f := range files {
		domain, err := s.parse(f)
		if err == nil {
			good = append(good, domain)
			continue
		}
		refused = append(refused, strings.Split(err.Error(), "\n")...)
		bad = append(bad, s.before(f.path, err)...)
	}
	// The owners first; the order by path stays otherwise.
	slices.SortStableFunc(good, func(a, b *limits.Domain) int {
		return rank(s.owns(a)) - rank(s.owns(b))
	})
	chosen := map[string]*limits.Domain{}
	for _, d := range good {
		if other := chosen[d.Name]; other != nil {
			refused = append(refused, limits.Fault{
				Place: d.Place, Text: fmt.Sprintf("the domain %q is already given at %s", d.Name, other.Place),
			}.Error())
			bad = append(bad, s.before(d.Place.File, nil)...)
			continue
		}
		chosen[d.Name] = d
	}
	for _, d := range bad {
		if chosen[d.Name] == nil {
			chosen[d.Name] = d
		}
	}
	s.good = chosen
	domains := make([]*limits.Domain, 0, len(chosen))
	for _, d := range chosen {
		domains = append(domains, d)
	}
	return limits.NewSet(domains), refused
}

func (s *Source) parse(f file) (*limits.Domain, error) {
	if f.err != nil {
		return nil, fmt.Errorf("read rule file %s: %w", f.path, f.err)
	}
	return s.options.Parser.Parse(f.path, f.text)
}

// owns says whether d's file gave d's domain before.
func (s *Source) owns(d *limits.Domain) bool {
	was := s.good[d.Name]
	return was != nil && was.Place.File == d.Place.File
}

func rank(owner bool) int {
	if owner {
		return 0
	}
	return 1
}

// before returns the domains in force that a bad file may stand for: the one
// that it gave when it was good, and the one that it names now. Of a directory
// that cannot be read, these are the domains of all files below it.
func (s *Source) before(path string, err error) []*limits.Domain {
	var list []*limits.Domain
	for _, d := range s.good {
		if d.Place.File == path || strings.HasPrefix(d.Place.File, path+string(filepath.Separator)) {
			list = append(list, d)
		}
	}
	if parse, ok := errors.AsType[*limits.ParseError](err); ok && s.good[parse.Domain] != nil {
		list = append(list, s.good[parse.Domain])
	}
	return list
}
