package xds

import (
	"errors"
	"fmt"
	"maps"
	"slices"

	discoveryv3 "github.com/envoyproxy/go-control-plane/envoy/service/discovery/v3"
	ratelimitv3 "github.com/envoyproxy/go-control-plane/ratelimit/config/ratelimit/v3"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/anypb"

	"github.com/weirproxy/weir/services/ratelimit/internal/limits"
	"github.com/weirproxy/weir/services/ratelimit/internal/limitsource"
)

// wanted is a domain that resources are to make: one, or where domains are
// merged several.
type wanted struct {
	resources []limits.Resource
	by        []string // their own names, which may be empty
}

// apply puts the good rules of a response in force and returns a line for each
// thing that is wrong with it.
func (s *Source) apply(response *discoveryv3.DiscoveryResponse) []string {
	defer s.options.BeginLoad(proto.Size(response))()
	resources := response.GetResources()
	next, unread, refused := s.choose(resources)
	s.Take(next, refused, len(resources)-unread, unread, "version", response.GetVersionInfo())
	if len(refused) == 0 {
		s.version = response.GetVersionInfo()
	}
	return refused
}

// choose returns the domains to put in force, how many resources cannot be read,
// and a line for each thing that is wrong. A bad resource keeps the domains that it gave, and the one that it
// names now, as they were, unless another gives them; where domains are merged,
// whoever else gives a part of them.
func (s *Source) choose(resources []*anypb.Any) (next limitsource.Domains, unread int, refused []string) {
	list, kept, refused := s.read(resources)
	unread = len(refused)
	var good []limitsource.Claim
	for _, w := range list {
		domain, err := s.options.Parser.ParseProtos(w.resources)
		if err == nil {
			good = append(good, limitsource.Claim{Domain: domain, By: w.by})
			continue
		}
		refused = append(refused, limitsource.Lines(err)...)
		named := w.resources[0].Config.GetDomain()
		maps.Copy(kept, s.Domains().Which(func(c limitsource.Claim) bool {
			return c.Domain.Name == named || slices.ContainsFunc(w.by, c.GivenBy)
		}))
	}
	if s.options.MergeDomains {
		good = slices.DeleteFunc(good, func(c limitsource.Claim) bool { _, stays := kept[c.Domain.Name]; return stays })
	}
	next, taken := s.Domains().Choose(good, kept)
	return next, unread, append(refused, taken...)
}

// read sorts the resources of a response by the domains that they are to make.
// Kept is the domains in force that those may stand for which cannot be read, and
// refused what is wrong with these, one line each.
func (s *Source) read(resources []*anypb.Any) (list []wanted, kept limitsource.Domains, refused []string) {
	kept, refused = limitsource.Domains{}, []string{}
	merged := map[string]int{} // where each domain is wanted
	for i, packed := range resources {
		name, config, err := unpack(packed)
		shown := name
		if shown == "" {
			shown = fmt.Sprintf("#%d", i)
		}
		if err != nil {
			refused = append(refused, fmt.Sprintf("resource %s: %v", shown, err))
			maps.Copy(kept, s.Domains().Which(func(c limitsource.Claim) bool {
				return name == "" || c.GivenBy(name) // who cannot tell its name may be any
			}))
			continue
		}
		at, several := merged[config.GetDomain()]
		if !several || !s.options.MergeDomains {
			at = len(list)
			list = append(list, wanted{})
			merged[config.GetDomain()] = at
		}
		w := &list[at]
		w.resources = append(w.resources, limits.Resource{Name: shown, Config: config})
		w.by = append(w.by, name)
	}
	return list, kept, refused
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
