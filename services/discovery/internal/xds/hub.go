package xds

import (
	"context"
	"log/slog"
	"maps"
	"slices"
	"sync"
	"time"

	"github.com/weirproxy/weir/services/discovery/internal/registry"
)

// hub turns changed services into resources and tells the streams that
// subscribe to them. It never sends anything itself.
type hub struct {
	registry *registry.Registry
	feed     *registry.Feed
	debounce *debounce
	log      *slog.Logger
	metrics  *metrics

	mu        sync.RWMutex
	loaded    bool // everything that the registry was loaded with is in the catalogue
	warm      bool // what the registry does not know is not there
	catalogue catalogue
	streams   map[*stream]struct{}
	named     [kinds]map[string]map[*stream]struct{} // streams by the names they subscribe to
	wildcard  [kinds]map[*stream]struct{}            // streams that subscribe to everything
}

func newHub(r *registry.Registry, quiet, longest time.Duration, log *slog.Logger, m *metrics) *hub {
	h := &hub{
		registry: r,
		feed:     r.Subscribe(),
		debounce: newDebounce(quiet, longest),
		log:      log,
		metrics:  m,
		streams:  map[*stream]struct{}{},
	}
	for k := range kinds {
		h.named[k] = map[string]map[*stream]struct{}{}
		h.wildcard[k] = map[*stream]struct{}{}
	}
	return h
}

// tick is the least time between two looks through what waits.
const tick = 20 * time.Millisecond

// run follows the registry until ctx ends.
func (h *hub) run(ctx context.Context) {
	select {
	case <-h.registry.Loaded():
	case <-ctx.Done():
		return
	}
	// All that was restored, at once: streams wait for it.
	h.update(h.feed.Take())
	h.open(&h.loaded)

	warm := h.registry.Warm()
	timer := time.NewTimer(0)
	defer timer.Stop()
	<-timer.C
	// Once armed, the timer fires no later than any change is due that comes
	// after: so what waits is looked through per tick and not per change.
	armed := false
	for {
		select {
		case <-h.feed.Ready():
			now := time.Now()
			for _, service := range h.feed.Take() {
				h.debounce.add(service, now)
			}
			if !armed {
				timer.Reset(min(h.debounce.quiet, h.debounce.longest))
				armed = true
			}
		case <-timer.C:
			h.push(time.Now())
			var wait time.Duration
			if wait, armed = h.debounce.next(time.Now()); armed {
				timer.Reset(max(wait, tick))
			}
		case <-warm:
			warm = nil
			h.open(&h.warm)
		case <-ctx.Done():
			return
		}
	}
}

// push sends what is due.
func (h *hub) push(now time.Time) {
	due := h.debounce.take(now)
	if len(due) == 0 {
		return
	}
	services := make([]string, 0, len(due))
	for service, since := range due {
		services = append(services, service)
		h.metrics.debounce.Observe(now.Sub(since).Seconds())
	}
	h.update(services)
}

// update makes the resources of services anew and marks the streams that have
// to hear of it.
func (h *hub) update(services []string) {
	for _, service := range services {
		// The error says that nothing is loaded; then there is nothing to do yet.
		hosts, err := h.registry.List(service)
		if err != nil {
			return
		}
		var cluster, assignment *resource
		if hosts.Known {
			cluster, assignment, err = h.build(service, hosts.Hosts)
		}
		if err != nil {
			h.metrics.unbuilt.Inc()
			h.log.Error("change of a service not sent", "service", service, "error", err)
			continue
		}
		h.publish(service, cluster, assignment)
	}
}

// build makes the two resources of a service.
func (h *hub) build(service string, hosts []registry.View) (cluster, assignment *resource, err error) {
	message, duplicates := makeAssignment(service, hosts)
	h.metrics.duplicates.Add(float64(duplicates))
	if assignment, err = newResource(endpoints, service, message); err != nil {
		return nil, nil, err
	}
	if cluster, err = newResource(clusters, service, makeCluster(service)); err != nil {
		return nil, nil, err
	}
	return cluster, assignment, nil
}

// open sets a flag of the hub and wakes every stream, which may wait for it.
func (h *hub) open(flag *bool) {
	h.mu.Lock()
	defer h.mu.Unlock()
	*flag = true
	for s := range h.streams {
		s.awake()
	}
}

// join takes a stream in, unless there are most of them already.
func (h *hub) join(s *stream, most int) bool {
	h.mu.Lock()
	defer h.mu.Unlock()
	if len(h.streams) >= most {
		return false
	}
	h.streams[s] = struct{}{}
	h.metrics.streams.Set(float64(len(h.streams)))
	return true
}

// leave lets a stream go, with all its subscriptions.
func (h *hub) leave(s *stream) {
	for k := range kinds {
		sub := &s.subscriptions[k]
		h.unsubscribe(s, k, slices.Collect(maps.Keys(sub.names)), sub.wildcard)
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	delete(h.streams, s)
	h.metrics.streams.Set(float64(len(h.streams)))
}
