package beats

import (
	"sync"

	"github.com/weirproxy/weir/services/discovery/internal/registry"
)

// carriers is how many streams carry each host that any does. Its zero value is
// for no streams, and for many goroutines.
type carriers struct {
	mu      sync.Mutex
	streams map[registry.Lease]int
}

// add says that one stream more carries a host.
func (c *carriers) add(lease registry.Lease) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.streams == nil {
		c.streams = map[registry.Lease]int{}
	}
	c.streams[lease]++
}

// remove undoes add.
func (c *carriers) remove(lease registry.Lease) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.streams[lease]--; c.streams[lease] == 0 {
		delete(c.streams, lease)
	}
}

// count is how many streams carry a host.
func (c *carriers) count(lease registry.Lease) int {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.streams[lease]
}
