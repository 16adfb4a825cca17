package app

import (
	"cmp"
	"errors"
	"fmt"
	"log/slog"
	"math"
	"net"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"golang.org/x/net/http/httpguts"

	"github.com/weirproxy/weir/internal/daemon"
	"github.com/weirproxy/weir/internal/setting"
	"github.com/weirproxy/weir/services/ratelimit/internal/builtin"
	"github.com/weirproxy/weir/services/ratelimit/internal/rls"
	"github.com/weirproxy/weir/services/ratelimit/internal/store/redis"
)

// Options is every setting of the service, read from the environment. Names
// that envoyproxy/ratelimit has too mean the same here; the others begin with
// RATELIMIT_.
type Options struct {
	ListenerOptions
	RuleOptions
	LimitOptions
	StoreOptions
	MetricOptions
	TracingOptions
}

// ListenerOptions say where the service listens and how it logs and stops.
type ListenerOptions struct {
	Host      string `envconfig:"HOST" default:"0.0.0.0" desc:"address of the HTTP listener: /json, /healthcheck (readiness), /healthz (whether it lives)"`
	Port      int    `envconfig:"PORT" default:"8080" desc:"port of the HTTP listener; 0 takes a free one"`
	GRPCHost  string `envconfig:"GRPC_HOST" default:"0.0.0.0" desc:"address of the gRPC listener: rate limit service, health, reflection"`
	GRPCPort  int    `envconfig:"GRPC_PORT" default:"8081" desc:"port of the gRPC listener; 0 takes a free one"`
	GRPCUDS   string `envconfig:"GRPC_UDS" desc:"path of a Unix socket to serve gRPC on in place of GRPC_HOST and GRPC_PORT"`
	DebugHost string `envconfig:"DEBUG_HOST" default:"127.0.0.1" desc:"address of the admin listener: /ready, /healthz, /metrics, /rlconfig, /page, /debug/pprof"`
	DebugPort int    `envconfig:"DEBUG_PORT" default:"6070" desc:"port of the admin listener; 0 takes a free one"`
	LogLevel  string `envconfig:"LOG_LEVEL" default:"info" desc:"debug, info, warn or error; trace counts as debug, fatal and panic as error"`
	LogFormat string `envconfig:"LOG_FORMAT" desc:"text or json; if unset, text on a terminal and JSON elsewhere; json names time and message @timestamp and @message"`

	MaxConnectionAge      time.Duration `envconfig:"GRPC_MAX_CONNECTION_AGE" default:"24h" desc:"age at which a gRPC connection is asked to close, so that clients spread anew; 0 is never"`
	MaxConnectionAgeGrace time.Duration `envconfig:"GRPC_MAX_CONNECTION_AGE_GRACE" default:"1h" desc:"time that calls on such a connection have to end; 0 is for ever"`
	MaxConcurrentStreams  int           `envconfig:"RATELIMIT_GRPC_MAX_CONCURRENT_STREAMS" default:"1024" desc:"calls under way at once that one gRPC connection may have"`
	MaxConnections        int           `envconfig:"RATELIMIT_GRPC_MAX_CONNECTIONS" default:"0" desc:"gRPC connections open at once; more wait to be taken; 0 is no bound"`
	CallTimeout           time.Duration `envconfig:"RATELIMIT_GRPC_TIMEOUT" default:"10s" desc:"longest that a gRPC call may take, its message on the way included, whatever its deadline"`
	MaxDescriptors        int           `envconfig:"RATELIMIT_MAX_DESCRIPTORS" default:"10000" desc:"descriptors that a request may have; 10000 at most"`
	KeepaliveMinTime      time.Duration `envconfig:"RATELIMIT_GRPC_KEEPALIVE_MIN_TIME" default:"10s" desc:"time between a gRPC client's pings below which it is sent away"`
	Reflection            bool          `envconfig:"RATELIMIT_GRPC_REFLECTION" default:"true" desc:"whether gRPC clients may ask which services and messages there are"`
	JSONTimeout           time.Duration `envconfig:"RATELIMIT_JSON_TIMEOUT" default:"1s" desc:"longest that a call of /json may take, its body on the way included"`

	ServerTLS     bool   `envconfig:"GRPC_SERVER_USE_TLS" default:"false" desc:"serve gRPC over TLS, with the two files below, which are read again when they change"`
	ServerTLSCert string `envconfig:"GRPC_SERVER_TLS_CERT" desc:"file of the server's certificate chain, PEM"`
	ServerTLSKey  string `envconfig:"GRPC_SERVER_TLS_KEY" desc:"file of its key, PEM"`
	ClientTLSCA   string `envconfig:"GRPC_CLIENT_TLS_CACERT" desc:"file of the authorities, PEM, of which gRPC clients must show a certificate; if unset, they need none"`
	ClientTLSSAN  string `envconfig:"GRPC_CLIENT_TLS_SAN" desc:"subject alternative name that a client's certificate must have"`

	DrainGrace    time.Duration `envconfig:"RATELIMIT_DRAIN_GRACE" default:"1s" desc:"time between not being ready any more and closing the listeners, at SIGTERM"`
	DrainDeadline time.Duration `envconfig:"RATELIMIT_DRAIN_DEADLINE" default:"10s" desc:"time that work in flight has to end, after that"`
}

// RuleOptions say where rules come from.
type RuleOptions struct {
	ConfigType          string        `envconfig:"CONFIG_TYPE" default:"FILE" desc:"where rules come from: FILE, the directory below, or GRPC_XDS_SOTW, a control plane"`
	RuntimeRoot         string        `envconfig:"RUNTIME_ROOT" default:"/srv/runtime_data/current" desc:"directory, or link to one, whose exchange is a change of rules"`
	RuntimeSubdirectory string        `envconfig:"RUNTIME_SUBDIRECTORY" desc:"directory below RUNTIME_ROOT"`
	RuntimeAppDirectory string        `envconfig:"RUNTIME_APPDIRECTORY" default:"config" desc:"directory below that; it holds the rule files, at any depth"`
	WatchRoot           bool          `envconfig:"RUNTIME_WATCH_ROOT" default:"true" desc:"without effect: the whole path from RUNTIME_ROOT on is watched"`
	IgnoreDotFiles      bool          `envconfig:"RUNTIME_IGNOREDOTFILES" default:"true" desc:"leave out files and directories whose name begins with a dot, such as a ConfigMap's copies"`
	MergeDomains        bool          `envconfig:"MERGE_DOMAIN_CONFIG" default:"false" desc:"let several files give one domain, whose descriptors are then those of all"`
	AllOrNothing        bool          `envconfig:"RATELIMIT_RULES_ALL_OR_NOTHING" default:"false" desc:"keep all rules as they were if anything is wrong with a file, and not those of its domain alone"`
	RulesPoll           time.Duration `envconfig:"RATELIMIT_RULES_POLL" default:"2s" desc:"time between looks at the rule files, and at those of certificates, for changes of which the file system does not tell"`
	ForceStart          bool          `envconfig:"FORCE_START_WITHOUT_INITIAL_CONFIG" default:"false" desc:"without effect: the ports open when the rule files were read once, be they good or not, and calls are refused until rules are loaded"`
	HealthyWithConfig   bool          `envconfig:"HEALTHY_WITH_AT_LEAST_ONE_CONFIG_LOADED" default:"false" desc:"be ready only while a domain is loaded, and not for ever once one was"`

	XDSNodeID        string        `envconfig:"CONFIG_GRPC_XDS_NODE_ID" default:"default" desc:"id of this node for the control plane"`
	XDSNodeMetadata  string        `envconfig:"CONFIG_GRPC_XDS_NODE_METADATA" desc:"its metadata, k=v,k2=v2"`
	XDSServer        string        `envconfig:"CONFIG_GRPC_XDS_SERVER_URL" default:"localhost:18000" desc:"host:port of the control plane's ADS"`
	XDSRetry         time.Duration `envconfig:"CONFIG_GRPC_XDS_SERVER_CONNECT_RETRY_INTERVAL" default:"3s" desc:"time between two tries to connect to it"`
	XDSHeaders       string        `envconfig:"CONFIG_GRPC_XDS_CLIENT_ADDITIONAL_HEADERS" desc:"gRPC metadata sent to it, k:v,k2:v2"`
	XDSTLS           bool          `envconfig:"CONFIG_GRPC_XDS_SERVER_USE_TLS" default:"false" desc:"speak TLS with it"`
	XDSTLSCert       string        `envconfig:"CONFIG_GRPC_XDS_CLIENT_TLS_CERT" desc:"file of the certificate shown to it, PEM"`
	XDSTLSKey        string        `envconfig:"CONFIG_GRPC_XDS_CLIENT_TLS_KEY" desc:"file of its key, PEM"`
	XDSTLSCA         string        `envconfig:"CONFIG_GRPC_XDS_SERVER_TLS_CACERT" desc:"file of the authorities for its certificate, PEM; if unset, those of the system"`
	XDSTLSSAN        string        `envconfig:"CONFIG_GRPC_XDS_SERVER_TLS_SAN" desc:"name that its certificate must have; if unset, its host's"`
	XDSBackoff       time.Duration `envconfig:"XDS_CLIENT_BACKOFF_INITIAL_INTERVAL" default:"10s" desc:"time before a broken stream is tried again"`
	XDSBackoffMax    time.Duration `envconfig:"XDS_CLIENT_BACKOFF_MAX_INTERVAL" default:"60s" desc:"longest such time; each is twice the last"`
	XDSBackoffFactor float64       `envconfig:"XDS_CLIENT_BACKOFF_RANDOM_FACTOR" default:"0.5" desc:"share of such a time, and of that between tries to connect, by which it is made longer or shorter at random; 1 at most"`
	XDSBackoffJitter bool          `envconfig:"XDS_CLIENT_BACKOFF_JITTER" default:"true" desc:"whether it is"`
	XDSMaxMessage    int           `envconfig:"XDS_CLIENT_MAX_MSG_SIZE_IN_BYTES" default:"0" desc:"largest response taken from it; 0 is 64 MiB"`
}

// LimitOptions say how requests are judged and answered.
type LimitOptions struct {
	KeyPrefix        string  `envconfig:"CACHE_KEY_PREFIX" desc:"put in front of each counter's key"`
	ExpirationJitter int     `envconfig:"EXPIRATION_JITTER_MAX_SECONDS" default:"300" desc:"seconds by which counters in Redis outlive their window at most, at random; up to 86400, a day"`
	LocalCacheSize   int     `envconfig:"LOCAL_CACHE_SIZE_IN_BYTES" default:"0" desc:"memory for the names of counters that are over their limit, which then need no store; 0 is none"`
	NearLimitRatio   float64 `envconfig:"NEAR_LIMIT_RATIO" default:"0.8" desc:"share of a limit above which hits are counted as near it"`
	StopWhenOver     bool    `envconfig:"STOP_CACHE_KEY_INCREMENT_WHEN_OVERLIMIT" default:"false" desc:"count nothing for the descriptors that are within their limit in a request of which another is over"`
	ShadowMode       bool    `envconfig:"SHADOW_MODE" default:"false" desc:"answer no request as over its limit"`
	QuotaMode        bool    `envconfig:"QUOTA_MODE" default:"false" desc:"take every rule for one with quota_mode"`
	DynamicMetadata  bool    `envconfig:"RESPONSE_DYNAMIC_METADATA" default:"false" desc:"send the request and the rules' metadata back as dynamic_metadata"`
	ResponseHeaders  bool    `envconfig:"LIMIT_RESPONSE_HEADERS_ENABLED" default:"false" desc:"send the headers below for the tightest limit"`
	LimitHeader      string  `envconfig:"LIMIT_LIMIT_HEADER" default:"RateLimit-Limit" desc:"name of the header with the limit"`
	RemainingHeader  string  `envconfig:"LIMIT_REMAINING_HEADER" default:"RateLimit-Remaining" desc:"name of the header with what is left of it"`
	ResetHeader      string  `envconfig:"LIMIT_RESET_HEADER" default:"RateLimit-Reset" desc:"name of the header with the seconds until its window ends"`
}

// maxJitter is the most of EXPIRATION_JITTER_MAX_SECONDS: a day. More would
// only fill Redis.
const maxJitter = 24 * 60 * 60

// maxLocalCache is more than any machine gives to names, 1 TiB: what is above it is
// a slip.
const maxLocalCache = min(1<<40, math.MaxInt)

// StoreOptions say where counters lie.
type StoreOptions struct {
	BackendType string `envconfig:"BACKEND_TYPE" desc:"where counters lie: memory or redis; if unset, redis where REDIS_URL is set, else memory"`
	MaxCounters int    `envconfig:"RATELIMIT_MEMORY_MAX_COUNTERS" default:"1000000" desc:"counters that the memory backend holds at most; beyond, the soonest to expire of a few is forgotten"`

	RedisType         string        `envconfig:"REDIS_TYPE" default:"SINGLE" desc:"SINGLE, SENTINEL or CLUSTER"`
	RedisURL          string        `envconfig:"REDIS_URL" desc:"redis://user:password@host:port/db, rediss:// for TLS, unix:///path, host:port or /path; of a cluster a comma list of them; with sentinels the master's name and their host:port list"`
	RedisSocketType   string        `envconfig:"REDIS_SOCKET_TYPE" desc:"tcp or unix; if unset, as REDIS_URL looks"`
	RedisAuth         string        `envconfig:"REDIS_AUTH" desc:"password, or user:password, in place of what REDIS_URL has"`
	RedisSentinelAuth string        `envconfig:"REDIS_SENTINEL_AUTH" desc:"the same for the sentinels"`
	RedisTimeout      time.Duration `envconfig:"REDIS_TIMEOUT" default:"50ms" desc:"longest wait for Redis in one request, whatever the caller's deadline"`
	RedisPoolSize     int           `envconfig:"REDIS_POOL_SIZE" default:"10" desc:"connections to each Redis that carry requests, at most, each with one batch of them under way; more than two only while whole batches wait"`
	RedisPoolOnEmpty  string        `envconfig:"REDIS_POOL_ON_EMPTY_BEHAVIOR" default:"WAIT" desc:"WAIT, the only way there is"`
	RedisTLS          bool          `envconfig:"REDIS_TLS" default:"false" desc:"speak TLS with Redis, as rediss:// does"`
	RedisTLSCert      string        `envconfig:"REDIS_TLS_CLIENT_CERT" desc:"file of the certificate shown to Redis, PEM"`
	RedisTLSKey       string        `envconfig:"REDIS_TLS_CLIENT_KEY" desc:"file of its key, PEM"`
	RedisTLSCA        string        `envconfig:"REDIS_TLS_CACERT" desc:"file of the authorities for Redis' certificate, PEM; if unset, those of the system"`
	RedisTLSSkipName  bool          `envconfig:"REDIS_TLS_SKIP_HOSTNAME_VERIFICATION" default:"false" desc:"take a certificate of Redis for any name"`

	PipelineWindow   time.Duration `envconfig:"REDIS_PIPELINE_WINDOW" default:"0s" desc:"without effect: a batch is what came in while the last was under way"`
	PipelineLimit    int           `envconfig:"REDIS_PIPELINE_LIMIT" default:"0" desc:"without effect"`
	ClusterParallel  int           `envconfig:"REDIS_CLUSTER_PIPELINE_PARALLELISM" default:"1" desc:"without effect: the servers of a cluster are always asked at once"`
	HealthConnection bool          `envconfig:"REDIS_HEALTH_CHECK_ACTIVE_CONNECTION" default:"false" desc:"without effect: readiness follows what Redis answers to a probe each second"`
	StartupInitial   time.Duration `envconfig:"REDIS_STARTUP_INITIAL_INTERVAL" default:"1s" desc:"without effect: the ports open without Redis, and readiness tells when it is there"`
	StartupMax       time.Duration `envconfig:"REDIS_STARTUP_MAX_INTERVAL" default:"30s" desc:"without effect"`
	StartupElapsed   time.Duration `envconfig:"REDIS_STARTUP_MAX_ELAPSED_TIME" default:"0s" desc:"without effect"`
	CloseOnReadonly  bool          `envconfig:"REDIS_CLOSE_CONNECTION_ON_READONLY_ERROR" default:"false" desc:"without effect: connections to a server that has become a replica are always closed"`

	PerSecond             bool          `envconfig:"REDIS_PERSECOND" default:"false" desc:"count limits of one second in another Redis, that of the settings below"`
	PerSecondType         string        `envconfig:"REDIS_PERSECOND_TYPE" default:"SINGLE" desc:"as REDIS_TYPE"`
	PerSecondURL          string        `envconfig:"REDIS_PERSECOND_URL" desc:"as REDIS_URL"`
	PerSecondSocketType   string        `envconfig:"REDIS_PERSECOND_SOCKET_TYPE" desc:"as REDIS_SOCKET_TYPE"`
	PerSecondAuth         string        `envconfig:"REDIS_PERSECOND_AUTH" desc:"as REDIS_AUTH"`
	PerSecondSentinelAuth string        `envconfig:"REDIS_PERSECOND_SENTINEL_AUTH" desc:"as REDIS_SENTINEL_AUTH"`
	PerSecondTimeout      time.Duration `envconfig:"REDIS_PERSECOND_TIMEOUT" default:"50ms" desc:"as REDIS_TIMEOUT"`
	PerSecondPoolSize     int           `envconfig:"REDIS_PERSECOND_POOL_SIZE" default:"10" desc:"as REDIS_POOL_SIZE"`
	PerSecondPoolOnEmpty  string        `envconfig:"REDIS_PERSECOND_POOL_ON_EMPTY_BEHAVIOR" default:"WAIT" desc:"as REDIS_POOL_ON_EMPTY_BEHAVIOR"`
	PerSecondTLS          bool          `envconfig:"REDIS_PERSECOND_TLS" default:"false" desc:"as REDIS_TLS, with its files"`
	PerSecondWindow       time.Duration `envconfig:"REDIS_PERSECOND_PIPELINE_WINDOW" default:"0s" desc:"without effect"`
	PerSecondLimit        int           `envconfig:"REDIS_PERSECOND_PIPELINE_LIMIT" default:"0" desc:"without effect"`
	PerSecondParallel     int           `envconfig:"REDIS_PERSECOND_CLUSTER_PIPELINE_PARALLELISM" default:"1" desc:"without effect"`
}

// MetricOptions say who is told of the service's statistics.
type MetricOptions struct {
	MaxNames       int           `envconfig:"RATELIMIT_METRICS_MAX_NAMES" default:"10000" desc:"names with text of requests in them, of rules and of domains without rules, that have metrics of their own at most; the others count as (other)"`
	IdleNames      time.Duration `envconfig:"RATELIMIT_METRICS_IDLE_NAMES" default:"1h" desc:"time after which such a name that is not met any more is forgotten"`
	UseStatsd      string        `envconfig:"USE_STATSD" desc:"true sends statistics to a statsd server; if unset, that is done where STATSD_HOST or STATSD_PORT is set and USE_DOG_STATSD is not"`
	StatsdHost     string        `envconfig:"STATSD_HOST" desc:"the statsd server or dogstatsd agent; if unset, localhost"`
	StatsdPort     int           `envconfig:"STATSD_PORT" default:"0" desc:"its port; 0 is 8125"`
	StatsdProtocol string        `envconfig:"STATSD_PROTOCOL" default:"tcp" desc:"tcp or udp, to a statsd server"`
	UseDogStatsd   bool          `envconfig:"USE_DOG_STATSD" default:"false" desc:"send statistics to a dogstatsd agent over UDP"`
	Mogrifiers     string        `envconfig:"USE_DOG_STATSD_MOGRIFIERS" desc:"comma list of N, each with DOG_STATSD_MOGRIFIER_N_PATTERN, _NAME and _TAGS, that make tags of parts of names"`
	ExtraTags      string        `envconfig:"EXTRA_TAGS" desc:"tags of everything that is sent, k:v,k2:v2"`
	FlushInterval  time.Duration `envconfig:"STATS_FLUSH_INTERVAL" default:"10s" desc:"time between two sendings"`
	DisableStats   bool          `envconfig:"DISABLE_STATS" default:"false" desc:"send nothing and open no PROMETHEUS_ADDR; the admin listener's /metrics stays"`

	UsePrometheus          bool   `envconfig:"USE_PROMETHEUS" default:"false" desc:"serve metrics under the peer's names at the address below too"`
	PrometheusAddr         string `envconfig:"PROMETHEUS_ADDR" default:":9090" desc:"where"`
	PrometheusPath         string `envconfig:"PROMETHEUS_PATH" default:"/metrics" desc:"at which path"`
	PrometheusMapper       string `envconfig:"PROMETHEUS_MAPPER_YAML" desc:"file of a statsd-exporter mapping, in place of the peer's own"`
	PrometheusMilliseconds bool   `envconfig:"PROMETHEUS_RESPONSE_TIME_AS_MILLISECONDS" default:"false" desc:"give response times there in milliseconds"`
}

// TracingOptions say how requests are traced.
type TracingOptions struct {
	TracingEnabled   bool    `envconfig:"TRACING_ENABLED" default:"false" desc:"send spans over OTLP, to where the OTEL_EXPORTER_OTLP_ variables say"`
	TracingProtocol  string  `envconfig:"TRACING_EXPORTER_PROTOCOL" desc:"http or grpc; if unset, what OTEL_EXPORTER_OTLP_PROTOCOL says, else http"`
	TracingService   string  `envconfig:"TRACING_SERVICE_NAME" default:"RateLimit" desc:"service.name of the spans"`
	TracingNamespace string  `envconfig:"TRACING_SERVICE_NAMESPACE" desc:"service.namespace of the spans"`
	TracingInstance  string  `envconfig:"TRACING_SERVICE_INSTANCE_ID" desc:"service.instance.id of the spans; if unset, a random UUID"`
	TracingSampling  float64 `envconfig:"TRACING_SAMPLING_RATE" default:"1" desc:"share of the calls that are traced where their caller has not decided"`
}

// check returns an error for each value that its type alone does not rule out,
// joined. Each names the variable and the value. What the parts check
// themselves is not among them.
func (o *Options) check() error {
	var errs []error
	fault := func(format string, args ...any) { errs = append(errs, setting.Faultf(format, args...)) }
	setting.Port("PORT", o.Port, fault)
	setting.Port("GRPC_PORT", o.GRPCPort, fault)
	setting.Port("DEBUG_PORT", o.DebugPort, fault)
	setting.Positive("REDIS_TIMEOUT", o.RedisTimeout, fault)
	setting.Positive("REDIS_PERSECOND_TIMEOUT", o.PerSecondTimeout, fault)
	setting.Positive("RATELIMIT_RULES_POLL", o.RulesPoll, fault)
	setting.Positive("RATELIMIT_DRAIN_DEADLINE", o.DrainDeadline, fault)
	setting.Positive("RATELIMIT_JSON_TIMEOUT", o.JSONTimeout, fault)
	setting.Positive("RATELIMIT_GRPC_TIMEOUT", o.CallTimeout, fault)
	setting.Positive("RATELIMIT_GRPC_KEEPALIVE_MIN_TIME", o.KeepaliveMinTime, fault)
	setting.Positive("RATELIMIT_METRICS_IDLE_NAMES", o.IdleNames, fault)
	setting.Positive("CONFIG_GRPC_XDS_SERVER_CONNECT_RETRY_INTERVAL", o.XDSRetry, fault)
	setting.Positive("XDS_CLIENT_BACKOFF_INITIAL_INTERVAL", o.XDSBackoff, fault)
	setting.Positive("XDS_CLIENT_BACKOFF_MAX_INTERVAL", o.XDSBackoffMax, fault)
	setting.Within("REDIS_POOL_SIZE", o.RedisPoolSize, 1, math.MaxInt32, fault)
	setting.Within("REDIS_PERSECOND_POOL_SIZE", o.PerSecondPoolSize, 1, math.MaxInt32, fault)
	setting.Within("RATELIMIT_MEMORY_MAX_COUNTERS", o.MaxCounters, 1, math.MaxInt32, fault)
	setting.Within("RATELIMIT_METRICS_MAX_NAMES", o.MaxNames, 1, math.MaxInt32, fault)
	setting.Within("RATELIMIT_GRPC_MAX_CONCURRENT_STREAMS", o.MaxConcurrentStreams, 1, math.MaxInt32, fault)
	setting.Within("RATELIMIT_GRPC_MAX_CONNECTIONS", o.MaxConnections, 0, math.MaxInt32, fault)
	setting.Within("RATELIMIT_MAX_DESCRIPTORS", o.MaxDescriptors, 1, rls.MaxDescriptors, fault)
	setting.Within("LOCAL_CACHE_SIZE_IN_BYTES", o.LocalCacheSize, 0, maxLocalCache, fault)
	setting.Within("EXPIRATION_JITTER_MAX_SECONDS", o.ExpirationJitter, 0, maxJitter, fault)
	if !o.ServerTLS && (o.ClientTLSCA != "" || o.ClientTLSSAN != "") {
		fault("GRPC_CLIENT_TLS_CACERT=%s, GRPC_CLIENT_TLS_SAN=%s: clients can show a certificate only with %v",
			o.ClientTLSCA, o.ClientTLSSAN, setting.Variable("GRPC_SERVER_USE_TLS", true))
	}
	setting.AtLeast("RATELIMIT_DRAIN_GRACE", o.DrainGrace, 0, fault)
	setting.AtLeast("GRPC_MAX_CONNECTION_AGE", o.MaxConnectionAge, 0, fault)
	setting.AtLeast("GRPC_MAX_CONNECTION_AGE_GRACE", o.MaxConnectionAgeGrace, 0, fault)
	setting.Share("NEAR_LIMIT_RATIO", o.NearLimitRatio, fault)
	setting.Share("TRACING_SAMPLING_RATE", o.TracingSampling, fault)
	for _, header := range []struct{ name, value string }{
		{"LIMIT_LIMIT_HEADER", o.LimitHeader}, {"LIMIT_REMAINING_HEADER", o.RemainingHeader}, {"LIMIT_RESET_HEADER", o.ResetHeader},
	} {
		if !httpguts.ValidHeaderFieldName(header.value) {
			fault("%s=%q: not the name of a header", header.name, header.value)
		}
	}
	if !(o.XDSBackoffFactor >= 0) {
		fault("%v: below 0", setting.Variable("XDS_CLIENT_BACKOFF_RANDOM_FACTOR", o.XDSBackoffFactor))
	}
	if !slices.Contains([]string{configFile, configXDS}, o.ConfigType) {
		fault("CONFIG_TYPE=%s: not one of %s, %s", o.ConfigType, configFile, configXDS)
	}
	if _, err := o.backend(); err != nil {
		errs = append(errs, err)
	}
	return errors.Join(errs...)
}

// The values of CONFIG_TYPE.
const (
	configFile = "FILE"
	configXDS  = "GRPC_XDS_SOTW"
)

// backend is the backend that the settings choose, by a name in any letter
// case. The error is that there is none of that name.
func (o *Options) backend() (builtin.Backend, error) {
	name := strings.ToLower(o.BackendType)
	switch {
	case name == "" && o.RedisURL == "":
		return builtin.Backends()[0], nil
	case name == "":
		name = "redis"
	case strings.HasPrefix(name, "memcache"):
		return builtin.Backend{}, fmt.Errorf("BACKEND_TYPE=%s: memcached cannot count exactly and is not supported; take one of %s", o.BackendType, builtin.BackendNames())
	}
	for _, b := range builtin.Backends() {
		if b.Name == name {
			return b, nil
		}
	}
	return builtin.Backend{}, fmt.Errorf("BACKEND_TYPE=%s: not one of %s", o.BackendType, builtin.BackendNames())
}

// The sockets where envoyproxy/ratelimit looks for Redis if it is told none.
const (
	defaultRedis     = "/var/run/nutcracker/ratelimit.sock"
	defaultPerSecond = "/var/run/nutcracker/ratelimitpersecond.sock"
)

// redis is where the redis backend counts.
func (o *Options) redis() redis.Options {
	return redis.Options{
		Type: o.RedisType, URL: cmp.Or(o.RedisURL, defaultRedis), SocketType: o.RedisSocketType,
		Auth: o.RedisAuth, SentinelAuth: o.RedisSentinelAuth, TLS: o.redisTLS(o.RedisTLS),
		Timeout: o.RedisTimeout, Connections: o.RedisPoolSize, PoolOnEmpty: o.RedisPoolOnEmpty,
		ExpirationJitter: time.Duration(o.ExpirationJitter) * time.Second,
		KeyPrefix:        o.KeyPrefix, DomainTags: o.StopWhenOver,
	}
}

// redisPerSecond is where it counts limits of one second, nil if there too.
func (o *Options) redisPerSecond() *redis.Options {
	if !o.PerSecond {
		return nil
	}
	r := o.redis()
	r.Type, r.URL, r.SocketType = o.PerSecondType, cmp.Or(o.PerSecondURL, defaultPerSecond), o.PerSecondSocketType
	r.Auth, r.SentinelAuth, r.TLS = o.PerSecondAuth, o.PerSecondSentinelAuth, o.redisTLS(o.PerSecondTLS)
	r.Timeout, r.Connections, r.PoolOnEmpty = o.PerSecondTimeout, o.PerSecondPoolSize, o.PerSecondPoolOnEmpty
	return &r
}

func (o *Options) redisTLS(on bool) redis.TLS {
	return redis.TLS{
		On: on, ClientCert: o.RedisTLSCert, ClientKey: o.RedisTLSKey, CACert: o.RedisTLSCA,
		SkipHostnameVerification: o.RedisTLSSkipName,
	}
}

// rulesDirectory is where the rule files lie.
func (o *Options) rulesDirectory() string {
	return filepath.Join(o.RuntimeRoot, o.RuntimeSubdirectory, o.RuntimeAppDirectory)
}

// log is how to log, and the variables that say so. Levels of other programs
// stand for the nearest of ours.
func (o Options) log() (options daemon.LogOptions, variables string) {
	level := strings.ToLower(o.LogLevel)
	switch level {
	case "warning":
		level = "warn"
	case "trace":
		level = "debug"
	case "fatal", "panic":
		level = "error"
	}
	options = daemon.LogOptions{Level: level, Format: strings.ToLower(o.LogFormat)}
	if options.Format == "json" {
		options.Keys = map[string]string{slog.TimeKey: "@timestamp", slog.MessageKey: "@message"}
	}
	return options, "LOG_LEVEL, LOG_FORMAT"
}

func address(host string, port int) string { return net.JoinHostPort(host, strconv.Itoa(port)) }
