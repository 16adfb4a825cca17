package xds

import "iter"

// publish makes the resources of a service current, both or neither, and marks
// every stream that subscribes to one that changed. nil takes them away. Steps:
// the catalogue under the lock, the marks under the lock, no sending. A mark
// costs the same however many marks the stream already has; what a slow stream
// missed it finds in the catalogue when it next sends.
func (h *hub) publish(service string, cluster, assignment *resource) {
	h.mu.Lock()
	defer h.mu.Unlock()
	for k, r := range [kinds]*resource{clusters: cluster, endpoints: assignment} {
		k := kind(k)
		if !h.catalogue.put(k, service, r) {
			continue
		}
		h.metrics.updates[k].Inc()
		for s := range h.wildcard[k] {
			s.mark(k, service)
		}
		for s := range h.named[k][service] {
			s.mark(k, service)
		}
	}
}

// subscribe makes a stream hear of names from now on, and of everything if so
// told.
func (h *hub) subscribe(s *stream, k kind, names []string, everything bool) {
	h.mu.Lock()
	defer h.mu.Unlock()
	for _, name := range names {
		streams := h.named[k][name]
		if streams == nil {
			streams = map[*stream]struct{}{}
			h.named[k][name] = streams
		}
		streams[s] = struct{}{}
	}
	if everything {
		h.wildcard[k][s] = struct{}{}
	}
}

// unsubscribe undoes subscribe.
func (h *hub) unsubscribe(s *stream, k kind, names []string, everything bool) {
	h.mu.Lock()
	defer h.mu.Unlock()
	for _, name := range names {
		streams := h.named[k][name]
		delete(streams, s)
		if len(streams) == 0 {
			delete(h.named[k], name)
		}
	}
	if everything {
		delete(h.wildcard[k], s)
	}
}

// ready says whether a subscription may be answered: the registry is loaded,
// and, for a client that holds something from before, is not only just filling.
func (h *hub) ready(holdsEarlier bool) bool {
	h.mu.RLock()
	defer h.mu.RUnlock()
	return h.loaded && (h.warm || !holdsEarlier)
}

// lookup calls found with the current resource of each name that has one.
func (h *hub) lookup(k kind, names iter.Seq[string], found func(*resource)) {
	h.mu.RLock()
	defer h.mu.RUnlock()
	for name := range names {
		if r := h.catalogue.byName[k][name]; r != nil {
			found(r)
		}
	}
}

// everything returns all current resources of a kind.
func (h *hub) everything(k kind) *set {
	h.mu.Lock() // the catalogue may have to make the set
	defer h.mu.Unlock()
	return h.catalogue.everything(k)
}
