package xds_test

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"maps"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	clusterv3 "github.com/envoyproxy/go-control-plane/envoy/config/cluster/v3"
	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	endpointv3 "github.com/envoyproxy/go-control-plane/envoy/config/endpoint/v3"
	listenerv3 "github.com/envoyproxy/go-control-plane/envoy/config/listener/v3"
	routev3 "github.com/envoyproxy/go-control-plane/envoy/config/route/v3"
	discoveryv3 "github.com/envoyproxy/go-control-plane/envoy/service/discovery/v3"
	"github.com/stretchr/testify/require"
	rpcstatus "google.golang.org/genproto/googleapis/rpc/status"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/anypb"

	"github.com/weirproxy/weir/internal/servicetest"
	"github.com/weirproxy/weir/services/proxy/internal/coreconfig"
	"github.com/weirproxy/weir/services/proxy/internal/stats"
	"github.com/weirproxy/weir/services/proxy/internal/xds"
)

func TestMain(m *testing.M) { servicetest.Main(m) }

// server is a control plane that a transcript speaks for.
type server struct {
	requests chan proto.Message
	// responses are sent as they are; nil ends the stream.
	responses chan proto.Message
	done      chan struct{}
	// method is the full name of the method that was called last.
	method atomic.Value
}

// serve serves any method of a stream: of one type or all, in either dialect.
func (s *server) serve(_ any, stream grpc.ServerStream) error {
	method, _ := grpc.MethodFromServerStream(stream)
	s.method.Store(method)
	delta := strings.Contains(method, "/Delta")
	// Ends with the stream; the server's Stop waits for it through this call.
	var reader sync.WaitGroup
	reader.Go(func() {
		for {
			var r proto.Message = &discoveryv3.DiscoveryRequest{}
			if delta {
				r = &discoveryv3.DeltaDiscoveryRequest{}
			}
			if stream.RecvMsg(r) != nil {
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
			if err := stream.SendMsg(r); err != nil {
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
func start(t testing.TB) (*server, func(context.Context, string) (grpc.ClientConnInterface, io.Closer, error)) {
	t.Helper()
	s := &server{requests: make(chan proto.Message), responses: make(chan proto.Message), done: make(chan struct{})}
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	g := grpc.NewServer(grpc.UnknownServiceHandler(s.serve))
	var serving sync.WaitGroup
	serving.Go(func() { _ = g.Serve(listener) }) // ends with Stop
	t.Cleanup(func() { close(s.done); g.Stop(); serving.Wait() })
	return s, func(context.Context, string) (grpc.ClientConnInterface, io.Closer, error) {
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

func (s *sink) Failed(coreconfig.Source, []string, xds.Failure) {}

func (s *sink) Apply(resources []xds.Resource, all bool) error {
	names := make([]string, len(resources))
	for i, r := range resources {
		if names[i] = r.Name; r.Message == nil {
			names[i] = "-" + r.Name
		}
	}
	if all {
		names = append([]string{"all:"}, names...)
	}
	refuse, then := s.refuse, s.then
	s.refuse, s.then = nil, nil
	if then != nil {
		then()
	}
	s.lines <- strings.TrimSpace(fmt.Sprintf("apply %s %s", s.kind, strings.Join(names, " ")))
	return refuse
}

var kinds = map[string]string{"cds": xds.ClusterType, "eds": xds.AssignmentType, "lds": xds.ListenerType, "rds": xds.RouteType}

func kindOf(typeURL string) string {
	for kind, url := range kinds {
		if url == typeURL {
			return kind
		}
	}
	return typeURL
}

// show is a request as transcripts write it.
func show(m proto.Message) string {
	var text string
	var node *corev3.Node
	var refused *rpcstatus.Status
	switch r := m.(type) {
	case *discoveryv3.DiscoveryRequest:
		text = fmt.Sprintf("%s v=%s n=%s", kindOf(r.GetTypeUrl()), r.GetVersionInfo(), r.GetResponseNonce())
		text += list(" names=", r.GetResourceNames())
		node, refused = r.GetNode(), r.GetErrorDetail()
	case *discoveryv3.DeltaDiscoveryRequest:
		text = fmt.Sprintf("%s n=%s", kindOf(r.GetTypeUrl()), r.GetResponseNonce())
		text += list(" +", r.GetResourceNamesSubscribe()) + list(" -", r.GetResourceNamesUnsubscribe())
		var have []string
		for _, name := range slices.Sorted(maps.Keys(r.GetInitialResourceVersions())) {
			have = append(have, name+"="+r.GetInitialResourceVersions()[name])
		}
		text += list(" have=", have)
		node, refused = r.GetNode(), r.GetErrorDetail()
	}
	if node != nil {
		text += " node=" + node.GetId()
	}
	if refused != nil {
		text += fmt.Sprintf(" %s: %s", codes.Code(refused.GetCode()), strings.ReplaceAll(refused.GetMessage(), "\n", "; "))
	}
	return text
}

func list(before string, names []string) string {
	if len(names) == 0 {
		return ""
	}
	return before + strings.Join(names, ",")
}

// deltaResources makes them of words as name=version.
func deltaResources(t testing.TB, kind string, words ...string) (list []*discoveryv3.Resource) {
	for _, word := range words {
		name, version, _ := strings.Cut(word, "=")
		wrapper, inner, _ := strings.Cut(name, "/") // a wrapper of another name
		if inner == "" {
			inner = wrapper
		}
		list = append(list, &discoveryv3.Resource{Name: wrapper, Version: version, Resource: resource(t, kind, inner)})
	}
	return list
}

// resource makes one of the type, or with a mark in front something broken.
func resource(t testing.TB, kind, word string) *anypb.Any {
	var m proto.Message = &clusterv3.Cluster{Name: word}
	switch kind {
	case "eds":
		m = &endpointv3.ClusterLoadAssignment{ClusterName: word}
	case "lds":
		m = &listenerv3.Listener{Name: word}
	case "rds":
		m = &routev3.RouteConfiguration{Name: word}
	}
	mark, name, _ := strings.Cut(word, ":")
	switch mark {
	case "garbage":
		return &anypb.Any{TypeUrl: kinds[kind], Value: []byte{0xff}}
	case "othertype":
		return &anypb.Any{TypeUrl: xds.RouteType}
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
//	# delta, # node once     the stream is one; so is the client, if said anywhere
//	# alone                  each type has a stream of its own
//	subscribe KIND           Subscribe
//	names KIND [NAME…]       SetNames
//	want KIND NAME           SetName, or forget
//	during KIND: NAME…       SetNames(eds, NAME…) from inside the next Apply of KIND; once more behind each |
//	refuse KIND TEXT         the next Apply of KIND returns an error
//	< KIND VERSION NONCE …   the server sends these resources; in delta as NAME=VERSION, or -NAME for one that is gone
//	> REQUEST                the server gets this request next
//	apply KIND NAME…         the sink gets these resources next
//	method NAME              what the newest stream was opened with
//	close                    the server ends the stream
func play(t *testing.T, file string) {
	text, err := os.ReadFile(file)
	require.NoError(t, err)
	s, dial := start(t)
	plane := coreconfig.GRPC{
		Cluster: "plane", Delta: strings.Contains(string(text), "# delta"), NodeOnFirstMessageOnly: strings.Contains(string(text), "# node once"),
	}
	source := coreconfig.Source{}
	if strings.Contains(string(text), "# alone") {
		source.GRPC = plane
	}
	options := xds.Options{Dial: dial, Node: &corev3.Node{Id: "p"}, Stats: stats.NewRegistry(), Log: slog.New(slog.DiscardHandler)}
	if source.IsADS() {
		options.ADS = &plane
	}
	client := xds.New(options)
	applied := make(chan string, 1)
	sinks := map[string]*sink{}
	for kind, typeURL := range kinds {
		sinks[kind] = &sink{kind: kind, lines: applied}
		client.Handle(typeURL, sinks[kind])
	}
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
		case "subscribe":
			client.Subscribe(source, kinds[words[1]], 0, nil)
		case "names":
			client.SetNames(source, kinds[words[1]], words[2:])
		case "want", "forget":
			client.SetName(source, kinds[words[1]], words[2], words[0] == "want")
		case "during":
			sinks[strings.TrimSuffix(words[1], ":")].then = func() {
				for names := range strings.SplitSeq(strings.Join(words[2:], " "), "|") {
					client.SetNames(source, xds.AssignmentType, strings.Fields(names))
				}
			}
		case "refuse":
			sinks[words[1]].refuse = errors.New(strings.Join(words[2:], " "))
		case "<":
			s.responses <- makeResponse(t, plane.Delta, words[1], words[2], words[3], words[4:])
		case ">":
			run()
			select {
			case r := <-s.requests:
				require.Equal(t, strings.Join(words[1:], " "), show(r), where)
			case <-time.After(servicetest.Patience):
				t.Fatalf("%s: no request", where)
			}
		case "apply":
			select {
			case got := <-applied:
				require.Equal(t, strings.Join(words, " "), got, where)
			case <-time.After(servicetest.Patience):
				t.Fatalf("%s: nothing applied", where)
			}
		case "method":
			require.Equal(t, words[1], s.method.Load(), where)
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

func makeResponse(t *testing.T, delta bool, kind, version, nonce string, words []string) proto.Message {
	if !delta {
		r := &discoveryv3.DiscoveryResponse{TypeUrl: kinds[kind], VersionInfo: version, Nonce: nonce}
		for _, word := range words {
			r.Resources = append(r.Resources, resource(t, kind, word))
		}
		return r
	}
	r := &discoveryv3.DeltaDiscoveryResponse{TypeUrl: kinds[kind], SystemVersionInfo: version, Nonce: nonce}
	for _, word := range words {
		if gone, ok := strings.CutPrefix(word, "-"); ok {
			r.RemovedResources = append(r.RemovedResources, gone)
		} else {
			r.Resources = append(r.Resources, deltaResources(t, kind, word)...)
		}
	}
	return r
}

func TestTranscripts(t *testing.T) {
	files, err := filepath.Glob("testdata/*.transcript")
	require.NoError(t, err)
	require.NotEmpty(t, files)
	for _, file := range files {
		t.Run(strings.TrimSuffix(filepath.Base(file), ".transcript"), func(t *testing.T) { play(t, file) })
	}
}
