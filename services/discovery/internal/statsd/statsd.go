// Package statsd counts what lyft/discovery counts and sends it to a statsd
// server under the same names:
//
//	registration.<service>.success   registrations and heartbeats by REST v1 that were taken
//	registration.<service>.failure   those that were not
//	service.host.sweep.<service>     hosts that expired
//	service.host.delete.<service>    hosts that went, be it expired or deregistered
//
// The app runs a Sender in the background and has REST v1 tell it of its calls;
// of hosts that go it hears from the registry, be it another replica that took
// them out. No caller waits for the server: what was counted in a second is sent
// as one line for each name, by UDP, and is lost if nobody takes it.
package statsd

import (
	"context"
	"log/slog"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"
	"unicode"

	"github.com/weirproxy/weir/services/discovery/internal/registry"
	"github.com/weirproxy/weir/services/discovery/internal/rule"
)

// Options is what a Sender is made of. Every field is required.
type Options struct {
	// Address is the server's host and port.
	Address  string
	Registry *registry.Registry
	// Log gets a line when the server cannot be reached, and one when it can be
	// again.
	Log *slog.Logger
}

const (
	// interval is the time between flushes.
	interval = time.Second
	// maxNames is how many names are counted between two flushes at most. Names
	// of services that are refused are anybody's.
	maxNames = 100_000
)

// Sender counts, and sends while its Run does.
type Sender struct {
	address string
	log     *slog.Logger
	events  *registry.EventFeed
	away    bool // the last flush did not reach the server

	mu sync.Mutex
	// counts are those since the last flush.
	counts map[counter]uint64
	missed uint64 // how often a name was not counted, for there were maxNames
}

// counter is what is counted of one service.
type counter struct {
	kind    kind
	service string
}

// kind is what is counted.
type kind uint8

const (
	taken kind = iota
	refused
	swept
	deleted
)

// New makes a Sender, which counts from now on. Run must be called.
func New(o Options) *Sender {
	return &Sender{address: o.Address, log: o.Log, events: o.Registry.Events(), counts: map[counter]uint64{}}
}

// Registration counts a call by which a host of a service registers or beats.
func (s *Sender) Registration(service string, wasTaken bool) {
	if wasTaken {
		s.count(taken, service)
	} else {
		s.count(refused, service)
	}
}

func (s *Sender) count(k kind, service string) {
	if len(service) > rule.MaxName { // no service that is known has such a name
		return
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	c := counter{k, service}
	n, known := s.counts[c]
	if !known {
		if len(s.counts) >= maxNames {
			s.missed++
			return
		}
		c.service = strings.Clone(service) // it may be a part of a request
	}
	s.counts[c] = n + 1
}

// Run counts hosts that go, and flushes each second, until ctx ends; then it
// flushes a last time. The error is always nil.
func (s *Sender) Run(ctx context.Context) error {
	defer s.events.Close()
	tick := time.NewTicker(interval)
	defer tick.Stop()
	for {
		select {
		case <-s.events.Ready():
			s.countEvents()
		case <-tick.C:
			s.flush(ctx)
		case <-ctx.Done():
			s.countEvents()
			s.flush(context.WithoutCancel(ctx))
			return nil
		}
	}
}

// countEvents counts the hosts that went.
func (s *Sender) countEvents() {
	events, missed := s.events.Take()
	for i := range events {
		switch events[i].Kind {
		case registry.Expired:
			s.count(swept, events[i].Service)
			s.count(deleted, events[i].Service)
		case registry.Deregistered, registry.Lost:
			s.count(deleted, events[i].Service)
		}
	}
	if missed {
		s.log.Warn("more hosts went at once than could be counted for statsd")
	}
}

// flush sends what was counted since the last flush, and tells when that begins
// to fail or to work again.
func (s *Sender) flush(ctx context.Context) {
	s.mu.Lock()
	counts, missed := s.counts, s.missed
	s.counts, s.missed = map[counter]uint64{}, 0
	s.mu.Unlock()
	if missed > 0 {
		s.log.Warn("more names than are counted for statsd", "most", maxNames, "not_counted", missed)
	}
	if len(counts) == 0 {
		return
	}
	err := send(ctx, s.address, lines(counts))
	switch {
	case err != nil && !s.away:
		s.away = true
		s.log.Warn("statistics are not taken; until they are, they are lost", "server", s.address, "error", err)
	case err == nil && s.away:
		s.away = false
		s.log.Info("statistics are taken again", "server", s.address)
	}
}

// lines are counts as statsd reads them, in order, without line ends.
func lines(counts map[counter]uint64) []string {
	list := make([]string, 0, len(counts))
	for c, n := range counts {
		list = append(list, name(c)+":"+strconv.FormatUint(n, 10)+"|c")
	}
	slices.Sort(list)
	return list
}

// name is a counter's name as the peer has it.
func name(c counter) string {
	service := strings.Map(clean, c.service)
	switch c.kind {
	case taken:
		return "registration." + service + ".success"
	case refused:
		return "registration." + service + ".failure"
	case swept:
		return "service.host.sweep." + service
	default:
		return "service.host.delete." + service
	}
}

// clean replaces what would end a name, or a line.
func clean(c rune) rune {
	if c == ':' || c == '|' || c == '@' || unicode.IsSpace(c) || unicode.IsControl(c) {
		return '_'
	}
	return c
}
