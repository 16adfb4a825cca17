// Package lrs takes load reports (LRS, envoy.service.load_stats.v3): how many
// requests each Envoy or gRPC client sent to each cluster, locality and host, and
// what became of them. The app registers it on the gRPC listener; REST and
// /metrics show what is known. It steers nothing by them, and forgets what a
// client said when the client's stream ends or says nothing for a while.
package lrs

import (
	"context"
	"errors"
	"io"
	"sync"
	"time"

	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	loadstats "github.com/envoyproxy/go-control-plane/envoy/service/load_stats/v3"
	"github.com/prometheus/client_golang/prometheus"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/durationpb"

	"github.com/weirproxy/weir/services/discovery/internal/hello"
)

// Options is what a server is made of. Every field but MayBe is required.
type Options struct {
	// Interval is how often clients are asked to report.
	Interval time.Duration
	// Endpoints asks clients to report each host too, and not localities alone.
	// gRPC clients never do.
	Endpoints bool
	// MaxStreams is how many streams are served at once, and MaxRows how many
	// clusters, localities, hosts and categories of dropped requests are
	// remembered of all reports together, and a tenth of it of one; each with a
	// name of up to 256 bytes, and as one more for every 256 bytes beyond.
	MaxStreams, MaxRows int
	// MayBe returns why who opened a stream may not be the node of its first
	// request, of which it is told id and cluster; the error is a gRPC status. nil
	// lets everyone be any. Server.RecheckNodes has it asked again.
	MayBe   func(ctx context.Context, node *corev3.Node) error
	Metrics prometheus.Registerer
}

// Server serves LoadReportingService.
type Server struct {
	loadstats.UnimplementedLoadReportingServiceServer
	options  Options
	metrics  *metrics
	stopping chan struct{} // closed by Stop

	mu      sync.Mutex
	reports map[*report]struct{} // one of each stream
	rows    int                  // of all reports
}

// New makes a server; Register puts it on a gRPC server.
func New(o Options) *Server {
	s := &Server{options: o, stopping: make(chan struct{}), reports: map[*report]struct{}{}}
	s.metrics = newMetrics(o.Metrics, s)
	return s
}

// Register puts s on a gRPC server that does not serve yet.
func (s *Server) Register(server grpc.ServiceRegistrar) {
	loadstats.RegisterLoadReportingServiceServer(server, s)
}

// Stop ends all streams. It must be called once.
func (s *Server) Stop() { close(s.stopping) }

// silentIntervals is after how many intervals without a report a client's last
// one no longer counts.
const silentIntervals = 3

// wire is the gRPC stream of one client.
type wire = grpc.BidiStreamingServer[loadstats.LoadStatsRequest, loadstats.LoadStatsResponse]

// StreamLoadStats serves one client: its first request says who it is and is
// answered with what to report, all later ones are reports.
//
// It takes no more than what reading takes: clients are the proxies that are told
// of hosts, nothing is steered by what they say, and whoever may be a node may say
// what that sends. Where that is too much, rules close reads and say who may be
// which node.
func (s *Server) StreamLoadStats(w wire) error {
	r := newReport(w.Context())
	if !s.join(r) {
		s.metrics.refused.Inc()
		return status.Errorf(codes.ResourceExhausted, "%d streams of load reports are open, the most that are served", s.options.MaxStreams)
	}
	defer s.leave(r)
	// Ends when the stream does, which is when this method returns; nobody waits.
	go func() { r.end(s.receive(w, r)) }()
	select {
	case err := <-r.ended:
		return endOf(err)
	case <-s.stopping:
		return status.Error(codes.Unavailable, "this server is stopping")
	}
}

// receive answers the first request and takes reports until the stream ends.
func (s *Server) receive(w wire, r *report) error {
	came := hello.Expect(r.end)
	defer came()
	for answered := false; ; answered = true {
		m, err := w.Recv()
		if err != nil {
			return err
		}
		came()
		if !answered {
			if err := s.begin(r, m.GetNode()); err != nil {
				return err
			}
		}
		s.take(r, m)
		if answered {
			continue
		}
		err = w.Send(&loadstats.LoadStatsResponse{
			SendAllClusters:           true,
			LoadReportingInterval:     durationpb.New(s.options.Interval),
			ReportEndpointGranularity: s.options.Endpoints,
		})
		if err != nil {
			return err
		}
	}
}

// begin takes in who a client is. The error says that it may not be that.
func (s *Server) begin(r *report, node *corev3.Node) error {
	s.mu.Lock()
	r.node = &corev3.Node{Id: node.GetId(), Cluster: node.GetCluster()}
	s.mu.Unlock()
	return s.judge(r)
}

// judge returns why a client may not be its node.
func (s *Server) judge(r *report) error {
	if s.options.MayBe == nil {
		return nil
	}
	err := s.options.MayBe(r.ctx, r.node)
	if err != nil {
		s.metrics.refused.Inc()
	}
	return err
}

// RecheckNodes ends the streams of clients that may not be their nodes any more.
func (s *Server) RecheckNodes() {
	for _, r := range s.begun() {
		if err := s.judge(r); err != nil {
			r.end(err)
		}
	}
}

// begun returns the reports of the clients that said who they are.
func (s *Server) begun() (list []*report) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for r := range s.reports {
		if r.node != nil {
			list = append(list, r)
		}
	}
	return list
}

// endOf is how a stream ends whose client is done.
func endOf(err error) error {
	if errors.Is(err, io.EOF) {
		return nil
	}
	return err
}

// join takes a stream in, unless there are most of them already.
func (s *Server) join(r *report) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if len(s.reports) >= s.options.MaxStreams {
		return false
	}
	s.reports[r] = struct{}{}
	s.metrics.streams.Set(float64(len(s.reports)))
	return true
}

func (s *Server) leave(r *report) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.rows -= r.rows
	delete(s.reports, r)
	s.metrics.streams.Set(float64(len(s.reports)))
}

// streamShare is of how many streams each could have as much as one may have: a
// single one must not leave the others nothing.
const streamShare = 10

// take makes m the client's last report. One that is larger than what may be
// remembered counts as none: the one before it holds until it is old.
func (s *Server) take(r *report, m *loadstats.LoadStatsRequest) {
	if len(m.GetClusterStats()) == 0 && r.at.IsZero() {
		return // the first request, as a rule, has none
	}
	clusters, rows := read(m.GetClusterStats(), s.options.Interval)
	s.mu.Lock()
	defer s.mu.Unlock()
	if _, open := s.reports[r]; !open {
		return // its stream ended meanwhile
	}
	if rows > max(1, s.options.MaxRows/streamShare) || s.rows-r.rows+rows > s.options.MaxRows {
		s.metrics.tooLarge.Inc()
		return
	}
	s.rows += rows - r.rows
	r.at, r.clusters, r.rows = time.Now(), clusters, rows
	s.metrics.reports.Inc()
}
