package xds

import "sync"

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
