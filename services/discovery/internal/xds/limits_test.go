package xds

import (
	"context"
	"fmt"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	discoveryv3 "github.com/envoyproxy/go-control-plane/envoy/service/discovery/v3"
	"github.com/prometheus/client_golang/prometheus/testutil"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"

	"github.com/weirproxy/weir/internal/servicetest"
	"github.com/weirproxy/weir/services/discovery/internal/hello"
	"github.com/weirproxy/weir/services/discovery/internal/resources"
)

func TestABucketLetsSoManyThroughEachSecond(t *testing.T) {
	b := newBucket(10)
	now := start
	var waits []time.Duration
	for range 13 {
		waits = append(waits, b.reserve(now))
	}
	for i, wait := range waits {
		require.Equal(t, max(0, i-9) > 0, wait > 0, "place %d waits for %v", i, wait)
	}
	require.Equal(t, 300*time.Millisecond, waits[12])
	require.LessOrEqual(t, b.reserve(now.Add(time.Second)), time.Duration(0), "they had a second of rest")

	none := newBucket(0)
	for range 1000 {
		require.Zero(t, none.reserve(now))
	}
}

func TestWhoWaitsForABucketGoesWithItsStream(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBucket(1)
		require.True(t, b.wait(t.Context()))
		began := time.Now()
		require.True(t, b.wait(t.Context()))
		require.Equal(t, time.Second, time.Since(began))
		ctx, cancel := context.WithCancel(t.Context())
		cancel()
		require.False(t, b.wait(ctx))
	})
}

func TestWhoGoesBeforeItsTimeTakesNothingFromOthers(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBucket(1)
		require.True(t, b.wait(t.Context()))
		began := time.Now()
		ended, cancel := context.WithCancel(t.Context())
		for range 1000 {
			go func() { assert.False(t, b.wait(ended)) }()
		}
		synctest.Wait()
		cancel()
		synctest.Wait()
		for range 1000 {
			require.False(t, b.wait(ended))
		}
		require.True(t, b.wait(t.Context()))
		require.Equal(t, time.Second, time.Since(began))
	})
}

// playedCall is what a call that is served without a server has in its context.
type playedCall struct {
	grpc.ServerTransportStream
	later  func() (bool, error)
	cancel func()
}

func (c *playedCall) Later(f func() (bool, error)) { c.later = f }

func (c *playedCall) Interrupt() { c.cancel() }

// play serves a wire, which is made of its context, until the stream ends.
func (s *Server) play(ctx context.Context, wire func(context.Context) grpc.ServerStream) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	call := &playedCall{cancel: cancel}
	err := s.serve(wire(grpc.NewContextWithServerTransportStream(ctx, call)), allTypes, false)
	for more := err == nil; more; {
		more, err = call.later()
	}
	return err
}

// heldWire is the wire of a client that asks once, for all clusters, and says that
// it has some from before. It counts what it is sent.
type heldWire struct {
	grpc.ServerStream
	ctx   context.Context
	asked atomic.Bool
	got   *atomic.Int32
}

func (w *heldWire) Context() context.Context { return w.ctx }

func (w *heldWire) RecvMsg(m any) error {
	if !w.asked.Swap(true) {
		message, err := proto.Marshal(&discoveryv3.DiscoveryRequest{TypeUrl: resources.Clusters.URL(), VersionInfo: "1"})
		if err != nil {
			return err
		}
		return m.(*request).read(message)
	}
	<-w.ctx.Done()
	return w.ctx.Err()
}

func (w *heldWire) SendMsg(any) error {
	w.got.Add(1)
	return nil
}

func TestAfterAMassReconnectSoManyGetAFirstAnswerEachSecond(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := newTestHub(t)
		h.open(&h.loaded)
		h.full, h.warm = false, false
		h.hosts("users", "10.0.0.1:80")
		s := &Server{
			hub: h.hub, limits: Limits{Streams: 100, Names: 100}, admission: newBucket(10), form: newWireForm("replica-1"),
			identity: func(context.Context) string { return "" }, log: h.log, metrics: h.metrics, stopping: make(chan struct{}),
		}
		ctx, cancel := context.WithCancel(t.Context())
		var got atomic.Int32
		for range 35 {
			go func() {
				assert.ErrorIs(t, s.play(ctx, func(ctx context.Context) grpc.ServerStream { return &heldWire{ctx: ctx, got: &got} }), context.Canceled)
			}()
		}
		synctest.Wait()
		h.makeAsked()
		time.Sleep(time.Minute)
		require.Zero(t, got.Load(), "they are left with what they have")
		h.full = true
		h.warmUp()
		for _, want := range []int32{10, 20, 30, 35, 35} {
			synctest.Wait()
			require.Equal(t, want, got.Load())
			time.Sleep(time.Second)
		}
		cancel()
		synctest.Wait()
	})
}

// ended is why a stream is to end, and whether it is.
func ended(s *stream) (err error, is bool) {
	select {
	case err := <-s.ended:
		return err, true
	default:
		return nil, false
	}
}

func TestAStreamEndsWhenItIsTooOld(t *testing.T) {
	h := newTestHub(t)
	s := h.stream(t, true)
	s.until = start.Add(time.Hour)
	h.sweepStreams(start.Add(time.Hour-1), s.limits)
	_, is := ended(s)
	require.False(t, is)
	h.sweepStreams(start.Add(time.Hour), s.limits)
	err, is := ended(s)
	require.True(t, is)
	require.NoError(t, err)
}

// mute is the wire of a client that sends a request, or none, and then nothing more.
type mute struct {
	grpc.ServerStream
	ctx   context.Context
	first []byte // nil for none
}

func (m *mute) Context() context.Context { return m.ctx }

func (m *mute) RecvMsg(into any) error {
	if m.first == nil {
		<-m.ctx.Done()
		return m.ctx.Err()
	}
	message := m.first
	m.first = nil
	return into.(*request).read(message)
}

func (m *mute) SendMsg(any) error { return nil }

func TestAStreamEndsThatDoesNotBegin(t *testing.T) {
	first, err := proto.Marshal(&discoveryv3.DiscoveryRequest{TypeUrl: resources.Clusters.URL()})
	require.NoError(t, err)
	for name, message := range map[string][]byte{"silent": nil, "begun": first} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				h := newTestHub(t)
				s := &Server{
					hub: h.hub, limits: Limits{Streams: 1, Names: 1}, log: h.log, metrics: h.metrics,
					admission: newBucket(0), identity: func(context.Context) string { return "" }, stopping: make(chan struct{}),
				}
				ctx, cancel := context.WithTimeout(t.Context(), time.Hour)
				defer cancel()
				begin := time.Now()
				err := s.play(ctx, func(ctx context.Context) grpc.ServerStream { return &mute{ctx: ctx, first: message} })
				if message != nil {
					require.ErrorIs(t, err, context.DeadlineExceeded)
					require.Equal(t, time.Hour, time.Since(begin))
					return
				}
				require.Equal(t, codes.DeadlineExceeded, status.Code(err))
				require.ErrorContains(t, err, "no request came within 10s")
				require.Equal(t, hello.Within, time.Since(begin))
				require.InDelta(t, 1, testutil.ToFloat64(s.metrics.dropped), 0)
			})
		})
	}
}

func TestWhoMayBeItsNodeNoMoreIsLetGo(t *testing.T) {
	h := newTestHub(t)
	reason := status.Error(codes.PermissionDenied, "not of edge")
	open := map[string]*stream{}
	denied := false
	for _, cluster := range []string{"edge", "shop", ""} {
		s := h.stream(t, true)
		s.limits.MayBe = func(_ context.Context, a resources.Asker) error {
			if denied && a.Cluster != "shop" {
				return reason
			}
			return nil
		}
		open[cluster] = s
		if cluster == "" {
			continue // it has yet to say who it is
		}
		send(t, s, &discoveryv3.DeltaDiscoveryRequest{TypeUrl: resources.Clusters.URL(), Node: &corev3.Node{Id: "a", Cluster: cluster}})
	}
	h.recheckNodes()
	denied = true
	for _, s := range open {
		_, is := ended(s)
		require.False(t, is)
	}
	h.recheckNodes()
	err, is := ended(open["edge"])
	require.True(t, is)
	require.Equal(t, reason, err)
	for _, cluster := range []string{"shop", ""} {
		_, is := ended(open[cluster])
		require.False(t, is, cluster)
	}
}

func TestStreamsThatCameAtOnceDoNotGoAtOnce(t *testing.T) {
	limits := Limits{MaxAge: time.Hour}
	ends := map[time.Duration]bool{}
	for range 100 {
		age := limits.until(start).Sub(start)
		require.GreaterOrEqual(t, age, time.Hour)
		require.LessOrEqual(t, age, time.Hour+12*time.Minute, "a fifth more at most")
		ends[age.Truncate(time.Second)] = true
	}
	require.Greater(t, len(ends), 50)
	require.True(t, (&Limits{}).until(start).IsZero(), "for ever")
}

func TestAClientThatDoesNotAnswerIsCountedAndThenDropped(t *testing.T) {
	h := newTestHub(t)
	h.open(&h.loaded)
	limits := &Limits{SlowAfter: 30 * time.Second, DropAfter: time.Minute}
	s := h.stream(t, false)
	ask(t, s, resources.Clusters)
	r := s.next(start)
	require.NotNil(t, r)
	isSlow := func() bool { return s.status().Subscriptions["clusters"].Slow }

	h.sweepStreams(start.Add(29*time.Second), limits)
	require.False(t, isSlow())
	h.sweepStreams(start.Add(30*time.Second), limits)
	h.sweepStreams(start.Add(31*time.Second), limits)
	require.True(t, isSlow())
	answer(t, s, r)
	require.False(t, isSlow())

	h.hosts("users")
	require.NotNil(t, s.next(start))
	h.sweepStreams(start.Add(59*time.Second), limits)
	_, is := ended(s)
	require.False(t, is)
	h.sweepStreams(start.Add(60*time.Second), limits)
	err, _ := ended(s)
	require.Equal(t, codes.DeadlineExceeded, status.Code(err))
	require.ErrorContains(t, err, "response 2 of type clusters was not answered for 1m0s")
}

func TestAClientThatNeverReadsIsDropped(t *testing.T) {
	s := serving(t, func(l *Limits) { l.SlowAfter, l.DropAfter = time.Millisecond, time.Second })
	<-s.hosts.Loaded()
	for port := range uint16(5000) {
		s.register(t, "big", port+1)
		s.register(t, "large", port+1)
	}
	// More than the client's window takes, and more again: the sender is stuck.
	c := s.aggregated(t)
	c.ask(resources.Endpoints.URL(), "", "big")
	c.ask(resources.Listeners.URL(), "", "big", "large")
	servicetest.Eventually(t, "the client is dropped", func() bool {
		return testutil.ToFloat64(s.metrics.dropped) == 1 && len(s.Status()) == 0
	})
}

func TestWhatIsYetToBeSentIsCounted(t *testing.T) {
	h := newTestHub(t)
	h.open(&h.loaded)
	h.hosts("users", "10.0.0.1:80")
	h.hosts("orders", "10.0.0.2:80")
	streams := subscribed(t, h, true, 3, "users", "orders")
	counted := func() [2]float64 {
		h.sweepStreams(start, streams[0].limits)
		return [2]float64{testutil.ToFloat64(h.metrics.dirty), testutil.ToFloat64(h.metrics.dirtySets)}
	}
	require.Equal(t, [2]float64{0, 0}, counted())
	h.hosts("users", "10.0.0.3:80")
	h.hosts("orders", "10.0.0.4:80")
	require.Equal(t, [2]float64{3, 6}, counted(), "nobody has looked yet")
	require.NotNil(t, streams[0].next(start))
	h.hosts("users", "10.0.0.5:80")
	require.Nil(t, streams[0].next(start), "its last response is not answered")
	require.Equal(t, [2]float64{3, 5}, counted())
}

func TestWhoAsksTooFastIsReadMoreSlowly(t *testing.T) {
	s := serving(t, func(l *Limits) { l.RequestRate = 10 })
	<-s.hosts.Loaded()
	began := time.Now()
	c := s.aggregated(t)
	for range 16 {
		c.ask(resources.Clusters.URL(), "")
	}
	requests := func() float64 { return testutil.ToFloat64(s.metrics.requests) }
	servicetest.Eventually(t, "all requests are read", func() bool { return requests() == 16 })
	// Ten at once, and each more after the time of the one before it.
	require.GreaterOrEqual(t, time.Since(began), 500*time.Millisecond)
	c.want(resources.Clusters.URL())
}

func TestAFloodOfNamesEndsTheStreamAlone(t *testing.T) {
	s := serving(t, nil)
	<-s.hosts.Loaded()
	s.register(t, "users", 1)
	good := s.aggregated(t)
	good.ask(resources.Endpoints.URL(), "", "users")
	good.want(resources.Endpoints.URL(), "users")
	names := make([]string, 100_000)
	for i := range names {
		names[i] = fmt.Sprint("name-", i)
	}
	bad := s.aggregated(t)
	bad.ask(resources.Endpoints.URL(), "", names...)
	_, err := bad.Recv()
	require.Equal(t, codes.ResourceExhausted, status.Code(err))
	require.ErrorContains(t, err, "100000 names on one stream: 1000 are the most")

	delta := s.delta(t)
	require.NoError(t, delta.Send(&discoveryv3.DeltaDiscoveryRequest{TypeUrl: resources.Endpoints.URL(), ResourceNamesSubscribe: names}))
	_, err = delta.Recv()
	require.Equal(t, codes.ResourceExhausted, status.Code(err))

	s.register(t, "users", 2)
	require.Len(t, assigned(t, good.want(resources.Endpoints.URL(), "users")), 2)
	s.hub.mu.RLock()
	defer s.hub.mu.RUnlock()
	require.Less(t, len(s.hub.topics[resources.Endpoints]), 1000)
}

func TestANodeTooLargeToBeOneEndsTheStream(t *testing.T) {
	s := serving(t, nil)
	<-s.hosts.Loaded()
	for _, node := range []*corev3.Node{{Id: strings.Repeat("a", 2000)}, {Cluster: strings.Repeat("a", 1<<20)}} {
		c := s.aggregated(t)
		require.NoError(t, c.Send(&discoveryv3.DiscoveryRequest{TypeUrl: resources.Clusters.URL(), Node: node}))
		_, err := c.Recv()
		require.Equal(t, codes.InvalidArgument, status.Code(err))
	}
}

func TestWhoMayNotBeANodeIsRefused(t *testing.T) {
	s := serving(t, func(l *Limits) {
		l.MayBe = func(_ context.Context, a resources.Asker) error {
			if a.ID == "client-1" && a.Cluster == "clients" {
				return nil
			}
			return status.Errorf(codes.PermissionDenied, "not %q of %q", a.ID, a.Cluster)
		}
	})
	<-s.hosts.Loaded()
	c := s.aggregated(t)
	c.ask(resources.Clusters.URL(), "")
	c.want(resources.Clusters.URL())
	refused := s.aggregated(t)
	require.NoError(t, refused.Send(&discoveryv3.DiscoveryRequest{TypeUrl: resources.Clusters.URL(), Node: &corev3.Node{Id: "another"}}))
	_, err := refused.Recv()
	require.Equal(t, codes.PermissionDenied, status.Code(err))
}

func TestANodeHasSoManyStreams(t *testing.T) {
	s := serving(t, func(l *Limits) { l.StreamsPerNode = 1 })
	<-s.hosts.Loaded()
	c := s.aggregated(t)
	c.ask(resources.Clusters.URL(), "")
	c.want(resources.Clusters.URL())
	second := s.aggregated(t)
	second.ask(resources.Clusters.URL(), "")
	_, err := second.Recv()
	require.Equal(t, codes.ResourceExhausted, status.Code(err))
	require.NoError(t, c.CloseSend())
	servicetest.Eventually(t, "the first stream is gone", func() bool { return len(s.Status()) == 0 })
	third := s.aggregated(t)
	third.ask(resources.Clusters.URL(), "")
	third.want(resources.Clusters.URL())
}

func TestTheStreamsOfANodeHaveSoManyNamesTogether(t *testing.T) {
	for _, delta := range []bool{false, true} {
		h := newTestHub(t)
		h.open(&h.loaded)
		node := func(id string) *stream {
			s := h.stream(t, delta)
			s.limits.NamesPerNode = 3
			s.begun, s.node.id = true, id
			require.NoError(t, h.admitNode(id, 0))
			return s
		}
		names := func(s *stream, n int) error {
			s.mu.Lock()
			defer s.mu.Unlock()
			return s.mayName(nil, n)
		}
		one, two, other := node("a"), node("a"), node("b")
		require.NoError(t, names(one, 2))
		require.NoError(t, names(two, 1))
		require.NoError(t, names(other, 3))
		err := names(two, 2)
		require.Equal(t, codes.ResourceExhausted, status.Code(err))
		require.ErrorContains(t, err, `4 names on the streams of node "a": 3 are the most`)
		require.NoError(t, names(one, 1), "it names fewer")
		require.NoError(t, names(two, 2))
		one.close()
		require.NoError(t, names(two, 3), "the other stream is gone")
		two.close()
		require.NotContains(t, h.ofNode, "a")
		ask(t, other, resources.Endpoints, "x", "y")
		require.Equal(t, 2, h.ofNode["b"].names)
	}
}

// TestAnAnswerAsksForNoNames has the node's limit shrink, as it does for one
// stream when another takes what is left of it.
func TestAnAnswerAsksForNoNames(t *testing.T) {
	for _, delta := range []bool{false, true} {
		h := newTestHub(t)
		h.open(&h.loaded)
		h.hosts("users", "10.0.0.1:80")
		s := h.stream(t, delta)
		s.limits.NamesPerNode = 2
		ask(t, s, resources.Endpoints, "orders", "users")
		r := s.next(start)
		s.limits.NamesPerNode = 1
		answer(t, s, r)
		require.Equal(t, 2, h.ofNode[s.node.id].names)
	}
}

func TestANameMoreCountsBesideThoseThatTheStreamHas(t *testing.T) {
	h := newTestHub(t)
	h.open(&h.loaded)
	one, other := h.stream(t, true), h.stream(t, true)
	one.limits.NamesPerNode, other.limits.NamesPerNode = 3, 3
	ask(t, one, resources.Endpoints, "a", "b")
	ask(t, other, resources.Endpoints, "c")
	refused := func(s *stream) error {
		message, err := proto.Marshal(&discoveryv3.DeltaDiscoveryRequest{TypeUrl: resources.Endpoints.URL(), ResourceNamesSubscribe: []string{"d"}})
		require.NoError(t, err)
		r := request{delta: true}
		require.NoError(t, r.read(message))
		return s.request(&r)
	}
	require.Equal(t, codes.ResourceExhausted, status.Code(refused(one)))
	require.Equal(t, 3, h.ofNode[""].names, "nothing is free until the stream is gone")
	require.Equal(t, codes.ResourceExhausted, status.Code(refused(other)))
	one.close()
	require.Equal(t, 1, h.ofNode[""].names)
}

func TestASecretIsForThoseWhoMayHaveIt(t *testing.T) {
	h := newTestHub(t)
	h.open(&h.loaded)
	h.setFiles((&player{t: t}).files([]string{"secrets/cert:1"}))
	for _, delta := range []bool{false, true} {
		for _, may := range []bool{false, true} {
			s := h.stream(t, delta)
			s.limits.MayHaveSecret = func(_ context.Context, _ resources.Asker, name string) bool {
				require.Equal(t, "cert", name)
				return may
			}
			ask(t, s, resources.Secrets, "cert")
			r := s.next(start)
			switch {
			case may:
				require.Len(t, r.resources, 1)
			case delta:
				require.Empty(t, r.resources)
				require.Equal(t, []string{"cert"}, r.removed)
			default:
				require.Nil(t, r)
			}
		}
	}
}

func TestWhoMayHaveASecretIsAskedAgain(t *testing.T) {
	h := newTestHub(t)
	h.open(&h.loaded)
	h.setFiles((&player{t: t}).files([]string{"secrets/cert:1"}))
	for _, delta := range []bool{false, true} {
		may := false
		s := h.stream(t, delta)
		s.limits.MayHaveSecret = func(context.Context, resources.Asker, string) bool { return may }
		ask(t, s, resources.Secrets, "cert")
		if r := s.next(start); r != nil {
			answer(t, s, r)
		}
		may = true
		h.recheckSecrets()
		r := s.next(start)
		require.Len(t, r.resources, 1)
		answer(t, s, r)
		h.recheckSecrets()
		require.Nil(t, s.next(start), "it has what it may have")
		may = false
		h.recheckSecrets()
		r = s.next(start)
		if delta {
			require.Equal(t, []string{"cert"}, r.removed)
		} else {
			require.Nil(t, r, "nothing can be taken away in the state of the world")
		}
	}
}
