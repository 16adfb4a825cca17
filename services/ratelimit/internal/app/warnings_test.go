package app

import (
	"runtime/debug"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/weirproxy/weir/internal/environ"
	"github.com/weirproxy/weir/internal/environtest"
)

func TestSettingsThatDoSomethingElseThanAtThePeerAreWarnedOf(t *testing.T) {
	environtest.Unset(t, Options{})
	for _, c := range []struct {
		name, value string
		want        []string
	}{
		{"PORT", "8080", nil},
		{"REDIS_PIPELINE_LIMIT", "0", nil},
		{"REDIS_PIPELINE_LIMIT", "8", []string{"REDIS_PIPELINE_LIMIT=8 is without effect"}},
		{"REDIS_PIPELINE_WINDOW", "75us", []string{"REDIS_PIPELINE_WINDOW=75us is without effect: a batch is what came in while the last was under way"}},
		{"REDIS_TIMEOUT", time.Second.String(), nil},
		{"REDIS_TIMEOUT", "5s", []string{"REDIS_TIMEOUT=5s bounds how long a request waits for Redis, not only dialling"}},
		{"RUNTIME_ROOT", "/rules", nil},
		{"XDS_CLIENT_BACKOFF_RANDOM_FACTOR", "2", []string{"XDS_CLIENT_BACKOFF_RANDOM_FACTOR=2 counts as 1: it is the share of a wait that is random, waits double"}},
		{"MEMCACHE_HOST_PORT", "cache:11211", []string{"MEMCACHE_HOST_PORT=cache:11211 is without effect: memcached is not supported"}},
	} {
		t.Run(c.name+"="+c.value, func(t *testing.T) {
			t.Setenv(c.name, c.value)
			var o Options
			require.NoError(t, environ.Load(&o))
			lookup := func(name string) (string, bool) { return c.value, name == c.name }
			o.BackendType = "redis"
			require.Equal(t, c.want, warnings(o, lookup))
		})
	}
	t.Run("a_cache_larger_than_the_memory", func(t *testing.T) {
		defer debug.SetMemoryLimit(debug.SetMemoryLimit(1 << 30))
		unset := func(string) (string, bool) { return "", false }
		o := Options{}
		o.LocalCacheSize = 1 << 30
		require.Empty(t, warnings(o, unset))
		o.LocalCacheSize++
		require.Equal(t, []string{"LOCAL_CACHE_SIZE_IN_BYTES=1073741825 is more than the memory that the process may take, 1073741824 bytes"},
			warnings(o, unset))
	})
	t.Run("redis_without_a_place", func(t *testing.T) {
		lookup := func(name string) (string, bool) { return "cluster", name == "REDIS_TYPE" }
		require.Equal(t, []string{"REDIS_TYPE is set, but neither REDIS_URL nor BACKEND_TYPE: counters lie in memory, each replica's by itself"},
			warnings(Options{}, lookup))
	})
}
