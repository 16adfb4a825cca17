package xds

import (
	"errors"
	"fmt"
	"slices"
	"strings"

	discoveryv3 "github.com/envoyproxy/go-control-plane/envoy/service/discovery/v3"
	ratelimitv3 "github.com/envoyproxy/go-control-plane/ratelimit/config/ratelimit/v3"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/anypb"

	"github.com/weirproxy/weir/services/ratelimit/internal/limits"
)

// given is a domain and the names of the resources that gave it: one, or where
// domains are merged several.
type given struct {
	domain *limits.Domain
	by     []string
}

// claim is the resources that are to make a domain.
type claim struct {
	resources []limits.Resource
	by        []string
}

// apply puts the good rules of a response in force and returns a line for each
// thing that is wrong with it.
func (s *Source) apply(response *discoveryv3.DiscoveryResponse) []string {
	chosen, refused := s.choose(response.GetResources())
	if len(refused) == 0 || !s.options.AllOrNothing {
		s.good = chosen
	}
	domains := make([]*limits.Domain, 0, len(s.good))
	rules := 0
	for _, g := range s.good {
		domains = append(domains, g.domain)
		rules += len(g.domain.Rules)
	}
	set := limits.NewSet(domains)
	refusal := "rules refused"
	if len(s.good) > 0 {
		refusal = "rules refused, the last good ones stay"
	}
	if s.loaded.Load() || len(s.good) > 0 || len(refused) == 0 {
		s.options.Sink.SetRules(set)
		s.loaded.Store(true)
	}
	s.options.Stats.Retain(set)
	if before := s.refused.Swap(&refused); !slices.Equal(*before, refused) {
		for _, line := range refused {
			s.options.Log.Error(refusal, "error", line)
		}
	}
	if len(refused) > 0 {
		s.stats.loadError.Inc()
	} else {
		s.stats.loadSuccess.Inc()
		s.version = response.GetVersionInfo()
	}
	s.options.Log.Info("rules in force", "version", response.GetVersionInfo(),
		"domains", len(s.good), "rules", rules, "refused", len(refused))
	return refused
}

// choose returns the domains to put in force, by name, and a line for each thing
// that is wrong. For each domain it takes, in this order:
//
//  1. the good resource that gave the domain before;
//  2. the first good resource that gives it now;
//  3. the domain as it was, if a resource that may be its own is bad now.
//
// Where domains are merged there is one claim to each, and a bad resource that
// may be a part of it leaves all of it as it was. A domain that no resource
// gives any more is gone.
func (s *Source) choose(resources []*anypb.Any) (chosen map[string]given, refused []string) {
	claims, bad, refused := s.claims(resources)
	var good []given
	for _, c := range claims {
		domain, err := s.options.Parse(c.resources)
		if err == nil {
			good = append(good, given{domain, c.by})
			continue
		}
		refused = append(refused, strings.Split(err.Error(), "\n")...)
		for i, name := range c.by {
			bad = append(bad, s.before(name, c.resources[i].Config.GetDomain(), false)...)
		}
	}
	// The owners first; the order of the response stays otherwise.
	slices.SortStableFunc(good, func(a, b given) int { return s.rank(a) - s.rank(b) })
	chosen = map[string]given{}
	for _, g := range good {
		if other, taken := chosen[g.domain.Name]; taken {
			refused = append(refused, limits.Fault{
				Place: g.domain.Place, Text: fmt.Sprintf("the domain %q is already given by %s", g.domain.Name, other.domain.Place.File),
			}.Error())
			bad = append(bad, s.before(g.by[0], "", false)...)
			continue
		}
		chosen[g.domain.Name] = g
	}
	for _, g := range bad {
		if _, taken := chosen[g.domain.Name]; !taken || s.options.MergeDomains {
			chosen[g.domain.Name] = g
		}
	}
	return chosen, refused
}

// claims reads the resources of a response. Bad is the domains in force that
// those may stand for which cannot be read, and refused what is wrong with them.
func (s *Source) claims(resources []*anypb.Any) (claims []claim, bad []given, refused []string) {
	refused = []string{}
	merged := map[string]int{} // the claim on each domain
	for i, packed := range resources {
		name, config, err := unpack(packed)
		shown := name
		if shown == "" {
			shown = fmt.Sprintf("#%d", i)
		}
		if err != nil {
			refused = append(refused, fmt.Sprintf("resource %s: %v", shown, err))
			bad = append(bad, s.before(name, "", name == "")...)
			continue
		}
		at, several := merged[config.GetDomain()]
		if !several || !s.options.MergeDomains {
			at = len(claims)
			claims = append(claims, claim{})
			merged[config.GetDomain()] = at
		}
		c := &claims[at]
		c.resources = append(c.resources, limits.Resource{Name: shown, Config: config})
		c.by = append(c.by, name)
	}
	return claims, bad, refused
}

// rank is 0 for the resource that gave the domain before, else 1.
func (s *Source) rank(g given) int {
	if was, ok := s.good[g.domain.Name]; ok && slices.Equal(was.by, g.by) {
		return 0
	}
	return 1
}

// before returns the domains in force that a bad resource may stand for: those
// that the resource of this name gave, and the one that it names now. Of a
// resource that cannot even tell its name, all may be its own.
func (s *Source) before(name, domain string, all bool) []given {
	var list []given
	for called, g := range s.good {
		if all || name != "" && slices.Contains(g.by, name) || called == domain {
			list = append(list, g)
		}
	}
	return list
}

// wrapperType wraps a resource with a name.
const wrapperType = "type.googleapis.com/envoy.service.discovery.v3.Resource"

// unpack reads one resource. With an error, name is what is known of it.
func unpack(packed *anypb.Any) (name string, config *ratelimitv3.RateLimitConfig, err error) {
	if packed.GetTypeUrl() == wrapperType {
		wrapper := &discoveryv3.Resource{}
		if err := proto.Unmarshal(packed.GetValue(), wrapper); err != nil {
			return "", nil, errors.New("it is no message of its type")
		}
		name, packed = wrapper.GetName(), wrapper.GetResource()
	}
	if packed.GetTypeUrl() != typeURL {
		return name, nil, fmt.Errorf("its type is %q, not the response's", packed.GetTypeUrl())
	}
	config = &ratelimitv3.RateLimitConfig{}
	if err := proto.Unmarshal(packed.GetValue(), config); err != nil {
		return name, nil, errors.New("it is no message of its type")
	}
	if name == "" {
		name = config.GetName()
	}
	return name, config, nil
}
