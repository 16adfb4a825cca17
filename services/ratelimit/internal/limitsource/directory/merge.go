package directory

import (
	"cmp"
	"errors"
	"slices"

	"github.com/weirproxy/weir/services/ratelimit/internal/limits"
	"github.com/weirproxy/weir/services/ratelimit/internal/limitsource"
)

// merge makes domains of parts, and returns which parts those are, and a line
// for each thing that is wrong. Parts claim their descriptors in this order:
//
//  1. those of files that gave the domain before and are as they were;
//  2. those of files that gave it before, and have changed;
//  3. the others, by path.
//
// A part that claims a descriptor which is taken is refused. What a bad or
// refused file gave before stays, as if the file were unchanged. A domain that
// no file gives any more is gone, unless a bad file names it.
func (s *Source) merge(claims []part, bad []unread) (next limitsource.Domains, parts []part, refused []string) {
	for _, u := range bad {
		claims = append(claims, s.before(func(p part) bool { return u.gave(p.Path) })...)
	}
	for {
		slices.SortStableFunc(claims, func(a, b part) int { return cmp.Compare(s.rank(a), s.rank(b)) })
		domains, wrong, lines := s.join(claims)
		if wrong < 0 {
			next, parts = s.complete(domains, claims, bad)
			return next, parts, refused
		}
		p := claims[wrong]
		claims = slices.Delete(claims, wrong, wrong+1)
		refused = append(refused, lines...)
		if s.rank(p) > 0 {
			claims = append(claims, s.before(func(was part) bool { return was.Path == p.Path })...)
		}
	}
}

// rank orders claims.
func (s *Source) rank(p part) int {
	for _, was := range s.parts {
		if was.Path == p.Path && was.domain.Name == p.domain.Name {
			if string(was.Text) == string(p.Text) {
				return 0
			}
			return 1
		}
	}
	return 2
}

// before lists the parts in force that are so.
func (s *Source) before(so func(part) bool) []part {
	var list []part
	for _, p := range s.parts {
		if so(p) {
			list = append(list, p)
		}
	}
	return list
}

// join makes the domains of claims. Where one claims what an earlier one has, it
// returns the index of the first such, else -1, and what is wrong.
func (s *Source) join(claims []part) (domains limitsource.Domains, wrong int, lines []string) {
	domains = limitsource.Domains{}
	for _, p := range claims {
		c := domains[p.domain.Name]
		domains[p.domain.Name] = limitsource.Claim{Domain: p.domain, By: append(c.By, p.Path)}
	}
	for name, c := range domains {
		if len(c.By) == 1 {
			continue
		}
		merged, err := s.parseTogether(name, claims, byPath)
		if err == nil {
			domains[name] = limitsource.Claim{Domain: merged, By: c.By}
			continue
		}
		// In the order of the claims, the faults are those of who came later.
		if _, err = s.parseTogether(name, claims, nil); err != nil {
			wrong, lines = blame(claims, err)
			return nil, wrong, lines
		}
	}
	return domains, -1, nil
}

func byPath(a, b limits.File) int { return cmp.Compare(a.Path, b.Path) }

// parseTogether makes one domain of the claims on it, in their order or another.
func (s *Source) parseTogether(name string, claims []part, order func(a, b limits.File) int) (*limits.Domain, error) {
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
func (s *Source) complete(next limitsource.Domains, parts []part, bad []unread) (limitsource.Domains, []part) {
	for _, u := range bad {
		was, inForce := s.Domains()[u.domain]
		if _, given := next[u.domain]; given || !inForce {
			continue
		}
		next[u.domain] = was
		parts = append(parts, s.before(func(p part) bool { return p.domain.Name == u.domain })...)
	}
	return next, parts
}
