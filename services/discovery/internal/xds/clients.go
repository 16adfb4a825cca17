package xds

import (
	"cmp"
	"slices"
	"strings"

	statusv3 "github.com/envoyproxy/go-control-plane/envoy/service/status/v3"

	"github.com/weirproxy/weir/services/discovery/internal/resources"
)

// ClientQuery is which clients are asked for.
type ClientQuery struct {
	// Search is a part, in any letters, of a node's id or cluster, the identity,
	// the agent or the address; all clients have the empty one.
	Search string
	// Show is ShowAll, or what clients must be; empty as ShowAll.
	Show string
	// Offset is how many of those are passed over, Limit how many are told of.
	Offset, Limit int
}

// What clients can be asked for by.
const (
	ShowAll      = "all"
	ShowRefusing = "refusing"
	ShowWaiting  = "waiting"
	ShowSlow     = "slow"
)

// ClientList is a part of the clients, in order of their nodes' ids, and how many
// there are in all.
type ClientList struct {
	Clients int `json:"clients"`
	// Refusing have refused the last response of a type, Waiting have something
	// unanswered or yet to be sent, Slow something that has been unanswered for
	// long.
	Refusing int `json:"refusing"`
	Waiting  int `json:"waiting"`
	Slow     int `json:"slow"`
	// Matching are those that the query is for, and Offset how many of them come
	// before the list.
	Matching int            `json:"matching"`
	Offset   int            `json:"offset"`
	List     []StreamStatus `json:"list"`
}

// glance is what lists are made by: a client, what is shown of it as soon as that
// is wanted, and how it is.
type glance struct {
	node, cluster, identity, agent, peer string
	number                               uint64 // of its stream, 0 for none
	refusing, waiting, slow              bool
	status                               func() StreamStatus
}

// Clients are those that have a stream, or have polled by REST-JSON lately. Only
// those that are told of are looked at closely.
func (s *Server) Clients(q ClientQuery) ClientList {
	all := s.polled.glances()
	for _, st := range s.hub.all() {
		if !st.poll {
			all = append(all, st.glance())
		}
	}
	list := ClientList{Clients: len(all), List: []StreamStatus{}}
	part := strings.ToLower(q.Search)
	var matching []*glance
	for i := range all {
		g := &all[i]
		count(&list.Refusing, g.refusing)
		count(&list.Waiting, g.waiting)
		count(&list.Slow, g.slow)
		if g.is(q.Show) && g.has(part) {
			matching = append(matching, g)
		}
	}
	slices.SortFunc(matching, func(a, b *glance) int {
		return cmp.Or(cmp.Compare(a.node, b.node), cmp.Compare(a.number, b.number),
			cmp.Compare(a.cluster, b.cluster), cmp.Compare(a.identity, b.identity))
	})
	list.Matching, list.Offset = len(matching), min(q.Offset, len(matching))
	for _, g := range matching[list.Offset:min(list.Offset+q.Limit, len(matching))] {
		list.List = append(list.List, g.status())
	}
	return list
}

func count(n *int, one bool) {
	if one {
		*n++
	}
}

func (g *glance) is(show string) bool {
	switch show {
	case ShowRefusing:
		return g.refusing
	case ShowWaiting:
		return g.waiting
	case ShowSlow:
		return g.slow
	default:
		return true
	}
}

// has reports whether a part in small letters is in what a client is found by.
func (g *glance) has(part string) bool {
	return part == "" || slices.ContainsFunc([]string{g.node, g.cluster, g.identity, g.agent, g.peer}, func(text string) bool {
		return strings.Contains(strings.ToLower(text), part)
	})
}

func (s *stream) glance() glance {
	s.mu.Lock()
	defer s.mu.Unlock()
	g := glance{
		node: s.node.id, cluster: s.node.cluster, identity: s.identity, agent: s.node.agent, peer: s.peer,
		number: s.number, status: s.status,
	}
	for _, u := range s.subscriptions {
		if u != nil {
			g.refusing = g.refusing || u.refusesLast()
			g.waiting = g.waiting || u.inFlight || !u.idle()
			g.slow = g.slow || u.slow
		}
	}
	return g
}

// refusesLast reports whether the client has refused the last response.
func (u *subscription) refusesLast() bool {
	return u.nacks > 0 && !u.inFlight && u.lastNACK.Nonce == u.nonce
}

// ResourceStatus is one resource as a client has it.
type ResourceStatus struct {
	Type string `json:"type"`
	Name string `json:"name"`
	// Version is that of what the client was sent or has refused; empty if it
	// was sent none.
	Version string `json:"version"`
	// State is acked, nacked, requested or does_not_exist, as client status has
	// it.
	State string `json:"state"`
	// Reason is why the client refused it.
	Reason string `json:"reason,omitempty"`
}

// Resources are those of the client with a stream's number whose names have a part,
// in any letters, by type and name. ok is false if there is no such client with a
// stream.
func (s *Server) Resources(number uint64, part string) (list []ResourceStatus, ok bool) {
	open := s.hub.all()
	i := slices.IndexFunc(open, func(st *stream) bool { return st.number == number && !st.poll })
	if i < 0 {
		return nil, false
	}
	config := open[i].clientConfig(func(string) bool { return true }, false)
	for _, c := range config.GetGenericXdsConfigs() {
		if strings.Contains(strings.ToLower(c.GetName()), strings.ToLower(part)) {
			list = append(list, resourceStatus(c))
		}
	}
	return list, true
}

func resourceStatus(c *statusv3.ClientConfig_GenericXdsConfig) ResourceStatus {
	t, _ := resources.OfURL(c.GetTypeUrl())
	r := ResourceStatus{Type: t.String(), Name: c.GetName(), Version: c.GetVersionInfo(), State: strings.ToLower(c.GetClientStatus().String())}
	if e := c.GetErrorState(); e != nil {
		r.Version, r.Reason = e.GetVersionInfo(), e.GetDetails()
	}
	return r
}
