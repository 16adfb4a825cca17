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
	"google.golang.org/protobuf/proto"

	"github.com/weirproxy/weir/internal/servicetest"
	"github.com/weirproxy/weir/services/proxy/internal/stats"
	"github.com/weirproxy/weir/services/proxy/internal/xds"
)

type sinkFunc func([]xds.Resource) error

func (f sinkFunc) Apply(r []xds.Resource) error { return f(r) }

func values(r *stats.Registry) map[string]int64 {
	all := map[string]int64{}
	r.Each(func(m stats.Metric) {
		if m.Used && !strings.HasSuffix(m.Name, "update_time") {
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
			Dial: func(context.Context) (grpc.ClientConnInterface, io.Closer, error) {
				tries = append(tries, time.Now())
				return nil, nil, errors.New("nobody there")
			},
			Node: &corev3.Node{}, Stats: registry, Log: slog.New(slog.NewTextHandler(&log, nil)),
		})
		client.Watch(xds.ClusterType, true, sinkFunc(func([]xds.Resource) error { return nil }))
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
					Dial:  func(context.Context) (grpc.ClientConnInterface, io.Closer, error) { return q, q, nil },
					Stats: stats.NewRegistry(), Log: slog.New(slog.NewTextHandler(&log, nil)),
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
	for name, dial := range map[string]func(context.Context) (grpc.ClientConnInterface, io.Closer, error){
		"dialling": func(ctx context.Context) (grpc.ClientConnInterface, io.Closer, error) {
			<-ctx.Done()
			return nil, nil, ctx.Err()
		},
		"waiting": func(context.Context) (grpc.ClientConnInterface, io.Closer, error) { return nil, nil, errors.New("no") },
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
				defer cancel()
				client := xds.New(xds.Options{Dial: dial, Stats: stats.NewRegistry(), Log: slog.New(slog.DiscardHandler)})
				require.NoError(t, client.Run(ctx))
			})
		})
	}
}

func TestStatusAndCounters(t *testing.T) {
	s, dial := start(t)
	registry := stats.NewRegistry()
	client := xds.New(xds.Options{Dial: dial, Node: &corev3.Node{Id: "p"}, Stats: registry, Log: slog.New(slog.DiscardHandler)})
	client.Watch(xds.ClusterType, true, sinkFunc(func(r []xds.Resource) error {
		if len(r) == 0 {
			return errors.New("nothing is too little")
		}
		require.True(t, proto.Equal(&clusterv3.Cluster{Name: "a"}, r[0].Message))
		return nil
	}))
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
	client := xds.New(xds.Options{Dial: dial, Stats: stats.NewRegistry(), Log: slog.New(slog.DiscardHandler)})
	client.Watch(xds.ClusterType, true, sinkFunc(func([]xds.Resource) error {
		return errors.New("\xff" + strings.Repeat("ü", 4000))
	}))
	ctx, cancel := context.WithCancel(context.Background())
	var running sync.WaitGroup
	running.Go(func() { require.NoError(t, client.Run(ctx)) }) // ends with cancel
	defer func() { cancel(); running.Wait() }()
	<-s.requests
	s.responses <- &discoveryv3.DiscoveryResponse{TypeUrl: xds.ClusterType}
	text := (<-s.requests).GetErrorDetail().GetMessage()
	require.LessOrEqual(t, len(text), 4096)
	require.Greater(t, len(text), 4000)
	require.True(t, strings.HasSuffix(text, "ü … (cut)"), text[len(text)-20:])
}

func TestSetNamesOfAnUnwatchedTypeDoesNothing(t *testing.T) {
	client := xds.New(xds.Options{Stats: stats.NewRegistry()})
	client.SetNames(xds.AssignmentType, []string{"a"})
	require.Empty(t, client.Status().Types)
}
