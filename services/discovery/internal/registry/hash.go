package registry

import (
	"encoding/binary"
	"fmt"
	"slices"
	"strconv"
	"strings"

	"github.com/cespare/xxhash/v2"
)

// hash is that of all that h says. It is the same in every process, so that
// replicas can compare what they hold.
func (h *Host) hash() uint64 {
	b := make([]byte, 0, 512) // on the stack, for as many tags as are common
	b = appendFramed(b, h.Service, h.ID, h.Repo, h.Revision)
	b = h.Address.AppendTo(b)
	for _, a := range h.Additional {
		b = a.AppendTo(append(b, 0))
	}
	for _, p := range h.Ports {
		b = binary.BigEndian.AppendUint16(appendFramed(b, p.Name), p.Number)
	}
	b = binary.BigEndian.AppendUint64(b, uint64(h.TTL))
	b = append(b, h.Tags.Weight, truth(h.Draining), truth(h.Tags.Canary != nil), truth(h.Tags.Canary != nil && *h.Tags.Canary))
	b = appendFramed(b, h.Tags.Region, h.Tags.Zone, h.Tags.InstanceID)
	for _, tag := range h.Tags.Other {
		b = appendFramed(b, tag.Name, string(tag.Value))
	}
	return xxhash.Sum64(b)
}

// appendFramed appends texts so that no two lists of them give the same bytes.
func appendFramed(b []byte, texts ...string) []byte {
	for _, text := range texts {
		b = binary.AppendUvarint(b, uint64(len(text)))
		b = append(b, text...)
	}
	return b
}

func truth(b bool) byte {
	if b {
		return 1
	}
	return 0
}

// seal is what one host of a Listing gives to its Version: the hash of the host
// and what readers see beside it, mixed so that the exclusive or of several is
// a hash of them all.
func seal(hash uint64, state State, weight uint8, stale, unhealthy bool) Version {
	x := hash ^ uint64(state)<<16 ^ uint64(weight)<<8 ^ uint64(truth(unhealthy))<<1 ^ uint64(truth(stale))
	// The finalizer of MurmurHash3, which spreads each bit over all.
	x ^= x >> 33
	x *= 0xff51afd7ed558ccd
	x ^= x >> 33
	x *= 0xc4ceb9fe1a85ec53
	return Version(x ^ x>>33)
}

// difference names what is other in newer, for people: with what it was, where that
// is short.
func (h *Host) difference(newer *Host) string {
	var parts []string
	text := func(name, was, is string) {
		if was != is {
			parts = append(parts, name+" "+orNone(was)+" to "+orNone(is))
		}
	}
	text("address", h.Address.String(), newer.Address.String())
	text("revision", h.Revision, newer.Revision)
	text("zone", h.Tags.Zone, newer.Tags.Zone)
	text("region", h.Tags.Region, newer.Tags.Region)
	text("repository", h.Repo, newer.Repo)
	text("ttl", h.TTL.String(), newer.TTL.String())
	text("weight", h.Tags.weight(), newer.Tags.weight())
	text("draining", fmt.Sprint(h.Draining), fmt.Sprint(newer.Draining))
	text("canary", h.Tags.canary(), newer.Tags.canary())
	text("instance_id", h.Tags.InstanceID, newer.Tags.InstanceID)
	if !slices.Equal(h.Additional, newer.Additional) {
		parts = append(parts, "additional addresses")
	}
	if !slices.Equal(h.Ports, newer.Ports) {
		parts = append(parts, "ports")
	}
	if names := h.Tags.differing(&newer.Tags); len(names) > 0 {
		parts = append(parts, "tags "+strings.Join(names, " "))
	}
	return strings.Join(parts, ", ")
}

// orNone quotes a text, and tells that there is none.
func orNone(text string) string {
	if text == "" {
		return "none"
	}
	return strconv.Quote(text)
}

// weight is what tags say of that, for people.
func (t *Tags) weight() string {
	if t.Weight == 0 {
		return ""
	}
	return strconv.Itoa(int(t.Weight))
}

// canary is what tags say of that, for people.
func (t *Tags) canary() string {
	if t.Canary == nil {
		return ""
	}
	return strconv.FormatBool(*t.Canary)
}

// mostNamed is how many tags a history names of one change.
const mostNamed = 10

// differing names the other tags that newer has otherwise, or has not, or has
// alone; in order, and some of them if they are many.
func (t *Tags) differing(newer *Tags) []string {
	names := t.Other.differing(newer.Other)
	for i, name := range names {
		names[i] = strconv.Quote(name)
	}
	if more := len(names) - mostNamed; more > 0 {
		names = append(names[:mostNamed], fmt.Sprintf("and %d more", more))
	}
	return names
}
