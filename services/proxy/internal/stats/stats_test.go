package stats_test

import (
	"fmt"
	"math"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil"
	"github.com/prometheus/common/expfmt"
	"github.com/stretchr/testify/require"

	"github.com/weirproxy/weir/internal/servicetest"
	"github.com/weirproxy/weir/services/proxy/internal/stats"
)

func TestMain(m *testing.M) { servicetest.Main(m) }

// names lists every flat name with its value.
func names(r *stats.Registry) []string {
	var list []string
	r.Each(func(m stats.Metric) { list = append(list, fmt.Sprintf("%s %d", m.Name, m.Value)) })
	return list
}

func TestNames(t *testing.T) {
	for _, c := range []struct {
		name       string
		use        func(*stats.Registry)
		flat       string
		prometheus string
	}{
		{
			"a tag's value is in the flat name and a label in Prometheus",
			func(r *stats.Registry) {
				r.Scope("cluster").Tagged("envoy_cluster_name", "echo").Counter("upstream_rq_total").Add(3)
			},
			"cluster.echo.upstream_rq_total 3",
			"# TYPE envoy_cluster_upstream_rq_total counter\n" + `envoy_cluster_upstream_rq_total{envoy_cluster_name="echo"} 3`,
		},
		{
			"a tag's value may have dots and colons",
			func(r *stats.Registry) {
				r.Scope("listener").Tagged("envoy_listener_address", "127.0.0.1:80").Gauge("downstream_cx_active").Set(2)
			},
			"listener.127.0.0.1_80.downstream_cx_active 2",
			"# TYPE envoy_listener_downstream_cx_active gauge\n" + `envoy_listener_downstream_cx_active{envoy_listener_address="127.0.0.1:80"} 2`,
		},
		{
			"dots in a counter's name are scopes",
			func(r *stats.Registry) {
				r.Scope("a").Counter("b.c.d").Inc()
				r.Scope("a.b").Scope("c").Counter("d").Inc()
			},
			"a.b.c.d 2",
			"# TYPE envoy_a_b_c_d counter\nenvoy_a_b_c_d 2",
		},
		{
			"characters that Prometheus refuses become underscores",
			func(r *stats.Registry) { r.Scope("x-y z").Counter("é").Inc() },
			"x-y z.é 1",
			"# TYPE envoy_x_y_z__ counter\nenvoy_x_y_z__ 1",
		},
		{
			"a value inside a name can be a label",
			func(r *stats.Registry) {
				r.Scope("cluster").Tagged("envoy_cluster_name", "echo").
					CounterAs("upstream_rq_2xx", "upstream_rq_xx", stats.Label{Name: "envoy_response_code_class", Value: "2"}).Inc()
			},
			"cluster.echo.upstream_rq_2xx 1",
			"# TYPE envoy_cluster_upstream_rq_xx counter\n" + `envoy_cluster_upstream_rq_xx{envoy_cluster_name="echo",envoy_response_code_class="2"} 1`,
		},
	} {
		t.Run(c.name, func(t *testing.T) {
			r := stats.NewRegistry()
			c.use(r)
			require.Equal(t, []string{c.flat}, names(r))
			_, kind, _ := strings.Cut(c.prometheus, "# TYPE ")
			name, _, _ := strings.Cut(kind, " ")
			require.NoError(t, testutil.CollectAndCompare(r, strings.NewReader("# HELP "+name+" \n"+c.prometheus+"\n")))
		})
	}
}

func TestScope(t *testing.T) {
	t.Run("the same name gives the same handle", func(t *testing.T) {
		r := stats.NewRegistry()
		s := r.Scope("http").Tagged("prefix", "ingress")
		require.Same(t, s, r.Scope("http").Tagged("prefix", "ingress"))
		require.Same(t, s.Counter("a"), s.Counter("a"))
		require.Same(t, s.Gauge("a"), s.Gauge("a"))
	})
	t.Run("scopes with other tags stay apart though their flat names are equal", func(t *testing.T) {
		r := stats.NewRegistry()
		r.Scope("cluster").Tagged("name", "a").Counter("b.c").Add(1)
		r.Scope("cluster").Tagged("name", "a.b").Counter("c").Add(2)
		require.Equal(t, []string{"cluster.a.b.c 1", "cluster.a.b.c 2"}, names(r))
	})
	t.Run("siblings do not share labels", func(t *testing.T) {
		r := stats.NewRegistry()
		base := r.Scope("a").Tagged("x", "1").Tagged("y", "2").Tagged("z", "3")
		base.Tagged("t", "4").Counter("c").Inc()
		base.Tagged("t", "5").Counter("c").Inc()
		var values []string
		r.Each(func(m stats.Metric) { values = append(values, m.Labels[3].Value) })
		require.Equal(t, []string{"4", "5"}, values)
	})
	t.Run("remove drops all below and its handles go on", func(t *testing.T) {
		r := stats.NewRegistry()
		echo := r.Scope("cluster").Tagged("name", "echo")
		old := echo.Counter("circuit_breakers.default.cx_open")
		r.Scope("cluster").Tagged("name", "other").Counter("rq").Inc()
		echo.Remove()
		old.Inc()
		require.Equal(t, []string{"cluster.other.rq 1"}, names(r))

		again := r.Scope("cluster").Tagged("name", "echo")
		require.NotSame(t, old, again.Counter("circuit_breakers.default.cx_open"))
		echo.Remove() // The new one is not the old one's to remove.
		require.Contains(t, names(r), "cluster.echo.circuit_breakers.default.cx_open 0")
	})
	t.Run("a gauge set to zero has been used, one never set has not", func(t *testing.T) {
		r := stats.NewRegistry()
		r.Scope("a").Gauge("set").Set(0)
		r.Scope("a").Gauge("unset")
		used := map[string]bool{}
		r.Each(func(m stats.Metric) { used[m.Name] = m.Used })
		require.Equal(t, map[string]bool{"a.set": true, "a.unset": false}, used)
	})
	t.Run("a reset lets counters begin anew, and nothing else", func(t *testing.T) {
		r := stats.NewRegistry()
		c := r.Scope("a").Counter("c")
		c.Add(5)
		r.Scope("a").Gauge("g").Set(3)
		r.ResetCounters()
		require.Equal(t, []string{"a.c 0", "a.g 3"}, names(r))
		r.Each(func(m stats.Metric) { require.True(t, m.Used, m.Name) })
		c.Inc()
		require.Equal(t, []string{"a.c 1", "a.g 3"}, names(r))
		require.EqualValues(t, 6, c.Value(), "for who holds it")
	})
	t.Run("goroutines share it", func(t *testing.T) {
		r := stats.NewRegistry()
		var group sync.WaitGroup
		for range 8 {
			group.Go(func() {
				for i := range 100 {
					r.Scope("a").Tagged("n", fmt.Sprint(i)).Counter("c").Inc()
					r.Each(func(stats.Metric) {})
				}
			})
		}
		group.Wait()
		require.EqualValues(t, 8, r.Scope("a").Tagged("n", "42").Counter("c").Value())
	})
}

func TestHistogram(t *testing.T) {
	record := func(all ...time.Duration) (*stats.Registry, *stats.Distribution) {
		r := stats.NewRegistry()
		h := r.Scope("cluster").Tagged("envoy_cluster_name", "echo").Histogram("upstream_rq_time")
		for _, d := range all {
			h.Record(d)
		}
		var read *stats.Distribution
		r.Each(func(m stats.Metric) {
			require.Equal(t, stats.KindHistogram, m.Kind)
			require.Equal(t, len(all) > 0, m.Used)
			read = m.Distribution
		})
		return r, read
	}
	t.Run("without a value has no quantile", func(t *testing.T) {
		_, d := record()
		require.Zero(t, d.Count)
		require.True(t, math.IsNaN(d.Quantile(0.5)))
	})
	t.Run("bounds are inclusive, and what is longer than all is only counted", func(t *testing.T) {
		_, d := record(-time.Second, 500*time.Microsecond, 501*time.Microsecond, time.Millisecond, time.Hour, 2*time.Hour)
		require.EqualValues(t, 6, d.Count)
		require.InDelta(t, 3*3_600_000+2.001, d.Sum, 0.0001)
		shown := map[float64]uint64{}
		for _, b := range d.Buckets {
			shown[b.UpperBound] = b.Cumulative
		}
		require.Len(t, shown, 19, "as many as Envoy has")
		require.EqualValues(t, 2, shown[0.5])
		require.EqualValues(t, 4, shown[1])
		require.EqualValues(t, 4, shown[1_800_000])
		require.EqualValues(t, 5, shown[3_600_000])
		require.EqualValues(t, 3_600_000, d.Quantile(1))
	})
	t.Run("its sum holds what many long connections add", func(t *testing.T) {
		const century = 100 * 365 * 24 * time.Hour
		_, d := record(century, century, century) // in nanoseconds, more than 63 bits hold
		require.InEpsilon(t, 3*float64(century.Milliseconds()), d.Sum, 1e-9)
	})
	t.Run("each duration is in its bucket", func(t *testing.T) {
		_, bounds := record()
		for i, b := range bounds.Buckets {
			bound := time.Duration(b.UpperBound * float64(time.Millisecond))
			_, d := record(bound-1, bound, bound+1, math.MaxInt64)
			require.EqualValues(t, 2, d.Buckets[i].Cumulative, bound)
			require.EqualValues(t, 4, d.Count)
			if i > 0 {
				require.Zero(t, d.Buckets[i-1].Cumulative, bound)
			}
		}
	})
	t.Run("quantiles are near to what was recorded", func(t *testing.T) {
		var all []time.Duration
		for i := range 10_000 {
			all = append(all, time.Duration(i+1)*10*time.Microsecond) // up to 100 ms, evenly
		}
		_, d := record(all...)
		for share, want := range map[float64]float64{0: 0, 0.01: 1, 0.25: 25, 0.5: 50, 0.9: 90, 0.99: 99, 1: 100} {
			require.InDelta(t, want, d.Quantile(share), 0.01, share)
		}
	})
	t.Run("Prometheus shows it as Envoy's", func(t *testing.T) {
		r, _ := record(400*time.Microsecond, 3*time.Millisecond)
		text, err := testutil.CollectAndFormat(r, expfmt.TypeTextPlain, "envoy_cluster_upstream_rq_time")
		require.NoError(t, err)
		for _, line := range []string{
			"# TYPE envoy_cluster_upstream_rq_time histogram",
			`envoy_cluster_upstream_rq_time_bucket{envoy_cluster_name="echo",le="0.5"} 1`,
			`envoy_cluster_upstream_rq_time_bucket{envoy_cluster_name="echo",le="5"} 2`,
			`envoy_cluster_upstream_rq_time_bucket{envoy_cluster_name="echo",le="+Inf"} 2`,
			`envoy_cluster_upstream_rq_time_sum{envoy_cluster_name="echo"} 3.4`,
			`envoy_cluster_upstream_rq_time_count{envoy_cluster_name="echo"} 2`,
		} {
			require.Contains(t, string(text), line)
		}
	})
	t.Run("recording allocates nothing", func(t *testing.T) {
		h := stats.NewRegistry().Scope("a").Histogram("b.c")
		servicetest.Allocations(t, 0, func() { h.Record(time.Millisecond) })
	})
}

func TestPrometheusAnswersThoughNamesClash(t *testing.T) {
	r := stats.NewRegistry()
	r.Scope("a-b").Counter("c").Add(1)
	r.Scope("a_b").Counter("c").Add(2)
	r.Scope("a+b").Gauge("c").Add(3)
	r.Scope("twice").Tagged("x", "1").Tagged("x", "2").Counter("c").Inc()
	r.Scope("bytes").Tagged("x", "\xff").Counter("c").Inc()

	p := prometheus.NewPedanticRegistry()
	p.MustRegister(r)
	families, err := p.Gather()
	require.NoError(t, err)
	require.Len(t, families, 2)
	require.EqualValues(t, 3, families[0].GetMetric()[0].GetGauge().GetValue(), "'+' sorts before '-' and '_'")
}

func TestMetricsAreBroughtUpToDateBeforeTheyAreRead(t *testing.T) {
	registry := stats.NewRegistry()
	gauge, reads := registry.Scope("server").Gauge("reads"), int64(0)
	registry.BeforeRead(func() { reads++; gauge.Set(reads) })
	registry.BeforeRead(func() { registry.Scope("server").Counter("hooks").Inc() })
	for want := range int64(2) {
		values := map[string]int64{}
		registry.Each(func(m stats.Metric) { values[m.Name] = m.Value })
		require.Equal(t, map[string]int64{"server.reads": want + 1, "server.hooks": want + 1}, values)
	}
}

func TestAbsentNamesAreZeroUntilSomethingCountsThem(t *testing.T) {
	r := stats.NewRegistry()
	r.ShowAbsent([]stats.Absence{
		{Scope: "cluster.*", Kind: stats.KindCounter, Names: []string{"stale", "lb.zone"}},
		{Scope: "cluster.*.http2", Kind: stats.KindGauge, Names: []string{"pending"}},
		{Scope: "", Kind: stats.KindCounter, Names: []string{"workers.miss"}},
	})
	echo := r.Scope("cluster").Tagged("envoy_cluster_name", "echo")
	r.Scope("cluster").Tagged("envoy_cluster_name", "h2").Scope("http2")
	echo.Counter("lb.zone").Add(2)
	require.Equal(t, []string{
		"cluster.echo.lb.zone 2", "cluster.echo.stale 0",
		"cluster.h2.http2.pending 0", "cluster.h2.lb.zone 0", "cluster.h2.stale 0", "workers.miss 0",
	}, names(r))
	require.NoError(t, testutil.CollectAndCompare(r, strings.NewReader("# TYPE envoy_cluster_stale counter\n"+
		`envoy_cluster_stale{envoy_cluster_name="echo"} 0`+"\n"+`envoy_cluster_stale{envoy_cluster_name="h2"} 0`+"\n"), "envoy_cluster_stale"))
	echo.Counter("stale").Inc()
	require.Contains(t, names(r), "cluster.echo.stale 1")
}

func TestTextsAreForPrometheusOnlyIfTheyAreWanted(t *testing.T) {
	r := stats.NewRegistry()
	r.Scope("cluster").Tagged("envoy_cluster_name", "echo").Text("version_text").Set("v1")
	require.Zero(t, testutil.CollectAndCount(r))
	all := r.Only(func(stats.Metric) bool { return true }, nil)
	require.NoError(t, testutil.CollectAndCompare(all, strings.NewReader(`
# TYPE envoy_cluster_version_text gauge
envoy_cluster_version_text{envoy_cluster_name="echo",text_value="v1"} 0
`)))
	r.Each(func(m stats.Metric) {
		require.Equal(t, "v1", m.Text)
		require.True(t, m.Used)
	})
}

func TestGaugesAreShownWithoutASign(t *testing.T) {
	hash := uint64(13237225503670494420)
	r := stats.NewRegistry()
	r.Scope("a").Gauge("version").Set(int64(hash))
	r.Each(func(m stats.Metric) { require.Equal(t, hash, m.Unsigned()) })
	require.NoError(t, testutil.CollectAndCompare(r, strings.NewReader("# TYPE envoy_a_version gauge\nenvoy_a_version 1.3237225503670495e+19\n")))
}

func TestOnlyCollectsWhatIsWanted(t *testing.T) {
	r := stats.NewRegistry()
	r.Scope("a").Counter("used").Inc()
	r.Scope("a").Counter("unused")
	require.Equal(t, 1, testutil.CollectAndCount(r.Only(func(m stats.Metric) bool { return m.Used }, nil)))
	require.Equal(t, 2, testutil.CollectAndCount(r))
}

func BenchmarkHistogramRecord(b *testing.B) {
	h := stats.NewRegistry().Scope("cluster").Histogram("upstream_rq_time")
	b.ReportAllocs()
	for d := time.Duration(0); b.Loop(); d = (d + 37*time.Microsecond) % (50 * time.Millisecond) {
		h.Record(d)
	}
}

func BenchmarkCounterInc(b *testing.B) {
	c := stats.NewRegistry().Scope("cluster").Counter("upstream_rq_total")
	b.ReportAllocs()
	for b.Loop() {
		c.Inc()
	}
}

// TestASumHasAllThatTheCountHas reads a histogram while another goroutine records.
func TestASumHasAllThatTheCountHas(t *testing.T) {
	h := stats.NewRegistry().Scope("a").Histogram("b")
	done := make(chan struct{})
	go func() {
		defer close(done)
		for range 20_000 {
			h.Record(time.Millisecond)
		}
	}()
	for recording := true; recording; {
		select {
		case <-done:
			recording = false
		default:
		}
		d := h.Distribution()
		require.GreaterOrEqual(t, d.Sum, float64(d.Count))
	}
}

func TestHistogramsCanBeSummariesForPrometheus(t *testing.T) {
	r := stats.NewRegistry()
	h := r.Scope("a").Histogram("time")
	for range 4 {
		h.Record(time.Millisecond)
	}
	all := func(stats.Metric) bool { return true }
	require.NoError(t, testutil.CollectAndCompare(r.Only(all, []float64{0.5, 1}), strings.NewReader(`
# TYPE envoy_a_time summary
envoy_a_time{quantile="0.5"} 0.9
envoy_a_time{quantile="1"} 1
envoy_a_time_sum 4
envoy_a_time_count 4
`)))
}
