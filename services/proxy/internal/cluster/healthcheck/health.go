package healthcheck

import (
	"math"
	"math/rand/v2"
	"time"

	"github.com/weirproxy/weir/services/proxy/internal/coreconfig"
)

// Health is what is known of one host, in the words of Envoy's host flags.
type Health struct {
	// Failed: it is not to get requests (FAILED_ACTIVE_HC).
	Failed bool
	// Pending: there is no result yet (PENDING_ACTIVE_HC). The host is Failed
	// meanwhile.
	Pending bool
	// Excluded: the host itself asked for no more requests
	// (EXCLUDED_VIA_IMMEDIATE_HC_FAIL), so that panic should not bring it any.
	Excluded bool
	// TimedOut: the last failure was that nothing came in time (ACTIVE_HC_TIMEOUT).
	TimedOut bool
}

// Initial is the health of a host before its first result.
var Initial = Health{Failed: true, Pending: true}

// verdict is how a check ended.
type verdict int

const (
	// passed: the host is well.
	passed verdict = iota
	// failed: it answered that it is not, which counts at once.
	failed
	// retriable: it answered something that counts by unhealthy_threshold.
	retriable
	// network: it could not be reached, or broke the protocol.
	network
	// timedOut: it did not answer in time.
	timedOut
	// passive: an answer to a request said so; no check did.
	passive
)

// result is a check's verdict.
type result struct {
	verdict verdict
	// why is what went wrong, for the log; empty if nothing did.
	why string
	// excluded: the host sent x-envoy-immediate-health-check-fail.
	excluded bool
}

// step is what a result did to a host's health.
type step int

const (
	unchanged step = iota
	// changePending: a threshold is not reached yet.
	changePending
	changed
)

// progress is the way of one host to its next change of health: the pure rule
// of the thresholds. The zero value with Initial is that of a new host.
type progress struct {
	health Health
	// Results in a row, as long as they point to a change.
	passes, failures uint32
	checked          bool // there was a result
}

// record takes in a result. Steps:
//
//  1. a pass makes a failed host well once there were healthy_threshold in a
//     row, or if it is the first result of all;
//  2. a failure makes a healthy host failed once there were unhealthy_threshold
//     in a row; at once, if it is no matter of the network and not retriable;
//  3. either ends the wait for a first result.
func (p *progress) record(r result, c *Config) step {
	done := unchanged
	if r.verdict == passed {
		p.failures = 0
		if p.health.Failed {
			p.passes++
			if done = changePending; !p.checked || p.passes >= c.HealthyThreshold {
				p.health, p.passes, done = Health{}, 0, changed
			}
		} else {
			p.health = Health{}
		}
	} else {
		p.passes = 0
		if !p.health.Failed {
			p.failures++
			atOnce := r.verdict == failed || r.verdict == passive
			if done = changePending; atOnce || p.failures >= c.UnhealthyThreshold {
				p.health.Failed, p.failures, done = true, 0, changed
			}
		}
		p.health.TimedOut = r.verdict == timedOut
		p.health.Excluded = p.health.Excluded || r.excluded
	}
	if p.health.Pending {
		p.health.Pending, done = false, changed
	}
	p.checked = true
	return done
}

// wait is the time until the next check after one that ended with v and did
// that step: by Envoy's rule, which uses the edge intervals while a threshold
// is not reached. Used says that the cluster has had traffic.
func (c *Config) wait(v verdict, done step, used bool) time.Duration {
	base := c.Interval
	switch healthy := v == passed; {
	case !used && healthy && done != changePending:
		base = c.NoTrafficHealthyInterval
	case !used:
		base = c.NoTrafficInterval
	case healthy && done == changePending:
		base = c.HealthyEdgeInterval
	case !healthy && done == changePending:
		base = c.UnhealthyEdgeInterval
	case !healthy:
		base = c.UnhealthyInterval
	}
	part := min(float64(base)*float64(c.IntervalJitterPercent)/100, math.MaxInt64/2)
	return coreconfig.Sum(base, below(time.Duration(part)), below(c.IntervalJitter))
}

// below is a random time from 0 to below d, 0 if d is.
func below(d time.Duration) time.Duration {
	if d <= 0 {
		return 0
	}
	return rand.N(d)
}
