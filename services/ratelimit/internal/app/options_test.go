package app_test

import (
	"context"
	"fmt"
	"log/slog"
	"math"
	"net"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/weirproxy/weir/internal/environtest"
	"github.com/weirproxy/weir/services/ratelimit/internal/app"
)

func TestNewRefuses(t *testing.T) {
	taken, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	defer taken.Close()
	port := taken.Addr().(*net.TCPAddr).Port
	for _, c := range []struct {
		name   string
		change func(*app.Options)
		want   string
	}{
		{"a_port_out_of_range", func(o *app.Options) { o.Port = 65536 }, "PORT=65536: not a port"},
		{"a_negative_port", func(o *app.Options) { o.GRPCPort = -1 }, "GRPC_PORT=-1: not a port"},
		{"a_port_in_use", func(o *app.Options) { o.GRPCPort = port }, fmt.Sprintf("listen on 127.0.0.1:%d: the port is in use; GRPC_PORT moves it", port)},
		{"an_admin_port_in_use", func(o *app.Options) { o.DebugPort = port }, fmt.Sprintf("listen on 127.0.0.1:%d: the port is in use; DEBUG_PORT moves it", port)},
		{"no_timeout", func(o *app.Options) { o.RedisTimeout = 0 }, "REDIS_TIMEOUT=0s: not above 0"},
		{"no_poll", func(o *app.Options) { o.RulesPoll = -1 }, "RATELIMIT_RULES_POLL=-1ns: not above 0"},
		{"no_connections", func(o *app.Options) { o.RedisPoolSize = 0 }, "REDIS_POOL_SIZE=0: below 1"},
		{"no_counters", func(o *app.Options) { o.MaxCounters = 0 }, "RATELIMIT_MEMORY_MAX_COUNTERS=0: below 1"},
		{"negative_grace", func(o *app.Options) { o.DrainGrace = -1 }, "RATELIMIT_DRAIN_GRACE=-1ns: below 0s"},
		{"negative_jitter", func(o *app.Options) { o.ExpirationJitter = -1 }, "EXPIRATION_JITTER_MAX_SECONDS=-1: below 0"},
		{"more_jitter_than_a_day", func(o *app.Options) { o.ExpirationJitter = 86401 }, "EXPIRATION_JITTER_MAX_SECONDS=86401: above 86400"},
		{"jitter_that_no_duration_holds", func(o *app.Options) { o.ExpirationJitter = 9999999999999 }, "EXPIRATION_JITTER_MAX_SECONDS=9999999999999: above 86400"},
		{"a_ratio_above_1", func(o *app.Options) { o.NearLimitRatio = 1.5 }, "NEAR_LIMIT_RATIO=1.5: not from 0 to 1"},
		{"a_ratio_that_is_no_number", func(o *app.Options) { o.NearLimitRatio = math.NaN() }, "NEAR_LIMIT_RATIO=NaN: not from 0 to 1"},
		{"all_that_is_wrong_at_once", func(o *app.Options) {
			o.Port, o.DebugPort, o.RedisTimeout, o.DrainGrace, o.BackendType = -1, 70000, 0, -1, "memcache"
		}, "PORT=-1: not a port\nDEBUG_PORT=70000: not a port\nREDIS_TIMEOUT=0s: not above 0\n" +
			"RATELIMIT_DRAIN_GRACE=-1ns: below 0s\nBACKEND_TYPE=memcache: memcached cannot count exactly and is not supported; take one of memory, redis"},
		{"a_cache_larger_than_any_memory", func(o *app.Options) { o.LocalCacheSize = 9999999999999999 }, "LOCAL_CACHE_SIZE_IN_BYTES=9999999999999999: above 1099511627776"},
		{"an_unknown_backend", func(o *app.Options) { o.BackendType = "etcd" }, "BACKEND_TYPE=etcd: not one of memory, redis"},
		{"an_unknown_kind_of_redis", func(o *app.Options) { o.RedisURL, o.RedisType = "127.0.0.1:1", "ring" }, "REDIS_TYPE=ring: not one of single, sentinel, cluster"},
		{"an_unknown_source_of_rules", func(o *app.Options) { o.ConfigType = "HTTP" }, "CONFIG_TYPE=HTTP: not one of FILE, GRPC_XDS_SOTW"},
		{"a_control_plane_that_is_none", func(o *app.Options) { o.ConfigType, o.XDSNodeMetadata = "GRPC_XDS_SOTW", "x" }, "CONFIG_GRPC_XDS_…: node metadata \"x\": \"x\" is not key=value"},
		{"two_that_statistics_are_sent_to", func(o *app.Options) { o.UseStatsd, o.UseDogStatsd = "true", true }, "USE_STATSD=true and USE_DOG_STATSD=true: statistics are sent to one server only, set one of them"},
		{"TLS_without_a_certificate", func(o *app.Options) { o.ServerTLS = true }, "GRPC_SERVER_TLS_CERT must name a file for GRPC_SERVER_USE_TLS=true"},
		{"client_certificates_without_TLS", func(o *app.Options) { o.ClientTLSCA = "ca.pem" }, "GRPC_CLIENT_TLS_CACERT=ca.pem, GRPC_CLIENT_TLS_SAN=: clients can show a certificate only with GRPC_SERVER_USE_TLS=true"},
		{"an_exporter_that_is_none", func(o *app.Options) { o.TracingEnabled, o.TracingProtocol = true, "zipkin" }, "TRACING_EXPORTER_PROTOCOL=zipkin: not one of http, grpc"},
		{"what_comes_after_tracing_began", func(o *app.Options) {
			o.TracingEnabled, o.UsePrometheus, o.PrometheusMapper = true, true, "/none/such"
		}, "PROMETHEUS_MAPPER_YAML=/none/such: open /none/such: no such file or directory"},
		{"a_header_that_is_none", func(o *app.Options) { o.LimitHeader = "bad header: x" }, `LIMIT_LIMIT_HEADER="bad header: x": not the name of a header`},
		{"more_than_all_that_is_traced", func(o *app.Options) { o.TracingSampling = 7 }, "TRACING_SAMPLING_RATE=7: not from 0 to 1"},
		{"a_mapping_that_is_not_there", func(o *app.Options) { o.UsePrometheus, o.PrometheusMapper = true, "/none/such" }, "PROMETHEUS_MAPPER_YAML=/none/such: open /none/such: no such file or directory"},
		{"a_URL_that_is_none", func(o *app.Options) { o.RedisURL = "redis" }, `REDIS_URL: redis address "redis" is neither a URL nor host:port`},
	} {
		t.Run(c.name, func(t *testing.T) {
			o := options(t)
			c.change(&o)
			_, err := app.New(o, slog.New(slog.DiscardHandler))
			require.EqualError(t, err, c.want)
		})
	}
}

func TestNoPasswordIsLoggedOrToldWithAnError(t *testing.T) {
	for i, address := range []string{
		"redis://user:secret@127.0.0.1:1", "redis://secret@127.0.0.1:1", "user:secret@127.0.0.1:1", "secret@127.0.0.1:1",
		"redis://sec/ret:secret@127.0.0.1:1", "redis://:secret@127.0.0.1:1/x", "redis://:secret%@127.0.0.1:1",
	} {
		t.Run(fmt.Sprint(i), func(t *testing.T) { // the name is part of paths that are logged
			o := options(t)
			o.RedisURL = address
			var logged strings.Builder
			a, err := app.New(o, slog.New(slog.NewTextHandler(&logged, nil)))
			if err != nil {
				require.NotContains(t, err.Error(), "secret")
				return
			}
			ended, cancel := context.WithCancel(t.Context())
			cancel()
			require.NoError(t, a.Run(ended))
			require.Contains(t, logged.String(), "redis at 127.0.0.1:1\"\n")
			require.NotContains(t, logged.String(), "secret")
		})
	}
}

func TestTheREADMEListsEverySetting(t *testing.T) {
	environtest.README(t, "../../README.md", app.Options{})
}

func TestMainExits(t *testing.T) {
	environtest.Unset(t, app.Options{})
	t.Setenv("DEBUG_PORT", "1")
	t.Setenv("DEBUG_HOST", "127.0.0.1")
	for _, c := range []struct {
		args []string
		want int
	}{
		{[]string{"--help"}, 0},
		{[]string{"--version"}, 0},
		{[]string{"--unknown"}, 2},
		{[]string{"serve"}, 2},
		{[]string{"healthcheck", "now"}, 2},
		{[]string{"healthcheck"}, 1}, // nothing listens there
	} {
		t.Run(strings.Join(c.args, "_"), func(t *testing.T) {
			require.Equal(t, c.want, app.Main(c.args, "v1.2.3"))
		})
	}
}

func TestMainRefusesABadEnvironment(t *testing.T) {
	environtest.Unset(t, app.Options{})
	t.Setenv("PORT", "http")
	require.Equal(t, 1, app.Main(nil, ""))
	t.Setenv("PORT", "0")
	t.Setenv("LOG_LEVEL", "loud")
	require.Equal(t, 1, app.Main(nil, ""))
}
