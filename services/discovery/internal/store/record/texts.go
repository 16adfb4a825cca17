package record

import "github.com/weirproxy/weir/services/discovery/internal/registry"

// Texts lets hosts that were read share the memory of what they say alike: most
// hosts of a service differ in their address and name alone. The zero value
// knows none. It is for one goroutine, and for as long as hosts are read.
type Texts struct {
	known map[string]string
}

// Share changes h, which must not be known to anybody else yet.
func (t *Texts) Share(h *registry.Host) {
	if t.known == nil {
		t.known = map[string]string{}
	}
	for _, text := range []*string{&h.Service, &h.Repo, &h.Revision, &h.Tags.Region, &h.Tags.Zone} {
		known, ok := t.known[*text]
		if !ok {
			known = *text
			t.known[known] = known
		}
		*text = known
	}
	if h.Tags.InstanceID == h.ID {
		h.Tags.InstanceID = h.ID
	}
}
