package xds

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"regexp"
	"slices"
	"strings"
	"sync/atomic"

	adminv3 "github.com/envoyproxy/go-control-plane/envoy/admin/v3"
	statusv3 "github.com/envoyproxy/go-control-plane/envoy/service/status/v3"
	matcherv3 "github.com/envoyproxy/go-control-plane/envoy/type/matcher/v3"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/weirproxy/weir/services/discovery/internal/hello"
	"github.com/weirproxy/weir/services/discovery/internal/resources"
)

// clientStatus is the service that tells operators' tools what each client has
// (CSDS): one ClientConfig for each stream.
type clientStatus struct {
	statusv3.UnimplementedClientStatusDiscoveryServiceServer
	server  *Server
	streams atomic.Int64 // those that are open
}

// maxStatusStreams is how many streams of client status there are at once: they
// are of operators' tools, and each answer may be maxClientStatus long.
const maxStatusStreams = 100

// registerStatus puts the service of client status on a gRPC server.
func (s *Server) registerStatus(server grpc.ServiceRegistrar) {
	statusv3.RegisterClientStatusDiscoveryServiceServer(server, &clientStatus{server: s})
}

// FetchClientStatus answers once.
func (c *clientStatus) FetchClientStatus(_ context.Context, r *statusv3.ClientStatusRequest) (*statusv3.ClientStatusResponse, error) {
	return c.server.clientStatus(r)
}

// StreamClientStatus answers each request, until the client or the server ends
// the stream, or who opened it may read no more. The first has to come soon.
func (c *clientStatus) StreamClientStatus(wire grpc.BidiStreamingServer[statusv3.ClientStatusRequest, statusv3.ClientStatusResponse]) error {
	defer c.streams.Add(-1)
	if c.streams.Add(1) > maxStatusStreams {
		c.server.metrics.refused.Inc()
		return status.Errorf(codes.ResourceExhausted, "%d streams of client status are open, the most that are served", maxStatusStreams)
	}
	ended := make(chan error, 2) // by answer, and by who does not begin
	// Ends when the stream does, which is when this returns; nobody waits.
	go func() { ended <- c.answer(wire, hello.Expect(func(err error) { ended <- err })) }()
	select {
	case err := <-ended:
		return err
	case <-c.server.stopping:
		return status.Error(codes.Unavailable, "this server is stopping")
	}
}

// answer answers requests until the stream ends; came is called when the first is
// there.
func (c *clientStatus) answer(wire grpc.BidiStreamingServer[statusv3.ClientStatusRequest, statusv3.ClientStatusResponse], came func()) error {
	defer came()
	for {
		r, err := wire.Recv()
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return err
		}
		came()
		if mayRead := c.server.limits.MayRead; mayRead != nil {
			if err := mayRead(wire.Context()); err != nil {
				return err
			}
		}
		response, err := c.server.clientStatus(r)
		if err != nil {
			return err
		}
		if err := wire.Send(response); err != nil {
			return err
		}
	}
}

// maxClientStatus bounds an answer, in bytes: it is one message, made of all
// streams that are asked for.
const maxClientStatus = 16 << 20

// clientStatus is what the clients have whose nodes a request is for, all if it
// names none. The error is a gRPC status.
func (s *Server) clientStatus(r *statusv3.ClientStatusRequest) (*statusv3.ClientStatusResponse, error) {
	wanted, err := nodeMatcher(r.GetNodeMatchers())
	if err != nil {
		return nil, status.Error(codes.InvalidArgument, err.Error())
	}
	open := slices.DeleteFunc(s.hub.all(), func(st *stream) bool { return st.poll })
	slices.SortFunc(open, func(a, b *stream) int { return cmp.Compare(a.number, b.number) })
	response, size := &statusv3.ClientStatusResponse{}, 0
	for _, st := range open {
		config := st.clientConfig(wanted, !r.GetExcludeResourceContents())
		if config == nil {
			continue
		}
		if size += proto.Size(config); size > maxClientStatus {
			return nil, status.Errorf(codes.ResourceExhausted,
				"the clients that are asked for have more than the %d MiB that are told at once: name fewer by node_matchers, or set exclude_resource_contents",
				maxClientStatus>>20)
		}
		response.Config = append(response.Config, config)
	}
	return response, nil
}

// nodeMatcher returns whether a node's id is one that is asked for.
func nodeMatcher(matchers []*matcherv3.NodeMatcher) (func(id string) bool, error) {
	if len(matchers) == 0 {
		return func(string) bool { return true }, nil
	}
	var matches []func(string) bool
	for i, m := range matchers {
		if len(m.GetNodeMetadatas()) > 0 {
			return nil, fmt.Errorf("node_matchers[%d].node_metadatas: nodes' metadata is not kept", i)
		}
		one, err := textMatcher(m.GetNodeId())
		if err != nil {
			return nil, fmt.Errorf("node_matchers[%d].node_id: %w", i, err)
		}
		matches = append(matches, one)
	}
	return func(id string) bool {
		return slices.ContainsFunc(matches, func(one func(string) bool) bool { return one(id) })
	}, nil
}

// textMatcher returns whether a text is as a matcher says.
func textMatcher(m *matcherv3.StringMatcher) (func(string) bool, error) {
	fold := func(text string) string { return text }
	if m.GetIgnoreCase() {
		fold = strings.ToLower
	}
	by := func(is func(text, pattern string) bool, pattern string) (func(string) bool, error) {
		pattern = fold(pattern)
		return func(text string) bool { return is(fold(text), pattern) }, nil
	}
	switch p := m.GetMatchPattern().(type) {
	case nil:
		return func(string) bool { return true }, nil
	case *matcherv3.StringMatcher_Exact:
		return by(func(text, pattern string) bool { return text == pattern }, p.Exact)
	case *matcherv3.StringMatcher_Prefix:
		return by(strings.HasPrefix, p.Prefix)
	case *matcherv3.StringMatcher_Suffix:
		return by(strings.HasSuffix, p.Suffix)
	case *matcherv3.StringMatcher_Contains:
		return by(strings.Contains, p.Contains)
	case *matcherv3.StringMatcher_SafeRegex:
		pattern, err := regexp.Compile("^(?:" + p.SafeRegex.GetRegex() + ")$")
		if err != nil {
			return nil, fmt.Errorf("safe_regex: %w", err)
		}
		return pattern.MatchString, nil
	default:
		return nil, fmt.Errorf("%T: not supported", p)
	}
}

// clientConfig is what a stream's client has, with or without the resources
// themselves; nil if its node is not wanted.
func (s *stream) clientConfig(wanted func(id string) bool, contents bool) *statusv3.ClientConfig {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed || !s.begun || !wanted(s.node.id) {
		return nil
	}
	typ, variant := streamKind{s.only, s.delta}.labels()
	config := &statusv3.ClientConfig{
		Node:        s.node.message(),
		ClientScope: fmt.Sprintf("stream %d, %s, %s", s.number, typ, variant),
	}
	s.hub.mu.RLock()
	defer s.hub.mu.RUnlock()
	for _, u := range s.subscriptions {
		if u == nil {
			continue
		}
		list := u.configs(s.hub)
		for _, c := range list {
			if !contents {
				c.XdsConfig = nil
			}
		}
		slices.SortFunc(list, func(a, b *statusv3.ClientConfig_GenericXdsConfig) int { return cmp.Compare(a.GetName(), b.GetName()) })
		config.GenericXdsConfigs = append(config.GenericXdsConfigs, list...)
	}
	return config
}

// configs are the resources that a subscription is for. The hub's lock must be
// held for reading.
func (u *subscription) configs(h *hub) (list []*statusv3.ClientConfig_GenericXdsConfig) {
	if u.whole() {
		return u.wholeConfigs()
	}
	unanswered := map[*topic]bool{}
	if u.inFlight {
		for _, s := range u.lastSent {
			unanswered[s.topic] = true
		}
	}
	for t, had := range u.names {
		list = append(list, u.config(t, had, unanswered[t]))
	}
	if !u.wildcard {
		return list
	}
	all, _ := h.everything(u.typ, u.view)
	if all == nil {
		return list
	}
	for _, r := range all.list {
		t := h.topics[u.typ][r.Name]
		if _, named := u.names[t]; named {
			continue
		}
		had := held(r.Version)
		_, pending := u.pending[t]
		if _, refused := u.refusals[t]; pending || refused {
			had = something
		}
		list = append(list, u.config(t, had, unanswered[t]))
	}
	return list
}

// config is one resource of a subscription.
func (u *subscription) config(t *topic, had held, unanswered bool) *statusv3.ClientConfig_GenericXdsConfig {
	c := u.generic(t.name)
	var r *resources.Resource
	withheld := false
	if e := u.edition(t); e != nil {
		r, withheld = e.resource, e.withheld
	}
	refusal, refused := u.refusals[t]
	switch {
	case refused:
		u.refusedConfig(c, refusal.version)
	case unanswered:
		c.ConfigStatus, c.ClientStatus = statusv3.ConfigStatus_STALE, adminv3.ClientResourceStatus_REQUESTED
	case r != nil && had == held(r.Version):
		c.ConfigStatus, c.ClientStatus = statusv3.ConfigStatus_SYNCED, adminv3.ClientResourceStatus_ACKED
	case r == nil && !withheld:
		c.ConfigStatus, c.ClientStatus = statusv3.ConfigStatus_NOT_SENT, adminv3.ClientResourceStatus_DOES_NOT_EXIST
	default:
		c.ConfigStatus, c.ClientStatus = statusv3.ConfigStatus_NOT_SENT, adminv3.ClientResourceStatus_REQUESTED
	}
	if had.version() != 0 {
		c.VersionInfo = versionText(had.version())
	}
	if r != nil && had == held(r.Version) && t.typ != resources.Secrets {
		c.XdsConfig = r.Body
	}
	return c
}

// wholeConfigs are the resources of the last response of a type that is sent
// whole; one under the wildcard's name if that was refused.
func (u *subscription) wholeConfigs() (list []*statusv3.ClientConfig_GenericXdsConfig) {
	if u.refused != nil && u.entire == nil {
		c := u.generic(everyName)
		u.refusedConfig(c, u.refused.version)
		return append(list, c)
	}
	for _, r := range u.lastEntire().list {
		c := u.generic(r.Name)
		c.VersionInfo, c.XdsConfig = versionText(r.Version), r.Body
		c.ConfigStatus, c.ClientStatus = statusv3.ConfigStatus_SYNCED, adminv3.ClientResourceStatus_ACKED
		if u.inFlight {
			c.ConfigStatus, c.ClientStatus = statusv3.ConfigStatus_STALE, adminv3.ClientResourceStatus_REQUESTED
		}
		list = append(list, c)
	}
	return list
}

func (u *subscription) generic(name string) *statusv3.ClientConfig_GenericXdsConfig {
	c := &statusv3.ClientConfig_GenericXdsConfig{TypeUrl: u.typ.URL(), Name: name}
	if !u.sentAt.IsZero() {
		c.LastUpdated = timestamppb.New(u.sentAt)
	}
	return c
}

// refusedConfig says that the client refused a version of a resource.
func (u *subscription) refusedConfig(c *statusv3.ClientConfig_GenericXdsConfig, version uint64) {
	c.ConfigStatus, c.ClientStatus = statusv3.ConfigStatus_ERROR, adminv3.ClientResourceStatus_NACKED
	c.ErrorState = &adminv3.UpdateFailureState{
		LastUpdateAttempt: timestamppb.New(u.lastNACK.At),
		Details:           u.lastNACK.Reason,
		VersionInfo:       versionText(version),
	}
}
