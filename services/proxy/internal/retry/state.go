package retry

import (
	"slices"
	"strconv"
	"time"

	"github.com/weirproxy/weir/services/proxy/internal/message"
)

// State is what is left of the retries of one request. It belongs to one
// goroutine. The zero value retries nothing.
type State struct {
	policy   *Policy // nil: nothing is retried
	on       Conditions
	left     uint32
	statuses []uint32 // of the request's header, beside the policy's
	headers  []string // names, likewise, in lower case
	tried    uint     // retries so far
	// wait is how long a rate-limited response wants the next retry to wait at
	// least; 0 is that it does not say.
	wait time.Duration
}

// Begin makes the state that of a request whose route has the policy, which may
// be nil. Headers says that the request may have some of those that steer
// retries; they count for more than the policy.
func (s *State) Begin(p *Policy, r *message.Request, headers bool) {
	*s = State{}
	if p == nil {
		if !headers {
			return
		}
		p = &byHeaders
	}
	s.policy, s.on, s.left = p, p.on, p.retries
	if headers {
		s.on |= sum(ofHTTP, text(r, "x-envoy-retry-on")) | sum(ofGRPC, text(r, "x-envoy-retry-grpc-on"))
	}
	if !p.admits(r) {
		s.on = 0
	}
	if s.on == 0 {
		s.policy = nil
		return
	}
	if headers {
		s.takeHeaders(r)
	}
}

// admits says whether requests like that are retried at all.
func (p *Policy) admits(r *message.Request) bool {
	for i := range p.gate {
		if p.gate[i].Match(r) {
			return true
		}
	}
	return len(p.gate) == 0
}

// takeHeaders reads the headers that say more than the conditions. What of them
// is malformed has no effect.
func (s *State) takeHeaders(r *message.Request) {
	if n, err := strconv.ParseUint(text(r, "x-envoy-max-retries"), 10, 32); err == nil {
		s.left = uint32(n)
	}
	for code := range names(text(r, "x-envoy-retriable-status-codes")) {
		if n, err := strconv.ParseUint(code, 10, 32); err == nil {
			s.statuses = append(s.statuses, uint32(n))
		}
	}
	for name := range names(text(r, "x-envoy-retriable-header-names")) {
		s.headers = append(s.headers, lower(name))
	}
}

func text(r *message.Request, name string) string {
	value, _ := r.Headers.Get(name)
	return string(value)
}

// lower is a field name in lower case.
func lower(name string) string {
	b := []byte(name)
	for i, c := range b {
		if 'A' <= c && c <= 'Z' {
			b[i] = c + 'a' - 'A'
		}
	}
	return string(b)
}

// Enabled says whether anything may be retried.
func (s *State) Enabled() bool { return s.policy != nil }

// Stop makes the state one that retries nothing.
func (s *State) Stop() { s.policy = nil }

// Hosts are those that a retry would rather not go to.
func (s *State) Hosts() *Hosts { return &s.policy.Hosts }

// Reset is how an attempt ended without a response.
type Reset int

// The resets.
const (
	// ConnectFailure: no connection came to be.
	ConnectFailure Reset = iota
	// Broken: the connection or the stream ended, or broke the protocol.
	Broken
	// RefusedStream: the upstream says that it did not begin with the request
	// (RFC 9113 §8.7).
	RefusedStream
	// TimedOut: the attempt took longer than one may.
	TimedOut
	// Overflow: a circuit breaker was open.
	Overflow
)

// WantsAfterReset says whether an attempt that ended so is to be followed by
// another. Sent says that something of the request had gone to an upstream, in
// this attempt or one before.
func (s *State) WantsAfterReset(reset Reset, sent bool) bool {
	switch {
	case s.policy == nil, reset == Overflow:
		return false
	case s.on&(OnReset|On5xx|OnGatewayError) != 0:
		return true
	case s.on&OnConnectFailure != 0 && reset == ConnectFailure:
		return true
	case s.on&OnResetBeforeRequest != 0 && !sent:
		return true
	}
	return s.on&OnRefusedStream != 0 && reset == RefusedStream
}

// WantsAfter says whether a response, of which the head is there, is to be
// dropped for that of another attempt.
func (s *State) WantsAfter(r *message.Response) bool {
	if s.policy == nil || !s.holds(r) {
		return false
	}
	s.wait = s.policy.resetAfter(r, time.Now())
	return true
}

func (s *State) holds(r *message.Response) bool {
	on, p := s.on, s.policy
	if r.Headers.Has("x-envoy-ratelimited") {
		return on&OnEnvoyRateLimited != 0
	}
	status := uint32(r.Status)
	switch {
	case on&On5xx != 0 && status >= 500,
		on&OnGatewayError != 0 && status >= 502 && status <= 504,
		on&OnRetriable4xx != 0 && status == 409,
		on&OnRetriableStatusCodes != 0 && (slices.Contains(p.statuses, status) || slices.Contains(s.statuses, status)),
		on&OnRetriableHeaders != 0 && s.hasRetriable(r):
		return true
	case on&onGRPC == 0:
		return false
	}
	grpc, ok := r.Headers.Get("grpc-status")
	return ok && on&ofGRPCStatus(string(grpc)) != 0
}

// hasRetriable says whether the response has one of the retriable headers.
func (s *State) hasRetriable(r *message.Response) bool {
	for i := range s.policy.headers {
		if s.policy.headers[i].MatchResponse(r) {
			return true
		}
	}
	return slices.ContainsFunc(s.headers, r.Headers.Has)
}

// ofGRPCStatus is the condition that is of a grpc-status; 0 is of none.
func ofGRPCStatus(status string) Conditions {
	switch status {
	case "1":
		return OnCancelled
	case "4":
		return OnDeadlineExceeded
	case "8":
		return OnResourceExhausted
	case "13":
		return OnInternal
	case "14":
		return OnUnavailable
	}
	return 0
}

// Take takes one of the retries, and says whether any was left.
func (s *State) Take() bool {
	if s.left == 0 {
		return false
	}
	s.left--
	s.tried++
	return true
}
