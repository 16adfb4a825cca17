package redis

import (
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"hash/fnv"
	"math"
	"strconv"
	"strings"
	"sync/atomic"
	"time"

	"github.com/weirproxy/weir/services/discovery/internal/registry"
)

// partitionCount is fixed: another one would look for services elsewhere. It is
// part of schema, which stands in each partition.
const (
	partitionCount = 256
	schema         = "1/256"
)

// partitionOf is where the hosts and settings of a service are; those of "" are
// the settings of all services. It is FNV-1a of 32 bits, its bytes laid over
// each other, and may never change.
func partitionOf(service string) int {
	h := uint32(2166136261)
	for i := range len(service) {
		h = (h ^ uint32(service[i])) * 16777619
	}
	h ^= h >> 16
	return int((h ^ h>>8) & 0xff)
}

// allPartitions are the numbers of all.
func allPartitions() []int {
	all := make([]int, partitionCount)
	for p := range all {
		all[p] = p
	}
	return all
}

// partitionSet is a set of their numbers.
type partitionSet [partitionCount]bool

// keys are the names of those of partition p.
func (s *Store) keys(p int, names ...string) []string {
	list := make([]string, len(names))
	for i, name := range names {
		list[i] = s.place.prefix + "{" + strconv.Itoa(p) + "}:" + name
	}
	return list
}

// partition is what this store knows of one: up to where the registry was told
// of it. All but the clock is guarded by Store.exchange.
type partition struct {
	// known says that the rest holds: it was read as a whole.
	known bool
	// gen, digest and last are those of meta at the time. end is up to where the log
	// was read: beyond last where others than replicas wrote to it. saidForeign is when
	// the log was last told of that.
	gen, digest string
	last, end   entryID
	saidForeign time.Time
	// clock tells the time of its Redis; nil before it was read.
	clock atomic.Pointer[clock]
	// heard is the time in µs of Redis up to which beats were handed over.
	heard int64
	// short says that it has, or had, a host with a TTL below shortTTL.
	short bool
	// shared says that a change of another writer was handed over. In the registry
	// it may have overwritten what this store then wrote after it, so from then on
	// own changes are handed over too: what counts is the order in the log.
	shared bool
	// again says that it must be read anew.
	again bool
}

// micros reads a time that Redis keeps, in ms, as µs; 0 if it is none. One that is
// later than what a number of Lua's is exact for is as that.
func micros(text string) int64 {
	ms, err := strconv.ParseFloat(text, 64)
	if err != nil && !errors.Is(err, strconv.ErrRange) || !(ms > 0) {
		return 0
	}
	return int64(math.Round(min(ms*1000, 1<<53)))
}

// entryID is the id of an entry of a log.
type entryID struct{ ms, seq uint64 }

// parseID reads the id of an entry; "" is that before the first.
func parseID(text string) (entryID, error) {
	if text == "" {
		return entryID{}, nil
	}
	ms, seq, _ := strings.Cut(text, "-")
	var id entryID
	var err, err2 error
	id.ms, err = strconv.ParseUint(ms, 10, 64)
	id.seq, err2 = strconv.ParseUint(seq, 10, 64)
	if err != nil || err2 != nil {
		return entryID{}, fmt.Errorf("%q is not the id of an entry", text)
	}
	return id, nil
}

func (id entryID) String() string { return fmt.Sprintf("%d-%d", id.ms, id.seq) }

func (id entryID) compare(other entryID) int {
	return cmp.Or(cmp.Compare(id.ms, other.ms), cmp.Compare(id.seq, other.seq))
}

// hostMember names a host within its partition: the length of the service's
// name, a colon, the name, a slash, the host's ID.
func hostMember(k registry.Key) string {
	return strconv.Itoa(len(k.Service)) + ":" + k.Service + "/" + k.ID
}

// parseHostMember is the way back.
func parseHostMember(member string) (registry.Key, error) {
	length, rest, _ := strings.Cut(member, ":")
	n, err := strconv.Atoi(length)
	if err != nil || n < 0 || n >= len(rest) || rest[n] != '/' {
		return registry.Key{}, fmt.Errorf("%q does not name a host", member)
	}
	return registry.Key{Service: rest[:n], ID: rest[n+1:]}, nil
}

// settingMember names a setting within its partition: kind, service, zone and ID
// as a list in JSON.
func settingMember(k registry.SettingKey) string {
	// Strings can always be written.
	text, _ := json.Marshal([]string{string(k.Kind), k.Scope.Service, k.Scope.Zone, k.Scope.ID})
	return string(text)
}

// parseSettingMember is the way back.
func parseSettingMember(member string) (registry.SettingKey, error) {
	var list []string
	if err := json.Unmarshal([]byte(member), &list); err != nil || len(list) != 4 {
		return registry.SettingKey{}, fmt.Errorf("%q does not name a setting", member)
	}
	return registry.SettingKey{
		Kind:  registry.SettingKind(list[0]),
		Scope: registry.Scope{Service: list[1], Zone: list[2], ID: list[3]},
	}, nil
}

// valueHead is how many bytes stand before the JSON of a value: the hash of
// member and JSON, and the lease, 0 for a setting; 16 hex digits each. Scripts
// need both and do not read JSON.
const valueHead = 32

// value is what is kept of a host or a setting.
func value(member string, lease registry.Lease, text []byte) string {
	h := fnv.New64a()
	_, _ = h.Write([]byte(member)) // a hash never fails
	_, _ = h.Write([]byte{0})
	_, _ = h.Write(text)
	return fmt.Sprintf("%016x%016x%s", h.Sum64(), uint64(lease), text)
}

// textOf is the JSON of a value.
func textOf(value string) ([]byte, error) {
	if len(value) < valueHead {
		return nil, fmt.Errorf("a value of %d bytes", len(value))
	}
	return []byte(value[valueHead:]), nil
}

// sum is the exclusive or of the hashes of values, which a digest is.
type sum uint64

// add takes a value in, what is no hash of it as 0, as scripts do.
func (s *sum) add(value string) {
	half := func(from, to int) uint64 {
		n, err := strconv.ParseUint(value[min(from, len(value)):min(to, len(value))], 16, 32)
		if err != nil {
			return 0
		}
		return n
	}
	*s ^= sum(half(0, 8)<<32 | half(8, 16))
}

func (s sum) String() string { return fmt.Sprintf("%016x", uint64(s)) }
