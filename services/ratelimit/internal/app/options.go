package app

import (
	"fmt"
	"net"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"github.com/weirproxy/weir/services/ratelimit/internal/builtin"
)

// Options is every setting of the service, read from the environment. Names
// that envoyproxy/ratelimit has too mean the same here; the others begin with
// RATELIMIT_.
type Options struct {
	Host      string `envconfig:"HOST" default:"0.0.0.0" desc:"address of the HTTP listener: /json, /healthcheck"`
	Port      int    `envconfig:"PORT" default:"8080" desc:"port of the HTTP listener; 0 takes a free one"`
	GRPCHost  string `envconfig:"GRPC_HOST" default:"0.0.0.0" desc:"address of the gRPC listener: rate limit service, health, reflection"`
	GRPCPort  int    `envconfig:"GRPC_PORT" default:"8081" desc:"port of the gRPC listener; 0 takes a free one"`
	DebugHost string `envconfig:"DEBUG_HOST" default:"127.0.0.1" desc:"address of the admin listener: /ready, /metrics, /rlconfig, /debug/pprof"`
	DebugPort int    `envconfig:"DEBUG_PORT" default:"6070" desc:"port of the admin listener; 0 takes a free one"`
	LogLevel  string `envconfig:"LOG_LEVEL" default:"info" desc:"debug, info, warn or error"`

	MaxConnectionAge      time.Duration `envconfig:"GRPC_MAX_CONNECTION_AGE" default:"24h" desc:"age at which a gRPC connection is asked to close, so that clients spread anew"`
	MaxConnectionAgeGrace time.Duration `envconfig:"GRPC_MAX_CONNECTION_AGE_GRACE" default:"1h" desc:"time that calls on such a connection have to end"`
	DrainGrace            time.Duration `envconfig:"RATELIMIT_DRAIN_GRACE" default:"1s" desc:"time between not being ready any more and closing the listeners, at SIGTERM"`
	DrainDeadline         time.Duration `envconfig:"RATELIMIT_DRAIN_DEADLINE" default:"10s" desc:"time that work in flight has to end, after that"`

	RuntimeRoot         string        `envconfig:"RUNTIME_ROOT" default:"/srv/runtime_data/current" desc:"directory, or link to one, whose exchange is a change of rules"`
	RuntimeSubdirectory string        `envconfig:"RUNTIME_SUBDIRECTORY" desc:"directory below RUNTIME_ROOT"`
	RuntimeAppDirectory string        `envconfig:"RUNTIME_APPDIRECTORY" default:"config" desc:"directory below that; it holds the rule files, at any depth"`
	IgnoreDotFiles      bool          `envconfig:"RUNTIME_IGNOREDOTFILES" default:"true" desc:"leave out files and directories whose name begins with a dot, such as a ConfigMap's copies"`
	RulesPoll           time.Duration `envconfig:"RATELIMIT_RULES_POLL" default:"2s" desc:"time between looks at the rule files, for changes of which the file system does not tell"`

	BackendType      string        `envconfig:"BACKEND_TYPE" desc:"where counters lie: memory or redis; if unset, redis where REDIS_URL is set, else memory"`
	RedisURL         string        `envconfig:"REDIS_URL" desc:"redis://user:password@host:port/db, rediss:// for TLS, unix:///path, or host:port"`
	RedisTimeout     time.Duration `envconfig:"REDIS_TIMEOUT" default:"50ms" desc:"longest wait for Redis in one request, whatever the caller's deadline"`
	RedisPoolSize    int           `envconfig:"REDIS_POOL_SIZE" default:"2" desc:"connections to Redis, each with one batch of requests under way"`
	ExpirationJitter int           `envconfig:"EXPIRATION_JITTER_MAX_SECONDS" default:"300" desc:"seconds by which counters in Redis outlive their window at most, at random"`
	MaxCounters      int           `envconfig:"RATELIMIT_MEMORY_MAX_COUNTERS" default:"1000000" desc:"counters that the memory backend holds at most; beyond, the soonest to expire of a few is forgotten"`

	KeyPrefix      string  `envconfig:"CACHE_KEY_PREFIX" desc:"put in front of each counter's key"`
	NearLimitRatio float64 `envconfig:"NEAR_LIMIT_RATIO" default:"0.8" desc:"share of a limit above which hits are counted as near it"`
}

// check returns an error for a value that its type alone does not rule out.
// It names the variable and the value.
func (o *Options) check() error {
	for _, p := range []struct {
		name  string
		value int
	}{{"PORT", o.Port}, {"GRPC_PORT", o.GRPCPort}, {"DEBUG_PORT", o.DebugPort}} {
		if p.value < 0 || p.value > 65535 {
			return fmt.Errorf("%s=%d: not a port", p.name, p.value)
		}
	}
	for _, d := range []struct {
		name  string
		value time.Duration
	}{
		{"REDIS_TIMEOUT", o.RedisTimeout}, {"RATELIMIT_RULES_POLL", o.RulesPoll},
		{"RATELIMIT_DRAIN_DEADLINE", o.DrainDeadline},
		{"GRPC_MAX_CONNECTION_AGE", o.MaxConnectionAge}, {"GRPC_MAX_CONNECTION_AGE_GRACE", o.MaxConnectionAgeGrace},
	} {
		if d.value <= 0 {
			return fmt.Errorf("%s=%v: must be more than 0", d.name, d.value)
		}
	}
	for _, n := range []struct {
		name  string
		value int
	}{{"REDIS_POOL_SIZE", o.RedisPoolSize}, {"RATELIMIT_MEMORY_MAX_COUNTERS", o.MaxCounters}} {
		if n.value < 1 {
			return fmt.Errorf("%s=%d: must be at least 1", n.name, n.value)
		}
	}
	switch {
	case o.DrainGrace < 0:
		return fmt.Errorf("RATELIMIT_DRAIN_GRACE=%v: must not be negative", o.DrainGrace)
	case o.ExpirationJitter < 0:
		return fmt.Errorf("EXPIRATION_JITTER_MAX_SECONDS=%d: must not be negative", o.ExpirationJitter)
	case !(o.NearLimitRatio >= 0 && o.NearLimitRatio <= 1):
		return fmt.Errorf("NEAR_LIMIT_RATIO=%v: must lie between 0 and 1", o.NearLimitRatio)
	case o.backend() == "redis" && o.RedisURL == "":
		return fmt.Errorf("BACKEND_TYPE=%s: REDIS_URL must say where Redis is", o.BackendType)
	}
	return nil
}

// backend is the name of the backend that the settings choose, in lower case;
// it need not be one of builtin's.
func (o *Options) backend() string {
	switch {
	case o.BackendType != "":
		return strings.ToLower(o.BackendType)
	case o.RedisURL != "":
		return "redis"
	default:
		return builtin.Backends()[0].Name
	}
}

// rulesDirectory is where the rule files lie.
func (o *Options) rulesDirectory() string {
	return filepath.Join(o.RuntimeRoot, o.RuntimeSubdirectory, o.RuntimeAppDirectory)
}

func address(host string, port int) string { return net.JoinHostPort(host, strconv.Itoa(port)) }
