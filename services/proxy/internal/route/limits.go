package route

import "github.com/weirproxy/weir/services/proxy/internal/descriptor"

// HostLimits says when the rate limits of a virtual host count, by what filters
// call vh_rate_limits.
type HostLimits int

// The rules. include_vh_rate_limits of a route comes before them all.
const (
	OverrideHostLimits HostLimits = iota // where the route has none
	IncludeHostLimits                    // behind those of the route
	IgnoreHostLimits                     // never
)

// takesHostLimits says whether the virtual host's limits count. A route that has
// limits of any stage has some.
func (r *Route) takesHostLimits(rule HostLimits) bool {
	return r.includesHostLimits || rule == IncludeHostLimits || rule == OverrideHostLimits && len(r.RateLimits) == 0
}

// AppendDescriptors builds the descriptors of a request by the policies of its
// route and virtual host that are of the stage, and for the end of the stream if
// onStreamDone is set.
func (r *Route) AppendDescriptors(rule HostLimits, stage int, onStreamDone bool, l *descriptor.List, in *descriptor.Input) {
	descriptor.AppendAll(r.RateLimits, stage, onStreamDone, l, in)
	if r.takesHostLimits(rule) {
		descriptor.AppendAll(r.VirtualHostRateLimits, stage, onStreamDone, l, in)
	}
}
