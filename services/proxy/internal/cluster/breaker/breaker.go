// Package breaker holds the circuit breakers of a cluster: how many
// connections, requests and retries may burden it at a time, for each routing
// priority. The cluster makes them; package upstream, the router and the
// connection pools take and give back. They count, and stop nothing by themselves.
package breaker

import (
	"math"
	"sync/atomic"

	clusterv3 "github.com/envoyproxy/go-control-plane/envoy/config/cluster/v3"
	"google.golang.org/protobuf/reflect/protoreflect"

	"github.com/weirproxy/weir/services/proxy/internal/stats"
	"github.com/weirproxy/weir/services/proxy/internal/strict"
)

// Fields are the supported fields of the messages that Parse reads.
func Fields() strict.Fields {
	return strict.Fields{
		"envoy.config.cluster.v3.CircuitBreakers": {"thresholds", "per_host_thresholds"},
		"envoy.config.cluster.v3.CircuitBreakers.Thresholds": {
			"priority", "max_connections", "max_pending_requests", "max_requests", "max_retries", "max_connection_pools", "retry_budget",
			"track_remaining",
		},
		"envoy.config.cluster.v3.CircuitBreakers.Thresholds.RetryBudget": {"budget_percent", "min_retry_concurrency"},
		"envoy.type.v3.Percent": {"value"},
	}
}

// Thresholds are the limits of one routing priority (CircuitBreakers.Thresholds).
type Thresholds struct {
	MaxConnections, MaxPendingRequests, MaxRequests, MaxRetries, MaxConnectionPools uint32
	// MaxHostConnections is how many connections a host may have
	// (per_host_thresholds.max_connections).
	MaxHostConnections uint32
	// RetryBudget, if not nil, takes the place of MaxRetries.
	RetryBudget *RetryBudget
	// TrackRemaining says that what is left is told as metrics.
	TrackRemaining bool
}

// RetryBudget bounds retries by what else is under way.
type RetryBudget struct {
	// Percent is of requests that are active or wait for a connection.
	Percent float64
	// Least is how many retries there may be in any case.
	Least uint32
}

// defaultThresholds are Envoy's.
var defaultThresholds = Thresholds{
	MaxConnections: 1024, MaxPendingRequests: 1024, MaxRequests: 1024, MaxRetries: 3,
	MaxConnectionPools: math.MaxUint32, MaxHostConnections: math.MaxUint32,
}

// priorityNames are what metrics call the values of RoutingPriority.
var priorityNames = [2]string{"default", "high"}

// Parse reads the limits of each RoutingPriority from a message at the path at. Of two
// for the same the first holds, as in Envoy. Faults go to report.
func Parse(breakers *clusterv3.CircuitBreakers, at strict.Path, report *strict.Report) [2]Thresholds {
	made := [2]Thresholds{defaultThresholds, defaultThresholds}
	for priority, message := range byPriority(breakers.GetThresholds()) {
		if message != nil {
			made[priority].parse(message)
		}
	}
	for i, message := range breakers.GetPerHostThresholds() {
		checkOfHost(message, at.Field("per_host_thresholds").Index(i), report)
	}
	for priority, message := range byPriority(breakers.GetPerHostThresholds()) {
		if n := message.GetMaxConnections(); n != nil {
			made[priority].MaxHostConnections = n.GetValue()
		}
	}
	return made
}

// byPriority are the first limits of each RoutingPriority, nil for none.
func byPriority(list []*clusterv3.CircuitBreakers_Thresholds) [2]*clusterv3.CircuitBreakers_Thresholds {
	var first [2]*clusterv3.CircuitBreakers_Thresholds
	for _, message := range list {
		// One that is none is refused by the schema's walk.
		if p := message.GetPriority(); p >= 0 && int(p) < len(first) && first[p] == nil {
			first[p] = message
		}
	}
	return first
}

// checkOfHost reports limits that a host has not.
func checkOfHost(message *clusterv3.CircuitBreakers_Thresholds, at strict.Path, report *strict.Report) {
	message.ProtoReflect().Range(func(field protoreflect.FieldDescriptor, _ protoreflect.Value) bool {
		switch field.Name() {
		case "priority", "max_connections":
		default:
			report.Add(at.Field(string(field.Name())), "a host has a limit of connections alone: max_connections")
		}
		return true
	})
}

func (t *Thresholds) parse(message *clusterv3.CircuitBreakers_Thresholds) {
	if n := message.GetMaxConnections(); n != nil {
		t.MaxConnections = n.GetValue()
	}
	if n := message.GetMaxPendingRequests(); n != nil {
		t.MaxPendingRequests = n.GetValue()
	}
	if n := message.GetMaxRequests(); n != nil {
		t.MaxRequests = n.GetValue()
	}
	if n := message.GetMaxRetries(); n != nil {
		t.MaxRetries = n.GetValue()
	}
	if n := message.GetMaxConnectionPools(); n != nil {
		t.MaxConnectionPools = n.GetValue()
	}
	t.TrackRemaining = message.GetTrackRemaining()
	if budget := message.GetRetryBudget(); budget != nil {
		t.RetryBudget = &RetryBudget{Percent: 20, Least: 3}
		if p := budget.GetBudgetPercent(); p != nil {
			t.RetryBudget.Percent = p.GetValue()
		}
		if n := budget.GetMinRetryConcurrency(); n != nil {
			t.RetryBudget.Least = n.GetValue()
		}
	}
}

// Set is the breakers of one routing priority. They are the cluster's: one that
// changes begins at none.
type Set struct {
	// Connections to its hosts. A host without any may have its first beyond
	// the limit: Take it then.
	Connections Resource
	// HostConnections is how many connections a host may have, but for its first.
	HostConnections int64
	// PendingRequests wait for a connection.
	PendingRequests Resource
	// Requests are under way, from the choice of their host to their end.
	Requests Resource
	// Retries are requests that were sent again.
	Retries Resource
	// Pools have connections.
	Pools Resource
}

// New makes the breakers of both priorities. Scope is the cluster's.
func New(limits [2]Thresholds, scope *stats.Scope) [2]*Set {
	var made [2]*Set
	for i, t := range limits {
		made[i] = newSet(t, scope.Scope("circuit_breakers").Scope(priorityNames[i]))
	}
	return made
}

func newSet(t Thresholds, scope *stats.Scope) *Set {
	b := &Set{HostConnections: int64(t.MaxHostConnections)}
	remaining := func(name string) *stats.Gauge {
		if !t.TrackRemaining {
			return nil
		}
		return scope.Gauge("remaining_" + name)
	}
	b.Connections.init(t.MaxConnections, scope.Gauge("cx_open"), remaining("cx"))
	b.PendingRequests.init(t.MaxPendingRequests, scope.Gauge("rq_pending_open"), remaining("pending"))
	b.Pools.init(t.MaxConnectionPools, scope.Gauge("cx_pool_open"), remaining("cx_pools"))
	b.Requests.init(t.MaxRequests, scope.Gauge("rq_open"), remaining("rq"))
	retriesOpen, retriesLeft := scope.Gauge("rq_retry_open"), remaining("retries")
	if t.RetryBudget == nil {
		b.Retries.init(t.MaxRetries, retriesOpen, retriesLeft)
		return b
	}
	b.Retries.budget = func() int64 {
		burden := float64(b.Requests.Used() + b.PendingRequests.Used())
		return max(int64(burden*t.RetryBudget.Percent/100), int64(t.RetryBudget.Least))
	}
	b.Retries.init(t.RetryBudget.Least, retriesOpen, nil) // what remains of a budget is not told, as in Envoy
	return b
}

// Resource is something of which there may be so many at a time. It is safe
// for use by many goroutines, and never blocks.
type Resource struct {
	used  atomic.Int64
	fixed int64
	// budget, if not nil, is the limit at the moment, in the place of fixed.
	budget    func() int64
	open      *stats.Gauge // 1 while there are no more to get
	remaining *stats.Gauge // nil if not wanted
}

func (r *Resource) init(limit uint32, open, remaining *stats.Gauge) {
	r.fixed, r.open, r.remaining = int64(limit), open, remaining
	if limit == 0 || remaining != nil {
		r.tell()
	}
}

// Acquire gets one, to be given back by Release, or says that there is none.
func (r *Resource) Acquire() bool {
	for {
		used := r.used.Load()
		limit := r.limit()
		if used >= limit {
			return false
		}
		if r.used.CompareAndSwap(used, used+1) {
			if used+1 == limit || r.remaining != nil {
				r.tell()
			}
			return true
		}
	}
}

// Take gets one whatever the limit, to be given back by Release.
func (r *Resource) Take() {
	r.used.Add(1)
	r.tell()
}

// Release gives one back.
func (r *Resource) Release() {
	if used := r.used.Add(-1); used+1 >= r.limit() || r.remaining != nil {
		r.tell()
	}
}

// Used is how many are in use.
func (r *Resource) Used() int64 { return r.used.Load() }

func (r *Resource) limit() int64 {
	if r.budget != nil {
		return r.budget()
	}
	return r.fixed
}

// tell sets the gauges to what holds now.
func (r *Resource) tell() {
	left := max(r.limit()-r.used.Load(), 0)
	open := int64(0)
	if left == 0 {
		open = 1
	}
	if r.open.Value() != open {
		r.open.Set(open)
	}
	if r.remaining != nil {
		r.remaining.Set(left)
	}
}
