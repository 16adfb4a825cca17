package xds

import (
	"maps"
	"slices"

	discoveryv3 "github.com/envoyproxy/go-control-plane/envoy/service/discovery/v3"
)

// deltaRequest is one of a delta stream. The first of a type tells the versions
// that are here, so that only what changed comes; an answer carries the nonce;
// others what is wanted more and less than before.
func (s *stream) deltaRequest(sub *subscription, state *typeState, answer *answer) *discoveryv3.DeltaDiscoveryRequest {
	c := s.origin.client
	c.mu.Lock()
	defer c.mu.Unlock()
	request := &discoveryv3.DeltaDiscoveryRequest{TypeUrl: sub.typeURL}
	if !s.introduced || !s.origin.plane.NodeOnFirstMessageOnly {
		request.Node = c.options.Node
	}
	if answer != nil { // a changed subscription follows by itself
		request.ResponseNonce, request.ErrorDetail = state.nonce, answer.detail()
		return request
	}
	names := sub.ask(state.asked)
	request.ResourceNamesSubscribe = without(names, state.subscribed)
	request.ResourceNamesUnsubscribe = without(state.subscribed, names)
	state.subscribed = names
	if !state.asked {
		request.InitialResourceVersions = maps.Clone(sub.versions)
	}
	return request
}

// without are the names of a that are not in b, both sorted.
func without(a, b []string) []string {
	var rest []string
	for _, name := range a {
		if _, found := slices.BinarySearch(b, name); !found {
			rest = append(rest, name)
		}
	}
	return rest
}
