package outlier

import (
	"math"
	"sync/atomic"
	"time"
)

// Monitor is what is known of one host. One of its Report methods is called for
// each attempt of a request, from any goroutine; they take no lock unless they
// find an outlier, and allocate nothing. A nil Monitor takes reports too, so
// that a cluster without outlier detection needs no other path.
type Monitor[K comparable] struct {
	detector *Detector[K]
	host     K

	// consecutive counts failures in a row, of each consecutive kind.
	consecutive [consecutiveKinds]atomic.Uint32
	// external are results of the host, local those of reaching it.
	external, local tally

	// The rest is the detector's, under its lock.
	ejected   bool
	since     time.Time // of the ejection
	jitter    time.Duration
	backoff   int  // ejections that count for the ejection time
	gone      bool // is no host of the cluster any more
	instances int  // ejections so far
}

// Event is an attempt that ended without a response of the host.
type Event int

// The events of local origin.
const (
	// ConnectFailed: no connection came to be.
	ConnectFailed Event = iota
	// Timeout: the host did not answer in time.
	Timeout
	// Reset: the connection, or the stream, broke before the response's end.
	Reset
)

// ReportStatus reports a response by its status, 100 to 599. For gRPC it is the
// status that belongs to a grpc-status. A connection that bears something else
// than HTTP reports 200 once it was made (Envoy's success of local origin).
func (m *Monitor[K]) ReportStatus(status int) {
	if m == nil {
		return
	}
	if m.detector.config.Split {
		m.local.add(false)
		m.succeed(ConsecutiveLocalOriginFailure)
	}
	m.outcome(status)
}

// ReportLocal reports an attempt that ended without a response. Unless local
// errors are split from the host's own, it counts as 503, or 504 for a timeout.
func (m *Monitor[K]) ReportLocal(event Event) {
	switch {
	case m == nil:
	case m.detector.config.Split:
		m.local.add(true)
		m.fail(ConsecutiveLocalOriginFailure)
	case event == Timeout:
		m.outcome(504)
	default:
		m.outcome(503)
	}
}

// outcome counts a status of the host, or what stands for one.
func (m *Monitor[K]) outcome(status int) {
	failed := status >= 500
	m.external.add(failed)
	if !failed {
		m.succeed(Consecutive5xx)
		m.succeed(ConsecutiveGatewayFailure)
		return
	}
	if status >= 502 && status <= 504 {
		m.fail(ConsecutiveGatewayFailure)
	} else {
		m.succeed(ConsecutiveGatewayFailure)
	}
	m.fail(Consecutive5xx)
}

// succeed ends a row of failures. It writes only where there was one, so that
// goroutines that report successes do not share a line of cache for it.
func (m *Monitor[K]) succeed(kind Kind) {
	if c := &m.consecutive[kind]; c.Load() != 0 {
		c.Store(0)
	}
}

// fail counts a failure, of which one makes the row an outlier.
func (m *Monitor[K]) fail(kind Kind) {
	if m.consecutive[kind].Add(1) == m.detector.config.Consecutive[kind] {
		m.detector.consecutive(m, kind)
	}
}

func (m *Monitor[K]) resetConsecutive() {
	for i := range m.consecutive {
		m.consecutive[i].Store(0)
	}
}

// SuccessRate is the share of successes in the last interval, in percent, or −1
// if there were too few results to tell. Local is that of reaching the host,
// where local errors are split from the host's own.
func (m *Monitor[K]) SuccessRate() (external, local float64) {
	if m == nil {
		return -1, -1
	}
	return m.external.last(), m.local.last()
}

// tally counts the results of one interval in one word: all of them in its low
// half, failures in its high half. So a round reads both of the same moment.
type tally struct {
	counts atomic.Uint64
	rate   atomic.Uint64 // of the last interval: a float64, plus 1 so that 0 is none
}

func (t *tally) add(failed bool) {
	if failed {
		t.counts.Add(1<<32 | 1)
	} else {
		t.counts.Add(1)
	}
}

// take ends an interval: how many results there were, and the percentage of
// successes.
func (t *tally) take() (total uint32, rate float64) {
	n := t.counts.Swap(0)
	total = uint32(n)
	if total == 0 {
		return 0, 0
	}
	return total, 100 * float64(total-uint32(n>>32)) / float64(total)
}

// keep is what last returns from now on.
func (t *tally) keep(rate float64) { t.rate.Store(math.Float64bits(rate + 1)) }

func (t *tally) last() float64 {
	return math.Float64frombits(t.rate.Load()) - 1
}
