package limits

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/weirproxy/weir/internal/servicetest"
	"github.com/weirproxy/weir/services/ratelimit/internal/algorithm"
)

func TestParseReadsEveryRuleOfAFile(t *testing.T) {
	d := parse(t, `
domain: shop
descriptors:
  - key: user
    rate_limit: {unit: MINUTE, requests_per_unit: 10}
    descriptors:
      - {key: path, value: /pay, rate_limit: {unit: second, requests_per_unit: 0, algorithm: fixed_window}}
  - {key: code, value: 5, rate_limit: {unit: Day, requests_per_unit: 4294967295}}
  - {key: free, value: true, rate_limit: {unlimited: true}}
  - {key: none, rate_limit: null}
`)
	var lines, places []string
	for _, r := range d.Rules {
		lines = append(lines, r.String())
		places = append(places, r.Place.String())
	}
	require.Equal(t, []string{
		"shop.user: unit=MINUTE requests_per_unit=10",
		"shop.user.path_/pay: unit=SECOND requests_per_unit=0",
		"shop.code_5: unit=DAY requests_per_unit=4294967295",
		"shop.free_true: unlimited",
	}, lines)
	require.Equal(t, []string{"rules.yaml:5:17", "rules.yaml:7:46", "rules.yaml:8:39", "rules.yaml:9:42"}, places)
	require.Equal(t, algorithm.Limit{Requests: 10, Window: time.Minute}, d.Rules[0].Limit)
	require.Equal(t, uint64(8), d.Rules[0].Near)
	require.Equal(t, "rules.yaml:2:9", d.Place.String())
}

func TestParseFollowsAliases(t *testing.T) {
	d := parse(t, `
domain: d
descriptors:
  - {key: a, rate_limit: &five {unit: second, requests_per_unit: 5}}
  - {key: b, rate_limit: *five}
`)
	require.Equal(t, d.Rules[0].Rate, d.Rules[1].Rate)
}

// Each file of testdata/refused has a golden file beside it with all that is
// wrong in it.
func TestParseRefuses(t *testing.T) {
	files, err := filepath.Glob("testdata/refused/*.yaml")
	require.NoError(t, err)
	require.NotEmpty(t, files)
	for _, path := range files {
		name := strings.TrimSuffix(filepath.Base(path), ".yaml")
		t.Run(name, func(t *testing.T) {
			text, err := os.ReadFile(path)
			require.NoError(t, err)
			_, err = newParser().Parse(filepath.Base(path), text)
			require.Error(t, err)
			servicetest.Golden(t, strings.TrimSuffix(path, "yaml")+"txt", []byte(err.Error()+"\n"))
		})
	}
}

func TestParseErrorTellsTheDomainOfABadFile(t *testing.T) {
	_, err := newParser().Parse("f", []byte("domain: shop\nlimits: []\n"))
	var refused *ParseError
	require.ErrorAs(t, err, &refused)
	require.Equal(t, "shop", refused.Domain)
	require.Equal(t, []Fault{{Place{"f", 2, 1}, `a rule file has no key "limits"; it has domain, descriptors`}}, refused.Faults)
}

func TestAliasesThatMultiplyEndInAFault(t *testing.T) {
	text := "domain: d\ndescriptors:\n- {key: k0, descriptors: &l0 [{key: x}]}\n"
	for i := range 8 {
		one, next := string(rune('0'+i)), string(rune('1'+i))
		text += "- key: k" + next + "\n  descriptors: &l" + next + "\n"
		for range 10 {
			text += "  - {key: a, descriptors: *l" + one + "}\n"
		}
	}
	_, err := newParser().Parse("f", []byte(text))
	require.ErrorContains(t, err, "the file's aliases expand to more than")
}

func FuzzParse(f *testing.F) {
	files, err := filepath.Glob("testdata/refused/*.yaml")
	require.NoError(f, err)
	for _, path := range files {
		text, err := os.ReadFile(path)
		require.NoError(f, err)
		f.Add(text)
	}
	f.Add([]byte("domain: d\ndescriptors:\n- key: a\n  value: b\n  rate_limit: {unit: hour, requests_per_unit: 3}\n"))
	f.Fuzz(func(t *testing.T, text []byte) {
		d, err := newParser().Parse("f", text)
		if err != nil {
			require.NotEmpty(t, err.Error())
			return
		}
		require.NotEmpty(t, d.Name)
		for _, r := range d.Rules {
			require.NotNil(t, r.counters)
			require.True(t, r.Unlimited || r.Limit.Window > 0)
		}
	})
}
