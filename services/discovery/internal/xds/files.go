package xds

import (
	"cmp"
	"time"

	clusterv3 "github.com/envoyproxy/go-control-plane/envoy/config/cluster/v3"

	"github.com/weirproxy/weir/services/discovery/internal/resources"
)

// SetFiles makes resources of operators' files current, all at once; what there
// was of files and is not among them goes. The resources are the server's.
func (s *Server) SetFiles(files map[resources.Type][]*resources.Resource) { s.hub.setFiles(files) }

func (h *hub) setFiles(files map[resources.Type][]*resources.Resource) {
	now := time.Now()
	h.mu.Lock()
	defer h.unlock()
	for t := range resources.Types {
		current := make(map[string]*resources.Resource, len(files[t]))
		for _, r := range files[t] {
			current[r.Name] = r
			h.topic(t, r.Name)
		}
		for name, topic := range h.topics[t] {
			if r := current[name]; r != nil || topic.file != nil {
				h.setFile(topic, r, now)
			}
		}
	}
	h.assign(files[resources.Clusters], now)
	h.ask()
}

// assign sees to it that every cluster of files has an assignment, if one without
// endpoints, and no other name has one for that. h.mu must be held.
func (h *hub) assign(clusters []*resources.Resource, now time.Time) {
	assigned := make(map[string]struct{}, len(clusters))
	for _, c := range clusters {
		if name := h.topics[resources.Clusters][c.Name].assignment; name != "" {
			assigned[name] = struct{}{}
			h.topic(resources.Endpoints, name)
		}
	}
	for name, t := range h.topics[resources.Endpoints] {
		_, is := assigned[name]
		switch {
		case is == (t.empty != nil):
		case is:
			t.empty, _ = resources.NoEndpoints(name) // which is UTF-8, as the cluster is that has it
			h.replace(t, nil, now)
		default:
			was := t.empty
			t.empty = nil
			if t.fromService {
				h.unmade[t] = struct{}{} // a service may have no hosts either
			} else {
				h.replace(t, was, now)
			}
			h.tidy(t)
		}
	}
}

// replace makes a topic's editions whose resource is old what the topic is where
// nothing gives one. h.mu must be held.
func (h *hub) replace(t *topic, old *resources.Resource, now time.Time) {
	for _, e := range t.editions {
		if e.made && !e.withheld && e.resource == old {
			h.put(e, nil, now)
		}
	}
}

// RecheckSecrets has every client shown the secrets that it may have now, and in
// delta told of those that it may have no more.
func (s *Server) RecheckSecrets() { s.hub.recheckSecrets() }

func (h *hub) recheckSecrets() {
	now := time.Now()
	h.mu.Lock()
	defer h.unlock()
	for _, t := range h.topics[resources.Secrets] {
		for _, e := range t.editions {
			for u := range e.subscribers {
				h.mark(u.stream, t, now)
			}
		}
	}
}

// setFile makes r, which may be nil, what files say of a topic. h.mu must be
// held.
func (h *hub) setFile(t *topic, r *resources.Resource, now time.Time) {
	t.file = r
	t.assignment = t.name
	if r != nil {
		t.assignment = assignmentOf(t.typ, r)
		if t.typ.Whole() {
			h.shelve(t)
		}
		for _, e := range t.editions {
			h.put(e, r, now)
		}
		return
	}
	if t.fromService {
		// Nothing is taken away before it is known whether a service has it.
		h.unmade[t] = struct{}{}
		h.unlistUnknown(t)
		return
	}
	for _, e := range t.editions {
		h.put(e, nil, now)
	}
	h.unshelve(t)
}

// unlistUnknown takes a topic off the shelves that no known service puts there.
// h.mu must be held.
func (h *hub) unlistUnknown(t *topic) {
	_, known := h.known[t.name]
	if !known || !h.maker.Listed(t.typ) || t.service != t.name {
		h.unshelve(t)
	}
}

// assignmentOf is the name of the assignment of a file's cluster; empty for one
// whose hosts do not come by EDS, and for every other type.
func assignmentOf(t resources.Type, r *resources.Resource) string {
	var c clusterv3.Cluster
	if t != resources.Clusters || r.Body.UnmarshalTo(&c) != nil || c.GetClusterType() != nil || c.GetType() != clusterv3.Cluster_EDS {
		return ""
	}
	return cmp.Or(c.GetEdsClusterConfig().GetServiceName(), r.Name)
}
