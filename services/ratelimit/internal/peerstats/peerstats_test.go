package peerstats_test

import (
	"fmt"
	"math"
	"regexp"
	"slices"
	"strings"
	"testing"
	"unicode"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"github.com/stretchr/testify/require"

	"github.com/weirproxy/weir/internal/servicetest"
	"github.com/weirproxy/weir/services/ratelimit/internal/peerstats"
)

func TestMain(m *testing.M) { servicetest.Main(m) }

func counter(reg *prometheus.Registry, name string, labels ...string) *prometheus.CounterVec {
	c := prometheus.NewCounterVec(prometheus.CounterOpts{Name: name}, labels)
	reg.MustRegister(c)
	return c
}

func read(t *testing.T, r *peerstats.Reader) map[string]float64 {
	t.Helper()
	stats, _, err := r.Read()
	require.NoError(t, err)
	values := map[string]float64{}
	for _, s := range stats {
		require.NotContains(t, values, s.Name)
		values[s.Name] = s.Value
	}
	return values
}

func TestRulesAreCalledAsByThePeer(t *testing.T) {
	for _, c := range []struct{ name, domain, rule, want string }{
		{"by_domain_and_path", "mongo_cps", "database_users.table_x", "mongo_cps.database_users.table_x"},
		{"without_colons_and_pipes", "d", "path_/a:b|c", "d.path_/a_b_c"},
		{"without_dots_in_addresses", "d", "remote_address_10.20.30.40.path", "d.remote_address_10_20_30_40.path"},
		{"without_dots_in_what_looks_like_one", "1.2", "3.4_x", "1_2_3_4_x"},
		{"with_dots_in_versions", "d", "version_1.2.3", "d.version_1.2.3"},
		{"without_quotes", "d", `"a"="b"."c"`, "d.a_b.c"},
		{"without_quotes_within_quotes", "d", `"\"a\""`, `d."a"`},
		{"without_line_breaks", "d\nx", `"a\nb"`, "d_x.a_b"},
		{"what_only_looks_quoted_as_it_is", "d", `"a`, `d."a`},
		{"what_is_half_quoted_as_it_is", "d", `"a"."b`, `d."a"."b`},
		{"those_of_the_requests_themselves", "d", "(override)", "d.(override)"},
	} {
		t.Run(c.name, func(t *testing.T) {
			reg := prometheus.NewRegistry()
			counter(reg, "ratelimit_service_rate_limit_over_limit", "domain", "rule").WithLabelValues(c.domain, c.rule).Add(3)
			require.Equal(t, map[string]float64{"ratelimit.service.rate_limit." + c.want + ".over_limit": 3},
				read(t, peerstats.NewReader(reg)))
			require.Equal(t, "ratelimit.service.rate_limit."+c.want, peerstats.RuleName(c.domain, c.rule))
		})
	}
}

func TestFamiliesAreCalledAsByThePeer(t *testing.T) {
	reg := prometheus.NewRegistry()
	for _, suffix := range []string{
		"total_hits", "within_limit", "over_limit", "near_limit", "over_limit_with_local_cache", "shadow_mode", "total_negative_hits",
	} {
		counter(reg, "ratelimit_service_rate_limit_"+suffix, "domain", "rule").WithLabelValues("d", "k").Inc()
	}
	unknown := counter(reg, "ratelimit_service_rate_limit_domain_not_found", "domain")
	unknown.WithLabelValues("e").Add(6)
	unknown.WithLabelValues("(other)").Add(7)
	requests := counter(reg, "ratelimit_service_total_requests", "api", "grpc_method")
	requests.WithLabelValues("v2", "ShouldRateLimit").Add(1)
	requests.WithLabelValues("v3", "ShouldRateLimit").Add(2)
	connections := counter(reg, "ratelimit_redis_connections_opened_total", "pool")
	connections.WithLabelValues("redis_pool").Add(4)
	connections.WithLabelValues("redis_per_second_pool").Add(5)
	counter(reg, "ratelimit_redis_connections_closed_total", "pool").WithLabelValues("redis_pool").Add(3)
	for _, name := range []string{
		"ratelimit_service_config_load_success", "ratelimit_service_config_load_error",
		"ratelimit_service_config_unread", "ratelimit_service_config_sources",
		"ratelimit_certificates_load_success", "ratelimit_certificates_load_error", "ratelimit_certificates_files",
		"ratelimit_service_global_shadow_mode", "ratelimit_localcache_evicted_total", "ratelimit_localcache_expired_total",
		"ratelimit_localcache_overwritten_total", "ratelimit_localcache_last_used_seconds",
	} {
		counter(reg, name).WithLabelValues().Inc()
	}
	counter(reg, "ratelimit_localcache_hits_total").WithLabelValues().Add(2)
	counter(reg, "ratelimit_localcache_misses_total").WithLabelValues().Add(3)
	counter(reg, "ratelimit_process_gc_cpu_ratio").WithLabelValues().Add(.25)
	errors := counter(reg, "ratelimit_service_should_rate_limit_error", "err_type")
	for _, cause := range []string{"store_error", "bad_request", "no_rules"} {
		errors.WithLabelValues(cause).Inc()
	}
	require.Equal(t, map[string]float64{
		"ratelimit.service.rate_limit.d.k.total_hits":                  1,
		"ratelimit.service.rate_limit.d.k.within_limit":                1,
		"ratelimit.service.rate_limit.d.k.over_limit":                  1,
		"ratelimit.service.rate_limit.d.k.near_limit":                  1,
		"ratelimit.service.rate_limit.d.k.over_limit_with_local_cache": 1,
		"ratelimit.service.rate_limit.d.k.shadow_mode":                 1,
		"ratelimit.service.rate_limit.d.k.total_negative_hits":         1,
		"ratelimit.service.rate_limit.e.domain_not_found":              6,
		"ratelimit.service.rate_limit.(other).domain_not_found":        7,
		"ratelimit_server.ShouldRateLimit.total_requests":              3,
		"ratelimit.redis_pool.cx_total":                                4,
		"ratelimit.redis_per_second_pool.cx_total":                     5,
		"ratelimit.redis_pool.cx_local_close":                          3,
		"ratelimit.service.call.should_rate_limit.redis_error":         1,
		"ratelimit.service.call.should_rate_limit.service_error":       2,
		"ratelimit.service.config_load_success":                        1,
		"ratelimit.service.config_load_error":                          1,
		"ratelimit.go.gcCPUPercent":                                    25,
		"runtime.load_attempts":                                        2,
		"runtime.load_failures":                                        1,
		"runtime.num_values":                                           1,
		"certs.load_attempts":                                          2,
		"certs.load_failures":                                          1,
		"certs.num_values":                                             1,
		"ratelimit.service.global_shadow_mode":                         1,
		"ratelimit.localcache.hitCount":                                2,
		"ratelimit.localcache.missCount":                               3,
		"ratelimit.localcache.lookupCount":                             5,
		"ratelimit.localcache.evacuateCount":                           1,
		"ratelimit.localcache.expiredCount":                            1,
		"ratelimit.localcache.overwriteCount":                          1,
		"ratelimit.localcache.averageAccessTime":                       1,
	}, read(t, peerstats.NewReader(reg)))
}

func TestCountersAreReadAsWhatWasAdded(t *testing.T) {
	const name = "ratelimit_service_rate_limit_total_hits"
	reg := prometheus.NewRegistry()
	hits := counter(reg, name, "domain", "rule")
	r := peerstats.NewReader(reg)
	expect := func(want map[string]float64) {
		t.Helper()
		got := map[string]float64{}
		for flat, value := range read(t, r) {
			got[strings.TrimSuffix(strings.TrimPrefix(flat, "ratelimit.service.rate_limit."), ".total_hits")] = value
		}
		require.Equal(t, want, got)
	}
	hits.WithLabelValues("d", "k").Add(5)
	expect(map[string]float64{"d.k": 5})
	expect(map[string]float64{"d.k": 0})

	// Two that read the same are one.
	hits.WithLabelValues("d", "k").Add(1)
	hits.WithLabelValues("d", `"a_b"`).Add(2)
	hits.WithLabelValues("d", `"a"="b"`).Add(4)
	expect(map[string]float64{"d.k": 1, "d.a_b": 6})

	// One of them goes: no part of the other is told twice.
	hits.DeleteLabelValues("d", `"a_b"`)
	hits.WithLabelValues("d", `"a"="b"`).Add(8)
	expect(map[string]float64{"d.k": 0, "d.a_b": 8})

	// One that is begun anew has all of it to tell, noticed or not.
	hits.DeleteLabelValues("d", "k")
	hits.WithLabelValues("d", "k").Add(3)
	expect(map[string]float64{"d.k": 3, "d.a_b": 0})
	hits.DeleteLabelValues("d", "k")
	expect(map[string]float64{"d.a_b": 0})
	hits.WithLabelValues("d", "k").Add(7)
	expect(map[string]float64{"d.k": 7, "d.a_b": 0})
}

func TestTimersAreReadAsTheBucketsThatGrew(t *testing.T) {
	reg := prometheus.NewRegistry()
	h := prometheus.NewHistogram(prometheus.HistogramOpts{
		Name: "ratelimit_service_response_time_seconds", Buckets: []float64{.00001, .001, .01},
	})
	reg.MustRegister(h)
	r := peerstats.NewReader(reg)
	timer := func() peerstats.Stat {
		t.Helper()
		stats, _, err := r.Read()
		require.NoError(t, err)
		require.Len(t, stats, 1)
		require.Equal(t, "ratelimit_server.ShouldRateLimit.response_time", stats[0].Name)
		require.Equal(t, peerstats.Timer, stats[0].Kind)
		return stats[0]
	}
	buckets := func(counts ...uint64) (b []peerstats.Bucket) {
		for i, upper := range []float64{.01, 1, 10, math.Inf(1)} {
			b = append(b, peerstats.Bucket{Upper: upper, Count: counts[i]})
		}
		return b
	}
	for _, seconds := range []float64{.000005, .0005, .0006, 1} {
		h.Observe(seconds)
	}
	first := timer()
	require.Equal(t, buckets(1, 2, 0, 1), first.Buckets)
	require.InDelta(t, 1001.105, first.Sum, 1e-6)
	h.Observe(.005)
	second := timer()
	require.Equal(t, buckets(0, 0, 1, 0), second.Buckets)
	require.InDelta(t, 5, second.Sum, 1e-6)
	require.Equal(t, buckets(0, 0, 0, 0), timer().Buckets)
}

func TestFamiliesWithoutAFlatNameAreHandedOut(t *testing.T) {
	reg := prometheus.NewRegistry()
	counter(reg, "ratelimit_of_our_own").WithLabelValues().Inc()
	stats, others, err := peerstats.NewReader(reg).Read()
	require.NoError(t, err)
	require.Empty(t, stats)
	require.Len(t, others, 1)
	require.Equal(t, "ratelimit_of_our_own", others[0].GetName())
}

func TestFamiliesOfTheRuntimeAreBoth(t *testing.T) {
	reg := prometheus.NewRegistry()
	reg.MustRegister(collectors.NewGoCollector())
	stats, others, err := peerstats.NewReader(reg).Read()
	require.NoError(t, err)
	var flat, own []string
	for _, s := range stats {
		flat = append(flat, s.Name)
	}
	for _, f := range others {
		own = append(own, f.GetName())
	}
	slices.Sort(flat)
	require.Equal(t, []string{
		"ratelimit.go.alloc", "ratelimit.go.frees", "ratelimit.go.heapAlloc", "ratelimit.go.heapIdle", "ratelimit.go.heapInuse",
		"ratelimit.go.heapObjects", "ratelimit.go.heapReleased", "ratelimit.go.heapSys", "ratelimit.go.lastGC", "ratelimit.go.mallocs",
		"ratelimit.go.nextGC", "ratelimit.go.numGC", "ratelimit.go.numGoroutine", "ratelimit.go.pauseTotalNs", "ratelimit.go.sys", "ratelimit.go.totalAlloc",
	}, flat)
	require.Contains(t, own, "go_goroutines")
}

// pauses is a summary that a test sets.
type pauses struct {
	count uint64
	sum   float64 // seconds
}

func (*pauses) Describe(ch chan<- *prometheus.Desc) { ch <- pausesDesc() }

func (p *pauses) Collect(ch chan<- prometheus.Metric) {
	ch <- prometheus.MustNewConstSummary(pausesDesc(), p.count, p.sum, nil)
}

func pausesDesc() *prometheus.Desc { return prometheus.NewDesc("go_gc_duration_seconds", "", nil, nil) }

func TestPausesAreReadAsTheirNumberAndTheirTime(t *testing.T) {
	reg := prometheus.NewRegistry()
	p := &pauses{}
	reg.MustRegister(p)
	r := peerstats.NewReader(reg)
	for _, c := range []struct {
		name      string
		now       pauses
		grown, ns float64
	}{
		{"first", pauses{2, 1.000000191}, 2, 1000000191},
		{"more", pauses{3, 1.000190732}, 1, 190541},
		{"none", pauses{3, 1.000190732}, 0, 0},
		{"begun_anew", pauses{1, .00005}, 1, 50000},
	} {
		*p = c.now
		require.Equal(t, map[string]float64{"ratelimit.go.numGC": c.grown, "ratelimit.go.pauseTotalNs": c.ns}, read(t, r), c.name)
	}
}

func FuzzSanitizeDoesAsThePeer(f *testing.F) {
	address := regexp.MustCompile(`\d{1,3}\.\d{1,3}\.\d{1,3}\.\d{1,3}`)
	for _, text := range []string{
		"", "1.2.3.4", "1234.1.1.1234", "1.2.3.4.5.6.7.8", "x_10.0.0.1:80|y", "1.2.3", "256.1.1.1.", "1.2..3.4", "\n", "é1.1.1.1",
	} {
		f.Add(text)
	}
	f.Fuzz(func(t *testing.T, text string) {
		want := strings.Map(func(r rune) rune {
			if unicode.IsPrint(r) {
				return r
			}
			return '_'
		}, text)
		want = strings.NewReplacer(":", "_", "|", "_").Replace(want)
		want = address.ReplaceAllStringFunc(want, func(ip string) string { return strings.ReplaceAll(ip, ".", "_") })
		require.Equal(t, want, peerstats.Sanitize(text))
	})
}

func BenchmarkRead(b *testing.B) {
	reg := prometheus.NewRegistry()
	hits := counter(reg, "ratelimit_service_rate_limit_total_hits", "domain", "rule")
	for i := range 10_000 {
		hits.WithLabelValues("d", fmt.Sprintf("remote_address_10.0.0.%d.path_%d", i%256, i)).Inc()
	}
	r := peerstats.NewReader(reg)
	b.ReportAllocs()
	for b.Loop() {
		if _, _, err := r.Read(); err != nil {
			b.Fatal(err)
		}
	}
}
