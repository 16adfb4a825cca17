package statsd

import (
	"bufio"
	"bytes"
	"context"
	"fmt"
	"io"
	"log/slog"
	"net"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/stretchr/testify/require"

	"github.com/weirproxy/weir/internal/servicetest"
)

func TestMain(m *testing.M) { servicetest.Main(m) }

// text collects what several goroutines write.
type text struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (t *text) Write(p []byte) (int, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.b.Write(p)
}

func (t *text) String() string {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.b.String()
}

// server is a statsd server over TCP that keeps what it gets. It ends with the
// test.
type server struct {
	text
	listener net.Listener
	accepted chan net.Conn
}

func listen(t *testing.T) *server {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	s := &server{listener: l, accepted: make(chan net.Conn, 10)}
	var done sync.WaitGroup
	// Ends as the listener closes; the cleanup waits for it.
	done.Go(func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			s.accepted <- c
			// Ends as the client or the cleanup closes; that waits for it.
			done.Go(func() {
				defer c.Close()
				_, _ = io.Copy(&s.text, c)
			})
		}
	})
	t.Cleanup(func() {
		s.stop()
		done.Wait()
	})
	return s
}

// stop closes the listener and what it accepted.
func (s *server) stop() {
	s.listener.Close()
	for {
		select {
		case c := <-s.accepted:
			c.Close()
		default:
			return
		}
	}
}

// start runs a Sender to address; the function ends it and waits.
func start(t *testing.T, o Options, address string) (stop func()) {
	host, port, err := net.SplitHostPort(address)
	require.NoError(t, err)
	o.Host = host
	_, err = fmt.Sscan(port, &o.Port)
	require.NoError(t, err)
	s, err := New(o)
	require.NoError(t, err)
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan struct{})
	// Ends as ctx does; stop waits for it.
	go func() {
		defer close(done)
		if err := s.Run(ctx); err != nil {
			t.Error(err)
		}
	}()
	stop = func() {
		cancel()
		<-done
	}
	t.Cleanup(stop)
	return stop
}

// options send hits of one rule at a short interval.
func options(t *testing.T) (Options, prometheus.Counter) {
	reg := prometheus.NewRegistry()
	hits := prometheus.NewCounterVec(prometheus.CounterOpts{Name: "ratelimit_service_rate_limit_total_hits"}, []string{"domain", "rule"})
	reg.MustRegister(hits)
	return Options{
		Statsd: "true", Interval: 5 * time.Millisecond, Metrics: reg, Log: slog.New(slog.DiscardHandler),
	}, hits.WithLabelValues("d", "k_10.0.0.1")
}

const hitsName = "ratelimit.service.rate_limit.d.k_10_0_0_1.total_hits"

func TestCountersAreSentOnceOverTCP(t *testing.T) {
	o, hits := options(t)
	s := listen(t)
	hits.Add(3)
	start(t, o, s.listener.Addr().String())
	servicetest.Eventually(t, "the first hits arrive", func() bool { return s.String() == hitsName+":3|c\n" })
	hits.Add(2)
	servicetest.Eventually(t, "the next hits arrive", func() bool { return s.String() == hitsName+":3|c\n"+hitsName+":2|c\n" })
}

func TestTheStopSendsWhatWasCountedLast(t *testing.T) {
	o, hits := options(t)
	o.Interval = time.Hour
	s := listen(t)
	stop := start(t, o, s.listener.Addr().String())
	hits.Inc()
	stop()
	servicetest.Eventually(t, "the hit arrives", func() bool { return s.String() == hitsName+":1|c\n" })
}

func TestNothingIsLostWhileTheServerIsAway(t *testing.T) {
	o, hits := options(t)
	var log text
	o.Log = slog.New(slog.NewTextHandler(&log, nil))
	s, err := New(o)
	require.NoError(t, err)
	defer s.line.close()
	first, second := listen(t), listen(t)
	s.line.address = first.listener.Addr().String()
	hits.Inc()
	s.flush(t.Context(), servicetest.Patience)
	servicetest.Eventually(t, "the hit arrives", func() bool { return first.String() == hitsName+":1|c\n" })
	require.Empty(t, log.String())

	first.stop()
	s.line.address = "127.0.0.1:1" // where nobody listens
	servicetest.Eventually(t, "the log tells", func() bool {
		s.flush(t.Context(), servicetest.Patience)
		return strings.Contains(log.String(), "not taken")
	})
	for range 3 {
		hits.Add(3)
		s.flush(t.Context(), servicetest.Patience)
	}

	s.line.address = second.listener.Addr().String()
	s.flush(t.Context(), servicetest.Patience)
	servicetest.Eventually(t, "the hits arrive", func() bool { return second.String() == hitsName+":9|c\n" })
	require.Contains(t, log.String(), "taken again")
	require.Equal(t, 2, strings.Count(log.String(), "\n"), "one line each way:\n%s", log.String())
}

func TestAServerThatIsNotThereOrHangsHoldsUpNoStop(t *testing.T) {
	silent, err := net.Listen("tcp", "127.0.0.1:0") // accepts, and reads nothing
	require.NoError(t, err)
	defer silent.Close()
	for name, address := range map[string]string{"not_there": "127.0.0.1:1", "hangs": silent.Addr().String()} {
		t.Run(name, func(t *testing.T) {
			o, hits := options(t)
			hits.Inc()
			stop := start(t, o, address)
			begin := time.Now()
			stop()
			require.Less(t, time.Since(begin), servicetest.Patience)
		})
	}
}

func TestLinesThatWereNotTakenWholeAreSentAgain(t *testing.T) {
	ours, theirs := net.Pipe()
	c := &connection{network: "tcp", conn: ours, pending: []byte("one:1|c\ntwo:1|c\nthree:1|c\n")}
	// Ends with the pipe; the read of what it got waits for it.
	got := make(chan string)
	go func() {
		part := make([]byte, len("one:1|c\ntw"))
		_, err := io.ReadFull(theirs, part)
		theirs.Close()
		got <- fmt.Sprint(string(part), err)
	}()
	require.Error(t, c.send(t.Context()))
	require.Equal(t, "one:1|c\ntw<nil>", <-got)
	require.Equal(t, "two:1|c\nthree:1|c\n", string(c.pending))
	require.Nil(t, c.conn)
}

func TestDatagramsHoldWholeLinesAndPassAnEthernet(t *testing.T) {
	l, err := net.ListenPacket("udp", "127.0.0.1:0")
	require.NoError(t, err)
	defer l.Close()
	reg := prometheus.NewRegistry()
	hits := prometheus.NewCounterVec(prometheus.CounterOpts{Name: "ratelimit_service_rate_limit_total_hits"}, []string{"domain", "rule"})
	reg.MustRegister(hits)
	const rules = 200
	for i := range rules {
		hits.WithLabelValues("d", fmt.Sprintf("k_%03d", i)).Inc()
	}
	hits.WithLabelValues("d", strings.Repeat("x", 2000)).Inc() // in one of its own
	hits.WithLabelValues("d", strings.Repeat("y", 5000)).Inc() // too long for any
	stop := start(t, Options{
		Datadog: true, Interval: time.Hour, ExtraTags: "zone:eu.1,app:limiter", Metrics: reg, Log: slog.New(slog.DiscardHandler),
	}, l.LocalAddr().String())
	stop()
	var lines []string
	require.NoError(t, l.SetReadDeadline(time.Now().Add(servicetest.Patience)))
	for buffer := make([]byte, 1<<16); len(lines) < rules+1; {
		n, _, err := l.ReadFrom(buffer)
		require.NoError(t, err, "%d lines came", len(lines))
		got := strings.Split(string(buffer[:n]), "\n")
		if len(got) > 1 {
			require.LessOrEqual(t, n, maxDatagram)
		}
		lines = append(lines, got...)
	}
	require.Equal(t, "ratelimit.service.rate_limit.d.k_000.total_hits:1|c|#app:limiter,zone:eu_1", lines[0])
	for _, line := range lines {
		require.True(t, strings.HasSuffix(line, "total_hits:1|c|#app:limiter,zone:eu_1"), line)
	}
}

func TestDatagramsThatNobodyTakesAreLoggedOnceEachWay(t *testing.T) {
	o, hits := options(t)
	o.Statsd, o.Datadog = "", true
	var log text
	o.Log = slog.New(slog.NewTextHandler(&log, nil))
	s, err := New(o)
	require.NoError(t, err)
	defer s.line.close()
	s.line.address = "127.0.0.1:1"
	flush := func() {
		hits.Inc()
		s.flush(t.Context(), servicetest.Patience)
	}
	servicetest.Eventually(t, "the log tells", func() bool {
		flush()
		return strings.Contains(log.String(), "not taken")
	})
	l, err := net.ListenPacket("udp", "127.0.0.1:0")
	require.NoError(t, err)
	defer l.Close()
	s.line.close()
	s.line.address = l.LocalAddr().String()
	flush()
	flush()
	require.Contains(t, log.String(), "taken again")
	require.Equal(t, 2, strings.Count(log.String(), "\n"), "one line each way:\n%s", log.String())
}

func TestNewMakesNothingUnlessItIsWanted(t *testing.T) {
	for name, o := range map[string]Options{
		"by_default":                       {},
		"with_a_server_and_USE_STATSD_off": {Statsd: "false", Host: "h", Port: 1},
		"with_DISABLE_STATS":               {Disable: true, Statsd: "true"},
	} {
		t.Run(name, func(t *testing.T) {
			s, err := New(o)
			require.NoError(t, err)
			require.Nil(t, s)
		})
	}
	for name, o := range map[string]Options{
		"by_USE_STATSD":                      {Statsd: "true"},
		"by_STATSD_HOST":                     {Host: "h"},
		"by_STATSD_PORT":                     {Port: 1},
		"by_STATSD_PROTOCOL_and_STATSD_HOST": {Host: "h", Protocol: "udp"},
		"by_USE_DOG_STATSD":                  {Datadog: true, Host: "h"},
	} {
		t.Run(name, func(t *testing.T) {
			o.Interval = time.Second
			s, err := New(o)
			require.NoError(t, err)
			require.NotNil(t, s)
		})
	}
}

func TestNewNamesEveryVariableThatIsWrong(t *testing.T) {
	environment := func(pairs ...string) func(string) string {
		return func(name string) string {
			for i := 0; i < len(pairs); i += 2 {
				if pairs[i] == name {
					return pairs[i+1]
				}
			}
			return ""
		}
	}
	for _, c := range []struct {
		name string
		o    Options
		want string
	}{
		{"two_servers", Options{Statsd: "true", Datadog: true},
			"USE_STATSD=true and USE_DOG_STATSD=true: statistics are sent to one server only, set one of them"},
		{"no_truth", Options{Statsd: "yes"}, "USE_STATSD=yes: not true or false"},
		{"all_at_once", Options{Statsd: "true", Port: 70000, Protocol: "tls", ExtraTags: "a:b,c", Interval: -time.Second},
			"STATS_FLUSH_INTERVAL=-1s: not above 0\nSTATSD_PORT=70000: not a port\nSTATSD_PROTOCOL=tls: not one of tcp, udp\nEXTRA_TAGS=a:b,c: \"c\" is not key:value"},
		{"an_empty_rule", Options{Datadog: true, Mogrifiers: "one", Interval: 1, Getenv: environment()},
			"DOG_STATSD_MOGRIFIER_ONE_NAME: not set, though USE_DOG_STATSD_MOGRIFIERS has this rule\n" +
				"DOG_STATSD_MOGRIFIER_ONE_PATTERN: not set, though USE_DOG_STATSD_MOGRIFIERS has this rule"},
		{"bad_rules", Options{Datadog: true, Mogrifiers: "A,B", Interval: 1, Getenv: environment(
			"DOG_STATSD_MOGRIFIER_A_NAME", "n", "DOG_STATSD_MOGRIFIER_A_PATTERN", "(",
			"DOG_STATSD_MOGRIFIER_B_NAME", "n", "DOG_STATSD_MOGRIFIER_B_PATTERN", ".", "DOG_STATSD_MOGRIFIER_B_TAGS", "a:b,:c")},
			"DOG_STATSD_MOGRIFIER_A_PATTERN=(: error parsing regexp: missing closing ): `(`\n" +
				`DOG_STATSD_MOGRIFIER_B_TAGS=a:b,:c: ":c" is not key:value`},
	} {
		t.Run(c.name, func(t *testing.T) {
			_, err := New(c.o)
			require.EqualError(t, err, c.want)
		})
	}
}

// lines is what the encoder sends of a registry.
func lines(t *testing.T, o Options, reg *prometheus.Registry) []string {
	t.Helper()
	o.Interval, o.Metrics = time.Second, reg
	s, err := New(o)
	require.NoError(t, err)
	stats, _, err := s.reader.Read()
	require.NoError(t, err)
	var out []string
	for scan := bufio.NewScanner(bytes.NewReader(s.encoder.encode(nil, stats))); scan.Scan(); {
		out = append(out, scan.Text())
	}
	return out
}

func TestTimersAreSentByBucketWithASampleRate(t *testing.T) {
	reg := prometheus.NewRegistry()
	h := prometheus.NewHistogram(prometheus.HistogramOpts{
		Name: "ratelimit_service_response_time_seconds", Buckets: []float64{.001, .002, .01},
	})
	reg.MustRegister(h)
	for range 100_000 {
		h.Observe(.0018)
	}
	h.Observe(.0005)
	h.Observe(2)
	require.Equal(t, []string{
		"ratelimit_server.ShouldRateLimit.response_time:0.500000|ms",
		"ratelimit_server.ShouldRateLimit.response_time:1.500000|ms|@0.00001",
		"ratelimit_server.ShouldRateLimit.response_time:10|ms",
	}, lines(t, Options{Statsd: "true"}, reg))
}

func TestGaugesAreSentAsTheyAre(t *testing.T) {
	reg := prometheus.NewRegistry()
	g := prometheus.NewGauge(prometheus.GaugeOpts{Name: "ratelimit_localcache_entries"})
	reg.MustRegister(g)
	require.Equal(t, []string{"ratelimit.localcache.entryCount:0|g"}, lines(t, Options{Statsd: "true"}, reg))
	g.Set(12345678)
	require.Equal(t, []string{"ratelimit.localcache.entryCount:12345678|g|#a:b"}, lines(t, Options{Datadog: true, ExtraTags: "a:b"}, reg))
}

func TestExtraTagsArePartOfThePlainName(t *testing.T) {
	o, hits := options(t)
	o.ExtraTags = "zone:eu.1,app:a:b|c,empty:,:x"
	hits.Inc()
	require.Equal(t, []string{hitsName + ".__app=a_b_c.__zone=eu_1:1|c"}, lines(t, o, o.Metrics.(*prometheus.Registry)))
}

func TestMogrifiersTurnNamesIntoTags(t *testing.T) {
	variables := map[string]string{
		"DOG_STATSD_MOGRIFIER_CONFIG_PATTERN": `config_load`,
		"DOG_STATSD_MOGRIFIER_CONFIG_NAME":    "config of $0 $1 $x",
		"DOG_STATSD_MOGRIFIER_RULES_PATTERN":  `^ratelimit\.service\.rate_limit\.([^.]+)\.(.*)\.([^.]+)$`,
		"DOG_STATSD_MOGRIFIER_RULES_NAME":     "ratelimit.$3",
		"DOG_STATSD_MOGRIFIER_RULES_TAGS":     "domain:$1,descriptor:$2,missing:$5,both:$1-$2,fixed:x",
	}
	for _, c := range []struct{ flat, name, tags string }{
		{"ratelimit.service.rate_limit.d.k_v.k2.over_limit", "ratelimit.over_limit", "|#env:prod,both:d-k_v.k2,descriptor:k_v.k2,domain:d,fixed:x,missing:$5"},
		{"ratelimit.service.rate_limit.d.a,b.over_limit", "ratelimit.over_limit", "|#env:prod,both:d-a_b,descriptor:a_b,domain:d,fixed:x,missing:$5"},
		{"ratelimit.service.config_load_error", "config of config_load $1 $x", "|#env:prod"},
		{"ratelimit_server.ShouldRateLimit.total_requests", "ratelimit_server.ShouldRateLimit.total_requests", "|#env:prod"},
	} {
		s, err := New(Options{
			Datadog: true, Interval: time.Second, ExtraTags: "env:prod", Mogrifiers: "config, rules",
			Getenv: func(name string) string { return variables[name] },
		})
		require.NoError(t, err)
		require.Equal(t, label{c.name, c.tags}, s.encoder.label(c.flat))
	}
}
