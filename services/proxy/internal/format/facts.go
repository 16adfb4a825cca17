package format

import (
	"net/netip"
	"sync"
	"sync/atomic"
	"time"

	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	"google.golang.org/protobuf/types/known/structpb"

	"github.com/weirproxy/weir/services/proxy/internal/message"
)

// Facts is what can be said of one request and its response. The connection
// manager and the filters write each fact as it comes to be known; one that
// is not known has its zero value. Only what is written through a method may be
// written beside a reader.
type Facts struct {
	// Request and Response are the heads as they are at present; nil is none.
	Request  *message.Request
	Response *message.Response
	// ResponseTrailers is nil if there are none.
	ResponseTrailers *message.Headers
	// Connection is the client's; nil is unknown.
	Connection *Connection
	// Downstream and Upstream count what has gone over the wire between the client and
	// the proxy, and between the proxy and hosts in all attempts; nil counts nothing.
	Downstream, Upstream Meter
	// Start is when the first byte of the request came.
	Start time.Time
	// Remote is the client that is trusted to be the one; its port is 0 where
	// x-forwarded-for told of it.
	Remote netip.AddrPort
	// Protocol is what the client speaks, and UpstreamProtocol what the host
	// does: "HTTP/1.1".
	Protocol, UpstreamProtocol string
	// ResponseCode is the status that went to the client, or that an upstream
	// sent: while the headers of a local reply are made it is still 0.
	ResponseCode int
	// Details says who answered and why, by Envoy's names: "via_upstream".
	Details string
	// TerminationDetails says why the connection was given up, if it was.
	TerminationDetails string
	Flags              Flags
	RouteName          string
	// Cluster is the name of the cluster that the route chose.
	Cluster string
	// UpstreamHost is the host that was picked, UpstreamLocal our end of the
	// connection to it: not valid before there is one.
	UpstreamHost, UpstreamLocal netip.AddrPort
	// UpstreamConnection is the number of that connection, as its host counts.
	UpstreamConnection uint64
	// UpstreamFailure is why the connection could not be made.
	UpstreamFailure string
	// Attempts counts the attempts, one for which there was no host too.
	Attempts int
	// HealthCheck says that the request asked after our own health.
	HealthCheck bool
	// ForcedTrace says that the request is traced since a service asked for it, with
	// x-envoy-force-trace or the mark of that in x-request-id.
	ForcedTrace bool
	// LogType is when an access log is written (ACCESS_LOG_TYPE); empty is at the end of
	// the request.
	LogType string
	// LocalReplyBody is the body of a reply of our own, while it is formatted.
	LocalReplyBody string
	// DynamicMetadata is what filters say to each other, by namespace. A struct in it
	// stays as it is: who has more to say puts another in its place.
	DynamicMetadata map[string]*structpb.Struct
	// What the configuration says of the route, its virtual host, the cluster and the
	// host; nil for nothing.
	RouteMetadata, VirtualHostMetadata, ClusterMetadata, HostMetadata *corev3.Metadata

	received, sent atomic.Int64 // bytes of bodies
	// moments are distances from Start in nanoseconds; 0 is not yet.
	moments [momentCount]atomic.Int64
	scratch []byte
}

// Connection is what can be said of a client's connection.
type Connection struct {
	// ID tells the connections of the process apart.
	ID uint64
	// Peer is the other end, Local ours.
	Peer, Local netip.AddrPort
	// FilterChain is the name of the filter chain that serves it, ChainMetadata what
	// the configuration says of that; it may be nil.
	FilterChain   string
	ChainMetadata *corev3.Metadata
	// Kept is what filters keep for as long as the connection lives, each under a
	// key of its own.
	Kept sync.Map
}

// Moment is a point in the life of a request.
type Moment int

// The moments by the names of COMMON_DURATION, in the order of most requests.
// DS_RX_BEG is Start.
const (
	RequestEnd           Moment = iota // DS_RX_END: the request's last byte came
	UpstreamConnectBegin               // US_CX_BEG
	UpstreamConnectEnd                 // US_CX_END
	UpstreamRequestBegin               // US_TX_BEG: its first byte was sent on
	UpstreamRequestEnd                 // US_TX_END: its last one
	ResponseBegin                      // US_RX_BEG: the response's first byte came
	UpstreamResponseEnd                // US_RX_END: its last one
	SendBegin                          // DS_TX_BEG: its first byte was sent on
	SendEnd                            // DS_TX_END: its last one
	momentCount
)

// Reset makes the facts those of a new request, of which nothing is known. The
// heads stay where they are.
func (f *Facts) Reset(request *message.Request, response *message.Response, connection *Connection) {
	scratch := f.scratch
	*f = Facts{Request: request, Response: response, Connection: connection, scratch: scratch}
}

// Mark notes when a moment was; the last time that it is told counts.
func (f *Facts) Mark(m Moment, at time.Time) {
	since := int64(at.Sub(f.Start))
	if since == 0 {
		since = 1
	}
	f.moments[m].Store(since)
}

// Since is when a moment was, from Start on, and whether it was. It can be
// before Start, for a connection that was made for an earlier request.
func (f *Facts) Since(m Moment) (time.Duration, bool) {
	since := f.moments[m].Load()
	return time.Duration(since), since != 0
}

// Duration is how long the request took, or has taken so far.
func (f *Facts) Duration() time.Duration {
	if end, ok := f.Since(SendEnd); ok {
		return end
	}
	return time.Since(f.Start)
}

// AddReceived counts bytes of the request's body.
func (f *Facts) AddReceived(n int) { f.received.Add(int64(n)) }

// ReceivedBytes counts the request's body so far.
func (f *Facts) ReceivedBytes() int64 { return f.received.Load() }

// AddSent counts bytes of the response's body that went to the client.
func (f *Facts) AddSent(n int) { f.sent.Add(int64(n)) }

// SetSent is the count of them so far, where another counts them.
func (f *Facts) SetSent(n int64) { f.sent.Store(n) }

// SentBytes counts the response's body as the client got it so far.
func (f *Facts) SentBytes() int64 { return f.sent.Load() }
