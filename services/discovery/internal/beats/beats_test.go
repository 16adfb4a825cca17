package beats

import (
	"context"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil"
	"github.com/stretchr/testify/require"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/status"

	"github.com/weirproxy/weir/internal/grpchttp2"
	"github.com/weirproxy/weir/internal/servicetest"
	discoveryv2 "github.com/weirproxy/weir/proto/discovery/v2"
	"github.com/weirproxy/weir/services/discovery/internal/registry"
	"github.com/weirproxy/weir/services/discovery/internal/registry/registrytest"
)

func TestMain(m *testing.M) { servicetest.Main(m) }

// options are what tests use: streams may be silent for longer than they take.
func options(hosts *registry.Registry) Options {
	return Options{
		Registry: hosts, Silence: time.Minute, LossEnds: true, MaxStreams: 10, MaxHosts: 1000,
		Log: slog.New(slog.DiscardHandler), Metrics: prometheus.NewRegistry(),
	}
}

// serve serves o until the test ends, and returns a client of it.
func serve(t testing.TB, o Options) (*Server, discoveryv2.HeartbeatServiceClient) {
	t.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	s, server := New(o), grpchttp2.New(grpchttp2.Options{})
	s.Register(server)
	ended := make(chan error, 1)
	// Ends with the server's Stop; the cleanup waits for it.
	go func() { ended <- server.Serve(listener) }()
	conn, err := grpc.NewClient(listener.Addr().String(), grpc.WithTransportCredentials(insecure.NewCredentials()))
	require.NoError(t, err)
	t.Cleanup(func() {
		require.NoError(t, conn.Close())
		server.Stop()
		require.NoError(t, <-ended)
	})
	return s, discoveryv2.NewHeartbeatServiceClient(conn)
}

// client is one stream.
type client struct {
	t    testing.TB
	wire grpc.BidiStreamingClient[discoveryv2.BeatRequest, discoveryv2.BeatResponse]
	end  context.CancelFunc
}

func open(t testing.TB, c discoveryv2.HeartbeatServiceClient) *client {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), servicetest.Patience)
	t.Cleanup(cancel)
	wire, err := c.Beat(ctx)
	require.NoError(t, err)
	return &client{t, wire, cancel}
}

// beat sends a message and returns the answer.
func (c *client) beat(m *discoveryv2.BeatRequest) *discoveryv2.BeatResponse {
	c.t.Helper()
	require.NoError(c.t, c.wire.Send(m))
	response, err := c.wire.Recv()
	require.NoError(c.t, err)
	return response
}

// fails awaits the end of the stream by the server.
func (c *client) fails(code codes.Code) {
	c.t.Helper()
	for {
		if _, err := c.wire.Recv(); err != nil {
			require.Equal(c.t, code, status.Code(err), "%v", err)
			return
		}
	}
}

// register registers n hosts of "users" and returns their leases.
func register(t testing.TB, hosts *registry.Registry, n int, ttl time.Duration) (leases []uint64) {
	t.Helper()
	for i := range n {
		receipt, err := hosts.Put(registry.Host{
			Key:     registry.Key{Service: "users", ID: fmt.Sprint(i)},
			Address: netip.AddrPortFrom(netip.MustParseAddr("10.0.0.1"), uint16(i+1)),
			TTL:     ttl,
		}, "tester")
		require.NoError(t, err)
		leases = append(leases, uint64(receipt.Lease))
	}
	return leases
}

func count(t testing.TB, hosts *registry.Registry) int {
	t.Helper()
	list, err := hosts.List("users")
	require.NoError(t, err)
	return len(list.Hosts)
}

func TestEachMessageBeatsForAllThatAreAttached(t *testing.T) {
	hosts := registrytest.Loaded(t)
	_, service := serve(t, options(hosts))
	leases := register(t, hosts, 3, time.Hour)
	c := open(t, service)
	first := c.beat(&discoveryv2.BeatRequest{Attach: append(leases, 7, leases[0])})
	require.Equal(t, []uint64{7}, first.GetUnknown())
	require.EqualValues(t, 3, first.GetAttached())
	require.False(t, first.GetLossEnds(), "nobody asked for it")

	before := lastCheckIns(t, hosts)
	next := c.beat(&discoveryv2.BeatRequest{Detach: leases[2:]})
	require.Empty(t, next.GetUnknown(), "it is no longer attached")
	require.EqualValues(t, 2, next.GetAttached())
	after := lastCheckIns(t, hosts)
	require.True(t, after[0].After(before[0]))
	require.True(t, after[1].After(before[1]))
	require.Equal(t, before[2], after[2])

	removed, err := hosts.Remove(registry.Selection{Service: "users", ID: "0"}, "tester")
	require.NoError(t, err)
	require.Equal(t, 1, removed)
	require.Equal(t, leases[:1], c.beat(&discoveryv2.BeatRequest{}).GetUnknown(), "it must register again")
	require.Empty(t, c.beat(&discoveryv2.BeatRequest{}).GetUnknown())
}

// lastCheckIns are those of "users", in the order of their ports.
func lastCheckIns(t testing.TB, hosts *registry.Registry) (times []time.Time) {
	t.Helper()
	list, err := hosts.List("users")
	require.NoError(t, err)
	for _, v := range list.Hosts {
		times = append(times, v.LastCheckIn)
	}
	return times
}

func TestTheLossOfAStreamEndsItsHostsOnlyWhereThatWasAgreed(t *testing.T) {
	for name, test := range map[string]struct {
		asked, allowed bool
		end            func(s *Server, c *client)
		left           int
	}{
		"broken":                 {true, true, func(_ *Server, c *client) { c.end() }, 1},
		"broken, not asked for":  {false, true, func(_ *Server, c *client) { c.end() }, 3},
		"broken, not allowed":    {true, false, func(_ *Server, c *client) { c.end() }, 3},
		"ended by the client":    {true, true, func(_ *Server, c *client) { _ = c.wire.CloseSend() }, 3},
		"ended by server's stop": {true, true, func(s *Server, _ *client) { s.Stop() }, 3},
	} {
		t.Run(name, func(t *testing.T) {
			hosts := registrytest.Loaded(t)
			o := options(hosts)
			o.LossEnds = test.allowed
			s, service := serve(t, o)
			leases := register(t, hosts, 3, time.Hour)
			c := open(t, service)
			got := c.beat(&discoveryv2.BeatRequest{Attach: leases, LossEnds: test.asked})
			require.Equal(t, test.asked && test.allowed, got.GetLossEnds())
			test.end(s, c)
			servicetest.Eventually(t, "the stream has ended", func() bool { return s.streams.Load() == 0 })
			require.Equal(t, test.left, count(t, hosts))
		})
	}
}

// bubbleWire is a stream within a synctest bubble, where no network may be.
type bubbleWire struct {
	grpc.ServerStream
	ctx       context.Context
	requests  chan *discoveryv2.BeatRequest
	responses chan *discoveryv2.BeatResponse
}

// newBubbleWire makes a stream with room for so many messages each way, and what
// breaks it.
func newBubbleWire(ctx context.Context, room int) (w *bubbleWire, end context.CancelFunc) {
	ctx, end = context.WithCancel(ctx)
	return &bubbleWire{
		ctx:       grpc.NewContextWithServerTransportStream(ctx, bubbleCall{interrupt: end}),
		requests:  make(chan *discoveryv2.BeatRequest, room),
		responses: make(chan *discoveryv2.BeatResponse, room),
	}, end
}

// bubbleCall is what a bubbleWire's context has of grpchttp2.
type bubbleCall struct {
	grpc.ServerTransportStream
	grpchttp2.Call
	interrupt context.CancelFunc
}

func (c bubbleCall) Interrupt() { c.interrupt() }

func (w *bubbleWire) Context() context.Context { return w.ctx }

func (w *bubbleWire) Recv() (*discoveryv2.BeatRequest, error) {
	select {
	case m := <-w.requests:
		return m, nil
	case <-w.ctx.Done():
		return nil, w.ctx.Err()
	}
}

func (w *bubbleWire) Send(m *discoveryv2.BeatResponse) error {
	select {
	case w.responses <- m:
		return nil
	case <-w.ctx.Done():
		return w.ctx.Err()
	}
}

func TestStopEndsTheStreamOfAClientThatDoesNotReadAndItsHostsAreNotLost(t *testing.T) {
	hosts := registrytest.Loaded(t)
	s, service := serve(t, options(hosts))
	leases := register(t, hosts, 3, time.Hour)
	ctx, cancel := context.WithTimeout(t.Context(), servicetest.Patience)
	defer cancel()
	const window = 64 << 10
	wire, err := service.Beat(ctx)
	require.NoError(t, err)
	require.NoError(t, wire.Send(&discoveryv2.BeatRequest{Attach: leases, LossEnds: true}))
	unknown := &discoveryv2.BeatRequest{}
	for i := range 900 {
		unknown.Attach = append(unknown.Attach, uint64(i+1)<<40)
	}
	sent := 1
	for size := 0; size <= window; size += 8 * len(unknown.Attach) {
		require.NoError(t, wire.Send(unknown))
		sent++
	}
	servicetest.Eventually(t, "the answers fill the window", func() bool { return testutil.ToFloat64(s.metrics.messages) == float64(sent) })
	s.Stop()
	servicetest.Eventually(t, "the stream has ended", func() bool { return s.streams.Load() == 0 })
	require.Equal(t, 3, count(t, hosts))
	require.Zero(t, testutil.ToFloat64(s.metrics.hosts))
}

func TestAClientThatDoesNotReadIsEndedAsASilentOne(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		hosts := registrytest.Loaded(t)
		s := New(options(hosts)) // silent for a minute at most
		w, end := newBubbleWire(t.Context(), 0)
		defer end()
		began := time.Now()
		ended := make(chan error, 1)
		// Ends with the silence; the test waits for it.
		go func() { ended <- s.Beat(w) }()
		w.requests <- &discoveryv2.BeatRequest{Attach: register(t, hosts, 2, time.Hour), LossEnds: true}
		require.Equal(t, codes.DeadlineExceeded, status.Code(<-ended))
		require.Equal(t, time.Minute, time.Since(began))
		require.Equal(t, 2, count(t, hosts))
		require.Zero(t, s.streams.Load(), "its place is free")
	})
}

func TestAHostThatAMessageDetachedWhichWaitsIsNotLost(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		hosts := registrytest.Loaded(t)
		leases := register(t, hosts, 3, time.Hour)
		s := New(options(hosts))
		w, end := newBubbleWire(t.Context(), 2)
		ended := make(chan error, 1)
		// Ends with the stream; the test waits for it.
		go func() { ended <- s.Beat(w) }()
		w.requests <- &discoveryv2.BeatRequest{Attach: leases, LossEnds: true}
		<-w.responses
		// It costs far more than was saved, so that the next one waits.
		w.requests <- &discoveryv2.BeatRequest{Detach: make([]uint64, 3*mostSaved/pricePerHost)}
		<-w.responses
		w.requests <- &discoveryv2.BeatRequest{Detach: leases[:2]}
		synctest.Wait()
		require.Empty(t, w.responses, "it waits")
		end()
		require.ErrorIs(t, <-ended, context.Canceled)
		require.Equal(t, 2, count(t, hosts), "those that it detached")
		require.Zero(t, testutil.ToFloat64(s.metrics.hosts))
	})
}

func TestItIsLoggedThatHostsWereLostIfAnyWere(t *testing.T) {
	for name, test := range map[string]struct{ hosts, logged int }{
		"one of two":    {2, 1},
		"the last host": {1, 0},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				hosts := registrytest.Loaded(t)
				o := options(hosts)
				var text strings.Builder
				o.Log = slog.New(slog.NewTextHandler(&text, nil))
				w, end := newBubbleWire(t.Context(), 0)
				ended := make(chan error, 1)
				// Ends with the stream; the test waits for it.
				go func() { ended <- New(o).Beat(w) }()
				w.requests <- &discoveryv2.BeatRequest{Attach: register(t, hosts, test.hosts, time.Hour), LossEnds: true}
				<-w.responses
				end()
				require.ErrorIs(t, <-ended, context.Canceled)
				require.Equal(t, test.logged, strings.Count(text.String(), "hosts taken out with their stream"), text.String())
			})
		})
	}
}

func TestAHostThatAnotherStreamCarriesIsNotLost(t *testing.T) {
	hosts := registrytest.Loaded(t)
	s, service := serve(t, options(hosts))
	leases := register(t, hosts, 3, time.Hour)
	first, next := open(t, service), open(t, service)
	first.beat(&discoveryv2.BeatRequest{Attach: leases, LossEnds: true})
	next.beat(&discoveryv2.BeatRequest{Attach: leases[:2], LossEnds: true})
	first.end()
	servicetest.Eventually(t, "the stream has ended", func() bool { return s.streams.Load() == 1 })
	require.Equal(t, 2, count(t, hosts))
	next.end()
	servicetest.Eventually(t, "the other has ended", func() bool { return s.streams.Load() == 0 })
	require.Equal(t, 1, count(t, hosts), "the last host stays")
	require.Empty(t, s.carriers.streams)
}

func TestASilentStreamIsEndedAndItsHostsAreNotLost(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		hosts := registrytest.Loaded(t)
		s := New(options(hosts)) // silent for a minute at most
		w, end := newBubbleWire(t.Context(), 0)
		defer end()
		ended := make(chan error, 1)
		// Ends with the silence; the test waits for it.
		go func() { ended <- s.Beat(w) }()
		beat := func(m *discoveryv2.BeatRequest) {
			time.Sleep(time.Minute - 1)
			w.requests <- m
			<-w.responses
		}
		beat(&discoveryv2.BeatRequest{Attach: register(t, hosts, 2, time.Hour), LossEnds: true})
		beat(&discoveryv2.BeatRequest{})
		heard := time.Now()
		require.Equal(t, codes.DeadlineExceeded, status.Code(<-ended))
		require.Equal(t, time.Minute, time.Since(heard))
		require.Equal(t, 2, count(t, hosts))
		require.Empty(t, s.carriers.streams, "they may come on another")
	})
}

func TestAStreamThatSendsInALoopIsHeldToItsBudgetAndNoHonestOneIs(t *testing.T) {
	const seconds = 2
	for name, test := range map[string]struct {
		hosts int
		every time.Duration // between messages; 0 for as fast as they are taken
		want  int           // messages, of which those of the first second are saved
	}{
		"messages without hosts": {0, 0, 1000 * (seconds + 1)},
		"many hosts":             {2_000, 0, 714 * (seconds + 1)},
		"a beat a second":        {2_000, time.Second, seconds},
		"ten beats a second":     {2_000, time.Second / 10, 10 * seconds},
		"a host at a time":       {1, 2 * time.Millisecond, 500 * seconds},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				hosts := registrytest.Loaded(t)
				o := options(hosts)
				o.MaxHosts = test.hosts + 1
				s := New(o)
				w, end := newBubbleWire(t.Context(), 0)
				ended := make(chan error, 1)
				// Ends with its context; the test waits below.
				go func() { ended <- s.Beat(w) }()
				began, n := time.Now(), 0
				for m := (&discoveryv2.BeatRequest{Attach: register(t, hosts, test.hosts, time.Hour)}); time.Since(began) < seconds*time.Second; n++ {
					time.Sleep(test.every)
					sent := time.Now()
					w.requests <- m
					response := <-w.responses
					require.EqualValues(t, test.hosts, response.GetAttached())
					if test.every > 0 {
						require.Zero(t, time.Since(sent), "it is answered at once")
					}
					m = &discoveryv2.BeatRequest{}
				}
				require.InDelta(t, test.want, n, float64(test.want)/100+2)
				end()
				<-ended
			})
		})
	}
}

func TestARestOfAStreamIsNoSilence(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		o := options(registrytest.Loaded(t))
		o.Silence = time.Second / 10
		s := New(o)
		w, end := newBubbleWire(t.Context(), 5)
		defer end()
		ended := make(chan error, 1)
		// Ends with the silence; the test waits for it.
		go func() { ended <- s.Beat(w) }()
		began := time.Now()
		// Each costs three times what may be silence, and a second was saved.
		m := &discoveryv2.BeatRequest{Detach: make([]uint64, (3*o.Silence-pricePerMessage)/pricePerHost)}
		for range 5 {
			w.requests <- m
		}
		require.Equal(t, codes.DeadlineExceeded, status.Code(<-ended))
		require.Len(t, w.responses, 5)
		require.Equal(t, 15*o.Silence-mostSaved+o.Silence, time.Since(began))
	})
}

func TestThereAreBoundsToStreamsAndTheirHosts(t *testing.T) {
	hosts := registrytest.Loaded(t)
	o := options(hosts)
	o.MaxStreams, o.MaxHosts = 1, 2
	_, service := serve(t, o)
	c := open(t, service)
	c.beat(&discoveryv2.BeatRequest{Attach: []uint64{1, 2}})
	open(t, service).fails(codes.ResourceExhausted)
	require.NoError(t, c.wire.Send(&discoveryv2.BeatRequest{Attach: []uint64{1, 2, 3}}))
	c.fails(codes.ResourceExhausted)
}

func TestBeforeTheRegistryIsLoadedAStreamIsToComeAgain(t *testing.T) {
	_, service := serve(t, options(registry.New(registrytest.Options())))
	c := open(t, service)
	require.NoError(t, c.wire.Send(&discoveryv2.BeatRequest{Attach: []uint64{1}}))
	c.fails(codes.Unavailable)
}

func BenchmarkAMessageOfAThousandHosts(b *testing.B) {
	hosts := registrytest.Loaded(b)
	s := New(options(hosts))
	c := &connection{server: s, attached: map[registry.Lease]struct{}{}}
	_, err := c.take(&discoveryv2.BeatRequest{Attach: register(b, hosts, 1000, time.Hour)})
	require.NoError(b, err)
	empty := &discoveryv2.BeatRequest{}
	b.ReportAllocs()
	for b.Loop() {
		_, _ = c.take(empty)
	}
}
