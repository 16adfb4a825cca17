package retry

import (
	"maps"
	"slices"
	"strings"
)

// Conditions is a set of what retry_on can name.
type Conditions uint32

// The conditions (RetryPolicy.retry_on, x-envoy-retry-on, x-envoy-retry-grpc-on).
const (
	On5xx Conditions = 1 << iota
	OnGatewayError
	OnReset
	OnResetBeforeRequest
	OnConnectFailure
	OnEnvoyRateLimited
	OnRetriable4xx
	OnRefusedStream
	OnRetriableStatusCodes
	OnRetriableHeaders
	OnCancelled
	OnDeadlineExceeded
	OnInternal
	OnResourceExhausted
	OnUnavailable

	onGRPC = OnCancelled | OnDeadlineExceeded | OnInternal | OnResourceExhausted | OnUnavailable
)

// ofHTTP and ofGRPC are the conditions by name, of the two headers.
var (
	ofHTTP = map[string]Conditions{
		"5xx": On5xx, "gateway-error": OnGatewayError, "reset": OnReset, "reset-before-request": OnResetBeforeRequest,
		"connect-failure": OnConnectFailure, "envoy-ratelimited": OnEnvoyRateLimited, "retriable-4xx": OnRetriable4xx,
		"refused-stream": OnRefusedStream, "retriable-status-codes": OnRetriableStatusCodes, "retriable-headers": OnRetriableHeaders,
	}
	ofGRPC = map[string]Conditions{
		"cancelled": OnCancelled, "deadline-exceeded": OnDeadlineExceeded, "internal": OnInternal,
		"resource-exhausted": OnResourceExhausted, "unavailable": OnUnavailable,
	}
)

// conditionNames are all names, in words.
func conditionNames() string {
	return strings.Join(append(slices.Sorted(maps.Keys(ofHTTP)), slices.Sorted(maps.Keys(ofGRPC))...), ", ")
}

// String is the conditions as retry_on has them.
func (c Conditions) String() string {
	var list []string
	for _, known := range []map[string]Conditions{ofHTTP, ofGRPC} {
		for _, name := range slices.Sorted(maps.Keys(known)) {
			if c&known[name] != 0 {
				list = append(list, name)
			}
		}
	}
	return strings.Join(list, ",")
}

// parseConditions reads a list of names with commas between them, of both kinds.
func parseConditions(list string) (set Conditions, unknown []string) {
	for name := range names(list) {
		condition := ofHTTP[name] | ofGRPC[name]
		if condition == 0 {
			unknown = append(unknown, name)
		}
		set |= condition
	}
	return set, unknown
}

// CheckHTTP says whether a list, that of x-envoy-retry-on, has only names of
// conditions of HTTP.
func CheckHTTP(list string) bool { return only(ofHTTP, list) }

// CheckGRPC is CheckHTTP for x-envoy-retry-grpc-on.
func CheckGRPC(list string) bool { return only(ofGRPC, list) }

func only(known map[string]Conditions, list string) bool {
	for name := range names(list) {
		if known[name] == 0 {
			return false
		}
	}
	return true
}

// sum is the conditions of a list that are known; others have no effect.
func sum(known map[string]Conditions, list string) (set Conditions) {
	for name := range names(list) {
		set |= known[name]
	}
	return set
}

// names yields the parts of a list with commas between them, without their
// spaces and without empty ones.
func names(list string) func(yield func(string) bool) {
	return func(yield func(string) bool) {
		for part := range strings.SplitSeq(list, ",") {
			if part = strings.TrimSpace(part); part != "" && !yield(part) {
				return
			}
		}
	}
}
