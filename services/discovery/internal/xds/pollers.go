package xds

import (
	"maps"
	"sync"
	"time"

	"github.com/weirproxy/weir/services/discovery/internal/resources"
)

// pollers are the clients that call by REST-JSON, as operators see them: such a
// call leaves nothing behind, and the next may come in half a minute. They decide
// nothing.
type pollers struct {
	most int // how many are remembered

	mu sync.Mutex
	of map[pollerKey]StreamStatus
}

// pollerKey is who a client that polls is.
type pollerKey struct{ node, cluster, identity string }

// pollerFor is how long after its last call a client is remembered.
const pollerFor = 5 * time.Minute

func newPollers(most int) *pollers {
	return &pollers{most: most, of: map[pollerKey]StreamStatus{}}
}

// note takes in a call that was answered: by a response, or if that is nil by 304,
// which says that the client has what it asked by. One client more than may be
// remembered is not.
func (p *pollers) note(st *stream, t resources.Type, asked *request, answer *response, now time.Time) {
	now = now.UTC()
	shown := st.status()
	key := pollerKey{shown.Node, shown.Cluster, shown.Identity}
	p.mu.Lock()
	defer p.mu.Unlock()
	known, ok := p.of[key]
	if !ok && len(p.of) >= p.most {
		p.forget(now)
		if len(p.of) >= p.most {
			return
		}
	}
	shown.Number, shown.Type, shown.Variant, shown.LastPoll = 0, "rest", "sotw", now
	of := shown.Subscriptions[t.String()]
	shown.Subscriptions = map[string]SubscriptionStatus{}
	if ok {
		shown.Since, shown.LastPush = known.Since, known.LastPush
		maps.Copy(shown.Subscriptions, known.Subscriptions)
	}
	before := shown.Subscriptions[t.String()]
	of.Nonce, of.Unanswered, of.Pending, of.Withheld = "", false, 0, false
	of.Version, of.SentAt = asked.version, before.SentAt
	of.ACKs, of.NACKs, of.LastNACK = before.ACKs, before.NACKs, before.LastNACK
	if answer != nil {
		of.Version, of.SentAt, shown.LastPush = versionText(answer.version), now, now
	} else if !asked.refused {
		of.ACKs++
	}
	if asked.refused {
		of.refusedPoll(st, t, asked, now)
	}
	shown.Subscriptions[t.String()] = of
	p.of[key] = shown
}

// refusedPoll takes in that the client says by a call that it refuses what an earlier
// one was answered. It may say so by each; the log tells of it once.
func (of *SubscriptionStatus) refusedPoll(st *stream, t resources.Type, asked *request, now time.Time) {
	last := of.LastNACK
	of.NACKs++
	of.Refused = true
	of.LastNACK = &NACKStatus{At: now, Nonce: asked.nonce, Reason: reasonOf(asked)}
	if last == nil || last.Nonce != asked.nonce || last.Reason != of.LastNACK.Reason {
		st.log.Warn("client refused a response", "peer", st.peer, "node", st.node.id, "type", t.String(), "nonce", asked.nonce, "reason", of.LastNACK.Reason)
	}
}

// forget lets those go that have not called for long. p.mu must be held.
func (p *pollers) forget(now time.Time) {
	maps.DeleteFunc(p.of, func(_ pollerKey, s StreamStatus) bool { return now.Sub(s.LastPoll) > pollerFor })
}

// glances are the clients that have called lately.
func (p *pollers) glances() []glance {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.forget(time.Now())
	list := make([]glance, 0, len(p.of))
	for _, s := range p.of {
		g := glance{
			node: s.Node, cluster: s.Cluster, identity: s.Identity, agent: s.Agent, peer: s.Peer,
			status: func() StreamStatus { return s },
		}
		for _, of := range s.Subscriptions {
			g.refusing = g.refusing || of.Refused
		}
		list = append(list, g)
	}
	return list
}
