package app

import (
	"fmt"
	"runtime/debug"
	"strings"
	"time"

	"github.com/weirproxy/weir/internal/environ"
)

// longWait is a REDIS_TIMEOUT that hardly anybody means to wait for in a request.
const longWait = time.Second

// warnings has one for each variable that is set as for envoyproxy/ratelimit and
// does not do here what it does there.
func warnings(o Options, lookup func(string) (string, bool)) []string {
	var list []string
	for _, v := range environ.Variables(o) {
		reason, idle := strings.CutPrefix(v.Meaning, "without effect")
		if value, set := lookup(v.Name); idle && set && value != v.Default {
			list = append(list, fmt.Sprintf("%s=%s is without effect%s", v.Name, value, reason))
		}
	}
	if o.BackendType == "" && o.RedisURL == "" {
		for _, v := range environ.Variables(o) {
			if _, set := lookup(v.Name); set && strings.HasPrefix(v.Name, "REDIS_") {
				list = append(list, v.Name+" is set, but neither REDIS_URL nor BACKEND_TYPE: counters lie in memory, each replica's by itself")
				break
			}
		}
	}
	if o.XDSBackoffFactor > 1 {
		list = append(list, fmt.Sprintf("XDS_CLIENT_BACKOFF_RANDOM_FACTOR=%v counts as 1: it is the share of a wait that is random, waits double", o.XDSBackoffFactor))
	}
	if o.RedisTimeout > longWait {
		list = append(list, fmt.Sprintf("REDIS_TIMEOUT=%v bounds how long a request waits for Redis, not only dialling", o.RedisTimeout))
	}
	if most := debug.SetMemoryLimit(-1); int64(o.LocalCacheSize) > most {
		list = append(list, fmt.Sprintf("LOCAL_CACHE_SIZE_IN_BYTES=%d is more than the memory that the process may take, %d bytes", o.LocalCacheSize, most))
	}
	if hosts, set := lookup("MEMCACHE_HOST_PORT"); set {
		list = append(list, fmt.Sprintf("MEMCACHE_HOST_PORT=%s is without effect: memcached is not supported", hosts))
	}
	return list
}
