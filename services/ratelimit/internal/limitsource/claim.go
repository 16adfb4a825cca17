package limitsource

import (
	"fmt"
	"maps"
	"slices"

	"github.com/weirproxy/weir/services/ratelimit/internal/limits"
)

// Claim is a domain, and the names of the files or resources that give it: one,
// or where domains are merged several.
type Claim struct {
	Domain *limits.Domain
	By     []string
}

// GivenBy says whether name is one of those that give the domain. A resource
// without a name is not known again.
func (c Claim) GivenBy(name string) bool { return name != "" && slices.Contains(c.By, name) }

// Domains are claims by the names of their domains.
type Domains map[string]Claim

// Which returns those that are so.
func (d Domains) Which(so func(Claim) bool) Domains {
	some := Domains{}
	for name, c := range d {
		if so(c) {
			some[name] = c
		}
	}
	return some
}

// Choose returns the domains to put in force after d, and a line for each claim
// that is refused. A domain goes, in this order, to
//
//  1. the claim of those who gave it before;
//  2. the first claim on it;
//  3. nobody new: it stays as it was if it is one of kept, which are the domains
//     of d that somebody may stand for who is bad now, or if who gave it makes a
//     claim that is refused.
//
// A domain that nobody gives any more is gone.
func (d Domains) Choose(claims []Claim, kept Domains) (next Domains, refused []string) {
	next = Domains{}
	maps.Copy(next, kept)
	given := Domains{}
	for _, c := range d.ownersFirst(claims) {
		other, taken := given[c.Domain.Name]
		if !taken {
			given[c.Domain.Name] = c
			continue
		}
		refused = append(refused, limits.Fault{
			Place: c.Domain.Place, Text: fmt.Sprintf("the domain %.100q is already given at %s", c.Domain.Name, other.Domain.Place),
		}.Error())
		maps.Copy(next, d.Which(func(was Claim) bool { return slices.ContainsFunc(c.By, was.GivenBy) }))
	}
	maps.Copy(next, given)
	return next, refused
}

// ownersFirst puts the claims of those who gave their domain before first, and
// leaves the order as it is otherwise.
func (d Domains) ownersFirst(claims []Claim) []Claim {
	var owners, others []Claim
	for _, c := range claims {
		if slices.Equal(d[c.Domain.Name].By, c.By) {
			owners = append(owners, c)
		} else {
			others = append(others, c)
		}
	}
	return append(owners, others...)
}

// Set is the domains as a Sink takes them.
func (d Domains) Set() *limits.Set {
	domains := make([]*limits.Domain, 0, len(d))
	for _, c := range d {
		domains = append(domains, c.Domain)
	}
	return limits.NewSet(domains)
}
