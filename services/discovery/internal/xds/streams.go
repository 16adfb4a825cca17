package xds

import (
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
)

// join takes a stream in, unless there are as many as may be already.
func (h *hub) join(s *stream) error {
	h.mu.Lock()
	defer h.mu.Unlock()
	if len(h.streams) >= s.limits.Streams {
		h.metrics.refused.Inc()
		return status.Errorf(codes.ResourceExhausted, "%d streams are open, the most that are served", s.limits.Streams)
	}
	h.streams[s] = struct{}{}
	return nil
}

// admitNode counts a stream to its node, unless that has as many as it may, 0
// for any number.
func (h *hub) admitNode(id string, most int) error {
	h.mu.Lock()
	defer h.mu.Unlock()
	if most > 0 && h.ofNode[id].streams >= most {
		h.metrics.refused.Inc()
		return status.Errorf(codes.ResourceExhausted, "node %q has %d streams open, the most that a node may have", id, most)
	}
	use := h.ofNode[id]
	use.streams++
	h.ofNode[id] = use
	return nil
}

// use is what streams of one node take together.
type use struct{ streams, names int }

// admitNames counts n names to a stream's node in the place of those that were
// counted before, unless the node's streams had more together than they may. The
// stream's lock must be held.
func (h *hub) admitNames(s *stream, n int) error {
	h.mu.Lock()
	defer h.mu.Unlock()
	use := h.ofNode[s.node.id]
	if use.names+n-s.counted > s.limits.NamesPerNode {
		h.metrics.refused.Inc()
		return status.Errorf(codes.ResourceExhausted, "%d names on the streams of node %q: %d are the most", use.names+n-s.counted, s.node.id, s.limits.NamesPerNode)
	}
	use.names += n - s.counted
	h.ofNode[s.node.id], s.counted = use, n
	return nil
}

// leave lets a stream go, which has no subscriptions any more. Its lock must be
// held.
func (h *hub) leave(s *stream) {
	h.mu.Lock()
	defer h.mu.Unlock()
	delete(h.streams, s)
	if !s.begun {
		return
	}
	use := h.ofNode[s.node.id]
	use.streams--
	use.names -= s.counted
	if h.ofNode[s.node.id] = use; use.streams == 0 {
		delete(h.ofNode, s.node.id)
	}
}

// all returns the streams that are open.
func (h *hub) all() []*stream {
	h.mu.RLock()
	defer h.mu.RUnlock()
	list := make([]*stream, 0, len(h.streams))
	for s := range h.streams {
		list = append(list, s)
	}
	return list
}

// RecheckNodes ends the streams of clients that may not be their nodes any more, as
// Limits.MayBe says.
func (s *Server) RecheckNodes() { s.hub.recheckNodes() }

func (h *hub) recheckNodes() {
	for _, s := range h.all() {
		s.recheckNode()
	}
}

func (s *stream) recheckNode() {
	s.mu.Lock()
	defer s.mu.Unlock()
	// One that has not begun is asked when it does.
	if s.limits.MayBe == nil || !s.begun || s.closed || s.poll {
		return
	}
	if err := s.limits.MayBe(s.ctx, s.asker()); err != nil {
		s.hub.metrics.refused.Inc()
		s.end(err)
	}
}

// sweepStreams looks at every stream: those that are too old, or whose clients
// neither read nor answer, end; those with resources to keep alive are woken.
func (h *hub) sweepStreams(now time.Time, limits *Limits) {
	dirty, resources, slow := 0, 0, 0
	for _, s := range h.all() {
		seen := s.sweep(now, limits)
		if seen.dirty {
			dirty++
		}
		resources += seen.resources
		if seen.slow {
			slow++
		}
	}
	h.metrics.dirty.Set(float64(dirty))
	h.metrics.dirtySets.Set(float64(resources))
	h.metrics.slowNow.Set(float64(slow))
}

// seen is what a sweep saw of a stream: whether it has something yet to be sent,
// how many resources that may be, and whether it is slow.
type seen struct {
	dirty, slow bool
	resources   int
}

func (s *stream) sweep(now time.Time, limits *Limits) (seen seen) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed || s.poll {
		return seen
	}
	if !s.until.IsZero() && !now.Before(s.until) {
		s.hub.metrics.aged.Inc()
		s.end(nil)
		return seen
	}
	seen.resources = s.marks.count()
	seen.dirty = seen.resources > 0
	for _, u := range s.subscriptions {
		if u == nil {
			continue
		}
		seen.dirty = seen.dirty || !u.idle()
		seen.resources += len(u.pending)
		seen.slow = s.isSlow(u, now, limits) || seen.slow
		if u.beats(now) {
			s.wake()
		}
	}
	return seen
}

// isSlow reports whether a response has been unanswered for long. If it has for
// too long, the stream ends.
func (s *stream) isSlow(u *subscription, now time.Time, limits *Limits) bool {
	waits := now.Sub(u.sentAt)
	if !u.inFlight || waits < limits.SlowAfter {
		return false
	}
	if !u.slow {
		u.slow = true
		s.hub.metrics.slow.Inc()
	}
	if limits.DropAfter > 0 && waits >= limits.DropAfter {
		s.hub.metrics.dropped.Inc()
		s.log.Warn("client dropped: it has not answered", "stream", s.number, "node", s.node.id, "type", u.typ.String(), "nonce", u.nonce, "for", waits.Round(time.Second).String())
		s.end(status.Errorf(codes.DeadlineExceeded, "response %s of type %s was not answered for %v", u.nonce, u.typ, limits.DropAfter))
	}
	return true
}
