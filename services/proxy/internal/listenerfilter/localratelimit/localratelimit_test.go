package localratelimit_test

import (
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/weirproxy/weir/internal/servicetest"
	"github.com/weirproxy/weir/services/proxy/internal/layeredruntime/runtimetest"
	"github.com/weirproxy/weir/services/proxy/internal/listenerfilter"
	"github.com/weirproxy/weir/services/proxy/internal/listenerfilter/listenerfiltertest"
	"github.com/weirproxy/weir/services/proxy/internal/listenerfilter/localratelimit"
	"github.com/weirproxy/weir/services/proxy/internal/stats"
)

func TestMain(m *testing.M) { servicetest.Main(m) }

func TestReadme(t *testing.T) { listenerfiltertest.Readme(t, localratelimit.Factory{}) }

const two = "stat_prefix: p\ntoken_bucket: {max_tokens: 2, fill_interval: 10s}\n"

// measured is a filter with its counter.
func measured(t *testing.T, factory localratelimit.Factory, yaml string) (listenerfilter.Filter, *stats.Counter) {
	t.Helper()
	registry := stats.NewRegistry()
	filter := listenerfiltertest.MustParse(t, factory, yaml)
	filter.Measure(registry)
	found := false
	registry.Each(func(m stats.Metric) {
		found = true
		require.Equal(t, "listener_local_ratelimit.p.rate_limited", m.Name)
		require.Equal(t, "envoy_listener_local_ratelimit_rate_limited", m.Prometheus)
		require.Equal(t, []stats.Label{{Name: "envoy_local_listener_ratelimit_prefix", Value: "p"}}, m.Labels)
	})
	require.True(t, found)
	return filter, registry.Scope("listener_local_ratelimit").Tagged("envoy_local_listener_ratelimit_prefix", "p").Counter("rate_limited")
}

// passes is how many of so many connections pass.
func passes(t *testing.T, filter listenerfilter.Filter, n int) (passed int) {
	t.Helper()
	for range n {
		if err := filter.Inspect(&listenerfilter.Socket{}); err == nil {
			passed++
		} else {
			require.ErrorIs(t, err, listenerfilter.ErrClose)
		}
	}
	return passed
}

func TestConnectionsTakeTokens(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		filter, limited := measured(t, localratelimit.Factory{}, two)
		require.Equal(t, 2, passes(t, filter, 5))
		require.EqualValues(t, 3, limited.Value())
		time.Sleep(10 * time.Second)
		require.Equal(t, 1, passes(t, filter, 2))
		require.EqualValues(t, 4, limited.Value())
	})
}

func TestItLeavesTheBytes(t *testing.T) {
	filter, _ := measured(t, localratelimit.Factory{}, two)
	_, err := listenerfiltertest.Inspect(t, filter, "GET / HTTP/1.1\r\n")
	require.NoError(t, err)
}

func TestTheRuntimeTurnsItOnAndOff(t *testing.T) {
	const on, off = "runtime_enabled: {default_value: true, runtime_key: limit}", "runtime_enabled: {default_value: false, runtime_key: limit}"
	for _, c := range []struct {
		config, values string
		want           int // of 5
	}{
		{"", "{}", 2},
		{on, "{}", 2},
		{off, "{}", 5},
		{on, "{limit: false}", 5},
		{off, "{limit: true}", 2},
		{on, "{limit: 0}", 5},
		{off, "{limit: 7}", 2},
		{off, "{limit: word}", 5},
	} {
		filter, limited := measured(t, localratelimit.Factory{Runtime: runtimetest.New(t, c.values)}, two+c.config)
		require.Equal(t, c.want, passes(t, filter, 5), "%s %s", c.config, c.values)
		require.EqualValues(t, 5-c.want, limited.Value())
	}
}

func TestFaultsAreTold(t *testing.T) {
	for config, want := range map[string]string{
		"{token_bucket: {max_tokens: 1, fill_interval: 1s}}": "stat_prefix",
		"{stat_prefix: p}": "token_bucket",
		"{stat_prefix: p, token_bucket: {max_tokens: 1}}":                                         "token_bucket.fill_interval",
		"{stat_prefix: p, token_bucket: {max_tokens: 1, fill_interval: 0.049s}}":                  "token_bucket.fill_interval: 49ms is less than 50ms",
		"{stat_prefix: p, token_bucket: {max_tokens: 1, fill_interval: 1s}, runtime_enabled: {}}": "runtime_enabled.",
	} {
		_, report := listenerfiltertest.Parse(t, localratelimit.Factory{}, config)
		require.ErrorContains(t, report.Err(), want, config)
	}
}
