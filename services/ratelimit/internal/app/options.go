package app

import (
	"errors"
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
	ExpirationJitter int           `envconfig:"EXPIRATION_JITTER_MAX_SECONDS" default:"300" desc:"seconds by which counters in Redis outlive their window at most, at random; up to 86400, a day"`
	MaxCounters      int           `envconfig:"RATELIMIT_MEMORY_MAX_COUNTERS" default:"1000000" desc:"counters that the memory backend holds at most; beyond, the soonest to expire of a few is forgotten"`

	KeyPrefix      string  `envconfig:"CACHE_KEY_PREFIX" desc:"put in front of each counter's key"`
	NearLimitRatio float64 `envconfig:"NEAR_LIMIT_RATIO" default:"0.8" desc:"share of a limit above which hits are counted as near it"`
}

// maxJitter is the most of EXPIRATION_JITTER_MAX_SECONDS: a day. More would
// only fill Redis.
const maxJitter = 24 * 60 * 60

// check returns an error for each value that its type alone does not rule out,
// joined. Each names the variable and the value.
func (o *Options) check() error {
	var errs []error
	fault := func(format string, args ...any) { errs = append(errs, fmt.Errorf(format, args...)) }
	for _, p := range []struct {
		name  string
		value int
	}{{"PORT", o.Port}, {"GRPC_PORT", o.GRPCPort}, {"DEBUG_PORT", o.DebugPort}} {
		if p.value < 0 || p.value > 65535 {
			fault("%s=%d: not a port", p.name, p.value)
		}
	}
	for _, positive := range []struct {
		name  string
		value time.Duration
	}{
		{"REDIS_TIMEOUT", o.RedisTimeout},
		{"RATELIMIT_RULES_POLL", o.RulesPoll},
		{"RATELIMIT_DRAIN_DEADLINE", o.DrainDeadline},
		{"GRPC_MAX_CONNECTION_AGE", o.MaxConnectionAge},
		{"GRPC_MAX_CONNECTION_AGE_GRACE", o.MaxConnectionAgeGrace},
	} {
		if positive.value <= 0 {
			fault("%s=%v: not above 0", positive.name, positive.value)
		}
	}
	for _, least := range []struct {
		name         string
		value, least int
	}{
		{"REDIS_POOL_SIZE", o.RedisPoolSize, 1},
		{"RATELIMIT_MEMORY_MAX_COUNTERS", o.MaxCounters, 1},
		{"EXPIRATION_JITTER_MAX_SECONDS", o.ExpirationJitter, 0},
	} {
		if least.value < least.least {
			fault("%s=%d: below %d", least.name, least.value, least.least)
		}
	}
	if o.ExpirationJitter > maxJitter {
		fault("EXPIRATION_JITTER_MAX_SECONDS=%d: above %d", o.ExpirationJitter, maxJitter)
	}
	if o.DrainGrace < 0 {
		fault("RATELIMIT_DRAIN_GRACE=%v: below 0", o.DrainGrace)
	}
	if !(o.NearLimitRatio >= 0 && o.NearLimitRatio <= 1) {
		fault("NEAR_LIMIT_RATIO=%v: not from 0 to 1", o.NearLimitRatio)
	}
	if backend, err := o.backend(); err != nil {
		errs = append(errs, err)
	} else if backend.Name == "redis" && o.RedisURL == "" {
		fault("BACKEND_TYPE=%s: REDIS_URL must say where Redis is", o.BackendType)
	}
	return errors.Join(errs...)
}

// backend is the backend that the settings choose, by a name in any letter
// case. The error is that there is none of that name.
func (o *Options) backend() (builtin.Backend, error) {
	name := strings.ToLower(o.BackendType)
	switch {
	case name == "" && o.RedisURL == "":
		return builtin.Backends()[0], nil
	case name == "":
		name = "redis"
	}
	for _, b := range builtin.Backends() {
		if b.Name == name {
			return b, nil
		}
	}
	return builtin.Backend{}, fmt.Errorf("BACKEND_TYPE=%s: not one of %s", o.BackendType, builtin.BackendNames())
}

// rulesDirectory is where the rule files lie.
func (o *Options) rulesDirectory() string {
	return filepath.Join(o.RuntimeRoot, o.RuntimeSubdirectory, o.RuntimeAppDirectory)
}

func address(host string, port int) string { return net.JoinHostPort(host, strconv.Itoa(port)) }
