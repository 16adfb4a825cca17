package bench

import (
	"context"
	"fmt"
	"math/rand/v2"
	"slices"
	"sync"
	"testing"
	"time"

	corepb "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	endpointpb "github.com/envoyproxy/go-control-plane/envoy/config/endpoint/v3"
	discoverypb "github.com/envoyproxy/go-control-plane/envoy/service/discovery/v3"
	"github.com/stretchr/testify/require"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/mem"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/encoding/protowire"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/anypb"
)

// crowdShape says how many clients there are and what they are like. Each has a
// stream and subscribes to so many services: to the first, which is everybody's,
// and others.
type crowdShape struct {
	streams, perConnection, names int
	delta                         bool
	// holding are the versions that the clients say they hold, by name; may be
	// nil, and is of use in delta alone.
	holding map[string]string
}

// crowd is clients of an xDS server that answer all they get with an ACK. Their
// streams are grpc-go's; of responses they read what an ACK wants, and names.
type crowd struct {
	crowdShape
	connections []*grpc.ClientConn
	subscribers map[string]int // how many clients subscribe to each name
	turn        int            // the service that was changed last, where they change in turn
	end         context.CancelFunc
	running     sync.WaitGroup // the goroutines of the clients

	mu        sync.Mutex
	tally     tally
	waiting   int               // clients that have yet to get all that they subscribe to
	versions  map[string]string // the last of each name; in delta alone
	changedAt map[string]time.Time
	fault     error // the first with which a stream ended before the crowd did
}

// tally is what a crowd got since it was last asked.
type tally struct {
	responses, resources, bytes int
	again                       int       // streams that had to be begun again
	first, last                 time.Time // when a response came
	// delays are from each change that was announced to each response with it.
	delays []time.Duration
}

// method is that of the streams.
func (s crowdShape) method() string {
	const service = "/envoy.service.discovery.v3.AggregatedDiscoveryService/"
	if s.delta {
		return service + "DeltaAggregatedResources"
	}
	return service + "StreamAggregatedResources"
}

// subscribedBy are the names that a client subscribes to: the same in each run.
func (f fleet) subscribedBy(client, n int) []string {
	name := func(service int) string {
		text, _, _ := f.place(service)
		return text
	}
	names := []string{name(0)}
	if n >= f.services {
		for service := 1; service < f.services; service++ {
			names = append(names, name(service))
		}
		return names
	}
	random := rand.New(rand.NewPCG(uint64(client), 1))
	for len(names) < n {
		if one := name(random.IntN(f.services)); !slices.Contains(names, one) {
			names = append(names, one)
		}
	}
	return names
}

// open makes a crowd of an xDS server and has it subscribe, all at once.
func (f fleet) open(t testing.TB, address string, shape crowdShape) *crowd {
	t.Helper()
	ctx, end := context.WithCancel(context.Background())
	c := &crowd{
		crowdShape: shape, end: end, waiting: shape.streams,
		subscribers: map[string]int{}, versions: map[string]string{}, changedAt: map[string]time.Time{},
	}
	t.Cleanup(c.close)
	for client := range shape.streams {
		if client%shape.perConnection == 0 {
			connection, err := grpc.NewClient(address,
				grpc.WithTransportCredentials(insecure.NewCredentials()),
				grpc.WithDefaultCallOptions(grpc.ForceCodecV2(byHand{}), grpc.WaitForReady(true), grpc.MaxCallRecvMsgSize(1<<30)),
				// Windows as large as Envoy's, so that none holds up a server.
				grpc.WithInitialWindowSize(16<<20), grpc.WithInitialConnWindowSize(24<<20),
				grpc.WithReadBufferSize(4<<10),
			)
			require.NoError(t, err)
			c.connections = append(c.connections, connection)
		}
		one := &subscriber{crowd: c, connection: c.connections[client/shape.perConnection], number: client, names: f.subscribedBy(client, shape.names)}
		for _, name := range one.names {
			c.subscribers[name]++
		}
		// Ends with the crowd, which waits for it.
		c.running.Go(func() { one.run(ctx) })
	}
	return c
}

// close ends all streams and connections.
func (c *crowd) close() {
	c.end()
	for _, connection := range c.connections {
		_ = connection.Close() // it has nothing to say any more
	}
	c.running.Wait()
	c.connections = nil
}

// await waits until something holds of the crowd, which is asked with its lock
// held.
func (c *crowd) await(t testing.TB, what string, holds func() bool) {
	t.Helper()
	const patience = 5 * time.Minute // machines that measure nothing are slow at times
	for began := time.Now(); ; time.Sleep(2 * time.Millisecond) {
		c.mu.Lock()
		done, fault := holds(), c.fault
		c.mu.Unlock()
		require.NoError(t, fault, "a stream, before %s", what)
		if done {
			return
		}
		require.Less(t, time.Since(began), patience, "time until %s", what)
	}
}

// awaitAll waits until each client has all that it subscribes to.
func (c *crowd) awaitAll(t testing.TB) {
	t.Helper()
	c.await(t, "each has all that it subscribes to", func() bool { return c.waiting == 0 })
}

// take returns the tally, and begins another.
func (c *crowd) take() tally {
	c.mu.Lock()
	defer c.mu.Unlock()
	taken := c.tally
	c.tally = tally{}
	return taken
}

// announce notes that a resource changes.
func (c *crowd) announce(name string, at time.Time) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.changedAt[name] = at
}

// heard notes a response.
func (c *crowd) heard(r *received, at time.Time) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.tally.responses == 0 {
		c.tally.first = at
	}
	c.tally.last = at
	c.tally.responses++
	c.tally.resources += len(r.resources)
	c.tally.bytes += r.size
	for _, resource := range r.resources {
		if c.delta && c.versions[resource.name] != resource.version {
			c.versions[resource.name] = resource.version
		}
		if changed, ok := c.changedAt[resource.name]; ok {
			c.tally.delays = append(c.tally.delays, at.Sub(changed))
		}
	}
}

// subscriber is one client of a crowd.
type subscriber struct {
	crowd      *crowd
	connection *grpc.ClientConn
	number     int
	names      []string
}

// run opens a stream, subscribes, and answers until the crowd ends. A stream that
// ends before there was an answer, since its server has too much to do, is begun
// again.
func (c *subscriber) run(ctx context.Context) {
	for {
		answered, err := c.serve(ctx)
		if ctx.Err() != nil {
			return
		}
		c.crowd.mu.Lock()
		again := !answered && status.Code(err) == codes.Unavailable
		switch {
		case again:
			c.crowd.tally.again++
		case c.crowd.fault == nil:
			c.crowd.fault = fmt.Errorf("client %d: %w", c.number, err)
		}
		c.crowd.mu.Unlock()
		if !again {
			return
		}
	}
}

// serve is run for one stream.
func (c *subscriber) serve(ctx context.Context) (answered bool, err error) {
	crowd := c.crowd
	stream, err := c.connection.NewStream(ctx, &grpc.StreamDesc{ServerStreams: true, ClientStreams: true}, crowd.method())
	if err != nil {
		return false, err
	}
	var names []byte
	for _, name := range c.names {
		names = appendText(names, 3, name) // of the same number in both variants
	}
	_ = stream.SendMsg(c.first(names)) // why it cannot, receiving tells; so below
	missing := 0
	for _, name := range c.names {
		if _, held := crowd.holding[name]; !held { // what it holds is not sent
			missing++
		}
	}
	if crowd.delta {
		names = nil // an ACK has them in the state of the world alone
	}
	for {
		r := received{delta: crowd.delta}
		if err := stream.RecvMsg(&r); err != nil {
			return answered, err
		}
		crowd.heard(&r, time.Now())
		answered = true
		if missing > 0 {
			if missing -= len(r.resources); missing <= 0 {
				crowd.mu.Lock()
				crowd.waiting--
				crowd.mu.Unlock()
			}
		}
		_ = stream.SendMsg(r.ack(names))
	}
}

// first is the first request of a client.
func (c *subscriber) first(names []byte) []byte {
	node := appendText(nil, 1, fmt.Sprintf("bench-%05d", c.number))
	node = appendText(node, 2, "bench")
	if !c.crowd.delta {
		return append(appendText(appendBytes(nil, 2, node), 4, endpointsURL), names...)
	}
	b := append(appendText(appendBytes(nil, 1, node), 2, endpointsURL), names...)
	for _, name := range c.names {
		if version, ok := c.crowd.holding[name]; ok {
			b = appendBytes(b, 5, appendText(appendText(nil, 1, name), 2, version))
		}
	}
	return b
}

const endpointsURL = "type.googleapis.com/envoy.config.endpoint.v3.ClusterLoadAssignment"

// received is what is read of a DiscoveryResponse or a DeltaDiscoveryResponse.
type received struct {
	delta          bool
	size           int
	version, nonce string
	resources      []receivedResource
}

// receivedResource is one of its resources; only delta has a version of it.
type receivedResource struct{ name, version string }

// ack is the request that answers a response.
func (r *received) ack(names []byte) []byte {
	b := make([]byte, 0, 128+len(names))
	if r.delta {
		return appendText(appendText(b, 2, endpointsURL), 6, r.nonce)
	}
	b = appendText(appendText(appendText(b, 1, r.version), 4, endpointsURL), 5, r.nonce)
	return append(b, names...)
}

// read reads a message.
func (r *received) read(b []byte) error {
	r.size = len(b)
	return eachText(b, func(field protowire.Number, text []byte) error {
		switch {
		case field == 5:
			r.nonce = string(text)
		case field == 1 && !r.delta:
			r.version = string(text)
		case field == 2 && r.delta:
			var one receivedResource
			err := eachText(text, func(field protowire.Number, text []byte) error {
				switch field {
				case 1:
					one.version = string(text)
				case 3:
					one.name = string(text)
				}
				return nil
			})
			r.resources = append(r.resources, one)
			return err
		case field == 2: // an Any with an assignment, the first field of which is its name
			return eachText(text, func(field protowire.Number, text []byte) error {
				if field != 2 {
					return nil
				}
				_, _, tag := protowire.ConsumeTag(text)
				if tag < 0 {
					return protowire.ParseError(tag)
				}
				name, n := protowire.ConsumeBytes(text[tag:])
				if n < 0 {
					return protowire.ParseError(n)
				}
				r.resources = append(r.resources, receivedResource{name: string(name)})
				return nil
			})
		}
		return nil
	})
}

// eachText calls do with each field of a message that holds bytes.
func eachText(b []byte, do func(protowire.Number, []byte) error) error {
	for len(b) > 0 {
		field, kind, n := protowire.ConsumeTag(b)
		if n < 0 {
			return protowire.ParseError(n)
		}
		b = b[n:]
		var text []byte
		if kind == protowire.BytesType {
			text, n = protowire.ConsumeBytes(b)
		} else {
			n = protowire.ConsumeFieldValue(field, kind, b)
		}
		if n < 0 {
			return protowire.ParseError(n)
		}
		b = b[n:]
		if kind != protowire.BytesType {
			continue
		}
		if err := do(field, text); err != nil {
			return err
		}
	}
	return nil
}

func appendText(b []byte, field protowire.Number, text string) []byte {
	return protowire.AppendString(protowire.AppendTag(b, field, protowire.BytesType), text)
}

func appendBytes(b []byte, field protowire.Number, text []byte) []byte {
	return protowire.AppendBytes(protowire.AppendTag(b, field, protowire.BytesType), text)
}

// byHand is a codec of requests that are bytes and of responses that are
// received.
type byHand struct{}

func (byHand) Name() string { return "proto" }

func (byHand) Marshal(v any) (mem.BufferSlice, error) {
	return mem.BufferSlice{mem.SliceBuffer(v.([]byte))}, nil
}

func (byHand) Unmarshal(data mem.BufferSlice, v any) error {
	whole := data.MaterializeToBuffer(mem.DefaultBufferPool())
	defer whole.Free()
	return v.(*received).read(whole.ReadOnlyData())
}

func TestAClientReadsNamesAndAnswersByVersionAndNonce(t *testing.T) {
	packed, err := anypb.New(&endpointpb.ClusterLoadAssignment{ClusterName: "a", Policy: &endpointpb.ClusterLoadAssignment_Policy{}})
	require.NoError(t, err)
	plane := &corepb.ControlPlane{Identifier: "here"}
	names := appendText(appendText(nil, 3, "a"), 3, "b")
	for _, c := range []struct {
		name          string
		response      proto.Message
		want          received
		wantACK, sent proto.Message
	}{
		{
			"delta",
			&discoverypb.DeltaDiscoveryResponse{
				SystemVersionInfo: "7", TypeUrl: endpointsURL, Nonce: "3", ControlPlane: plane,
				Resources: []*discoverypb.Resource{{Name: "a", Version: "9", Resource: packed}, {Name: "b"}},
			},
			received{delta: true, nonce: "3", resources: []receivedResource{{"a", "9"}, {name: "b"}}},
			&discoverypb.DeltaDiscoveryRequest{TypeUrl: endpointsURL, ResponseNonce: "3"}, &discoverypb.DeltaDiscoveryRequest{},
		},
		{
			"state_of_the_world",
			&discoverypb.DiscoveryResponse{VersionInfo: "7", TypeUrl: endpointsURL, Nonce: "3", ControlPlane: plane, Resources: []*anypb.Any{packed}},
			received{version: "7", nonce: "3", resources: []receivedResource{{name: "a"}}},
			&discoverypb.DiscoveryRequest{VersionInfo: "7", TypeUrl: endpointsURL, ResponseNonce: "3", ResourceNames: []string{"a", "b"}}, &discoverypb.DiscoveryRequest{},
		},
	} {
		t.Run(c.name, func(t *testing.T) {
			text, err := proto.Marshal(c.response)
			require.NoError(t, err)
			got := received{delta: c.want.delta}
			require.NoError(t, got.read(text))
			c.want.size = len(text)
			require.Equal(t, c.want, got)
			require.Error(t, new(received).read(text[:len(text)-1]))

			ackNames := names
			if c.want.delta {
				ackNames = nil
			}
			require.NoError(t, proto.Unmarshal(got.ack(ackNames), c.sent))
			require.True(t, proto.Equal(c.wantACK, c.sent), "%v", c.sent)
		})
	}
}

func TestAClientSaysWhatItSubscribesToAndHolds(t *testing.T) {
	shape := crowdShape{delta: true, holding: map[string]string{"b": "9", "c": "1"}}
	one := subscriber{crowd: &crowd{crowdShape: shape}, number: 4, names: []string{"a", "b"}}
	names := appendText(appendText(nil, 3, "a"), 3, "b")
	node := &corepb.Node{Id: "bench-00004", Cluster: "bench"}
	delta := &discoverypb.DeltaDiscoveryRequest{}
	require.NoError(t, proto.Unmarshal(one.first(names), delta))
	require.True(t, proto.Equal(&discoverypb.DeltaDiscoveryRequest{
		Node: node, TypeUrl: endpointsURL, ResourceNamesSubscribe: one.names, InitialResourceVersions: map[string]string{"b": "9"},
	}, delta), "%v", delta)
	one.crowd.delta = false
	world := &discoverypb.DiscoveryRequest{}
	require.NoError(t, proto.Unmarshal(one.first(names), world))
	require.True(t, proto.Equal(&discoverypb.DiscoveryRequest{Node: node, TypeUrl: endpointsURL, ResourceNames: one.names}, world), "%v", world)
}

func TestAllClientsSubscribeToTheFirstServiceAndToOthers(t *testing.T) {
	f := fleet{services: 60}
	first, _, _ := f.place(0)
	for client := range 100 {
		names := f.subscribedBy(client, 50)
		require.Equal(t, first, names[0])
		slices.Sort(names)
		require.Len(t, slices.Compact(names), 50)
		require.Equal(t, f.subscribedBy(client, 50), f.subscribedBy(client, 50))
	}
	require.Len(t, f.subscribedBy(3, 100), 60)
}
