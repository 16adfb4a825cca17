package statsd

import (
	"bytes"
	"context"
	"log/slog"
	"maps"
	"net"
	"net/netip"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/weirproxy/weir/internal/servicetest"
	"github.com/weirproxy/weir/services/discovery/internal/registry"
	"github.com/weirproxy/weir/services/discovery/internal/registry/registrytest"
	"github.com/weirproxy/weir/services/discovery/internal/rule"
)

func TestMain(m *testing.M) { servicetest.Main(m) }

// server is a statsd server that adds up what it is sent.
type server struct{ net.PacketConn }

func listen(t testing.TB) server {
	t.Helper()
	conn, err := net.ListenPacket("udp", "127.0.0.1:0")
	require.NoError(t, err)
	t.Cleanup(func() { conn.Close() })
	return server{conn}
}

func (s server) address() string { return s.LocalAddr().String() }

// await reads datagrams until the sums of what they hold are as wanted.
func (s server) await(t testing.TB, want map[string]int) {
	t.Helper()
	require.NoError(t, s.SetReadDeadline(time.Now().Add(servicetest.Patience)))
	got := map[string]int{}
	buffer := make([]byte, 64<<10)
	for !maps.Equal(got, want) {
		n, _, err := s.ReadFrom(buffer)
		require.NoError(t, err, "got %v", got)
		require.LessOrEqual(t, n, maxDatagram)
		for line := range strings.SplitSeq(string(buffer[:n]), "\n") {
			name, value, _ := strings.Cut(line, ":")
			count, found := strings.CutSuffix(value, "|c")
			require.True(t, found, line)
			number, err := strconv.Atoi(count)
			require.NoError(t, err, line)
			got[name] += number
		}
	}
}

func newSender(address string, r *registry.Registry) *Sender {
	return New(Options{Address: address, Registry: r, Log: slog.New(slog.DiscardHandler)})
}

func put(t testing.TB, r *registry.Registry, service string, port uint16, ttl time.Duration) {
	t.Helper()
	address := netip.AddrPortFrom(netip.MustParseAddr("10.0.0.1"), port)
	_, err := r.Put(registry.Host{Key: registry.Key{Service: service, ID: address.String()}, Address: address, TTL: ttl}, "test")
	require.NoError(t, err)
}

func TestCallsAndHostsThatGoAreSentUnderThePeersNames(t *testing.T) {
	r := registrytest.Loaded(t)
	statsd := listen(t)
	s := newSender(statsd.address(), r)
	servicetest.Run(t, s)
	for range 3 {
		s.Registration("users", true)
	}
	s.Registration("users", false)
	s.Registration("a.b", true)
	put(t, r, "mail", 1, time.Hour)
	put(t, r, "mail", 2, time.Hour)
	put(t, r, "mail", 2, time.Hour)
	_, err := r.Remove(registry.Selection{Service: "mail"}, "test")
	require.NoError(t, err)
	put(t, r, "short", 1, time.Millisecond)
	statsd.await(t, map[string]int{
		"registration.users.success": 3,
		"registration.users.failure": 1,
		"registration.a.b.success":   1,
		"service.host.delete.mail":   2,
		"service.host.sweep.short":   1,
		"service.host.delete.short":  1,
	})
}

func TestWhatIsCountedBeforeTheStopIsSent(t *testing.T) {
	r := registrytest.Loaded(t)
	statsd := listen(t)
	s := newSender(statsd.address(), r)
	put(t, r, "mail", 1, time.Hour)
	_, err := r.Remove(registry.Selection{Service: "mail"}, "test")
	require.NoError(t, err)
	s.Registration("users", true)
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	require.NoError(t, s.Run(ctx))
	statsd.await(t, map[string]int{"registration.users.success": 1, "service.host.delete.mail": 1})
}

func TestManyNamesAreSentInManyDatagrams(t *testing.T) {
	statsd := listen(t)
	s := newSender(statsd.address(), registrytest.Loaded(t))
	want := map[string]int{}
	for i := range 200 {
		service := strings.Repeat("x", i) + strconv.Itoa(i)
		s.Registration(service, true)
		want["registration."+service+".success"] = 1
	}
	s.flush(t.Context())
	statsd.await(t, want)
}

func TestAServiceCannotEndItsNameOrItsLine(t *testing.T) {
	for service, want := range map[string]string{
		"users":        "registration.users.success",
		"a.b/c":        "registration.a.b/c.success",
		"a:1|c\nb:2|c": "registration.a_1_c_b_2_c.success",
		"a b@\x00":     "registration.a_b__.success",
		"größe":        "registration.größe.success",
	} {
		require.Equal(t, want, name(counter{taken, service}))
	}
}

func TestStrangersCannotFillTheMemoryWithNames(t *testing.T) {
	var logged bytes.Buffer
	s := New(Options{Address: listen(t).address(), Registry: registrytest.Loaded(t), Log: slog.New(slog.NewTextHandler(&logged, nil))})
	s.Registration(strings.Repeat("x", rule.MaxName+1), false)
	require.Empty(t, s.counts)
	for i := range maxNames + 7 {
		s.Registration(strconv.Itoa(i), false)
	}
	s.Registration("1", false)
	require.Len(t, s.counts, maxNames)
	require.Equal(t, uint64(2), s.counts[counter{refused, "1"}])
	require.Equal(t, uint64(7), s.missed)
	s.counts = map[counter]uint64{} // they would fill the server's buffer
	s.flush(t.Context())
	require.Contains(t, logged.String(), `msg="more names than are counted for statsd" most=100000 not_counted=7`)
}

func TestTheLogTellsOnceThatTheServerCannotBeReached(t *testing.T) {
	var logged bytes.Buffer
	s := New(Options{Address: "no address", Registry: registrytest.Loaded(t), Log: slog.New(slog.NewTextHandler(&logged, nil))})
	for range 3 {
		s.Registration("users", true)
		s.flush(t.Context())
	}
	require.Equal(t, 1, strings.Count(logged.String(), "statistics are not taken"))
	statsd := listen(t)
	s.address = statsd.address()
	for range 3 {
		s.Registration("users", true)
		s.flush(t.Context())
	}
	require.Equal(t, 1, strings.Count(logged.String(), "statistics are taken again"))
	statsd.await(t, map[string]int{"registration.users.success": 3})
}

func TestAKnownNameIsCountedWithoutAllocating(t *testing.T) {
	s := newSender("", registrytest.Loaded(t))
	s.Registration("users", true)
	servicetest.Allocations(t, 0, func() { s.Registration("users", true) })
}

func BenchmarkRegistration(b *testing.B) {
	s := newSender("", registrytest.Loaded(b))
	b.ReportAllocs()
	for b.Loop() {
		s.Registration("users", true)
	}
}
