package cluster

import (
	"net/netip"
	"strings"
	"sync/atomic"

	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"

	"github.com/weirproxy/weir/services/proxy/internal/cluster/outlier"
	"github.com/weirproxy/weir/services/proxy/internal/connpool"
)

// Host is one upstream address of one cluster. It stays the same in all
// snapshots for as long as the cluster has it.
type Host struct {
	// Address is where the host is. The host of a LOGICAL_DNS cluster moves:
	// this is the first address that it had, and Member.Address the present one.
	Address netip.AddrPort
	// Connections are those to the host, of HTTP/1, or of HTTP/2 if the cluster
	// speaks that.
	Connections *connpool.Pool
	// http2 are those of HTTP/2, where it is the client's version that counts.
	http2 *connpool.Pool
	Stats HostStats
	// Outlier is told how each attempt of a request ended; nil, which takes that
	// too, without outlier detection.
	Outlier *outlier.Monitor[*Host]

	open     atomic.Int64  // connections, for the pools
	flags    atomic.Uint32 // HealthFlags
	metadata atomic.Pointer[corev3.Metadata]
	canary   atomic.Bool // as the metadata says
	hostname atomic.Pointer[string]
	zone     atomic.Pointer[group] // nil if it, or the proxy's own, is not known
}

// labelsOf is the metadata that endpoints are told apart by.
const labelsOf = "envoy.lb"

// Canary says whether the endpoint's metadata calls it a canary.
func (h *Host) Canary() bool { return h.canary.Load() }

// describe makes metadata the host's, which may be nil.
func (h *Host) describe(metadata *corev3.Metadata) {
	h.metadata.Store(metadata)
	h.canary.Store(metadata.GetFilterMetadata()[labelsOf].GetFields()["canary"].GetBoolValue())
}

// Hostname is the endpoint's in the last assignment, or the name that DNS resolved;
// it may be empty.
func (h *Host) Hostname() string {
	if name := h.hostname.Load(); name != nil {
		return *name
	}
	return ""
}

// Metadata is the endpoint's in the last assignment; it may be nil.
func (h *Host) Metadata() *corev3.Metadata { return h.metadata.Load() }

// Pool is where to get a connection from for a request of HTTP/2, or of HTTP/1.
func (h *Host) Pool(http2 bool) *connpool.Pool {
	if http2 && h.http2 != nil {
		return h.http2
	}
	return h.Connections
}

// readdress makes address that of the connections to come.
func (h *Host) readdress(address string) {
	h.Connections.Readdress(address)
	if h.http2 != nil {
		h.http2.Readdress(address)
	}
}

// CloseConnections closes all connections that no request uses.
func (h *Host) CloseConnections() {
	h.Connections.Close()
	if h.http2 != nil {
		h.http2.Close()
	}
}

// HealthFlags say why a host gets no requests, or only the last ones. They are
// Envoy's, and any number of them can be set at once.
type HealthFlags uint32

// The flags, each with who sets it.
const (
	// FailedActiveHC is set by health checks that the host failed.
	FailedActiveHC HealthFlags = 1 << iota
	// FailedOutlierCheck is set while outlier detection has ejected the host.
	FailedOutlierCheck
	// FailedEDSHealth is set by an assignment: UNHEALTHY or TIMEOUT.
	FailedEDSHealth
	// DegradedActiveHC is set by health checks.
	DegradedActiveHC
	// DegradedEDSHealth is set by an assignment: DEGRADED.
	DegradedEDSHealth
	// PendingDynamicRemoval is set while a host that no assignment has any more
	// stays because its health checks pass.
	PendingDynamicRemoval
	// PendingActiveHC is set from a host's coming until its first health check,
	// together with FailedActiveHC.
	PendingActiveHC
	// ExcludedViaImmediateHCFail is set by health checks: the host asked to be
	// left out, and so does not count among those that could serve.
	ExcludedViaImmediateHCFail
	// ActiveHCTimeout is set, beside FailedActiveHC, by checks that took too long.
	ActiveHCTimeout
	// EDSStatusDraining is set by an assignment: DRAINING.
	EDSStatusDraining

	unhealthy = FailedActiveHC | FailedOutlierCheck | FailedEDSHealth | EDSStatusDraining
	degraded  = DegradedActiveHC | DegradedEDSHealth
	ofEDS     = FailedEDSHealth | DegradedEDSHealth | EDSStatusDraining
)

// flagNames are what /clusters calls the flags, from the lowest bit up.
var flagNames = [...]string{
	"/failed_active_hc", "/failed_outlier_check", "/failed_eds_health", "/degraded_active_hc", "/degraded_eds_health",
	"/pending_dynamic_removal", "/pending_active_hc", "/excluded_via_immediate_hc_fail", "/active_hc_timeout", "/eds_status_draining",
}

// String is how /clusters shows the flags: "healthy" if there are none.
func (f HealthFlags) String() string {
	if f == 0 {
		return "healthy"
	}
	var text strings.Builder
	for i, name := range flagNames {
		if f&(1<<i) != 0 {
			text.WriteString(name)
		}
	}
	return text.String()
}

// Healthy says whether nothing is wrong with the host.
func (f HealthFlags) Healthy() bool { return f&(unhealthy|degraded) == 0 }

// Degraded says whether the host serves, but is to be spared.
func (f HealthFlags) Degraded() bool { return f&unhealthy == 0 && f&degraded != 0 }

// excluded says whether the host does not count where shares are taken.
func (f HealthFlags) excluded() bool { return f&ExcludedViaImmediateHCFail != 0 }

// Flags are the host's health as it is now, which may be newer than the
// present snapshot.
func (h *Host) Flags() HealthFlags { return HealthFlags(h.flags.Load()) }

// set turns flags on or off and says whether that changed any.
func (h *Host) set(flags HealthFlags, on bool) (changed bool) {
	if on {
		return HealthFlags(h.flags.Or(uint32(flags)))&flags != flags
	}
	return HealthFlags(h.flags.And(uint32(^flags)))&flags != 0
}

// edsFlags are the flags of a health_status.
func edsFlags(health corev3.HealthStatus) HealthFlags {
	switch health {
	case corev3.HealthStatus_UNHEALTHY, corev3.HealthStatus_TIMEOUT:
		return FailedEDSHealth
	case corev3.HealthStatus_DRAINING:
		return EDSStatusDraining
	case corev3.HealthStatus_DEGRADED:
		return DegradedEDSHealth
	}
	return 0
}

// takeEDS makes the host's flags of an assignment those of its health there.
func (h *Host) takeEDS(health corev3.HealthStatus) {
	flags := edsFlags(health)
	h.set(ofEDS&^flags, false)
	h.set(flags, true)
}

// HostStats are one host's numbers, which /clusters shows.
type HostStats struct {
	ConnectionsTotal, ConnectFailures               atomic.Uint64
	RequestsTotal, RequestsSucceeded, RequestErrors atomic.Uint64
	// RequestTimeouts are attempts that had a connection, and no response in time.
	RequestTimeouts                   atomic.Uint64
	ConnectionsActive, RequestsActive atomic.Int64
}
