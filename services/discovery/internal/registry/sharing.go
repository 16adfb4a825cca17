package registry

import "strings"

// shareText makes what h says take as little memory as it can, before h is kept:
// its texts are those of hosts that are kept already where these say the same,
// as most hosts of a service do but for their address and name. All others are
// copied, since a face may have cut them out of a request, which is much longer. h
// must not be known to anybody else yet. r.mu must be held.
func (r *Registry) shareText(h *Host) {
	isID := h.Tags.InstanceID == h.ID // v2 has no other
	for _, text := range []*string{&h.Repo, &h.Revision, &h.Tags.Region, &h.Tags.Zone, &h.Tags.InstanceID} {
		*text = strings.Clone(*text)
	}
	if e := r.find(h.Key); e != nil {
		h.Key = e.host.Key
		share(&h.Tags.InstanceID, e.host.Tags.InstanceID)
		h.shareWith(e.host)
	} else {
		h.Key = Key{Service: strings.Clone(h.Service), ID: strings.Clone(h.ID)}
	}
	if isID {
		h.Tags.InstanceID = h.ID
	}
	s := r.services[h.Service]
	if s == nil {
		return
	}
	h.Service = s.name
	tries := 4 // zones are three as a rule
	for _, e := range s.hosts {
		h.shareWith(e.host)
		if tries--; tries == 0 {
			return
		}
	}
}

// shareWith takes the texts of other that are equal to those of h.
func (h *Host) shareWith(other *Host) {
	share(&h.Repo, other.Repo)
	share(&h.Revision, other.Revision)
	share(&h.Tags.Region, other.Tags.Region)
	share(&h.Tags.Zone, other.Tags.Zone)
}

// share lets text be the same memory as other if both are equal.
func share(text *string, other string) {
	if *text == other {
		*text = other
	}
}
