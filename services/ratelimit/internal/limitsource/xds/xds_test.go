package xds

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	discoveryv3 "github.com/envoyproxy/go-control-plane/envoy/service/discovery/v3"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil"
	"github.com/stretchr/testify/require"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/anypb"

	"github.com/weirproxy/weir/internal/servicetest"
	"github.com/weirproxy/weir/services/ratelimit/internal/algorithm"
	"github.com/weirproxy/weir/services/ratelimit/internal/algorithm/fixedwindow"
	"github.com/weirproxy/weir/services/ratelimit/internal/limits"
	"github.com/weirproxy/weir/services/ratelimit/internal/limitsource"
)

func TestMain(m *testing.M) { servicetest.Main(m) }

// sink keeps the rules in force.
type sink struct {
	rules atomic.Pointer[limits.Set]
}

func (s *sink) SetRules(rules *limits.Set) { s.rules.Store(rules) }

// String names the rules in force, "domain.key", or is "-" before the first.
func (s *sink) String() string {
	set := s.rules.Load()
	if set == nil {
		return "-"
	}
	var names []string
	for d := range set.Domains() {
		for _, r := range d.Rules {
			names = append(names, d.Name+"."+r.Key)
		}
	}
	return strings.Join(names, " ")
}

// options are those that every test may do with.
func options(rules *sink, log io.Writer) Options {
	return Options{
		Options: limitsource.Options{
			Parser: &limits.Parser{
				Algorithms:     []algorithm.Algorithm{fixedwindow.Algorithm{}},
				NearLimitRatio: 0.8,
				Stats:          limits.NewStats(prometheus.NewRegistry()),
			},
			Sink:    rules,
			Log:     slog.New(slog.NewTextHandler(log, nil)),
			Metrics: prometheus.NewRegistry(),
		},
		Server:       "plane",
		NodeID:       "p",
		ConnectRetry: 3 * time.Second,
		Backoff:      Backoff{Initial: 10 * time.Second, Max: time.Minute},
	}
}

// plane is a control plane without a wire, for tests that own the time.
type plane struct {
	requests chan *discoveryv3.DiscoveryRequest
	// responses are sent as they are; nil ends the stream.
	responses chan *discoveryv3.DiscoveryResponse
}

func newPlane() *plane {
	return &plane{make(chan *discoveryv3.DiscoveryRequest), make(chan *discoveryv3.DiscoveryResponse)}
}

func (p *plane) dial() (grpc.ClientConnInterface, io.Closer, error)                 { return p, p, nil }
func (p *plane) Close() error                                                       { return nil }
func (p *plane) Invoke(context.Context, string, any, any, ...grpc.CallOption) error { return io.EOF }
func (p *plane) NewStream(ctx context.Context, _ *grpc.StreamDesc, _ string, _ ...grpc.CallOption) (grpc.ClientStream, error) {
	return &planeStream{plane: p, ctx: ctx}, nil
}

type planeStream struct {
	grpc.ClientStream
	*plane
	ctx context.Context
}

func (s *planeStream) SendMsg(m any) error {
	select {
	case s.requests <- m.(*discoveryv3.DiscoveryRequest):
		return nil
	case <-s.ctx.Done():
		return io.EOF
	}
}

func (s *planeStream) RecvMsg(m any) error {
	select {
	case r := <-s.responses:
		if r == nil {
			return status.Error(codes.Unavailable, "going away")
		}
		proto.Merge(m.(proto.Message), r)
		return nil
	case <-s.ctx.Done():
		return s.ctx.Err()
	}
}

// running makes a source and runs it until the test ends.
func running(t *testing.T, o Options, dial func() (grpc.ClientConnInterface, io.Closer, error)) *Source {
	t.Helper()
	s, err := New(o)
	require.NoError(t, err)
	if dial != nil {
		s.dial = dial
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- s.Run(ctx) }() // ends when the test does, which waits for it
	t.Cleanup(func() {
		cancel()
		require.NoError(t, <-done)
	})
	return s
}

// packed makes a resource of a word of a transcript: NAME=DOMAIN:KEY, which has
// one rule and is refused without a key, or one of the marks below.
func packed(t testing.TB, word string) *anypb.Any {
	var m proto.Message
	mark, rest, _ := strings.Cut(word, "/")
	switch mark {
	case "garbage":
		return &anypb.Any{TypeUrl: typeURL, Value: []byte{0xff}}
	case "othertype":
		return &anypb.Any{TypeUrl: "type.googleapis.com/other"}
	case "wrapped":
		name, _, _ := strings.Cut(rest, "=")
		m = &discoveryv3.Resource{Name: name, Resource: packed(t, rest)}
	case "wrappedgarbage":
		m = &discoveryv3.Resource{Name: rest, Resource: packed(t, "garbage")}
	default:
		name, rest, _ := strings.Cut(word, "=")
		domain, key, _ := strings.Cut(rest, ":")
		m = config(name, domain, key).(proto.Message)
	}
	a, err := anypb.New(m)
	require.NoError(t, err)
	return a
}

// response makes one of words: VERSION NONCE RESOURCE…
func response(t testing.TB, words ...string) *discoveryv3.DiscoveryResponse {
	r := &discoveryv3.DiscoveryResponse{TypeUrl: typeURL, VersionInfo: words[0], Nonce: words[1]}
	for _, word := range words[2:] {
		r.Resources = append(r.Resources, packed(t, word))
	}
	return r
}

// show is a request as transcripts write it.
func show(r *discoveryv3.DiscoveryRequest) string {
	text := fmt.Sprintf("v=%s n=%s node=%s", r.GetVersionInfo(), r.GetResponseNonce(), r.GetNode().GetId())
	if r.GetTypeUrl() != typeURL || len(r.GetResourceNames()) > 0 {
		text += fmt.Sprintf(" type=%s names=%s", r.GetTypeUrl(), r.GetResourceNames())
	}
	if e := r.GetErrorDetail(); e != nil {
		text += fmt.Sprintf(" %s: %s", codes.Code(e.GetCode()), strings.ReplaceAll(e.GetMessage(), "\n", "; "))
	}
	return text
}

// play runs a transcript, line by line:
//
//	all or nothing               sets that option
//	merge domains                sets that option
//	< VERSION NONCE RESOURCE…    the server sends this, see packed
//	< other                      the server sends a response of another type
//	> REQUEST                    the server gets this request next
//	rules DOMAIN.KEY…            these rules are in force; - before the first
//	norules [TEXT]               what NoRules says
//	close                        the server ends the stream
func play(t *testing.T, file string) {
	text, err := os.ReadFile(file)
	require.NoError(t, err)
	rules, p := &sink{}, newPlane()
	o := options(rules, t.Output())
	o.AllOrNothing = strings.Contains(string(text), "all or nothing\n")
	o.MergeDomains = strings.Contains(string(text), "merge domains\n")
	s := running(t, o, p.dial)
	for i, line := range strings.Split(string(text), "\n") {
		where := fmt.Sprintf("%s:%d", file, i+1)
		verb, rest, _ := strings.Cut(line, " ")
		switch verb {
		case "", "#", "all", "merge":
		case "<":
			r := &discoveryv3.DiscoveryResponse{TypeUrl: "type.googleapis.com/other"}
			if rest != "other" {
				r = response(t, strings.Fields(rest)...)
			}
			p.responses <- r
		case ">":
			select {
			case r := <-p.requests:
				require.Equal(t, rest, show(r), where)
			case <-time.After(time.Hour):
				t.Fatalf("%s: no request", where)
			}
		case "rules":
			require.Equal(t, rest, rules.String(), where)
		case "norules":
			got := ""
			if err := s.NoRules(); err != nil {
				got = err.Error()
			}
			require.Equal(t, rest, got, where)
		case "close":
			p.responses <- nil
		default:
			t.Fatalf("%s: unknown line", where)
		}
	}
	select {
	case r := <-p.requests:
		t.Fatalf("a request more than in the transcript: %s", show(r))
	case <-time.After(time.Hour):
	}
}

func TestTranscripts(t *testing.T) {
	files, err := filepath.Glob("testdata/*.transcript")
	require.NoError(t, err)
	require.NotEmpty(t, files)
	for _, file := range files {
		t.Run(strings.TrimSuffix(filepath.Base(file), ".transcript"), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) { play(t, file) })
		})
	}
}

func TestBackoffDoublesUpToItsMaxAndSpreads(t *testing.T) {
	still := Backoff{Initial: 10 * time.Second, Max: 60 * time.Second}
	for n, want := range []time.Duration{10, 20, 40, 60, 60} {
		require.Equal(t, want*time.Second, still.after(n), "after %d failures", n)
	}
	require.Equal(t, 60*time.Second, still.after(1<<30))
	spread := Backoff{Initial: 10 * time.Second, Max: 60 * time.Second, Spread: 0.5}
	seen := map[time.Duration]bool{}
	for range 100 {
		wait := spread.after(1)
		require.GreaterOrEqual(t, wait, 10*time.Second)
		require.LessOrEqual(t, wait, 30*time.Second)
		seen[wait] = true
	}
	require.Greater(t, len(seen), 50)
}

// away is a plane that cannot be reached.
type away struct{ plane }

func (a *away) NewStream(context.Context, *grpc.StreamDesc, string, ...grpc.CallOption) (grpc.ClientStream, error) {
	return nil, status.Error(codes.Unavailable, "connection refused")
}

func TestAPlaneThatIsAwayIsTriedAtTheIntervalAndLoggedOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var log bytes.Buffer
		var tries []time.Time
		s := running(t, options(&sink{}, &log), func() (grpc.ClientConnInterface, io.Closer, error) {
			tries = append(tries, time.Now())
			if len(tries)%2 == 0 {
				return nil, nil, errors.New("no certificate")
			}
			return &away{}, &away{}, nil
		})
		time.Sleep(time.Minute - time.Second)
		synctest.Wait()
		require.Len(t, tries, 20)
		for i := 1; i < len(tries); i++ {
			require.Equal(t, 3*time.Second, tries[i].Sub(tries[i-1]))
		}
		require.Equal(t, 1, strings.Count(log.String(), "\n"), log.String())
		require.Contains(t, log.String(), "connection refused")
		require.EqualError(t, s.NoRules(), "no rules: control plane plane: no certificate")
	})
}

func TestALostStreamIsOpenedAgainWithGrowingWaitsUntilThePlaneIsThere(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p, rules := newPlane(), &sink{}
		s := running(t, options(rules, t.Output()), p.dial)
		wait := func(want time.Duration) {
			t.Helper()
			lost := time.Now()
			<-p.requests
			require.Equal(t, want*time.Second, time.Since(lost))
		}
		wait(0)
		for _, seconds := range []time.Duration{10, 20, 40, 60, 60} {
			p.responses <- nil
			wait(seconds)
		}
		p.responses <- response(t, "1", "x", "one=a:k")
		<-p.requests
		require.Equal(t, 1.0, testutil.ToFloat64(s.stats.connected))
		p.responses <- nil
		synctest.Wait()
		require.Equal(t, 0.0, testutil.ToFloat64(s.stats.connected))
		wait(10)
		p.responses <- nil
		wait(20)
		time.Sleep(steadyAfter + time.Millisecond) // there, without a word
		p.responses <- nil
		wait(10)
		require.Equal(t, "a.k", rules.String())
		require.NoError(t, s.NoRules())
	})
}

func TestAPlaneThatAnswersEachRefusalIsRefusedOnceASecond(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var log bytes.Buffer
		p := newPlane()
		o := options(&sink{}, &log)
		s := running(t, o, p.dial)
		<-p.requests
		began := time.Now()
		for range 11 {
			p.responses <- response(t, "1", "x", "one=a:", "garbage/")
			require.NotNil(t, (<-p.requests).GetErrorDetail())
		}
		require.Equal(t, 10*time.Second, time.Since(began))
		p.responses <- response(t, "2", "y", "one=a:k")
		require.Nil(t, (<-p.requests).GetErrorDetail())
		require.Equal(t, 10*time.Second, time.Since(began))
		require.Equal(t, 2, strings.Count(log.String(), "rules refused"), log.String())
		require.Empty(t, s.Refused())
		require.NoError(t, testutil.GatherAndCompare(o.Metrics.(prometheus.Gatherer), strings.NewReader(`
# HELP ratelimit_service_config_load_error Loads in which something was refused.
# TYPE ratelimit_service_config_load_error counter
ratelimit_service_config_load_error 11
# HELP ratelimit_service_config_load_success Loads in which nothing was refused.
# TYPE ratelimit_service_config_load_success counter
ratelimit_service_config_load_success 1
# HELP ratelimit_service_config_sources Rule files or resources that the last load read, good or not.
# TYPE ratelimit_service_config_sources gauge
ratelimit_service_config_sources 1
# HELP ratelimit_service_config_unread Files, directories and resources that loads could not read.
# TYPE ratelimit_service_config_unread counter
ratelimit_service_config_unread 11
`), "ratelimit_service_config_load_error", "ratelimit_service_config_load_success",
			"ratelimit_service_config_sources", "ratelimit_service_config_unread"))
	})
}

func TestALongRefusalIsCut(t *testing.T) {
	text := cut("\xff" + strings.Repeat("ü", maxRefusal))
	require.LessOrEqual(t, len(text), maxRefusal)
	require.Greater(t, len(text), maxRefusal-100)
	require.True(t, strings.HasSuffix(text, "ü … (cut)"), text[len(text)-20:])
	require.Equal(t, "short", cut("short"))
}

func FuzzApply(f *testing.F) {
	for _, words := range [][]string{
		{"1", "x", "one=a:k", "two=b:k"},
		{"1", "x", "garbage", "othertype", "wrapped/one=a:k", "wrappedgarbage/b", "one=a:"},
		{"", ""},
	} {
		bytes, err := proto.Marshal(response(f, words...))
		require.NoError(f, err)
		f.Add(bytes)
	}
	rules := &sink{}
	o := options(rules, io.Discard)
	s, err := New(o)
	require.NoError(f, err)
	f.Fuzz(func(t *testing.T, bytes []byte) {
		var r discoveryv3.DiscoveryResponse
		if proto.Unmarshal(bytes, &r) != nil {
			return
		}
		s.options.MergeDomains = len(bytes)%2 == 0
		refused := s.apply(&r)
		require.True(t, slices.Equal(refused, s.Refused()))
		_, err := proto.Marshal(s.request("", refused))
		require.NoError(t, err)
	})
}

func containsAll(text string, parts ...string) bool {
	return !slices.ContainsFunc(parts, func(part string) bool { return !strings.Contains(text, part) })
}
