package xds_test

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	clusterv3 "github.com/envoyproxy/go-control-plane/envoy/config/cluster/v3"
	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	endpointv3 "github.com/envoyproxy/go-control-plane/envoy/config/endpoint/v3"
	discoveryv3 "github.com/envoyproxy/go-control-plane/envoy/service/discovery/v3"
	"github.com/stretchr/testify/require"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/anypb"

	"github.com/weirproxy/weir/internal/servicetest"
	"github.com/weirproxy/weir/services/proxy/internal/stats"
	"github.com/weirproxy/weir/services/proxy/internal/xds"
)

func TestMain(m *testing.M) { servicetest.Main(m) }

// server is a control plane that a transcript speaks for.
type server struct {
	discoveryv3.UnimplementedAggregatedDiscoveryServiceServer
	requests chan *discoveryv3.DiscoveryRequest
	// responses are sent as they are; nil ends the stream.
	responses chan *discoveryv3.DiscoveryResponse
	done      chan struct{}
}

func (s *server) StreamAggregatedResources(stream discoveryv3.AggregatedDiscoveryService_StreamAggregatedResourcesServer) error {
	// Ends with the stream; the server's Stop waits for it through this call.
	var reader sync.WaitGroup
	reader.Go(func() {
		for {
			r, err := stream.Recv()
			if err != nil {
				return
			}
			select {
			case s.requests <- r:
			case <-s.done:
				return
			case <-stream.Context().Done():
				return
			}
		}
	})
	for {
		select {
		case r := <-s.responses:
			if r == nil {
				return status.Error(codes.Unavailable, "going away")
			}
			if err := stream.Send(r); err != nil {
				return err
			}
		case <-stream.Context().Done():
			reader.Wait()
			return nil
		case <-s.done:
			return nil
		}
	}
}

// start serves on a free port and returns how to dial it.
func start(t testing.TB) (*server, func(context.Context) (grpc.ClientConnInterface, io.Closer, error)) {
	t.Helper()
	s := &server{requests: make(chan *discoveryv3.DiscoveryRequest), responses: make(chan *discoveryv3.DiscoveryResponse), done: make(chan struct{})}
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	g := grpc.NewServer()
	discoveryv3.RegisterAggregatedDiscoveryServiceServer(g, s)
	var serving sync.WaitGroup
	serving.Go(func() { _ = g.Serve(listener) }) // ends with Stop
	t.Cleanup(func() { close(s.done); g.Stop(); serving.Wait() })
	return s, func(context.Context) (grpc.ClientConnInterface, io.Closer, error) {
		c, err := grpc.NewClient(listener.Addr().String(), grpc.WithTransportCredentials(insecure.NewCredentials()))
		return c, c, err
	}
}

// sink notes what it gets, and says no once where it was told to.
type sink struct {
	kind   string
	lines  chan<- string
	then   func() // called by the next Apply
	refuse error
}

func (s *sink) Apply(resources []xds.Resource) error {
	names := make([]string, len(resources))
	for i, r := range resources {
		names[i] = r.Name
	}
	refuse, then := s.refuse, s.then
	s.refuse, s.then = nil, nil
	if then != nil {
		then()
	}
	s.lines <- strings.TrimSpace(fmt.Sprintf("apply %s %s", s.kind, strings.Join(names, " ")))
	return refuse
}

// routeType is a type that no test watches.
const routeType = "type.googleapis.com/envoy.config.route.v3.RouteConfiguration"

var kinds = map[string]string{"cds": xds.ClusterType, "eds": xds.AssignmentType, "rds": routeType}

func kindOf(typeURL string) string {
	for kind, url := range kinds {
		if url == typeURL {
			return kind
		}
	}
	return typeURL
}

// show is a request as transcripts write it.
func show(r *discoveryv3.DiscoveryRequest) string {
	text := fmt.Sprintf("%s v=%s n=%s", kindOf(r.GetTypeUrl()), r.GetVersionInfo(), r.GetResponseNonce())
	if len(r.GetResourceNames()) > 0 {
		text += " names=" + strings.Join(r.GetResourceNames(), ",")
	}
	if r.GetNode() != nil {
		text += " node=" + r.GetNode().GetId()
	}
	if e := r.GetErrorDetail(); e != nil {
		text += fmt.Sprintf(" %s: %s", codes.Code(e.GetCode()), strings.ReplaceAll(e.GetMessage(), "\n", "; "))
	}
	return text
}

// resource makes one of the type, or with a mark in front something broken.
func resource(t testing.TB, kind, word string) *anypb.Any {
	var m proto.Message = &clusterv3.Cluster{Name: word}
	if kind == "eds" {
		m = &endpointv3.ClusterLoadAssignment{ClusterName: word}
	}
	mark, name, _ := strings.Cut(word, ":")
	switch mark {
	case "garbage":
		return &anypb.Any{TypeUrl: kinds[kind], Value: []byte{0xff}}
	case "othertype":
		return &anypb.Any{TypeUrl: routeType}
	case "nameless":
		return &anypb.Any{TypeUrl: kinds[kind]}
	case "wrapped":
		inner := resource(t, kind, name)
		m = &discoveryv3.Resource{Name: name, Resource: inner}
	}
	packed, err := anypb.New(m)
	require.NoError(t, err)
	return packed
}

// play runs a transcript, line by line:
//
//	watch KIND [*]           subscribe, before the client runs
//	names KIND [NAME…]       SetNames
//	during KIND: NAME…       SetNames(eds, NAME…) from inside the next Apply of KIND
//	refuse KIND TEXT         the next Apply of KIND returns an error
//	< KIND VERSION NONCE …   the server sends these resources
//	> REQUEST                the server gets this request next
//	apply KIND NAME…         the sink gets these resources next
//	close                    the server ends the stream
func play(t *testing.T, file string) {
	text, err := os.ReadFile(file)
	require.NoError(t, err)
	s, dial := start(t)
	client := xds.New(xds.Options{
		Dial: dial, Node: &corev3.Node{Id: "p"}, Stats: stats.NewRegistry(), Log: slog.New(slog.DiscardHandler),
		NodeOnFirstMessageOnly: strings.Contains(string(text), "# node once"),
	})
	applied := make(chan string, 1)
	sinks := map[string]*sink{}
	ctx, cancel := context.WithCancel(context.Background())
	var running sync.WaitGroup
	defer func() { cancel(); running.Wait() }()
	run := sync.OnceFunc(func() {
		running.Go(func() { require.NoError(t, client.Run(ctx)) }) // ends with ctx
	})
	lines := bufio.NewScanner(strings.NewReader(string(text)))
	for number := 1; lines.Scan(); number++ {
		line := lines.Text()
		words := strings.Fields(line)
		if len(words) == 0 || words[0] == "#" {
			continue
		}
		where := fmt.Sprintf("%s:%d", file, number)
		switch words[0] {
		case "watch":
			sinks[words[1]] = &sink{kind: words[1], lines: applied}
			client.Watch(kinds[words[1]], slices.Contains(words, "*"), sinks[words[1]])
		case "names":
			client.SetNames(kinds[words[1]], words[2:])
		case "during":
			sinks[strings.TrimSuffix(words[1], ":")].then = func() { client.SetNames(xds.AssignmentType, words[2:]) }
		case "refuse":
			sinks[words[1]].refuse = errors.New(strings.Join(words[2:], " "))
		case "<":
			response := &discoveryv3.DiscoveryResponse{TypeUrl: kinds[words[1]], VersionInfo: words[2], Nonce: words[3]}
			for _, word := range words[4:] {
				response.Resources = append(response.Resources, resource(t, words[1], word))
			}
			s.responses <- response
		case ">":
			run()
			select {
			case r := <-s.requests:
				require.Equal(t, strings.Join(words[1:], " "), show(r), where)
			case <-time.After(10 * time.Second):
				t.Fatalf("%s: no request", where)
			}
		case "apply":
			select {
			case got := <-applied:
				require.Equal(t, strings.Join(words, " "), got, where)
			case <-time.After(10 * time.Second):
				t.Fatalf("%s: nothing applied", where)
			}
		case "close":
			s.responses <- nil
		default:
			t.Fatalf("%s: unknown line", where)
		}
	}
	select {
	case r := <-s.requests:
		t.Fatalf("a request more than in the transcript: %s", show(r))
	case line := <-applied:
		t.Fatalf("an update more than in the transcript: %s", line)
	default:
	}
}

func TestTranscripts(t *testing.T) {
	files, err := filepath.Glob("testdata/*.transcript")
	require.NoError(t, err)
	require.NotEmpty(t, files)
	for _, file := range files {
		t.Run(strings.TrimSuffix(filepath.Base(file), ".transcript"), func(t *testing.T) { play(t, file) })
	}
}
