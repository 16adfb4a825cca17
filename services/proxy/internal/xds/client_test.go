package xds_test

import (
	"bytes"
	"context"
	"errors"
	"io"
	"log/slog"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	clusterv3 "github.com/envoyproxy/go-control-plane/envoy/config/cluster/v3"
	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	discoveryv3 "github.com/envoyproxy/go-control-plane/envoy/service/discovery/v3"
	"github.com/stretchr/testify/require"
	"google.golang.org/grpc"
	"google.golang.org/grpc/metadata"
	"google.golang.org/protobuf/proto"

	"github.com/weirproxy/weir/internal/servicetest"
	"github.com/weirproxy/weir/services/proxy/internal/coreconfig"
	"github.com/weirproxy/weir/services/proxy/internal/stats"
	"github.com/weirproxy/weir/services/proxy/internal/xds"
)

type sinkFunc func([]xds.Resource, bool) error

func (f sinkFunc) Apply(r []xds.Resource, all bool) error { return f(r, all) }

func (sinkFunc) Failed(coreconfig.Source, []string, xds.Failure) {}

// takeAll accepts everything.
var takeAll = sinkFunc(func([]xds.Resource, bool) error { return nil })

var ads = &coreconfig.GRPC{Cluster: "plane"}

func values(r *stats.Registry) map[string]int64 {
	all := map[string]int64{}
	r.Each(func(m stats.Metric) {
		number := m.Kind == stats.KindCounter || m.Kind == stats.KindGauge
		if m.Used && number && !strings.HasSuffix(m.Name, "update_time") && !strings.HasSuffix(m.Name, ".version") {
			all[m.Name] = m.Value
		}
	})
	return all
}

func TestReconnectsWithGrowingDelays(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var log bytes.Buffer
		var tries []time.Time
		registry := stats.NewRegistry()
		ctx, cancel := context.WithCancel(context.Background())
		client := xds.New(xds.Options{
			Dial: func(context.Context, string) (grpc.ClientConnInterface, io.Closer, error) {
				tries = append(tries, time.Now())
				return nil, nil, errors.New("nobody there")
			},
			ADS: ads, Node: &corev3.Node{}, Stats: registry, Log: slog.New(slog.NewTextHandler(&log, nil)),
		})
		client.Handle(xds.ClusterType, takeAll)
		client.Subscribe(coreconfig.Source{}, xds.ClusterType, 0, nil)
		done := make(chan error, 1)
		go func() { done <- client.Run(ctx) }() // ends with ctx, waited for below
		time.Sleep(10 * time.Minute)
		cancel()
		require.NoError(t, <-done)

		bound := 500 * time.Millisecond
		for i := 1; i < len(tries); i++ {
			require.Less(t, tries[i].Sub(tries[i-1]), bound, "delay %d", i)
			bound = min(2*bound, 4*time.Second)
		}
		require.Greater(t, len(tries), 600/4)
		require.Less(t, len(tries), 600, "4 s of full jitter is 2 s on average")
		require.Equal(t, 1, strings.Count(log.String(), "\n"), "the loss is logged once: %s", &log)
		require.Contains(t, log.String(), "nobody there")
		require.EqualValues(t, len(tries), values(registry)["cluster_manager.cds.update_failure"])
		require.False(t, client.Status().Connected)
	})
}

func TestAControlPlaneMayHaveABackOffOfItsOwn(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var tries []time.Time
		ctx, cancel := context.WithCancel(context.Background())
		client := xds.New(xds.Options{
			Dial: func(context.Context, string) (grpc.ClientConnInterface, io.Closer, error) {
				tries = append(tries, time.Now())
				return nil, nil, errors.New("nobody there")
			},
			ADS:  &coreconfig.GRPC{Cluster: "plane", BackOff: coreconfig.BackOff{First: 10 * time.Second, Most: time.Minute}},
			Node: &corev3.Node{}, Stats: stats.NewRegistry(), Log: slog.New(slog.DiscardHandler),
		})
		client.Handle(xds.ClusterType, takeAll)
		client.Subscribe(coreconfig.Source{}, xds.ClusterType, 0, nil)
		done := make(chan error, 1)
		go func() { done <- client.Run(ctx) }() // ends with ctx, waited for below
		time.Sleep(24 * time.Hour)
		cancel()
		require.NoError(t, <-done)

		bound, longest := 10*time.Second, time.Duration(0)
		for i := 1; i < len(tries); i++ {
			delay := tries[i].Sub(tries[i-1])
			require.Less(t, delay, bound, "delay %d", i)
			bound, longest = min(2*bound, time.Minute), max(longest, delay)
		}
		require.Greater(t, longest, 50*time.Second, "of more than a thousand delays")
	})
}

// optioned is a channel that keeps how streams were to be opened.
type optioned struct {
	quiet
	opened chan opening
}

// opening is how a stream was to be opened.
type opening struct {
	options  []grpc.CallOption
	metadata metadata.MD
}

func (o *optioned) NewStream(ctx context.Context, d *grpc.StreamDesc, method string, options ...grpc.CallOption) (grpc.ClientStream, error) {
	sent, _ := metadata.FromOutgoingContext(ctx)
	o.opened <- opening{options, sent}
	return o.quiet.NewStream(ctx, d, method, options...)
}

func TestAControlPlaneIsAskedAsItsConfigurationSays(t *testing.T) {
	for _, c := range []struct {
		plane coreconfig.GRPC
		want  opening
	}{
		{coreconfig.GRPC{Cluster: "plane"}, opening{[]grpc.CallOption{grpc.MaxCallRecvMsgSize(64 << 20)}, metadata.MD{}}},
		{
			coreconfig.GRPC{Cluster: "plane", Authority: "control.example", MaxMessage: 1000, Metadata: "x-token\na b\nx-empty\n\nx-token\nc\n"},
			opening{
				[]grpc.CallOption{grpc.MaxCallRecvMsgSize(1000), grpc.CallAuthority("control.example")},
				metadata.Pairs("x-token", "a b", "x-empty", "", "x-token", "c"),
			},
		},
	} {
		synctest.Test(t, func(t *testing.T) {
			channel := &optioned{quiet{lives: time.Hour}, make(chan opening, 1)}
			client := xds.New(xds.Options{
				Dial: func(context.Context, string) (grpc.ClientConnInterface, io.Closer, error) {
					return channel, channel, nil
				},
				ADS: &c.plane, Stats: stats.NewRegistry(), Log: slog.New(slog.DiscardHandler),
			})
			client.Handle(xds.ClusterType, takeAll)
			client.Subscribe(coreconfig.Source{}, xds.ClusterType, 0, nil)
			ctx, cancel := context.WithCancel(context.Background())
			done := make(chan error, 1)
			go func() { done <- client.Run(ctx) }() // ends with ctx, waited for below
			require.Equal(t, c.want, <-channel.opened)
			cancel()
			require.NoError(t, <-done)
		})
	}
}

// quiet is a channel whose streams open and then never answer; each lasts as
// long as lives says.
type quiet struct {
	grpc.ClientStream
	lives time.Duration
	ends  <-chan time.Time
}

func (q *quiet) Close() error                                                       { return nil }
func (q *quiet) Invoke(context.Context, string, any, any, ...grpc.CallOption) error { return io.EOF }
func (q *quiet) SendMsg(any) error                                                  { return nil }
func (q *quiet) NewStream(context.Context, *grpc.StreamDesc, string, ...grpc.CallOption) (grpc.ClientStream, error) {
	return &quiet{ends: time.After(q.lives)}, nil
}

func (q *quiet) RecvMsg(any) error {
	<-q.ends
	return errors.New("broken")
}

func TestLogsTheControlPlaneOncePerChange(t *testing.T) {
	for _, c := range []struct {
		name  string
		lives time.Duration
		want  []string // the beginning of the log, which goes on likewise
		most  int      // lines in ten minutes
	}{
		{"one that is there without a word", time.Hour, []string{"is there"}, 1},
		{"one that comes and goes", time.Minute, []string{"is there", "is away", "is there", "is away", "is there"}, 20},
		{"one that lets streams begin, and no more", time.Millisecond, []string{"is away"}, 1},
	} {
		t.Run(c.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				var log bytes.Buffer
				q := &quiet{lives: c.lives}
				client := xds.New(xds.Options{
					Dial: func(context.Context, string) (grpc.ClientConnInterface, io.Closer, error) { return q, q, nil },
					ADS:  ads, Stats: stats.NewRegistry(), Log: slog.New(slog.NewTextHandler(&log, nil)),
				})
				ctx, cancel := context.WithTimeout(context.Background(), 10*time.Minute)
				defer cancel()
				require.NoError(t, client.Run(ctx))
				lines := strings.Split(strings.TrimSpace(log.String()), "\n")
				require.LessOrEqual(t, len(lines), c.most, log.String())
				for i, want := range c.want {
					require.Contains(t, lines[i], want)
				}
			})
		})
	}
}

func TestEndsWhileItWaitsOrDials(t *testing.T) {
	for name, dial := range map[string]func(context.Context, string) (grpc.ClientConnInterface, io.Closer, error){
		"dialling": func(ctx context.Context, _ string) (grpc.ClientConnInterface, io.Closer, error) {
			<-ctx.Done()
			return nil, nil, ctx.Err()
		},
		"waiting": func(context.Context, string) (grpc.ClientConnInterface, io.Closer, error) {
			return nil, nil, errors.New("no")
		},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
				defer cancel()
				client := xds.New(xds.Options{Dial: dial, ADS: ads, Stats: stats.NewRegistry(), Log: slog.New(slog.DiscardHandler)})
				require.NoError(t, client.Run(ctx))
			})
		})
	}
}

func TestStatusAndCounters(t *testing.T) {
	s, dial := start(t)
	registry := stats.NewRegistry()
	client := xds.New(xds.Options{Dial: dial, ADS: ads, Node: &corev3.Node{Id: "p"}, Stats: registry, Log: slog.New(slog.DiscardHandler)})
	client.Handle(xds.ClusterType, sinkFunc(func(r []xds.Resource, all bool) error {
		require.True(t, all)
		if len(r) == 0 {
			return errors.New("nothing is too little")
		}
		require.True(t, proto.Equal(&clusterv3.Cluster{Name: "a"}, r[0].Message))
		return nil
	}))
	client.Subscribe(coreconfig.Source{}, xds.ClusterType, 0, nil)
	ctx, cancel := context.WithCancel(context.Background())
	var running sync.WaitGroup
	running.Go(func() { require.NoError(t, client.Run(ctx)) }) // ends with cancel
	defer func() { cancel(); running.Wait() }()

	<-s.requests
	s.responses <- &discoveryv3.DiscoveryResponse{
		TypeUrl: xds.ClusterType, VersionInfo: "1", Nonce: "x", ControlPlane: &corev3.ControlPlane{Identifier: "cp"},
		Resources: resources(t, "a"),
	}
	<-s.requests
	s.responses <- &discoveryv3.DiscoveryResponse{
		TypeUrl: xds.ClusterType, VersionInfo: "2", Nonce: "y", ControlPlane: &corev3.ControlPlane{Identifier: "cp"},
	}
	<-s.requests

	status := client.Status()
	require.True(t, status.Connected)
	require.Equal(t, "cp", status.Identifier)
	require.WithinDuration(t, time.Now(), status.Types[0].Updated, time.Minute)
	status.Types[0].Updated = time.Time{}
	require.Equal(t, []xds.TypeStatus{{TypeURL: xds.ClusterType, Version: "1", Refused: "nothing is too little"}}, status.Types)
	require.Equal(t, map[string]int64{
		"control_plane.connected_state":       1,
		"cluster_manager.cds.update_attempt":  3,
		"cluster_manager.cds.update_success":  1,
		"cluster_manager.cds.update_rejected": 1,
	}, values(registry))

	s.responses <- nil
	<-s.requests // of the next stream
	require.EqualValues(t, 1, values(registry)["cluster_manager.cds.update_failure"])
	servicetest.Eventually(t, "connected again", func() bool { return client.Status().Connected })
}

func TestALongRefusalIsCut(t *testing.T) {
	s, dial := start(t)
	client := xds.New(xds.Options{Dial: dial, ADS: ads, Stats: stats.NewRegistry(), Log: slog.New(slog.DiscardHandler)})
	client.Handle(xds.ClusterType, sinkFunc(func([]xds.Resource, bool) error {
		return errors.New("\xff" + strings.Repeat("ü", 4000))
	}))
	client.Subscribe(coreconfig.Source{}, xds.ClusterType, 0, nil)
	ctx, cancel := context.WithCancel(context.Background())
	var running sync.WaitGroup
	running.Go(func() { require.NoError(t, client.Run(ctx)) }) // ends with cancel
	defer func() { cancel(); running.Wait() }()
	<-s.requests
	s.responses <- &discoveryv3.DiscoveryResponse{TypeUrl: xds.ClusterType}
	text := (<-s.requests).(*discoveryv3.DiscoveryRequest).GetErrorDetail().GetMessage()
	require.LessOrEqual(t, len(text), 4096)
	require.Greater(t, len(text), 4000)
	require.True(t, strings.HasSuffix(text, "ü … (cut)"), text[len(text)-20:])
}

func TestNoNamesOpenNothing(t *testing.T) {
	client := xds.New(xds.Options{Stats: stats.NewRegistry()})
	client.SetNames(coreconfig.Source{}, xds.AssignmentType, []string{"a"})
	client.SetNames(coreconfig.Source{GRPC: *ads}, xds.AssignmentType, nil)
	require.Empty(t, client.Status().Types)
}

func TestTheInitialFetchTimeoutIsTold(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		registry := stats.NewRegistry()
		q := &quiet{lives: time.Hour}
		client := xds.New(xds.Options{
			Dial: func(context.Context, string) (grpc.ClientConnInterface, io.Closer, error) { return q, q, nil },
			ADS:  ads, Stats: registry, Log: slog.New(slog.DiscardHandler),
		})
		client.Handle(xds.ListenerType, takeAll)
		expired := make(chan time.Time, 1)
		begin := time.Now()
		client.Subscribe(coreconfig.Source{}, xds.ListenerType, 15*time.Second, func() { expired <- time.Now() })
		ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
		defer cancel()
		require.NoError(t, client.Run(ctx))
		require.Equal(t, 15*time.Second, (<-expired).Sub(begin))
		require.EqualValues(t, 1, values(registry)["listener_manager.lds.init_fetch_timeout"])
	})
}

// TestASourceOfItsOwnEndsWithItsLastName has a stream for one type, which is
// closed when nothing of it is wanted, and opened again.
func TestASourceOfItsOwnEndsWithItsLastName(t *testing.T) {
	s, dial := start(t)
	closed := make(chan struct{}, 2)
	client := xds.New(xds.Options{
		Dial: func(ctx context.Context, cluster string) (grpc.ClientConnInterface, io.Closer, error) {
			require.Equal(t, "own", cluster)
			channel, closer, err := dial(ctx, cluster)
			return channel, closerFunc(func() error { closed <- struct{}{}; return closer.Close() }), err
		},
		Node: &corev3.Node{Id: "p"}, Stats: stats.NewRegistry(), Log: slog.New(slog.DiscardHandler),
	})
	client.Handle(xds.AssignmentType, takeAll)
	ctx, cancel := context.WithCancel(context.Background())
	var running sync.WaitGroup
	running.Go(func() { require.NoError(t, client.Run(ctx)) }) // ends with cancel
	defer func() { cancel(); running.Wait() }()
	own := coreconfig.Source{GRPC: coreconfig.GRPC{Cluster: "own"}}
	for range 2 {
		client.SetNames(own, xds.AssignmentType, []string{"a"})
		require.Equal(t, "eds v= n= names=a node=p", show(<-s.requests))
		require.Equal(t, "cluster own", client.Status().Types[0].Source)
		client.SetNames(own, xds.AssignmentType, nil)
		<-closed
		require.Empty(t, client.Status().Types)
	}
}

type closerFunc func() error

func (f closerFunc) Close() error { return f() }

// TestUpdates holds the version against XXH64's published sum of "a".
func TestUpdates(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		registry := stats.NewRegistry()
		u := xds.NewUpdates(registry.Scope("s"))
		began := time.Now()
		u.Began(coreconfig.Source{Path: "file"})
		u.Began(coreconfig.Source{})
		time.Sleep(3 * time.Millisecond)
		u.Took("a", began)
		u.Failed(xds.Away)
		u.Failed(xds.Refused)
		u.GaveUp()
		require.Equal(t, map[string]int64{
			"s.update_attempt": 5, "s.update_success": 1, "s.update_failure": 1, "s.update_rejected": 1, "s.init_fetch_timeout": 1,
		}, values(registry))
		registry.Each(func(m stats.Metric) {
			switch m.Name {
			case "s.version":
				require.Equal(t, uint64(0xd24ec4f1a98c6e5b), m.Unsigned())
			case "s.version_text":
				require.Equal(t, "a", m.Text)
			case "s.update_time":
				require.Equal(t, time.Now().UnixMilli(), m.Value)
			case "s.update_duration":
				require.InDelta(t, 3, m.Distribution.Sum, 0.001)
			}
		})
	})
}
