package redis

import (
	"bufio"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/weirproxy/weir/internal/servicetest"
	"github.com/weirproxy/weir/services/discovery/internal/registry"
	"github.com/weirproxy/weir/services/discovery/internal/store/storetest"
)

// hundredThousand are so many hosts, ten to a service.
func hundredThousand() []registry.Change {
	changes := make([]registry.Change, 100_000)
	for i := range changes {
		r := storetest.Record(fmt.Sprint("service-", i/10), fmt.Sprint("10.0.0.1/i-", i), uint16(i%60_000+1))
		r.LastCheckIn = time.Now()
		r.Host.Tags = registry.Tags{Region: "eu", Zone: "eu-1", InstanceID: fmt.Sprint("i-", i)}
		r.Host.Repo, r.Host.Revision = "service-repo", "0123456789abcdef"
		changes[i] = registry.Change{Key: r.Host.Key, Record: &r, Event: &registry.Event{
			At: r.FirstSeen, Kind: registry.Registered, Service: r.Host.Service, ID: r.Host.ID, Actor: "10.0.0.1",
		}}
	}
	return changes
}

// info is the sum of what the server says by these names.
func info(tb testing.TB, server *servicetest.RedisServer, names ...string) (sum float64) {
	tb.Helper()
	lines := bufio.NewScanner(strings.NewReader(server.Command("INFO")))
	for lines.Scan() {
		if name, text, _ := strings.Cut(lines.Text(), ":"); slices.Contains(names, name) {
			n, err := strconv.ParseFloat(text, 64)
			require.NoError(tb, err)
			sum += n
		}
	}
	require.Positive(tb, sum)
	return sum
}

// cpu is how much processor time the server has used.
func cpu(tb testing.TB, server *servicetest.RedisServer) time.Duration {
	tb.Helper()
	return time.Duration(info(tb, server, "used_cpu_user", "used_cpu_sys") * float64(time.Second))
}

// filled is a store that has a hundred thousand hosts, and its server.
func filled(b *testing.B) (*Store, *servicetest.RedisServer, []registry.Change) {
	server := servicetest.Redis(b)
	s := open(b, "redis://"+server.Address, patience)
	changes := hundredThousand()
	begin, before := time.Now(), cpu(b, server)
	require.NoError(b, s.Append(b.Context(), changes))
	b.Logf("100,000 hosts were written in %v, of which Redis computed for %v", time.Since(begin), cpu(b, server)-before)
	return s, server, changes
}

// BenchmarkLoadHundredThousand is a restart of a replica, as far as Redis goes.
func BenchmarkLoadHundredThousand(b *testing.B) {
	s, server, _ := filled(b)
	before := cpu(b, server)
	for b.Loop() {
		contents, err := s.Load(b.Context())
		require.NoError(b, err)
		require.Len(b, contents.Records, 100_000)
	}
	b.ReportMetric(float64((cpu(b, server)-before).Milliseconds())/float64(b.N), "redis-ms/op")
	b.ReportMetric(info(b, server, "used_memory")/(1<<20), "redis-MiB")
}

// BenchmarkWeighHundredThousand is a change of each of so many hosts, which are there:
// what it is over is read first, and then it is put.
func BenchmarkWeighHundredThousand(b *testing.B) {
	s, server, changes := filled(b)
	for i := range changes {
		changes[i].Parts = registry.Parts{Weight: true}
	}
	before, weight := cpu(b, server), uint8(0)
	for b.Loop() {
		weight = weight%100 + 1
		for i := range changes {
			changes[i].Record.Host.Tags.Weight = weight
		}
		require.NoError(b, s.Append(b.Context(), changes))
	}
	b.ReportMetric(float64((cpu(b, server)-before).Milliseconds())/float64(b.N), "redis-ms/op")
}

// BenchmarkSecondOfTenThousandBeats is what one of several replicas with 100,000 hosts
// asks of Redis in a second, which each round takes: to note 10,000 beats, to look once
// and to read the logs. %core is the part of a core that Redis spends on it.
func BenchmarkSecondOfTenThousandBeats(b *testing.B) {
	s, server, changes := filled(b)
	_, err := s.Load(b.Context())
	require.NoError(b, err)
	ignore := func(registry.Update) {}
	_, err = open(b, "redis://"+server.Address, patience).look(b.Context(), ignore) // there is another
	require.NoError(b, err)
	parts := []struct {
		name string
		run  func(round int)
		used time.Duration
	}{
		{name: "flush", run: func(round int) {
			beats := make([]registry.Beat, 10_000)
			for i := range beats {
				beats[i] = registry.Beat{Key: changes[(round*len(beats)+i)%len(changes)].Key, At: time.Now()}
			}
			missing, err := s.Flush(b.Context(), beats)
			require.NoError(b, err)
			require.Empty(b, missing)
		}},
		{name: "look", run: func(int) {
			_, err := s.look(b.Context(), ignore)
			require.NoError(b, err)
		}},
		{name: "logs", run: func(int) {
			for range time.Second / followEvery {
				_, _, err := s.readLogs(b.Context(), ignore)
				require.NoError(b, err)
			}
		}},
	}
	second := time.NewTicker(time.Second)
	defer second.Stop()
	b.ResetTimer()
	for round := range b.N {
		<-second.C
		for i := range parts {
			before := cpu(b, server)
			parts[i].run(round)
			parts[i].used += cpu(b, server) - before
		}
	}
	for _, p := range parts {
		b.ReportMetric(100*p.used.Seconds()/float64(b.N), p.name+"-%core")
	}
}
