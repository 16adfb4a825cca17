package stats_test

import (
	"fmt"
	"strings"
	"sync"
	"testing"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil"
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
				r.Scope("listener").Tagged("envoy_listener_address", "127.0.0.1:80").Gauge("downstream_cx_active").Set(-1)
			},
			"listener.127.0.0.1_80.downstream_cx_active -1",
			"# TYPE envoy_listener_downstream_cx_active gauge\n" + `envoy_listener_downstream_cx_active{envoy_listener_address="127.0.0.1:80"} -1`,
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

func TestOnlyCollectsWhatIsWanted(t *testing.T) {
	r := stats.NewRegistry()
	r.Scope("a").Counter("used").Inc()
	r.Scope("a").Counter("unused")
	require.Equal(t, 1, testutil.CollectAndCount(r.Only(func(m stats.Metric) bool { return m.Used })))
	require.Equal(t, 2, testutil.CollectAndCount(r))
}

func BenchmarkCounterInc(b *testing.B) {
	c := stats.NewRegistry().Scope("cluster").Counter("upstream_rq_total")
	b.ReportAllocs()
	for b.Loop() {
		c.Inc()
	}
}
