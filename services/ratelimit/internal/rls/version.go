package rls

import "github.com/weirproxy/weir/services/ratelimit/internal/limits"

// Version is one of the protocol's versions. What they share has the same
// numbers in all of them.
type Version int

// The versions. JSON is V3 in another writing.
const (
	V3   Version = iota // envoy.service.ratelimit.v3
	V2                  // envoy.service.ratelimit.v2
	Lyft                // pb.lyft.ratelimit, the first
	jsonV3
)

// dialect is what a version can express.
type dialect struct {
	// name is the version's label in metrics.
	name string
	// own says that a descriptor may bring a limit and hits of its own.
	own bool
	// names says that answers tell the limit's name, headers that they bring
	// headers; whole that they have what came with version 3: the time until
	// the limit is whole again, multiples of units and dynamic metadata.
	names, headers, whole bool
	// lastUnit is the largest unit that answers have a number for. Others are
	// told as UNKNOWN, 0.
	lastUnit limits.Unit
}

// dialects is indexed by Version.
var dialects = [...]dialect{
	V3:     {name: "v3", own: true, names: true, headers: true, whole: true, lastUnit: limits.Week},
	V2:     {name: "v2", names: true, headers: true, lastUnit: limits.Day},
	Lyft:   {name: "lyft", lastUnit: limits.Day},
	jsonV3: {name: "json", own: true, names: true, headers: true, whole: true, lastUnit: limits.Week},
}

// String is the version's name in metrics: v3, v2, lyft or json.
func (v Version) String() string { return dialects[v].name }
