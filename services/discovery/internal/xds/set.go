package xds

import (
	"cmp"
	"slices"
	"strconv"
	"sync"
	"sync/atomic"

	"github.com/weirproxy/weir/services/discovery/internal/resources"
)

// set is some resources of one type, ordered by name. It is shared by all
// streams that are sent it, and never changes.
type set struct {
	list    []*resources.Resource
	version uint64
	// common says that it is everything of its type, which many streams are sent.
	// encoded is what entries returns, once it was asked for.
	common  bool
	once    sync.Once
	encoded []byte

	// last is the difference that was last asked for: streams that are sent the
	// same sets ask for the same.
	last atomic.Pointer[difference]
}

// difference is what makes a set of another.
type difference struct {
	from             *set
	changed, removed []*resources.Resource
}

// newSet makes a set of resources, whose slice it takes over.
func newSet(list []*resources.Resource) *set {
	slices.SortFunc(list, func(a, b *resources.Resource) int { return cmp.Compare(a.Name, b.Name) })
	s := &set{list: list}
	for _, r := range list {
		s.version ^= r.Version
	}
	return s
}

// noSet is what a client has that has nothing.
var noSet = newSet(nil)

// since returns what makes s of an older set.
func (s *set) since(older *set) *difference {
	if d := s.last.Load(); d != nil && d.from == older {
		return d
	}
	d := &difference{from: older}
	before := older.list
	for _, r := range s.list {
		for len(before) > 0 && before[0].Name < r.Name {
			d.removed = append(d.removed, before[0])
			before = before[1:]
		}
		if len(before) == 0 || before[0].Name != r.Name {
			d.changed = append(d.changed, r)
			continue
		}
		if before[0].Version != r.Version {
			d.changed = append(d.changed, r)
		}
		before = before[1:]
	}
	d.removed = append(d.removed, before...)
	s.last.Store(d)
	return d
}

// with returns s and further resources, of none of whose names s has one.
func (s *set) with(more []*resources.Resource) *set {
	return newSet(slices.Concat(s.list, more))
}

// versionText is a version as clients see it. That of several resources is the
// exclusive or of theirs, which does not depend on their order.
func versionText(version uint64) string { return resources.VersionText(version) }

// parseVersion reads a version as clients see it; 0 for one that is not ours.
func parseVersion(text string) uint64 {
	version, err := strconv.ParseUint(text, 16, 64)
	if err != nil {
		return 0
	}
	return version
}

// entries are the resources as those of a response of the state of the world, in
// one piece: made for the first stream that is sent a set which many are, and the
// same for all of them. They are nil of a set that one stream alone is sent, and
// of one with a resource that has a time to live.
func (s *set) entries() []byte {
	if !s.common {
		return nil
	}
	s.once.Do(func() {
		size := 0
		for _, r := range s.list {
			if r.TTL > 0 {
				return
			}
			size += len(r.Entry())
		}
		s.encoded = make([]byte, 0, size)
		for _, r := range s.list {
			s.encoded = append(s.encoded, r.Entry()...)
		}
	})
	return s.encoded
}
