package e2e

import (
	"net/http"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/weirproxy/weir/integration/harness"
	"github.com/weirproxy/weir/internal/servicetest"
)

func TestARuleFileThatIsBrokenAndMendedUnderLoadFailsNoRequest(t *testing.T) {
	s := harness.NewStack(t, harness.Options{Rules: minuteRules})
	s.AddHost("one")
	load := s.StartLoad()
	load.Await(50)
	for _, broken := range []struct{ name, text, says string }{
		{"a key that nobody knows", "domain: demo\ndescriptors:\n  - key: user\n    rate_limt: {unit: minute, requests_per_unit: 1}\n", "rules.yaml:4:5"},
		{"a wrong type", "domain: demo\ndescriptors:\n  - key: user\n    rate_limit: {unit: minute, requests_per_unit: many}\n", "rules.yaml:4:"},
		{"a key that is there twice", "domain: demo\ndomain: demo\n", "rules.yaml:2:1"},
		{"no YAML", "domain: [demo\n", "rules.yaml:"},
		{"nothing", "", "rules.yaml"},
	} {
		logged := len(s.Ratelimit.Log())
		s.SetRules(broken.text)
		servicetest.Eventually(t, broken.name+" is refused", func() bool {
			return strings.Contains(s.Ratelimit.Log()[logged:], broken.says)
		})
		requireFiveThen429(t, broken.name, s) // the last good rules hold
	}

	servicetest.Eventually(t, "each is counted", func() bool {
		return harness.Metric(t, s.Ratelimit, "ratelimit_service_config_load_error") >= 5
	})

	s.SetRules(secondRules)
	servicetest.Eventually(t, "the mended rules hold", func() bool {
		first, second := s.Get("/", "ben").Status, s.Get("/", "ben").Status
		return first == http.StatusOK && second == http.StatusOK && s.Get("/", "ben").Status == http.StatusTooManyRequests
	})
	require.Empty(t, load.Stop().Failures)
}
