package prommap_test

import (
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"github.com/stretchr/testify/require"

	"github.com/weirproxy/weir/internal/servicetest"
	"github.com/weirproxy/weir/services/ratelimit/internal/prommap"
)

func TestMain(m *testing.M) { servicetest.Main(m) }

// scrape is the lines of the metrics at path, comments left out.
func scrape(t *testing.T, m *prommap.Mapped) []string {
	t.Helper()
	w := httptest.NewRecorder()
	m.Handler().ServeHTTP(w, httptest.NewRequest(http.MethodGet, "/metrics", nil))
	body, err := io.ReadAll(w.Body)
	require.NoError(t, err)
	require.Equal(t, http.StatusOK, w.Code, string(body))
	var lines []string
	for line := range strings.Lines(string(body)) {
		if !strings.HasPrefix(line, "#") {
			lines = append(lines, strings.TrimSpace(line))
		}
	}
	return lines
}

func mapped(t *testing.T, o prommap.Options) *prommap.Mapped {
	t.Helper()
	o.Path = "/metrics"
	m, err := prommap.New(o)
	require.NoError(t, err)
	return m
}

func counter(reg *prometheus.Registry, name string, labels ...string) *prometheus.CounterVec {
	c := prometheus.NewCounterVec(prometheus.CounterOpts{Name: name}, labels)
	reg.MustRegister(c)
	return c
}

func TestRulesHaveTheLabelsOfThePeer(t *testing.T) {
	reg := prometheus.NewRegistry()
	for _, suffix := range []string{"near_limit", "over_limit", "total_hits", "within_limit", "shadow_mode"} {
		c := counter(reg, "ratelimit_service_rate_limit_"+suffix, "domain", "rule")
		c.WithLabelValues("d", "k_v").Add(1)
		c.WithLabelValues("d", "k_v.k2").Add(2)
		c.WithLabelValues("d", "k_v.k2.k3").Add(4)
		c.WithLabelValues("d", "k_v.k2.k4_v.k5").Add(8)
		c.WithLabelValues("d", `"a_b"`).Add(16)
		c.WithLabelValues("d", `"a"="b"`).Add(32)
	}
	var want []string
	for _, suffix := range []string{"near_limit", "over_limit", "shadow_mode", "total_hits", "within_limit"} {
		name := "ratelimit_service_rate_limit_" + suffix
		want = append(want,
			name+`{domain="d",key1="a_b"} 48`,
			name+`{domain="d",key1="k_v"} 1`,
			name+`{domain="d",key1="k_v",key2="k2"} 14`)
	}
	require.Equal(t, want, scrape(t, mapped(t, prommap.Options{Metrics: reg})))
}

func TestTheServiceHasTheNamesOfThePeer(t *testing.T) {
	reg := prometheus.NewRegistry()
	for _, name := range []string{
		"ratelimit_service_total_requests", "ratelimit_service_config_load_success", "ratelimit_service_config_load_error",
		"ratelimit_service_global_shadow_mode", "ratelimit_localcache_hits_total", "ratelimit_of_our_own",
	} {
		counter(reg, name).WithLabelValues().Inc()
	}
	errors := counter(reg, "ratelimit_service_should_rate_limit_error", "err_type")
	errors.WithLabelValues("store_error").Inc()
	errors.WithLabelValues("bad_request").Inc()
	errors.WithLabelValues("no_rules").Inc()
	counter(reg, "ratelimit_service_rate_limit_domain_not_found", "domain").WithLabelValues("e-1").Inc()
	counter(reg, "ratelimit_service_rate_limit_over_limit_with_local_cache", "domain", "rule").WithLabelValues("d", "k_/x.k2").Inc()
	require.Equal(t, []string{
		"ratelimit_localcache_hitCount 1",
		"ratelimit_localcache_lookupCount 1",
		"ratelimit_of_our_own 1",
		"ratelimit_service_config_load_error 1",
		"ratelimit_service_config_load_success 1",
		"ratelimit_service_global_shadow_mode 1",
		"ratelimit_service_rate_limit_d_k__x_k2_over_limit_with_local_cache 1",
		"ratelimit_service_rate_limit_e_1_domain_not_found 1",
		`ratelimit_service_should_rate_limit_error{err_type="redis_error"} 1`,
		`ratelimit_service_should_rate_limit_error{err_type="service_error"} 2`,
		`ratelimit_service_total_requests{grpc_method="ShouldRateLimit"} 1`,
		"runtime_load_attempts 2",
	}, scrape(t, mapped(t, prommap.Options{Metrics: reg})))
}

func TestResponseTimesAreInSecondsOrMilliseconds(t *testing.T) {
	reg := prometheus.NewRegistry()
	h := prometheus.NewHistogram(prometheus.HistogramOpts{Name: "ratelimit_service_response_time_seconds", Buckets: []float64{.00001, .0025}})
	reg.MustRegister(h)
	h.Observe(0)
	h.Observe(.5)
	const name, method = "ratelimit_service_response_time_seconds", `grpc_method="ShouldRateLimit"`
	require.Equal(t, []string{
		name + "_bucket{" + method + `,le="1e-05"} 1`,
		name + "_bucket{" + method + `,le="0.0025"} 1`,
		name + "_bucket{" + method + `,le="+Inf"} 2`,
		name + "_sum{" + method + "} 0.5",
		name + "_count{" + method + "} 2",
	}, scrape(t, mapped(t, prommap.Options{Metrics: reg})))
	require.Equal(t, []string{
		name + "_bucket{" + method + `,le="0.01"} 1`,
		name + "_bucket{" + method + `,le="2.5"} 1`,
		name + "_bucket{" + method + `,le="+Inf"} 2`,
		name + "_sum{" + method + "} 500",
		name + "_count{" + method + "} 2",
	}, scrape(t, mapped(t, prommap.Options{Metrics: reg, Milliseconds: true})))
}

func TestCountersDoNotFallWhenARuleGoes(t *testing.T) {
	reg := prometheus.NewRegistry()
	c := counter(reg, "ratelimit_service_rate_limit_total_hits", "domain", "rule")
	m := mapped(t, prommap.Options{Metrics: reg})
	const line = `ratelimit_service_rate_limit_total_hits{domain="d",key1="k",key2="a"} `
	c.WithLabelValues("d", "k.a.x").Add(3)
	c.WithLabelValues("d", "k.a.y").Add(4)
	require.Equal(t, []string{line + "7"}, scrape(t, m))
	c.DeleteLabelValues("d", "k.a.y")
	c.WithLabelValues("d", "k.a.x").Add(1)
	require.Equal(t, []string{line + "8"}, scrape(t, m))
	require.Equal(t, []string{line + "8"}, scrape(t, m))
	c.DeleteLabelValues("d", "k.a.x")
	require.Empty(t, scrape(t, m), "all that it was made of is gone")
	c.WithLabelValues("d", "k.a.x").Add(2)
	require.Equal(t, []string{line + "2"}, scrape(t, m))
}

func TestMetricsOfTheRuntimeAreShownToo(t *testing.T) {
	reg := prometheus.NewRegistry()
	reg.MustRegister(collectors.NewGoCollector())
	all := strings.Join(scrape(t, mapped(t, prommap.Options{Metrics: reg})), "\n")
	require.Contains(t, all, "\ngo_goroutines ")
	require.Contains(t, all, "\nratelimit_go_numGoroutine ")
}

func TestOtherPathsAreNotFound(t *testing.T) {
	m, err := prommap.New(prommap.Options{Path: "/stats/{x}", Metrics: prometheus.NewRegistry()})
	require.NoError(t, err)
	for path, want := range map[string]int{"/stats/{x}": http.StatusOK, "/metrics": http.StatusNotFound, "/": http.StatusNotFound} {
		w := httptest.NewRecorder()
		m.Handler().ServeHTTP(w, httptest.NewRequest(http.MethodGet, path, nil))
		require.Equal(t, want, w.Code, path)
	}
}

// file writes a file of rules.
func file(t *testing.T, text string) string {
	path := filepath.Join(t.TempDir(), "mapping.yaml")
	require.NoError(t, os.WriteFile(path, []byte(text), 0o644))
	return path
}

func TestAFileOfRulesTakesThePlaceOfTheBuiltInOnes(t *testing.T) {
	reg := prometheus.NewRegistry()
	hits := counter(reg, "ratelimit_service_rate_limit_total_hits", "domain", "rule")
	hits.WithLabelValues("d", "k").Add(1)
	hits.WithLabelValues("d", "k.k2").Add(2)
	hits.WithLabelValues("d", "secret").Add(4)
	hits.WithLabelValues("d", "k.k2.k3").Add(8)
	counter(reg, "ratelimit_service_total_requests").WithLabelValues().Add(5)
	g := prometheus.NewGauge(prometheus.GaugeOpts{Name: "ratelimit_localcache_entries"})
	reg.MustRegister(g)
	g.Set(6)
	h := prometheus.NewHistogram(prometheus.HistogramOpts{Name: "ratelimit_service_response_time_seconds", Buckets: []float64{.001}})
	reg.MustRegister(h)
	h.Observe(.0005)
	require.Equal(t, []string{
		`entries_x2 12`,
		`hits{depth="1",domain="d",rule="k"} 1`,
		`hits{depth="2",domain="d",rule="k/k2"} 2`,
		`ratelimit_server_ShouldRateLimit_total_requests 5`,
		`ratelimit_service_rate_limit_d_k_k2_k3_total_hits 8`,
		`response_bucket{le="0.001"} 1`,
		`response_bucket{le="+Inf"} 1`,
		`response_sum 0.0005`,
		`response_count 1`,
	}, scrape(t, mapped(t, prommap.Options{Metrics: reg, MapperYAML: file(t, `
defaults: {timer_type: histogram}
mappings:
- match: ratelimit\.service\.rate_limit\.([^.]*)\.([^.]*)\.([^.]*)\.total_hits
  match_type: regex
  name: hits
  labels: {depth: "2", domain: $1, rule: "${2}/$3"}
- match: ratelimit.service.rate_limit.*.secret.total_hits
  name: dropped
  action: drop
- match: ratelimit.service.rate_limit.*.*.total_hits
  name: hits
  labels: {depth: "1", domain: $1, rule: $2}
- match: ratelimit_server.*.*
  match_metric_type: observer
  name: response
  scale: 0.001
- match: ratelimit.localcache.*
  match_metric_type: gauge
  name: entries_x2
  scale: 2
`)})))
}

func TestNewNamesEverythingThatIsWrong(t *testing.T) {
	for _, c := range []struct {
		name, text string
		want       []string
	}{
		{"what_is_not_supported", "defaults: {ttl: 5m}\nmappings:\n- match: a.*\n  name: a\n  buckets: [1]\n- match: b\n  name: b\n  timer_type: summary\nextra: 1", []string{
			"line 9: extra: not supported: mappings and defaults are known",
			"line 1: ttl: not supported: of defaults only match_type, observer_type and timer_type are supported",
			`mappings[0], match "a.*": line 5: buckets: not supported: buckets are those of the service, and metrics last as long as their source; other keys are unknown`,
			`mappings[1], match "b": times: observer_type or timer_type "summary": times are known by histograms only`,
		}},
		{"what_is_no_rule", "mappings:\n- {match: a.b*, name: a}\n- {match: \"(\", name: a, match_type: regex}\n- {match: a, name: a-b, action: go, match_type: x, match_metric_type: y, labels: {\"1\": x}}", []string{
			`mappings[0], match "a.b*": part "b*": a * stands for a whole part between dots`,
			"mappings[1], match \"(\": error parsing regexp: missing closing ): `(`",
			`mappings[2], match "a": action "go": not one of map, drop`,
			`name "a-b": not the name of a metric`,
			`labels: "1" is not the name of a label`,
			`match_metric_type "y": not one of counter, gauge, observer, timer`,
			`match_type "x": not one of glob, regex`,
		}},
		{"what_is_no_YAML", "mappings: [", []string{"yaml: line 1: did not find expected node content"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			path := file(t, c.text)
			_, err := prommap.New(prommap.Options{Path: "/", MapperYAML: path})
			require.EqualError(t, err, "PROMETHEUS_MAPPER_YAML="+path+": "+strings.Join(c.want, "\n"))
		})
	}
	_, err := prommap.New(prommap.Options{Path: "metrics", MapperYAML: "/nowhere.yaml"})
	require.EqualError(t, err, "PROMETHEUS_PATH=metrics: does not begin with /\n"+
		"PROMETHEUS_MAPPER_YAML=/nowhere.yaml: open /nowhere.yaml: no such file or directory")
}

func FuzzRulesOfAnyTextAreReadOrRefused(f *testing.F) {
	f.Add("mappings:\n- {match: a.*, name: a_$1, labels: {x: $1}}")
	f.Add("mappings:\n- {match: '(.*)', match_type: regex, name: a}")
	f.Add("defaults: {ttl: 1}")
	reg := prometheus.NewRegistry()
	counter(reg, "ratelimit_service_rate_limit_total_hits", "domain", "rule").WithLabelValues("d", "k").Inc()
	path := filepath.Join(f.TempDir(), "mapping.yaml")
	f.Fuzz(func(t *testing.T, text string) {
		require.NoError(t, os.WriteFile(path, []byte(text), 0o644))
		if m, err := prommap.New(prommap.Options{Path: "/metrics", MapperYAML: path, Metrics: reg}); err == nil {
			scrape(t, m)
		}
	})
}
