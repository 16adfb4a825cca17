package app_test

import (
	"bufio"
	"crypto/x509"
	"net"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	commonpb "github.com/envoyproxy/go-control-plane/envoy/extensions/common/ratelimit/v3"
	pb "github.com/envoyproxy/go-control-plane/envoy/service/ratelimit/v3"
	typepb "github.com/envoyproxy/go-control-plane/envoy/type/v3"
	"github.com/stretchr/testify/require"

	"github.com/weirproxy/weir/internal/servicetest"
	"github.com/weirproxy/weir/services/ratelimit/internal/app"
)

// received is what was sent to a statsd server.
type received struct {
	mu sync.Mutex
	// values are by name and kind, "runtime.num_values|g": of a gauge the last,
	// of all else the sum.
	values map[string]float64
}

// receive starts a statsd server of datagrams that runs until the test ends, and has o send
// to it.
func receive(t *testing.T, o *app.Options) *received {
	t.Helper()
	c, err := net.ListenPacket("udp", "127.0.0.1:0")
	require.NoError(t, err)
	require.NoError(t, c.(*net.UDPConn).SetReadBuffer(1<<20)) // what does not fit is lost
	d := &received{values: map[string]float64{}}
	var reading sync.WaitGroup
	// Ends when the test does, which waits for it.
	reading.Go(func() {
		datagram := make([]byte, 1<<16)
		for {
			n, _, err := c.ReadFrom(datagram)
			if err != nil {
				return
			}
			for line := range strings.Lines(string(datagram[:n])) {
				d.add(strings.TrimSpace(line))
			}
		}
	})
	t.Cleanup(func() { c.Close(); reading.Wait() })
	o.StatsdHost, o.StatsdPort, o.StatsdProtocol = "127.0.0.1", c.LocalAddr().(*net.UDPAddr).Port, "udp"
	o.FlushInterval = 50 * time.Millisecond
	return d
}

// receiveStreams is receive over TCP, one connection after the other: one that
// the stop cut short may come before that of the last flush.
func receiveStreams(t *testing.T, o *app.Options) *received {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	d := &received{values: map[string]float64{}}
	var reading sync.WaitGroup
	// Ends when the test does, which waits for it, and the service has ended.
	reading.Go(func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			for lines := bufio.NewScanner(c); lines.Scan(); {
				d.add(lines.Text())
			}
			c.Close()
		}
	})
	t.Cleanup(func() { l.Close(); reading.Wait() })
	o.StatsdHost, o.StatsdPort, o.FlushInterval = "127.0.0.1", l.Addr().(*net.TCPAddr).Port, 20*time.Millisecond
	return d
}

// add takes one line, "name:1|c".
func (d *received) add(line string) {
	name, rest, _ := strings.Cut(line, ":")
	number, kind, _ := strings.Cut(rest, "|")
	kind, _, _ = strings.Cut(kind, "|") // a timer's may have a rate behind it
	value, err := strconv.ParseFloat(number, 64)
	if err != nil {
		name = "not a line of statsd: " + line
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	name += "|" + kind
	if kind == "g" {
		d.values[name] = 0
	}
	d.values[name] += value
}

func (d *received) value(name string) float64 {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.values[name]
}

// missing is which of names was not sent.
func (d *received) missing(names []string) []string {
	d.mu.Lock()
	defer d.mu.Unlock()
	return slices.DeleteFunc(slices.Clone(names), func(name string) bool {
		_, sent := d.values[name]
		return sent
	})
}

// askAll sends a request of one descriptor to a domain.
func (r *running) askAll(t *testing.T, domain string, d *commonpb.RateLimitDescriptor) {
	t.Helper()
	_, err := pb.NewRateLimitServiceClient(r.conn).ShouldRateLimit(t.Context(), &pb.RateLimitRequest{
		Domain: domain, Descriptors: []*commonpb.RateLimitDescriptor{d},
	})
	require.NoError(t, err)
}

// entries is a descriptor of the entries of these keys and values, in turn.
func entries(keysAndValues ...string) *commonpb.RateLimitDescriptor {
	d := &commonpb.RateLimitDescriptor{}
	for pair := range slices.Chunk(keysAndValues, 2) {
		d.Entries = append(d.Entries, &commonpb.RateLimitDescriptor_Entry{Key: pair[0], Value: pair[1]})
	}
	return d
}

// The names and kinds are those that the peer sent when it ran.
func TestWhatThePeerSendsOfItselfIsSent(t *testing.T) {
	o := options(t)
	o.LocalCacheSize, o.ServerTLS = 1<<20, true
	o.ServerTLSCert, o.ServerTLSKey = servicetest.NewAuthority(t).IssueFiles(x509.Certificate{})
	sent := receive(t, &o)
	start(t, o)
	runtime.GC()
	var missing []string
	servicetest.Eventually(t, "all of it was sent", func() bool {
		missing = sent.missing([]string{
			"ratelimit.go.alloc|g", "ratelimit.go.frees|c", "ratelimit.go.gcCPUPercent|g", "ratelimit.go.heapAlloc|g",
			"ratelimit.go.heapIdle|g", "ratelimit.go.heapInuse|g", "ratelimit.go.heapObjects|g", "ratelimit.go.heapReleased|g",
			"ratelimit.go.heapSys|g", "ratelimit.go.lastGC|g", "ratelimit.go.mallocs|c", "ratelimit.go.nextGC|g",
			"ratelimit.go.numGC|c", "ratelimit.go.numGoroutine|g", "ratelimit.go.pauseTotalNs|c", "ratelimit.go.sys|g",
			"ratelimit.go.totalAlloc|c",
			"ratelimit.localcache.averageAccessTime|g", "ratelimit.localcache.entryCount|g", "ratelimit.localcache.evacuateCount|g",
			"ratelimit.localcache.expiredCount|g", "ratelimit.localcache.hitCount|g", "ratelimit.localcache.lookupCount|g",
			"ratelimit.localcache.missCount|g", "ratelimit.localcache.overwriteCount|g",
			"ratelimit.service.config_load_success|c", "runtime.load_attempts|c", "runtime.num_values|g",
			"certs.load_attempts|c", "certs.num_values|g",
		})
		return len(missing) == 0
	})
	require.Positive(t, sent.value("ratelimit.go.gcCPUPercent|g"))
	require.Less(t, sent.value("ratelimit.go.gcCPUPercent|g"), 100.0)
}

func TestLoadsOfRulesAreSent(t *testing.T) {
	o := options(t)
	sent := receive(t, &o)
	r := start(t, o)
	stand := func(attempts, values, failures float64) func() bool {
		return func() bool {
			return sent.value("runtime.load_attempts|c") == attempts && sent.value("runtime.num_values|g") == values &&
				sent.value("runtime.load_failures|c") == failures
		}
	}
	servicetest.Eventually(t, "the load at the start is told", stand(1, 1, 0))
	bad := filepath.Join(t.TempDir(), "bad.yaml")
	require.NoError(t, os.WriteFile(bad, []byte("domain: [\n"), 0o644))
	require.NoError(t, os.Rename(bad, filepath.Join(r.rules, "bad.yaml"))) // in one step, so that it is one load
	servicetest.Eventually(t, "a file more is told, good or not", stand(2, 2, 0))
	require.NoError(t, os.Symlink("nowhere", filepath.Join(r.rules, "link.yaml")))
	servicetest.Eventually(t, "one that cannot be read is told", stand(3, 2, 1))
}

func TestTheLocalCacheIsSent(t *testing.T) {
	o := options(t)
	o.LocalCacheSize = 1 << 20
	rules := "domain: d\ndescriptors:\n- {key: s, rate_limit: {unit: second, requests_per_unit: 0}}\n"
	require.NoError(t, os.WriteFile(filepath.Join(o.RuntimeRoot, "config/d.yaml"), []byte(rules), 0o644))
	sent := receive(t, &o)
	r := start(t, o)
	began := time.Now().Unix()
	for range 4 {
		r.askAll(t, "shop", entries("user", "alice"))
	}
	// It stands at 4, which the limit of 3 has passed and this one has not.
	more := entries("user", "alice")
	more.Limit = &commonpb.RateLimitDescriptor_RateLimitOverride{RequestsPerUnit: 4, Unit: typepb.RateLimitUnit_YEAR}
	r.askAll(t, "shop", more)
	servicetest.Eventually(t, "it is noted anew", func() bool {
		return sent.value("ratelimit.localcache.overwriteCount|g") == 1 && sent.value("ratelimit.localcache.entryCount|g") == 1
	})
	used := sent.value("ratelimit.localcache.averageAccessTime|g")
	require.GreaterOrEqual(t, used, float64(began))
	require.LessOrEqual(t, used, float64(time.Now().Unix()))
	servicetest.Eventually(t, "the window of a second ends", func() bool {
		r.askAll(t, "d", entries("s", ""))
		return sent.value("ratelimit.localcache.expiredCount|g") > 0
	})
}

// The names are those that the peer gave to these requests.
func TestRulesWithAPatternInTheirKeyAreSentUnderThePeersNames(t *testing.T) {
	o := options(t)
	rules := `domain: d
descriptors:
- {key: "w*", rate_limit: {unit: hour, requests_per_unit: 2}}
- {key: "k*", value: "v*", rate_limit: {unit: hour, requests_per_unit: 2}}
- {key: "dm*", detailed_metric: true, rate_limit: {unit: hour, requests_per_unit: 2}}
- {key: "um*", value_to_metric: true, rate_limit: {unit: hour, requests_per_unit: 2}}
- {key: "st*", share_threshold: true, rate_limit: {unit: hour, requests_per_unit: 2}}
- {key: "sv*", value: "a*", share_threshold: true, value_to_metric: true, rate_limit: {unit: hour, requests_per_unit: 2}}
- {key: "ne*", descriptors: [{key: x, value: "y*", rate_limit: {unit: hour, requests_per_unit: 2}}]}
- {key: p, value: "q*", rate_limit: {unit: hour, requests_per_unit: 2}}
- {key: "ts*", value: "q*", share_threshold: true, descriptors: [{key: in, detailed_metric: true, rate_limit: {unit: hour, requests_per_unit: 2}}]}
- {key: "*", rate_limit: {unit: hour, requests_per_unit: 2}}
`
	require.NoError(t, os.WriteFile(filepath.Join(o.RuntimeRoot, "config/d.yaml"), []byte(rules), 0o644))
	sent := receive(t, &o)
	r := start(t, o)
	var names []string
	for _, c := range []struct {
		descriptor *commonpb.RateLimitDescriptor
		want       string
	}{
		{entries("wx", "1"), "wx_w*"},
		{entries("w*", ""), "w*_w*"},
		{entries("kx", "vy"), "kx_k*_v*"},
		{entries("k_v", "w"), "k_v_k*_v*"},
		{entries("dmx", "1"), "dmx_1"},
		{entries("umx", "1"), "umx_1"},
		{entries("stx", "1"), "stx_st*"},
		{entries("svx", "ay"), "svx_sv*_a*"},
		{entries("nex", "1", "x", "yz"), "nex_ne*.x_y*"},
		{entries("p", "qr"), "p_q*"},
		{entries("tsx", "qq", "in", "2"), "tsx_ts*_q*.in_2"},
		{entries("other", "val"), "other_*"},
	} {
		r.askAll(t, "d", c.descriptor)
		names = append(names, "ratelimit.service.rate_limit.d."+c.want+".total_hits|c")
	}
	servicetest.Eventually(t, "each of them was sent", func() bool { return len(sent.missing(names)) == 0 })
	for _, name := range names {
		require.Equal(t, 1.0, sent.value(name), name)
	}
}
