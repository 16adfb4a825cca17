package builtin

import (
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/stretchr/testify/require"

	"github.com/weirproxy/weir/internal/servicetest"
	"github.com/weirproxy/weir/services/ratelimit/internal/store/redis"
)

func TestMain(m *testing.M) { servicetest.Main(m) }

func TestNamesAreUnique(t *testing.T) {
	seen := map[string]bool{}
	for _, a := range Algorithms() {
		require.False(t, seen[a.Name()], a.Name())
		seen[a.Name()] = true
	}
	for _, b := range Backends() {
		require.False(t, seen[b.Name], b.Name)
		seen[b.Name] = true
	}
}

func TestAFaultOfRedisSettingsNamesTheVariable(t *testing.T) {
	good := redis.Options{URL: "127.0.0.1:1", Timeout: time.Second, Connections: 1}
	for _, c := range []struct {
		name  string
		o     StoreOptions
		fault string
	}{
		{"one", StoreOptions{Redis: redis.Options{URL: "x"}}, `REDIS_URL: redis address "x" is neither a URL nor host:port`},
		{
			"two",
			StoreOptions{Redis: good, RedisPerSecond: &redis.Options{Type: "ring"}},
			"REDIS_PERSECOND_TYPE=ring: not one of single, sentinel, cluster",
		},
		{"none", StoreOptions{Redis: good, RedisPerSecond: &good}, ""},
	} {
		t.Run(c.name, func(t *testing.T) {
			reg := prometheus.NewRegistry()
			c.o.Metrics = reg
			store, err := openRedis(c.o)
			if c.fault != "" {
				require.EqualError(t, err, c.fault)
				return
			}
			require.NoError(t, err)
			_, err = reg.Gather()
			require.NoError(t, err, "the two are told apart")
			require.NoError(t, store.Close())
		})
	}
}
