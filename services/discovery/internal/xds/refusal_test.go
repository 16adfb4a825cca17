package xds

import (
	"fmt"
	"slices"
	"testing"

	discoveryv3 "github.com/envoyproxy/go-control-plane/envoy/service/discovery/v3"
	"github.com/stretchr/testify/require"
	rpcstatus "google.golang.org/genproto/googleapis/rpc/status"

	"github.com/weirproxy/weir/services/discovery/internal/resources"
)

// TestOneBadOfManyIsFoundByHalves has a client that takes nothing of a response
// with the bad one in it: after a few changes of others it has all that is good.
func TestOneBadOfManyIsFoundByHalves(t *testing.T) {
	const services = 64
	for _, delta := range []bool{false, true} {
		t.Run(variant(delta), func(t *testing.T) {
			h := newTestHub(t)
			h.open(&h.loaded)
			var names []string
			for i := range services {
				names = append(names, fmt.Sprintf("service-%02d", i))
				h.hosts(names[i], "10.0.0.1:80")
			}
			bad := names[20]
			s := h.stream(t, delta)
			s.limits.Names = services
			ask(t, s, resources.Endpoints, names...)
			has := map[string]bool{}
			responses, sent := 0, 0
			take := func() {
				for r := s.next(start); r != nil; r = s.next(start) {
					responses++
					sent += len(r.resources)
					if slices.ContainsFunc(r.resources, func(r *resources.Resource) bool { return r.Name == bad }) {
						refusePart(t, s, r, names)
						continue
					}
					for _, resource := range r.resources {
						has[resource.Name] = true
					}
					answer(t, s, r)
				}
			}
			take()
			require.Equal(t, 1, responses, "nothing goes before a change")
			for round := 0; len(has) < services-1; round++ {
				require.Less(t, round, 8)
				// One that was refused beside the bad one, and is still so.
				for _, name := range slices.Backward(names) {
					if !has[name] && name != bad {
						h.hosts(name, "10.0.0.2:80")
						break
					}
				}
				take()
			}
			require.False(t, has[bad])
			require.Less(t, sent, 3*services)
			before := responses
			h.hosts(names[0], "10.0.0.3:80")
			take()
			require.Equal(t, before+1, responses, "the bad one stays where it is")
		})
	}
}

// refusePart is a NACK of a response of names.
func refusePart(t testing.TB, s *stream, r *response, names []string) {
	t.Helper()
	if s.delta {
		refuse(t, s, r, "because")
		return
	}
	send(t, s, &discoveryv3.DiscoveryRequest{TypeUrl: r.typ.URL(), ResponseNonce: r.nonce, ResourceNames: names, ErrorDetail: &rpcstatus.Status{Message: "because"}})
}

func TestWhatIsSentAgainWaitsUntilItIsMade(t *testing.T) {
	h := newTestHub(t)
	h.open(&h.loaded)
	h.hosts("a", "10.0.0.1:80")
	h.hosts("b", "10.0.0.2:80")
	s := h.stream(t, true)
	ask(t, s, resources.Endpoints, "a", "b")
	refuse(t, s, s.next(start), "because")
	h.hosts("b", "10.0.0.3:80")
	r := s.next(start)
	require.Len(t, r.resources, 1)

	// By a maker that shows by zone all is made anew, and is not there meanwhile.
	maker, err := resources.NewMaker(resources.Options{ZonePriorities: true})
	require.NoError(t, err)
	s.node.zone = "eu-1"
	h.setMaker(maker)
	tell(t, s, &discoveryv3.DeltaDiscoveryRequest{TypeUrl: r.typ.URL(), ResponseNonce: r.nonce})
	require.Nil(t, s.next(start))
	h.makeAsked()
	again := s.next(start)
	require.Len(t, again.resources, 1)
	require.Empty(t, again.removed)
}
