// Package grpccall makes unary calls of gRPC to the hosts of a cluster, as the router
// makes requests: the cluster's policy picks the host, its pools have the connection, its
// circuit breakers hold, and its metrics and outlier detection hear of the end. rlsclient
// calls with it. It knows no message. It retries nothing, but sends once more what a host
// has not processed, and says so.
package grpccall

import (
	"strconv"
	"time"

	"github.com/weirproxy/weir/services/proxy/internal/cluster"
	"github.com/weirproxy/weir/services/proxy/internal/grpcwire"
	"github.com/weirproxy/weir/services/proxy/internal/layeredruntime"
	"github.com/weirproxy/weir/services/proxy/internal/message"
)

// Options say how a method is called.
type Options struct {
	// Path is the method: "/<package>.<service>/<method>".
	Path string
	// Authority is who is asked for; empty is the cluster's name.
	Authority string
	// Timeout bounds a call; 0 is without limit. It is told to the service in whole
	// milliseconds.
	Timeout time.Duration
	// MaxMessage bounds the message of an answer, in bytes; 0 is gRPC's own bound, 4 MiB.
	MaxMessage uint32
	// SkipEnvoyHeaders has calls go without x-envoy-internal, so that they count as
	// external requests.
	SkipEnvoyHeaders bool
	// Metadata is header fields that calls begin with, names and values by turns.
	Metadata []string
	// Runtime has the values that bear on the cluster; nil is none.
	Runtime *layeredruntime.Runtime
}

// defaultMaxMessage is gRPC's bound of a message.
const defaultMaxMessage = 4 << 20

// userAgent is what calls say of their sender.
const userAgent = "weir"

// Method is a method of a service behind a cluster. It is safe for use by many
// goroutines, one Call each.
type Method struct {
	cluster *cluster.Cluster
	runtime *layeredruntime.Runtime
	timeout time.Duration
	most    uint32 // bytes of an answer's message
	counted cluster.Response
	// request is what all calls begin with. Its headers are only read.
	request message.Request
}

// NewMethod makes a Method. The error is that the cluster speaks no HTTP/2.
func NewMethod(c *cluster.Cluster, o Options) (*Method, error) {
	if err := c.Config.CheckGRPC(); err != nil {
		return nil, err
	}
	m := &Method{
		cluster: c, runtime: o.Runtime, timeout: o.Timeout, most: o.MaxMessage,
		counted: cluster.Response{Internal: !o.SkipEnvoyHeaders},
	}
	if m.most == 0 {
		m.most = defaultMaxMessage
	}
	if o.Authority == "" {
		o.Authority = c.Config.Name
	}
	r := &m.request
	r.Method, r.Scheme, r.Path, r.Authority = []byte("POST"), []byte("http"), []byte(o.Path), []byte(o.Authority)
	h := &r.Headers
	h.Add("te", "trailers")
	h.Add("content-type", grpcwire.ContentType)
	h.Add("user-agent", userAgent)
	if !o.SkipEnvoyHeaders {
		h.Add("x-envoy-internal", "true")
	}
	if o.Timeout > 0 {
		told := max(o.Timeout, time.Millisecond)
		h.Add("grpc-timeout", grpcwire.Timeout(told))
		h.Add("x-envoy-expected-rq-timeout-ms", strconv.FormatInt(told.Milliseconds(), 10))
	}
	for i := 0; i+1 < len(o.Metadata); i += 2 {
		h.Add(o.Metadata[i], o.Metadata[i+1])
	}
	return m, nil
}

// Cluster is the cluster of the service.
func (m *Method) Cluster() *cluster.Cluster { return m.cluster }

// turnAway is why a call is kept from the cluster; nil if it is not.
func (m *Method) turnAway() error {
	if m.cluster.Maintained(m.runtime.Snapshot()) {
		return errMaintained
	}
	if drop, _ := m.cluster.DropOverload(); drop {
		return errDropped
	}
	return nil
}

// of is what a response of a host is counted by.
func (m *Method) of(host *cluster.Host) cluster.Response {
	counted := m.counted
	counted.Host = host
	return counted
}

// count counts a response of a host, or one in its place, by its status of HTTP.
func (m *Method) count(host *cluster.Host, status int) {
	m.cluster.Stats.CountResponse(status, m.of(host))
}
