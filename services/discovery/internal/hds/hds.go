// Package hds has Envoys check the health of hosts (HDS,
// envoy.service.health.v3), and tells the registry which hosts they find
// unhealthy. An Envoy with an hds_config is a checker: it opens a stream, is told
// which hosts to check and how, and reports what it found at every interval. A
// file says which services are checked; each host of theirs is given to several
// checkers, and is unhealthy when enough of them say so. The app registers the
// Server on the gRPC listener if there is such a file. It checks nothing itself,
// keeps reports in memory alone, and tells the registry of changes only.
package hds

import (
	"context"
	"fmt"
	"log/slog"
	"maps"
	"slices"
	"sync"
	"time"

	healthv3 "github.com/envoyproxy/go-control-plane/envoy/service/health/v3"
	"github.com/prometheus/client_golang/prometheus"
	"google.golang.org/grpc"

	"github.com/weirproxy/weir/internal/filewatch"
	"github.com/weirproxy/weir/services/discovery/internal/registry"
)

// Options is what a server is made of. Every field is required.
type Options struct {
	Registry *registry.Registry
	// File says what is checked, as ReadRules reads it. Poll is the time between
	// looks at it, for changes of which the file system does not tell.
	File filewatch.File
	Poll time.Duration
	// MaxCheckers is how many checkers are served at once.
	MaxCheckers int
	// MaxShare is the share of a service's checked hosts, from 0 to 1, that are
	// marked as unhealthy at most. Where more are found to be so, the checkers are
	// rather in trouble themselves, and none is marked.
	MaxShare float64
	// Refusal turns what a caller may not do, as package auth says it, into a gRPC
	// status.
	Refusal func(error) error
	Log     *slog.Logger
	Metrics prometheus.Registerer
}

// Server serves HealthDiscoveryService.
type Server struct {
	healthv3.UnimplementedHealthDiscoveryServiceServer
	options  Options
	metrics  *metrics
	watch    *filewatch.Watch
	stopping context.Context // ends with stop
	stop     context.CancelFunc
	// stale has a value when plans are to be made anew, news when checkers said
	// something else than before.
	stale, news chan struct{}

	mu       sync.Mutex
	rules    *Rules
	streams  int                 // open, with a checker that said who it is or not
	checkers map[string]*checker // by their nodes' ids
	polled   map[poller]*checker // those that call
	plans    map[string]*plan    // by service: of those that are checked and have hosts that serve
	dirty    map[string]struct{} // the services whose plans are to be made anew
	touched  map[string]struct{} // the services of which something else was said
}

// New reads the file and makes a server; Register puts it on a gRPC server, and
// Run must be running for anything to be checked. The error names the setting
// and all that is wrong with the file.
func New(o Options) (*Server, error) {
	watch, contents, err := filewatch.Open(filewatch.Options{
		Files: []filewatch.File{o.File}, Poll: o.Poll, What: "health checks", Log: o.Log,
	})
	if err != nil {
		return nil, err
	}
	rules, err := ReadRules(o.File.Path, contents[0])
	if err != nil {
		return nil, fmt.Errorf("%s: %w", o.File.Setting, err)
	}
	s := &Server{
		options: o, metrics: newMetrics(o.Metrics), watch: watch, rules: rules,
		stale: make(chan struct{}, 1), news: make(chan struct{}, 1),
		checkers: map[string]*checker{}, polled: map[poller]*checker{},
		plans: map[string]*plan{}, dirty: map[string]struct{}{}, touched: map[string]struct{}{},
	}
	s.stopping, s.stop = context.WithCancel(context.Background())
	s.metrics.rulesGood.Set(1)
	return s, nil
}

// Register puts s on a server of package grpchttp2 that does not serve yet.
func (s *Server) Register(server grpc.ServiceRegistrar) {
	healthv3.RegisterHealthDiscoveryServiceServer(server, s)
}

// Stop ends all streams.
func (s *Server) Stop() { s.stop() }

const (
	// debounce is how long checkers wait for what is to be checked after the first
	// of several changes of it.
	debounce = time.Second
	// judgeEvery is how often all verdicts are looked at, for silence and the end
	// of patience tell of themselves to nobody.
	judgeEvery = time.Second
)

// Run plans who checks what and judges what is found until ctx ends. It returns
// nil.
func (s *Server) Run(ctx context.Context) error {
	var watching sync.WaitGroup
	defer watching.Wait()
	// Ends with ctx; Run waits for it.
	watching.Go(func() { s.watch.Run(ctx, s.reload) })
	s.planAndJudge(ctx)
	return nil
}

// planAndJudge is Run without the file.
func (s *Server) planAndJudge(ctx context.Context) {
	feed := s.options.Registry.Subscribe()
	ticker := time.NewTicker(judgeEvery)
	defer ticker.Stop()
	var due <-chan time.Time // nil while no plan is to be made
	for {
		select {
		case <-feed.Ready():
			s.changed(slices.Collect(maps.Keys(feed.Take())))
		case <-s.stale:
			if due == nil {
				due = time.After(debounce)
			}
		case <-due:
			due = nil
			s.replan(time.Now())
		case <-s.news:
			s.judgeTouched(time.Now())
		case <-ticker.C:
			s.judgeAll(time.Now())
		case <-ctx.Done():
			return
		}
	}
}

// changed takes note of services that changed.
func (s *Server) changed(services []string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, name := range services {
		if s.plans[name] != nil || s.rules.of(name) != nil {
			s.dirty[name] = struct{}{}
		}
	}
	if len(s.dirty) > 0 {
		signal(s.stale)
	}
}

// checkersChanged has the plans of all services made anew. s.mu must be held.
func (s *Server) checkersChanged() {
	for name := range s.plans {
		s.dirty[name] = struct{}{}
	}
	signal(s.stale)
}

// reload takes the file as it is now. A bad one is told, and changes nothing.
func (s *Server) reload(contents [][]byte, err error) {
	var rules *Rules
	if err == nil {
		rules, err = ReadRules(s.options.File.Path, contents[0])
	}
	if err != nil {
		s.metrics.rulesGood.Set(0)
		s.options.Log.Error("the health checks are not changed", "error", err)
		return
	}
	s.metrics.rulesGood.Set(1)
	s.options.Log.Info("health checks changed", "rules", rules.count())
	// Before it is loaded there are none, and each will be told of.
	services, _ := s.options.Registry.Services()
	s.mu.Lock()
	defer s.mu.Unlock()
	s.rules = rules
	for _, c := range s.checkers {
		c.changed = true // the interval may be another
	}
	for i := range services {
		s.dirty[services[i].Name] = struct{}{}
	}
	signal(s.stale)
}

// signal puts a value into a channel that has room for one, unless it is there.
func signal(c chan struct{}) {
	select {
	case c <- struct{}{}:
	default:
	}
}
