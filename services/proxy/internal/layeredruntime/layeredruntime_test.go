package layeredruntime_test

import (
	"fmt"
	"math"
	"sync"
	"testing"

	bootstrapv3 "github.com/envoyproxy/go-control-plane/envoy/config/bootstrap/v3"
	"github.com/stretchr/testify/require"

	"github.com/weirproxy/weir/internal/servicetest"
	"github.com/weirproxy/weir/services/proxy/internal/layeredruntime"
	"github.com/weirproxy/weir/services/proxy/internal/stats"
	"github.com/weirproxy/weir/services/proxy/internal/strict"
)

func TestMain(m *testing.M) { servicetest.Main(m) }

// parse makes a Config of a layered_runtime in YAML.
func parse(t testing.TB, text string) (*layeredruntime.Config, error) {
	schema, err := strict.NewSchema(layeredruntime.Fields())
	require.NoError(t, err)
	m := &bootstrapv3.LayeredRuntime{}
	report := strict.Load("f", []byte(text), m, schema)
	return layeredruntime.Parse(m, "", report), report.Err()
}

func start(t testing.TB, text string) (*layeredruntime.Runtime, *stats.Registry) {
	config, err := parse(t, text)
	require.NoError(t, err)
	registry := stats.NewRegistry()
	return layeredruntime.New(config, registry.Scope("runtime")), registry
}

func values(registry *stats.Registry) map[string]int64 {
	all := map[string]int64{}
	registry.Each(func(m stats.Metric) { all[m.Name] = m.Value })
	return all
}

// Each value stands for what Envoy takes it for.
func TestValuesAreReadAsEnvoyReadsThem(t *testing.T) {
	fallback := layeredruntime.Share{Numerator: 1, Denominator: 2}
	hundredth := func(n uint32) layeredruntime.Share { return layeredruntime.Share{Numerator: n, Denominator: 100} }
	for _, c := range []struct {
		value   string
		integer uint64
		number  float64
		share   layeredruntime.Share
	}{
		{`30`, 30, 30, hundredth(30)},
		{`30.0`, 30, 30, hundredth(30)},
		{`30.7`, 30, 30.7, hundredth(30)},
		{`"30"`, 30, 30, hundredth(30)},
		{`" 30 "`, 30, 30, hundredth(30)},
		{`"3e1"`, 30, 30, hundredth(30)},
		{`0.5`, 0, 0.5, hundredth(0)},
		{`150`, 150, 150, hundredth(100)},
		{`5000000000`, 5e9, 5e9, hundredth(100)},
		{`-5`, 7, -5, fallback},
		{`1e300`, 7, 1e300, fallback},
		{`true`, 7, 7, fallback},
		{`word`, 7, 7, fallback},
		{`"NaN"`, 7, math.NaN(), fallback},
		{`{numerator: 30}`, 7, 7, hundredth(30)},
		{`{numerator: 3, denominator: MILLION}`, 7, 7, layeredruntime.Share{Numerator: 3, Denominator: 1_000_000}},
		{`{denominator: TEN_THOUSAND}`, 7, 7, layeredruntime.Share{Denominator: 10_000}},
		{`{}`, 7, 7, hundredth(0)},
		{`"{numerator: 30}"`, 7, 7, fallback},
	} {
		t.Run(c.value, func(t *testing.T) {
			r, _ := start(t, fmt.Sprintf("layers: [{name: l, static_layer: {a: {b: %s}}}]", c.value))
			s := r.Snapshot()
			require.Equal(t, c.integer, s.Integer("a.b", 7))
			require.InDelta(t, c.number, s.Number("a.b", 7), 0)
			require.Equal(t, c.share, s.Share("a.b", fallback))
		})
	}
}

// A truth value is one by its name, or a whole number.
func TestTruthValuesAreReadAsEnvoyReadsThem(t *testing.T) {
	for value, want := range map[string]string{
		`true`: "true", `false`: "false", `"true"`: "true", `" 0 "`: "false", `1`: "true", `0`: "false", `"0"`: "false", `-5`: "true", `7.0`: "true",
		`0.5`: "fallback", `5000000000`: "fallback", `word`: "fallback", `"FALSE"`: "fallback", `" false "`: "fallback", `{numerator: 30}`: "fallback", `{}`: "fallback",
	} {
		r, _ := start(t, fmt.Sprintf("layers: [{name: l, static_layer: {a: %s}}]", value))
		for _, fallback := range []bool{true, false} {
			got := "fallback"
			if r.Snapshot().Boolean("a", fallback) == r.Snapshot().Boolean("a", !fallback) {
				got = fmt.Sprint(r.Snapshot().Boolean("a", fallback))
			}
			require.Equal(t, want, got, value)
		}
	}
}

func TestLaterLayersLieOverEarlierOnes(t *testing.T) {
	r, registry := start(t, `
layers:
- {name: base, static_layer: {a: 1, b: {c: 2, d: 3}}}
- {name: admin, admin_layer: {}}
- {name: top, static_layer: {b.d: 4}}
`)
	before := r.Snapshot()
	require.EqualValues(t, 1, before.Integer("a", 0))
	require.EqualValues(t, 2, before.Integer("b.c", 0))
	require.EqualValues(t, 4, before.Integer("b.d", 0))
	require.Equal(t, []string{"base", "admin", "top"}, before.Layers())
	require.Equal(t, layeredruntime.Entry{Layers: []string{"3", "", "4"}, Final: "4"}, before.Entries()["b.d"])
	require.Equal(t, map[string]int64{
		"runtime.load_success": 1, "runtime.load_error": 0, "runtime.num_keys": 3, "runtime.num_layers": 3, "runtime.admin_overrides_active": 0,
		"runtime.override_dir_not_exists": 1,
	}, values(registry))

	require.NoError(t, r.Modify(map[string]string{"a": "10", "b.d": "5", "new": "{numerator: 3, denominator: TEN_THOUSAND}"}))
	after := r.Snapshot()
	require.EqualValues(t, 10, after.Integer("a", 0))
	require.EqualValues(t, 4, after.Integer("b.d", 0), "the layer above holds")
	require.Equal(t, layeredruntime.Share{Numerator: 3, Denominator: 10_000}, after.Share("new", layeredruntime.Share{}))
	require.EqualValues(t, 1, before.Integer("a", 0), "a snapshot stays as it was")
	require.EqualValues(t, 4, values(registry)["runtime.num_keys"])
	require.EqualValues(t, 1, values(registry)["runtime.admin_overrides_active"])

	for _, bad := range []map[string]string{
		{"a": "11", "b": "{numerator: x}"}, {"a": "11", "b": "{"}, {"a": "11", "b": "{share: 1}"},
		{"a": "11", "": "1"}, {"a": "11", "upstream.use_http3": "1"},
		{"a": "11", "upstream.use_retry": "off"}, {"a": "11", "upstream.maintenance_mode.shop": "on"},
		{"a": "11", "upstream.base_retry_backoff_ms": "soon"}, {"a": "11", "upstream.base_retry_backoff_ms": "86400001"},
	} {
		require.Error(t, r.Modify(bad))
	}
	require.EqualValues(t, 10, r.Snapshot().Integer("a", 0), "all is changed or nothing")
	require.EqualValues(t, 9, values(registry)["runtime.load_error"])

	require.NoError(t, r.Modify(map[string]string{"a": "", "b.d": "", "new": "", "never": ""}))
	require.Equal(t, before.Entries(), r.Snapshot().Entries())
	require.Zero(t, values(registry)["runtime.admin_overrides_active"])
}

func TestWithoutAnAdminLayerNothingIsModified(t *testing.T) {
	r, _ := start(t, `layers: [{name: base, static_layer: {a: 1}}]`)
	require.ErrorIs(t, r.Modify(map[string]string{"a": "2"}), layeredruntime.ErrNoAdminLayer)
	none, _ := start(t, `{}`)
	require.ErrorIs(t, none.Modify(map[string]string{"a": "2"}), layeredruntime.ErrNoAdminLayer)
	require.Empty(t, none.Snapshot().Layers())
	require.Empty(t, none.Snapshot().Entries())
}

func TestNoRuntimeHasNoValues(t *testing.T) {
	var r *layeredruntime.Runtime
	s := r.Snapshot()
	require.True(t, s.Boolean("a", true))
	require.EqualValues(t, 7, s.Integer("a", 7))
	require.InDelta(t, 7, s.Number("a", 7), 0)
	require.Equal(t, layeredruntime.Share{Numerator: 1, Denominator: 2}, s.Share("a", layeredruntime.Share{Numerator: 1, Denominator: 2}))
	require.Empty(t, s.Layers())
	require.Empty(t, s.Entries())
}

func TestBadLayersSayAllThatIsWrong(t *testing.T) {
	_, err := parse(t, `
layers:
- name: a
  static_layer:
    list: [1]
    none: null
    share: {numerator: x}
    unit: {numerator: 1, denominator: 7}
    more: {numerator: 1, other: 2}
    upstream.use_retry: 100
    upstream.healthy_panic_threshold: most
    upstream.weight_enabled: 1
    tracing: {random_sampling: most, client_enabled: 10, global_enabled: {numerator: 1}, spans: 1}
    upstream.maintenance_mode.: 10
    upstream.maintenance_mode.shop: 10
    fault.http.shop.abort.http_status: 500
    fault.http.abort.http_status: 500
    envoy: {reloadable_features: {x: true}}
    envoy.resource_limits.listener.in.connection_limit: many
    envoy.resource_limits.listener..connection_limit: 1
- name: shares
  static_layer:
    upstream: {use_retry: "off", maintenance_mode: {shop: -1, cart: {numerator: 1}, till: 0.5, desk: true}}
- {name: a, admin_layer: {}}
- {name: b, admin_layer: {}}
- {name: c, disk_layer: {symlink_root: /x}}
`)
	require.Error(t, err)
	servicetest.Golden(t, "testdata/layers.txt", []byte(err.Error()+"\n"))
}

func TestALookUpAllocatesNothing(t *testing.T) {
	r, _ := start(t, `layers: [{name: base, static_layer: {a: 1}}]`)
	require.Zero(t, testing.AllocsPerRun(100, func() {
		s := r.Snapshot()
		if s.Integer("a", 0) != 1 || s.Integer("b", 2) != 2 || s.Share("a", layeredruntime.Share{}).Numerator != 1 {
			t.Fail()
		}
	}))
}

func TestChangesOfSeveralAtOnceAllHold(t *testing.T) {
	r, _ := start(t, `layers: [{name: admin, admin_layer: {}}]`)
	var operators sync.WaitGroup
	for i := range 8 {
		operators.Go(func() { _ = r.Modify(map[string]string{fmt.Sprintf("k%d", i): "1"}) })
	}
	operators.Wait()
	require.Len(t, r.Snapshot().Entries(), 8)
}

// FuzzModify wants no panic, and no half of a change.
func FuzzModify(f *testing.F) {
	f.Add("a", "{numerator: 1, denominator: MILLION}")
	f.Add("envoy.resource_limits.listener.x.connection_limit", "1e3")
	f.Add("", "{\"numerator\": 4294967296}")
	f.Add("upstream.use_retry", "off")
	f.Fuzz(func(t *testing.T, key, text string) {
		if key == "other" {
			t.Skip("the key that the change sets beside it")
		}
		r, _ := start(t, `layers: [{name: admin, admin_layer: {}}]`)
		err := r.Modify(map[string]string{"other": "1", key: text})
		require.Equal(t, err == nil, r.Snapshot().Integer("other", 0) == 1)
	})
}

func BenchmarkShare(b *testing.B) {
	r, _ := start(b, `layers: [{name: base, static_layer: {routing.a: 1, routing.b: 2, routing.c: 3}}]`)
	for b.Loop() {
		r.Snapshot().Share("routing.b", layeredruntime.Share{})
	}
}
