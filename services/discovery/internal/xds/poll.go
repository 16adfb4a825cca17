package xds

import (
	"context"
	"net/http"
	"time"

	"github.com/weirproxy/weir/services/discovery/internal/registry"
	"github.com/weirproxy/weir/services/discovery/internal/resources"
	"github.com/weirproxy/weir/services/discovery/internal/rest/call"
)

// pollCall is a stream of one type that ends with its first response: a call of
// REST-JSON (rest.go) or of a Fetch method (fetch.go).
type pollCall struct {
	*stream
	awake chan struct{} // has a value when there may be something to send
	fresh bool          // the client has nothing, as far as it says
}

// makeWithin bounds the time that a call waits for what it asks for to be made.
const makeWithin = 5 * time.Second

// openPoll begins a call of who is at an address. Who opens it must close it. The
// error is a gRPC status.
func (s *Server) openPoll(ctx context.Context, from string, t resources.Type, asked *request) (*pollCall, error) {
	p := &pollCall{stream: s.newStream(ctx, from, t, false), awake: make(chan struct{}, 1), fresh: asked.version == ""}
	p.poll = true
	p.wake = func() {
		select {
		case p.awake <- struct{}{}:
		default: // the call has yet to see the last one
		}
	}
	if err := s.hub.join(p.stream); err != nil {
		return nil, err
	}
	if err := p.request(asked); err != nil {
		p.close()
		return nil, err
	}
	return p, nil
}

// response waits for the response, as await does. The error is a gRPC status: why the
// client may not be its node any more, by the rules of when the wait is over.
func (p *pollCall) response(s *Server) (r *response, settled bool, err error) {
	r, settled = p.await(s)
	if s.limits.MayBe != nil {
		err = s.limits.MayBe(p.ctx, p.asker())
	}
	return r, settled, err
}

// await waits for the response: for as long as it takes to make it, and if the
// client has it as it is, or there is none, for as long as calls may wait. It is
// nil if there was none by then; settled says that all was made that was asked
// for.
func (p *pollCall) await(s *Server) (r *response, settled bool) {
	began := time.Now()
	for {
		// Asked first: what is made after next looked must not count as looked at.
		settled = p.settled()
		if r := p.next(time.Now()); r != nil {
			return r, true
		}
		wait := makeWithin
		if settled {
			wait = s.limits.Wait
		}
		timer := time.NewTimer(time.Until(began.Add(wait)))
		var ended bool
		select {
		case <-p.awake:
		case <-timer.C:
			ended = true
		case <-s.noWaits:
			ended = true
		case <-p.ctx.Done():
			ended = true // whatever it is answered
		}
		timer.Stop()
		if ended {
			return nil, settled
		}
	}
}

// settled reports whether all that the call is for is made, and may be answered.
func (p *pollCall) settled() bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.hub.mu.RLock()
	defer p.hub.mu.RUnlock()
	return p.subscriptions[p.only].wholeMade(p.hub)
}

// errJustEmptied is the answer to a client that has nothing yet, in the place of an
// assignment that lost its last host a moment ago.
var errJustEmptied = &call.Refusal{
	Status:     http.StatusServiceUnavailable,
	Reason:     "the last host of what is asked for went a moment ago, and may only be about to register at another replica",
	RetryAfter: time.Second,
}

// withheld is why the client, which has nothing, is told nothing of what is made:
// registry.ErrNotWarm, errJustEmptied, or nil if it is not so.
func (p *pollCall) withheld() error {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.hub.mu.RLock()
	defer p.hub.mu.RUnlock()
	switch u := p.subscriptions[p.only]; {
	case !p.fresh || u.idle():
		return nil
	case !p.hub.warm:
		return registry.ErrNotWarm
	case u.withholdsNames():
		return errJustEmptied
	}
	return nil
}

// hasSomething reports whether the client has what it asked for, or has to wait
// for it with what it has.
func (p *pollCall) hasSomething() bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	u := p.subscriptions[p.only]
	return u.entire != nil || u.version != 0 || !u.idle()
}
