package bench

import (
	"debug/buildinfo"
	"fmt"
	"maps"
	"runtime"
	"strconv"
	"testing"
	"time"

	commonpb "github.com/envoyproxy/go-control-plane/envoy/extensions/common/ratelimit/v3"
	rlspb "github.com/envoyproxy/go-control-plane/envoy/service/ratelimit/v3"
	"github.com/stretchr/testify/require"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"

	"github.com/weirproxy/weir/integration/harness"
	"github.com/weirproxy/weir/internal/servicetest"
)

// The columns of the references.
const (
	peer         = "peer"
	floorDefault = "floor"
	floorTuned   = "tuned floor"
)

// calls is a load of gRPC calls that are all the same.
type calls struct {
	domain                            string
	descriptors, connections, streams int
}

func (c calls) String() string {
	plural := "s"
	if c.descriptors == 1 {
		plural = ""
	}
	return fmt.Sprintf("%d descriptor%s, %d × %d", c.descriptors, plural, c.connections, c.streams)
}

// request is the call's message.
func (c calls) request() *rlspb.RateLimitRequest {
	request := &rlspb.RateLimitRequest{Domain: c.domain}
	for i := range c.descriptors {
		request.Descriptors = append(request.Descriptors, &commonpb.RateLimitDescriptor{
			Entries: []*commonpb.RateLimitDescriptor_Entry{{Key: "generic_key", Value: "bench-" + strconv.Itoa(i)}},
		})
	}
	return request
}

// newRatelimitGroup is our rate limiter in its forms, a peer where there is
// one, and grpc-go with a constant answer.
func newRatelimitGroup(t testing.TB, m *machine) *group {
	t.Helper()
	h2load := servicetest.Peer(t, "h2load", "H2LOAD", "make peers")
	const oneCore, cache = "GOMAXPROCS=1", "LOCAL_CACHE_SIZE_IN_BYTES=1048576"
	ours := func(settings ...string) *harness.Process {
		return m.start(t, m.measured, harness.RatelimitProgram(t, rules(t), append(settings, oneCore)...))
	}
	redisProgram := harness.RedisProgram(t)
	redis := m.start(t, m.other, redisProgram)
	// No machine is so busy that a call fails: what it costs is asked, not when
	// it is given up.
	const patient = "REDIS_TIMEOUT=5s"
	url := "REDIS_URL=redis://" + redis.Addr("redis")
	inMemory, onRedis, cached := ours("BACKEND_TYPE=memory"), ours(url, patient), ours(url, patient, cache)
	floors := map[string]*harness.Process{
		floorDefault: m.start(t, m.measured, harness.RLSFloorProgram(t, "0", "100", oneCore)),
		floorTuned:   m.start(t, m.measured, harness.RLSFloorProgram(t, "64", "400", oneCore)),
	}
	// A peer where there is one, with a Redis of its own.
	peerIs := "none, RATELIMIT_PEER names no binary"
	var peerRedis, peerOnRedis, peerCached *harness.Process
	if path := harness.RatelimitPeer(); path != "" {
		peerIs = built(t, path)
		peerRedis = m.start(t, m.other, harness.RedisProgram(t))
		theirs := func(settings ...string) *harness.Process {
			return m.start(t, m.measured, harness.RatelimitPeerProgram(t, rules(t), peerRedis.Addr("redis"), append(settings, oneCore)...))
		}
		peerOnRedis, peerCached = theirs(), theirs(cache)
	} else {
		fmt.Println("peer: " + peerIs + ": its rows are left out")
	}

	g := &group{references: []string{peer, floorDefault, floorTuned}, beside: "Redis'", parts: ratelimitParts()}
	add := func(title, program string, c calls, p *harness.Process, check func(*scenario, calls, load) load) *scenario {
		s := &scenario{title: title + "; " + c.String(), program: program, process: p}
		s.load = check(s, c, m.h2load(t, h2load, p.Addr("grpc"), c))
		g.scenarios = append(g.scenarios, s)
		return s
	}
	for _, c := range []calls{
		{domain: "bench", descriptors: 1, connections: 4, streams: 16},
		{domain: "bench", descriptors: 4, connections: 4, streams: 16},
		{domain: "bench", descriptors: 1, connections: 64, streams: 1},
	} {
		references := map[string]*scenario{}
		for _, name := range []string{floorDefault, floorTuned} {
			references[name] = add("constant answer", name, c, floors[name], answered)
		}
		// own adds our row, and the peer's with it.
		own := func(title string, c calls, p, peers *harness.Process, check func(*scenario, calls, load) load) {
			s := add(title, "ratelimit", c, p, check)
			s.against = maps.Clone(references)
			s.beside, s.profiled = redis, c.connections == 4
			if p == inMemory {
				s.beside = nil
			}
			if peers != nil {
				other := add(title, peer, c, peers, check)
				other.against, other.beside = references, peerRedis
				s.against[peer] = other
			}
		}
		own("Redis", c, onRedis, peerOnRedis, counted)
		if c.connections != 4 {
			continue
		}
		own("memory", c, inMemory, nil, counted)
		if c.descriptors == 1 {
			c.domain = "bench-over"
			own("over the limit, local cache", c, cached, peerCached, refused)
		}
	}
	g.method = `h2load, connections × streams as the rows say, all calls of a row alike. One
core each: GOMAXPROCS=1. Each program counts in a Redis of its own, which has
the load's core for company; a call adds to one counter for each descriptor.
That these are counted, and that none is refused, is read off what remains in
the answers before and after each load; that all are refused without Redis, off
the answers and the commands that Redis has run. The floor is grpc-go with its
generated code and an answer that is made beforehand; tuned, it has 64 stream
workers and GOGC=400. ratelimit runs as it does by default, with its metrics,
but for a REDIS_TIMEOUT of 5s, so that no neighbour on the machine makes calls
fail; the peer without statistics, which would cost it a line of log a call.
Ratios are medians of the rounds' own.`
	g.versions = []string{
		"peer: " + peerIs,
		"Redis: " + version(t, redisProgram.Path, "--version"),
		"load: " + version(t, h2load, "--version"),
		"built with " + runtime.Version(),
	}
	return g
}

// built says what a Go binary was built from.
func built(t testing.TB, path string) string {
	t.Helper()
	info, err := buildinfo.ReadFile(path)
	require.NoError(t, err, "RATELIMIT_PEER=%s", path)
	text := info.Main.Path
	for _, setting := range info.Settings {
		if setting.Key == "vcs.revision" {
			text += " at " + setting.Value[:min(7, len(setting.Value))]
		}
	}
	return text + ", built with " + info.GoVersion
}

// answered is a load before and after which the service says OK.
func answered(s *scenario, c calls, next load) load {
	return func(t testing.TB, d time.Duration) int {
		require.Equal(t, rlspb.RateLimitResponse_OK, ask(t, s.process, c).GetOverallCode())
		requests := next(t, d)
		require.Equal(t, rlspb.RateLimitResponse_OK, ask(t, s.process, c).GetOverallCode())
		return requests
	}
}

// counted is a load of which every request is granted, and is counted for each
// of its descriptors.
func counted(s *scenario, c calls, next load) load {
	return func(t testing.TB, d time.Duration) int {
		before := ask(t, s.process, c)
		requests := next(t, d)
		after := ask(t, s.process, c)
		require.Equal(t, rlspb.RateLimitResponse_OK, after.GetOverallCode())
		require.Len(t, after.GetStatuses(), c.descriptors)
		for i, status := range after.GetStatuses() {
			hits := int(before.GetStatuses()[i].GetLimitRemaining()) - int(status.GetLimitRemaining())
			require.GreaterOrEqual(t, hits, requests, "hits counted by %s for descriptor %d", s.program, i)
		}
		return requests
	}
}

// refused is a load of which every request is refused without asking Redis.
func refused(s *scenario, c calls, next load) load {
	return func(t testing.TB, d time.Duration) int {
		ask(t, s.process, c) // the first one may still be granted
		require.Equal(t, rlspb.RateLimitResponse_OVER_LIMIT, ask(t, s.process, c).GetOverallCode())
		before := redisCommands(t, s.beside)
		requests := next(t, d)
		// A health probe asks Redis now and then.
		require.Less(t, redisCommands(t, s.beside)-before, requests/100, "commands of Redis by which %s refused", s.program)
		require.Equal(t, rlspb.RateLimitResponse_OVER_LIMIT, ask(t, s.process, c).GetOverallCode())
		return requests
	}
}

// ask makes one call on a connection of its own.
func ask(t testing.TB, p *harness.Process, c calls) *rlspb.RateLimitResponse {
	t.Helper()
	connection, err := grpc.NewClient(p.Addr("grpc"), grpc.WithTransportCredentials(insecure.NewCredentials()))
	require.NoError(t, err)
	defer connection.Close()
	answer, err := rlspb.NewRateLimitServiceClient(connection).ShouldRateLimit(t.Context(), c.request())
	require.NoError(t, err, "%s", p.Program.Name)
	return answer
}
