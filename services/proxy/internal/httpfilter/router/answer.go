package router

import (
	"github.com/weirproxy/weir/services/proxy/internal/format"
	"github.com/weirproxy/weir/services/proxy/internal/hashpolicy"
	"github.com/weirproxy/weir/services/proxy/internal/httpfilter"
	"github.com/weirproxy/weir/services/proxy/internal/stream"
)

// answer is the reply to a request that is not forwarded: there is no route or
// no cluster, or the route answers by itself. Else it is nil.
func answer(s *stream.Stream) *httpfilter.Reply {
	switch {
	case s.Route == nil:
		s.Facts.Details, s.Facts.Flags = "route_not_found", s.Facts.Flags|format.NoRouteFound
		return &httpfilter.Reply{Status: 404}
	case s.Route.Redirect != nil:
		s.Facts.Details = "direct_response"
		return located(s.Route.Redirect.Status, "", s.Route.Redirect.Location(&s.Request, &s.Facts))
	case s.Route.DirectResponse != nil:
		s.Facts.Details = "direct_response"
		direct := s.Route.DirectResponse
		body, contentType := direct.Content(&s.Facts)
		reply := located(direct.Status, body, direct.Location(&s.Request))
		if contentType != "" {
			reply.Headers = append(reply.Headers, httpfilter.Header{Name: "content-type", Value: contentType})
		}
		return reply
	case s.Cluster == nil:
		s.Facts.Details, s.Facts.Flags = "cluster_not_found", s.Facts.Flags|format.NoClusterFound
		return &httpfilter.Reply{Status: s.Route.ClusterNotFound}
	}
	return nil
}

// located is a reply that points to a location, unless that is empty.
func located(status int, body, location string) *httpfilter.Reply {
	reply := &httpfilter.Reply{Status: status, Body: body}
	if location != "" {
		reply.Headers = []httpfilter.Header{{Name: "location", Value: location}}
	}
	return reply
}

// carryOut makes the request what the route wants it to be for the upstream,
// and hashes it as it was before. Headers are changed before path and host. It
// returns the cookies that the response is to set.
func (c *config) carryOut(s *stream.Stream) (setCookies []string) {
	if !s.Route.HashPolicy.Empty() {
		s.Hash, s.Hashed, setCookies = s.Route.HashPolicy.Hash(hashpolicy.Input{
			Request: &s.Request, ClientAddress: s.ClientAddress, Random: s.Random,
		})
	}
	s.MutateRequest()
	s.Scratch = s.Route.Rewrite(&s.Request, &s.Facts, !c.suppress, s.Scratch)
	return setCookies
}
