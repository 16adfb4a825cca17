package xds

import (
	"maps"
	"sync"
	"sync/atomic"
	"time"

	"github.com/weirproxy/weir/services/discovery/internal/resources"
)

// pollers are the clients that call by REST-JSON, as operators see them: such a
// call leaves nothing behind, and the next may come in half a minute. They decide
// nothing.
type pollers struct {
	most int            // how many are remembered
	last *atomic.Uint64 // the number of the newest client

	mu sync.Mutex
	of map[pollerKey]StreamStatus
}

// pollerKey is who a client that polls is.
type pollerKey struct{ node, cluster, identity string }

// pollerFor is how long after its last call a client is remembered.
const pollerFor = 5 * time.Minute

func newPollers(most int, last *atomic.Uint64) *pollers {
	return &pollers{most: most, last: last, of: map[pollerKey]StreamStatus{}}
}

// note takes in a call that was answered: by a response of a version, or by 304,
// which says that the client has that version. One client more than may be
// remembered is not.
func (p *pollers) note(st *stream, t resources.Type, version string, sent bool, now time.Time) {
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
	shown.Type, shown.Variant, shown.LastPoll = "rest", "sotw", now
	of := shown.Subscriptions[t.String()]
	of.Version, of.Nonce, of.Unanswered, of.Pending, of.Withheld = version, "", false, 0, false
	shown.Subscriptions = map[string]SubscriptionStatus{}
	if ok {
		shown.Number, shown.Since = known.Number, known.Since
		maps.Copy(shown.Subscriptions, known.Subscriptions)
		before := known.Subscriptions[t.String()]
		of.ACKs, of.SentAt = before.ACKs, before.SentAt
		shown.LastPush = known.LastPush
	} else {
		shown.Number = p.last.Add(1)
	}
	if sent {
		of.SentAt, shown.LastPush = now, now
	} else {
		of.ACKs++
	}
	shown.Subscriptions[t.String()] = of
	p.of[key] = shown
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
		list = append(list, glance{
			node: s.Node, cluster: s.Cluster, identity: s.Identity, agent: s.Agent, peer: s.Peer, number: s.Number,
			status: func() StreamStatus { return s },
		})
	}
	return list
}
