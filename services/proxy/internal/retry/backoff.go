package retry

import (
	"math/rand/v2"
	"strconv"
	"time"

	routev3 "github.com/envoyproxy/go-control-plane/envoy/config/route/v3"

	"github.com/weirproxy/weir/services/proxy/internal/layeredruntime"
	"github.com/weirproxy/weir/services/proxy/internal/matcher"
	"github.com/weirproxy/weir/services/proxy/internal/message"
	"github.com/weirproxy/weir/services/proxy/internal/strict"
)

// BackOff is how long the retry that was taken last waits: less than 2ⁿ−1 times
// the base interval, n being its number, and less than max_interval; or, where
// the response before it says when its rate limit is over, from that up to half
// as much again, and rateLimited is true. The values of the runtime, nil for none, have
// the base interval of a policy without a retry_back_off.
func (s *State) BackOff(values *layeredruntime.Snapshot) (d time.Duration, rateLimited bool) {
	if wait := s.wait; wait > 0 {
		s.wait = 0
		return wait + rand.N(wait/2+1), true
	}
	base, most := s.policy.base, s.policy.most
	if base == 0 {
		base = max(time.Duration(values.Integer(layeredruntime.BaseRetryBackOff, defaultBase)), 1) * time.Millisecond
		most = mostFactor * base
	}
	return rand.N(backOffBelow(s.tried, base, most)), false
}

// backOffBelow is what the wait of retry n, from 1 on, is less than.
func backOffBelow(n uint, base, most time.Duration) time.Duration {
	if factor := time.Duration(1)<<min(n, 62) - 1; factor < most/base {
		return factor * base
	}
	return most
}

// resetHeader is a header of a response that says when a rate limit is over.
type resetHeader struct {
	name string // lower case
	// unix says that its value is a time, in seconds since 1970, and not how many
	// seconds are left.
	unix bool
}

func parseResetHeader(m *routev3.RetryPolicy_ResetHeader, at strict.Path, report *strict.Report) resetHeader {
	return resetHeader{matcher.ParseName(m.GetName(), at.Field("name"), report), m.GetFormat() == routev3.RetryPolicy_UNIX_TIMESTAMP}
}

// resetAfter is how long a response wants a retry to wait, by the first of the
// headers whose time is not too long; 0 is that none says.
func (p *Policy) resetAfter(r *message.Response, now time.Time) time.Duration {
	for _, h := range p.resets {
		value, _ := r.Headers.Get(h.name)
		seconds, err := strconv.ParseInt(string(value), 10, 64)
		if err != nil {
			continue
		}
		if h.unix {
			seconds -= now.Unix()
		}
		if seconds > 0 && seconds <= int64(p.resetMost/time.Second) {
			return time.Duration(seconds) * time.Second
		}
	}
	return 0
}
