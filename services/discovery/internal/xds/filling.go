package xds

import (
	"sync"
	"time"

	"github.com/weirproxy/weir/services/discovery/internal/registry"
	"github.com/weirproxy/weir/services/discovery/internal/resources"
)

// While the registry is only just filling, a service without hosts may be one whose
// hosts have yet to come. So clients are not told of what is not there: a name is
// neither answered by its removal nor by an assignment without endpoints, and no
// list of clusters is sent that is empty. What has hosts is sent at once; what had
// some stays as it was. All the rest is withheld until hosts come, or the registry
// is warm. Who comes anew is sent that too: a cluster that is listed has its
// assignment. By their own timers clients wait for that no longer than for a name that
// nobody has. Lists of REST are held to the same by registry.Listing.Safe.

// isWithheld reports whether what was made of a listing is not to be told of yet; r
// is nil if nothing was made.
func isWithheld(t *topic, r *resources.Resource, list registry.Listing) bool {
	switch {
	case !list.Partial:
		return false
	case shownHosts(list) == 0:
		return true
	case t.typ != resources.Endpoints || t.name == t.service:
		return false
	}
	empty, err := resources.NoEndpoints(t.name) // as of a subset without hosts
	return err == nil && r != nil && r.Version == empty.Version
}

// isWithheld reports whether nothing can be told of an edition yet. One that is what
// it was is told as that. The hub's lock must be held.
func (e *edition) isWithheld() bool { return e.withheld && e.resource == nil }

// withhold leaves an edition as it is, for what was made of it is withheld. If it was
// not made before, nothing is known of it. h.mu must be held.
func (h *hub) withhold(e *edition) {
	h.withheld[e.topic] = struct{}{}
	e.withheld = true
	if e.made {
		return
	}
	e.made = true
	for u := range e.subscribers { // which wait for it, with other names
		h.mark(u.stream, e.topic, time.Time{})
	}
}

// warmUp has clients told of all that was withheld: the registry is warm. Only run
// calls it.
func (h *hub) warmUp() {
	h.mu.Lock()
	for t := range h.withheld {
		h.unmade[t] = struct{}{}
	}
	clear(h.withheld)
	h.mu.Unlock()
	h.makeAsked()
	h.open(&h.warm)
	h.given.forget()
}

// withholdsList reports whether all that there is of a type that is sent whole is
// withheld, since that is nothing yet. The hub's lock must be held.
func (u *subscription) withholdsList(h *hub, all *set) bool {
	return !h.warm && len(all.list) == 0 && (u.wildcard && h.maker.Listed(u.typ) || u.withholdsNames())
}

// withholdsNames reports whether something is withheld that is subscribed to by name.
// The hub's lock must be held.
func (u *subscription) withholdsNames() bool {
	for t := range u.names {
		if e := u.edition(t); e != nil && e.isWithheld() {
			return true
		}
	}
	return false
}

// withholdsAll reports whether all is withheld that is to be sent. The hub's lock must
// be held.
func (u *subscription) withholdsAll(h *hub) bool {
	if len(u.again) > 0 {
		return false
	}
	for t := range u.pending {
		if e := u.edition(t); e == nil || !e.isWithheld() {
			return false
		}
	}
	if !u.all && !u.mustAll {
		return true
	}
	if h.warm {
		return false
	}
	all, known := u.current(h)
	return known && u.withholdsList(h, all)
}

// given are the versions of what clients were sent while the registry was only
// just filling. Who comes back with those alone, as a client of REST-JSON does
// with each call, has nothing from before the start that it could lose.
type given struct {
	mu       sync.Mutex
	versions map[uint64]struct{} // nil once they are of no more use
}

// maxGiven bounds the versions that are remembered. Who comes back with another
// one waits until the registry is warm.
const maxGiven = 1 << 17

func newGiven() *given { return &given{versions: map[uint64]struct{}{}} }

// add takes in what a response says that its client has: by name in delta, as a
// whole in the state of the world.
func (g *given) add(r *response) {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.versions == nil || len(g.versions) > maxGiven {
		return
	}
	if !r.delta {
		g.versions[r.version] = struct{}{}
		return
	}
	for _, resource := range r.resources {
		g.versions[resource.Version] = struct{}{}
	}
}

// has reports whether a version, which may be one that is not ours, was sent.
func (g *given) has(version uint64) bool {
	g.mu.Lock()
	defer g.mu.Unlock()
	_, is := g.versions[version]
	return is && version != 0
}

// forget lets all go: the registry is warm.
func (g *given) forget() {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.versions = nil
}
