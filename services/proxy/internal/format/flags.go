package format

import "math/bits"

// Flags is a set of response flags: what went wrong with a request.
type Flags uint64

// The response flags in the order of RESPONSE_FLAGS. Envoy's is that in which a request
// gets them: faults first, and that there are no more retries before why the last failed.
const (
	FailedLocalHealthCheck Flags = 1 << iota
	DelayInjected
	FaultInjected
	UpstreamRetryLimitExceeded
	NoHealthyUpstream
	UpstreamRequestTimeout
	LocalReset
	UpstreamRemoteReset
	UpstreamConnectionFailure
	UpstreamConnectionTermination
	UpstreamOverflow
	NoRouteFound
	RateLimited
	UnauthorizedExternalService
	RateLimitServiceError
	DownstreamConnectionTermination
	StreamIdleTimeout
	InvalidEnvoyRequestHeaders
	DownstreamProtocolError
	UpstreamMaxStreamDurationReached
	ResponseFromCacheFilter
	NoFilterConfigFound
	DurationTimeout
	UpstreamProtocolError
	NoClusterFound
	OverloadManager
	DNSResolutionFailed
	DropOverload
	DownstreamRemoteReset
	UnconditionalDropOverload
)

// flagNames are the short and the long name of each flag, in their order.
var flagNames = [...]struct{ short, long string }{
	{"LH", "FailedLocalHealthCheck"},
	{"DI", "DelayInjected"},
	{"FI", "FaultInjected"},
	{"URX", "UpstreamRetryLimitExceeded"},
	{"UH", "NoHealthyUpstream"},
	{"UT", "UpstreamRequestTimeout"},
	{"LR", "LocalReset"},
	{"UR", "UpstreamRemoteReset"},
	{"UF", "UpstreamConnectionFailure"},
	{"UC", "UpstreamConnectionTermination"},
	{"UO", "UpstreamOverflow"},
	{"NR", "NoRouteFound"},
	{"RL", "RateLimited"},
	{"UAEX", "UnauthorizedExternalService"},
	{"RLSE", "RateLimitServiceError"},
	{"DC", "DownstreamConnectionTermination"},
	{"SI", "StreamIdleTimeout"},
	{"IH", "InvalidEnvoyRequestHeaders"},
	{"DPE", "DownstreamProtocolError"},
	{"UMSDR", "UpstreamMaxStreamDurationReached"},
	{"RFCF", "ResponseFromCacheFilter"},
	{"NFCF", "NoFilterConfigFound"},
	{"DT", "DurationTimeout"},
	{"UPE", "UpstreamProtocolError"},
	{"NC", "NoClusterFound"},
	{"OM", "OverloadManagerTerminated"},
	{"DF", "DnsResolutionFailed"},
	{"DO", "DropOverload"},
	{"DR", "DownstreamRemoteReset"},
	{"UDO", "UnconditionalDropOverload"},
}

// Flag is the flag of a short name: "UH".
func Flag(short string) (Flags, bool) {
	for i, names := range flagNames {
		if names.short == short {
			return 1 << i, true
		}
	}
	return 0, false
}

// append writes the names of the flags with commas between them, "-" for none.
func (s Flags) append(b []byte, long bool) []byte {
	if s == 0 {
		return append(b, '-')
	}
	for first := true; s != 0; s &= s - 1 {
		if !first {
			b = append(b, ',')
		}
		first = false
		names := &flagNames[bits.TrailingZeros64(uint64(s))]
		if long {
			b = append(b, names.long...)
		} else {
			b = append(b, names.short...)
		}
	}
	return b
}

// String is RESPONSE_FLAGS: "UH,NC".
func (s Flags) String() string { return string(s.append(nil, false)) }
