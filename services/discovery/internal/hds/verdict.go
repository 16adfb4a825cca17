package hds

import (
	"time"

	"github.com/weirproxy/weir/services/discovery/internal/registry"
)

// actor is who histories say that verdicts are of.
const actor = "health checkers"

// silentIntervals is after how many intervals without a report what a checker
// says no longer counts.
const silentIntervals = 3

// judgeTouched judges the services of which something else was said.
func (s *Server) judgeTouched(now time.Time) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for name := range s.touched {
		s.judge(name, now)
	}
	clear(s.touched)
}

// judgeAll judges all services, and finds who has fallen silent, or speaks again:
// then hosts are given to others.
func (s *Server) judgeAll(now time.Time) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, c := range s.checkers {
		s.listen(c, now)
	}
	s.forgetPolled()
	checked, unhealthy, suspended := 0, 0, 0
	for name, p := range s.plans {
		of, marked := s.judge(name, now)
		checked += of
		unhealthy += marked
		if p.suspended {
			suspended++
		}
	}
	s.metrics.hosts.Set(float64(checked))
	s.metrics.unhealthy.Set(float64(unhealthy))
	s.metrics.suspended.Set(float64(suspended))
}

// listen finds whether a checker has fallen silent, or speaks again. s.mu must be
// held.
func (s *Server) listen(c *checker, now time.Time) {
	patience := silentIntervals * s.rules.interval
	if c.sent == nil {
		patience += 2 * debounce // it is yet to be told what to check
	}
	silent := now.Sub(c.heard) > patience
	switch {
	case silent && !c.silent:
		s.options.Log.Warn("health checker silent, what it found no longer counts", "node", c.id, "heard", now.Sub(c.heard).String()+" ago")
	case !silent && c.silent:
		s.options.Log.Info("health checker heard again", "node", c.id)
	default:
		return
	}
	c.silent = silent
	s.checkersChanged()
}

// judge finds which hosts of a service are unhealthy and tells the registry what
// changed. It returns how many are checked and how many are marked. s.mu must be
// held.
func (s *Server) judge(name string, now time.Time) (checked, marked int) {
	p := s.plans[name]
	if p == nil {
		return 0, 0
	}
	sick := map[*host]bool{}
	for _, h := range p.hosts {
		voices, against := h.count(p.rule.patience, now)
		if voices == 0 {
			continue
		}
		checked++
		if against >= min(p.rule.unhealthy, voices) {
			sick[h] = true
		}
	}
	s.suspend(name, p, len(sick), checked)
	if p.suspended {
		clear(sick)
	}
	changes := map[registry.Key]bool{}
	for _, h := range p.hosts {
		for key, is := range h.marked {
			if is != sick[h] {
				h.marked[key] = sick[h]
				changes[key] = sick[h]
			}
		}
	}
	s.mark(changes)
	return checked, len(sick)
}

// mark tells the registry of hosts that became unhealthy, or ceased to be.
func (s *Server) mark(unhealthy map[registry.Key]bool) {
	if len(unhealthy) > 0 {
		s.metrics.verdicts.Add(float64(s.options.Registry.SetHealth(unhealthy, actor)))
	}
}

// count counts the checkers of a host that count, and those of them who find it
// unhealthy and have had the time to find out.
func (h *host) count(patience time.Duration, now time.Time) (voices, against int) {
	for _, w := range h.words {
		if !w.checker.counts() {
			continue
		}
		voices++
		if w.unhealthy && now.Sub(w.since) > patience {
			against++
		}
	}
	return voices, against
}

// suspend says whether more hosts of a service are found unhealthy than may be,
// and tells when that begins and when it ends. s.mu must be held.
func (s *Server) suspend(name string, p *plan, sick, checked int) {
	tooMany := float64(sick) > s.options.MaxShare*float64(checked)
	switch {
	case tooMany && !p.suspended:
		s.options.Log.Warn("more hosts are found unhealthy than can be believed, none is marked",
			"service", name, "unhealthy", sick, "checked", checked, "most", s.options.MaxShare)
	case !tooMany && p.suspended:
		s.options.Log.Info("unhealthy hosts are marked again", "service", name, "unhealthy", sick, "checked", checked)
	}
	p.suspended = tooMany
}
