package limits

import (
	"strings"
	"testing"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil"
	"github.com/stretchr/testify/require"
)

func TestCountersSurviveAReloadAndGoWithTheirRule(t *testing.T) {
	p := newParser()
	p.Stats = NewStats(prometheus.NewPedanticRegistry())
	load := func(text string) *Domain {
		d, err := p.Parse("f", []byte(text))
		require.NoError(t, err)
		p.Stats.Retain(NewSet([]*Domain{d}))
		return d
	}
	const both = "domain: d\ndescriptors:\n- {key: a, rate_limit: {unit: hour, requests_per_unit: 1}}\n- {key: b, rate_limit: {unlimited: true}}\n"
	const onlyB = "domain: d\ndescriptors:\n- {key: b, rate_limit: {unit: day, requests_per_unit: 1}}\n"
	d := load(both)
	d.Rules[1].counters.TotalHits.Add(3)
	d.Rules[1].counters.Over.Add(1)
	d = load(onlyB)
	require.Equal(t, uint64(3), d.Rules[0].counters.TotalHits.Load())
	require.NoError(t, testutil.CollectAndCompare(p.Stats, strings.NewReader(`
# HELP ratelimit_service_rate_limit_over_limit Hits that the rule refused.
# TYPE ratelimit_service_rate_limit_over_limit counter
ratelimit_service_rate_limit_over_limit{domain="d",rule="(override)"} 0
ratelimit_service_rate_limit_over_limit{domain="d",rule="b"} 1
# HELP ratelimit_service_rate_limit_total_hits Hits that met the rule.
# TYPE ratelimit_service_rate_limit_total_hits counter
ratelimit_service_rate_limit_total_hits{domain="d",rule="(override)"} 0
ratelimit_service_rate_limit_total_hits{domain="d",rule="b"} 3
`), "ratelimit_service_rate_limit_over_limit", "ratelimit_service_rate_limit_total_hits"))
}
