// Package denial is what a caller is told whom a rule or a limit keeps from
// what it asked for, and how often that happened. Those who refuse make an
// Error; every face answers it with the same status and headers. The package
// knows no rule and decides nothing.
package denial

import (
	"errors"
	"net/http"
	"strconv"
	"time"

	"github.com/prometheus/client_golang/prometheus"
)

// Reason is why something is refused: the label of the counter.
type Reason uint8

const (
	// Token is of callers that show no token, one that nobody knows, or one
	// that is not for what they ask.
	Token Reason = iota
	// Identity is the same of callers that show a certificate.
	Identity
	// Node is of callers that may not be the node of xDS that they say they are.
	Node
	// Address is of hosts that a caller may not register, since they are not at
	// its own address.
	Address
	// Rate is of sources that call too often.
	Rate
	// Hosts is of hosts that a full service has no room for.
	Hosts
	// Services is of services beyond the most that may be.
	Services
	// Tags is of hosts that say too much of themselves.
	Tags
	// Body is of bodies that are too long.
	Body
	// Waiters is of calls that would wait, where as many wait as may.
	Waiters
	// Settings is of settings beyond the most that may be.
	Settings

	reasons // how many there are
)

func (r Reason) String() string {
	return [reasons]string{"token", "identity", "node", "address", "rate", "hosts", "services", "tags", "body", "waiters", "settings"}[r]
}

// Error is one refusal.
type Error struct {
	// Status is that of HTTP: 400, 401, 403, 413 or 429.
	Status int
	Reason Reason
	// Text says what is missing, or too much. It holds no secret.
	Text string
	// Challenge is the WWW-Authenticate of a 401.
	Challenge string
	// RetryAfter is after how long it may be tried again; 0 if that helps not.
	RetryAfter time.Duration
}

func (e *Error) Error() string { return e.Text }

// SetHeaders sets what an answer of e says beside its status and its text.
func (e *Error) SetHeaders(h http.Header) {
	if e.Challenge != "" {
		h.Set("WWW-Authenticate", e.Challenge)
	}
	SetRetryAfter(h, e.RetryAfter)
}

// SetRetryAfter sets after how long a call may be tried again, in whole seconds;
// nothing if that is 0.
func SetRetryAfter(h http.Header, after time.Duration) {
	if after > 0 {
		seconds := (after + time.Second - 1) / time.Second
		h.Set("Retry-After", strconv.FormatInt(int64(seconds), 10))
	}
}

// Limit says how an error of somebody who does not know this package is
// answered.
type Limit struct {
	// Err is what the error is, by errors.Is.
	Err    error
	Reason Reason
	Status int
	// RetryAfter is after how long there may be room again; 0 if that helps not.
	RetryAfter time.Duration
}

// Counters counts, and tells denials from other errors. Its methods may be
// called on nil, which counts nothing and knows no Limit.
type Counters struct {
	counters [reasons]prometheus.Counter
	limits   []Limit
}

// NewCounters registers the counters: one of every reason, so that a graph has
// them all from the start.
func NewCounters(registerer prometheus.Registerer, limits ...Limit) *Counters {
	vec := prometheus.NewCounterVec(prometheus.CounterOpts{
		Name: "discovery_refusals_total",
		Help: "What callers were refused by a rule or a limit, by reason.",
	}, []string{"reason"})
	registerer.MustRegister(vec)
	c := &Counters{limits: limits}
	for reason := range reasons {
		c.counters[reason] = vec.WithLabelValues(reason.String())
	}
	return c
}

// Count counts one refusal.
func (c *Counters) Count(reason Reason) {
	if c != nil {
		c.counters[reason].Inc()
	}
}

// Of returns the refusal that err is, or comes of by a Limit; nil if it is none.
func (c *Counters) Of(err error) *Error {
	if refused, ok := errors.AsType[*Error](err); ok {
		return refused
	}
	if l := c.limit(err); l != nil {
		return &Error{Status: l.Status, Reason: l.Reason, Text: err.Error(), RetryAfter: l.RetryAfter}
	}
	return nil
}

// Note counts err if it comes of a Limit; an *Error was counted by who made it.
// A face calls it once for each call that it refuses.
func (c *Counters) Note(err error) {
	if l := c.limit(err); l != nil {
		c.Count(l.Reason)
	}
}

// limit is the Limit that err comes of, or nil.
func (c *Counters) limit(err error) *Limit {
	if c == nil || err == nil {
		return nil
	}
	for i := range c.limits {
		if errors.Is(err, c.limits[i].Err) {
			return &c.limits[i]
		}
	}
	return nil
}
