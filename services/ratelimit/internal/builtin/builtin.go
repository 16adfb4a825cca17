// Package builtin lists what the service ships, one ordered slice for each
// kind: the algorithms that rules may name and the stores that counters may
// lie in. app reads the lists; whoever adds an implementation adds its line
// here. It decides nothing.
package builtin

import (
	"fmt"
	"strings"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/weirproxy/weir/services/ratelimit/internal/algorithm"
	"github.com/weirproxy/weir/services/ratelimit/internal/algorithm/fixedwindow"
	"github.com/weirproxy/weir/services/ratelimit/internal/limiter"
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
	// URL is where the store is; see redis.Options.
	URL string
	// Timeout bounds each exchange with a store outside this process.
	Timeout time.Duration
	// Connections is how many a store outside this process gets.
	Connections int
	// ExpirationJitter bounds the random time by which counters outlive their
	// window, where many that expire at once would be a burden.
	ExpirationJitter time.Duration
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
		{"redis", func(o StoreOptions) (limiter.Store, error) {
			store, err := redis.New(redis.Options{
				URL:              o.URL,
				Timeout:          o.Timeout,
				Connections:      o.Connections,
				ExpirationJitter: o.ExpirationJitter,
				Metrics:          o.Metrics,
			})
			if err != nil {
				return nil, fmt.Errorf("REDIS_URL: %w", err)
			}
			return store, nil
		}},
	}
}

// BackendNames are the names of all backends, for messages.
func BackendNames() string {
	var names []string
	for _, b := range Backends() {
		names = append(names, b.Name)
	}
	return strings.Join(names, ", ")
}
