// Package builtin lists what the service ships, one ordered slice for each
// kind: the algorithms that rules may name and the stores that counters may
// lie in. app reads the lists; whoever adds an implementation adds its line
// here. It decides nothing.
package builtin

import (
	"fmt"
	"strings"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/weirproxy/weir/services/ratelimit/internal/algorithm"
	"github.com/weirproxy/weir/services/ratelimit/internal/algorithm/fixedwindow"
	"github.com/weirproxy/weir/services/ratelimit/internal/limiter"
	"github.com/weirproxy/weir/services/ratelimit/internal/store/bywindow"
	"github.com/weirproxy/weir/services/ratelimit/internal/store/memory"
	"github.com/weirproxy/weir/services/ratelimit/internal/store/redis"
)

// Algorithms returns those that rules may name; the first is the default.
func Algorithms() []algorithm.Algorithm {
	return []algorithm.Algorithm{
		fixedwindow.Algorithm{},
	}
}

// Backend is one kind of store.
type Backend struct {
	// Name is its value of BACKEND_TYPE, in lower case.
	Name string
	// Open makes the store. It reaches for nothing over the network; its error
	// is that of a setting, and names it.
	Open func(StoreOptions) (limiter.Store, error)
}

// StoreOptions is what the stores are made of; each takes what it needs.
type StoreOptions struct {
	// Redis is where a store of that kind keeps its counters. Its Metrics are
	// those below.
	Redis redis.Options
	// RedisPerSecond, if set, is where it keeps those of limits of one second.
	RedisPerSecond *redis.Options
	// MaxCounters bounds a store inside this process.
	MaxCounters int
	Metrics     prometheus.Registerer
}

// Backends returns the kinds of store; the first is the default.
func Backends() []Backend {
	return []Backend{
		{"memory", func(o StoreOptions) (limiter.Store, error) {
			return memory.New(o.MaxCounters, o.Metrics), nil
		}},
		{"redis", openRedis},
	}
}

// openRedis makes one store or two. What they show of themselves is told apart
// by the label pool, whose values are envoyproxy/ratelimit's words for them.
func openRedis(o StoreOptions) (limiter.Store, error) {
	open := func(ro redis.Options, pool string) (*redis.Store, error) {
		ro.Metrics = prometheus.WrapRegistererWith(prometheus.Labels{"pool": pool}, o.Metrics)
		return redis.New(ro)
	}
	store, err := open(o.Redis, "redis_pool")
	if err != nil {
		return nil, fmt.Errorf("REDIS_%w", err)
	}
	if o.RedisPerSecond == nil {
		return store, nil
	}
	seconds, err := open(*o.RedisPerSecond, "redis_per_second_pool")
	if err != nil {
		_ = store.Close()
		return nil, fmt.Errorf("REDIS_PERSECOND_%w", err)
	}
	return bywindow.New(seconds, store), nil
}

// BackendNames are the names of all backends, for messages.
func BackendNames() string {
	var names []string
	for _, b := range Backends() {
		names = append(names, b.Name)
	}
	return strings.Join(names, ", ")
}
