package limits

import (
	"testing"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/stretchr/testify/require"
)

func TestDescriptorsAreListedInTheOrderOfTheFile(t *testing.T) {
	d := parse(t, `
domain: d
descriptors:
- key: user
  value: b*
  descriptors: [{key: path, rate_limit: {unit: hour, requests_per_unit: 1}}, {key: host}]
- {key: user, rate_limit: {unlimited: true}}
`)
	type line struct {
		path, place string
		limited     bool
		below       bool
	}
	var got []line
	for descriptor := range d.Descriptors() {
		path := ""
		for _, l := range descriptor.Levels {
			path += "/" + describe(l)
		}
		got = append(got, line{path, descriptor.Place.String(), descriptor.Rule != nil, descriptor.Below})
	}
	require.Equal(t, []line{
		{"/user=b*", "rules.yaml:4:3", false, true},
		{"/user=b*/path", "rules.yaml:6:17", true, false},
		{"/user=b*/host", "rules.yaml:6:78", false, false},
		{"/user", "rules.yaml:7:3", true, false},
	}, got)
	for descriptor := range d.Descriptors() {
		require.Len(t, descriptor.Levels, 1)
		break // which ends it
	}
}

func TestCountersAreKnownByTheirName(t *testing.T) {
	p := newParser()
	d, err := p.Parse("rules.yaml", []byte(`
domain: d
descriptors:
- {key: user, detailed_metric: true, rate_limit: {unit: hour, requests_per_unit: 1}}
- {key: path, rate_limit: {unit: hour, requests_per_unit: 1}}
`))
	require.NoError(t, err)
	user, path := []Entry{{"user", "bob"}}, []Entry{{"path", "/"}}
	require.Equal(t, "user_bob", p.Stats.NameOf(d.Match(user).CountersOf(user)))
	require.Equal(t, "path", p.Stats.NameOf(d.Match(path).CountersOf(path)))
	require.Empty(t, NewStats(prometheus.NewRegistry()).NameOf(d.Match(path).CountersOf(path)))
	require.True(t, d.Match(user).DetailedMetric())
	require.False(t, d.Match(path).DetailedMetric())
}
