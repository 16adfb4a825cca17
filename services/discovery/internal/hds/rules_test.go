package hds

import (
	"os"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

const tcpCheck = `{timeout: 1s, interval: 2s, unhealthy_threshold: 1, healthy_threshold: 1, tcp_health_check: {}}`

func TestAServiceGoesByItsOwnNameElseByTheLongestBeginning(t *testing.T) {
	r, err := ReadRules("hds.yaml", []byte(`
services:
- {service: "*", health_checks: [`+tcpCheck+`]}
- {service: "users-*", health_checks: [`+tcpCheck+`], checkers: 5}
- {service: users-eu, health_checks: [`+tcpCheck+`], checkers: 2, unhealthy: 1}
`))
	require.NoError(t, err)
	require.Equal(t, 3, r.count())
	require.Equal(t, 5*time.Second, r.interval)
	for service, want := range map[string][2]int{
		"users-eu": {2, 1}, "users-us": {5, 3}, "users-eu2": {5, 3}, "users": {3, 2}, "orders": {3, 2},
	} {
		got := r.of(service)
		require.Equal(t, want, [2]int{got.checkers, got.unhealthy}, service)
	}
	require.Equal(t, 6*time.Second, r.of("users").patience, "the first check's timeout and one interval")
	require.Equal(t, 2*time.Second, r.of("users").checks[0].GetNoTrafficInterval().AsDuration(), "a checker sends no traffic")

	r, err = ReadRules("hds.yaml", []byte(`{interval: 100ms, services: [{service: a, health_checks: [`+
		`{timeout: 1s, initial_jitter: 2s, interval: 2s, no_traffic_interval: 9s, unhealthy_threshold: 1, healthy_threshold: 1, tcp_health_check: {}}]}]}`))
	require.NoError(t, err)
	require.Nil(t, r.of("b"))
	require.Equal(t, 3100*time.Millisecond, r.of("a").patience)
	require.Equal(t, 9*time.Second, r.of("a").checks[0].GetNoTrafficInterval().AsDuration())
}

func TestAFileOfRulesIsRefusedWithAllThatIsWrong(t *testing.T) {
	for text, want := range map[string]string{
		"":            "hds.yaml:1:1: there is nothing in it",
		"[]":          "hds.yaml:1:1: want a mapping, got a list",
		"rules: []":   `hds.yaml:1:1: "rules" is not one of interval, services`,
		"services: 1": "hds.yaml:1:11: services: want a list, got \"1\"",
		"interval: 1": `hds.yaml:1:11: interval: "1" is not a duration from 100ms to 10m0s, such as "5s"`,
		"{interval: 1ms, services: [{}]}": `hds.yaml:1:12: interval: "1ms" is not a duration from 100ms to 10m0s, such as "5s"` +
			"\nhds.yaml:1:28: services[0].health_checks: must be given\nhds.yaml:1:28: services[0].service: must be given",
		"services: [{service: a*b, health_checks: 1}]": `hds.yaml:1:22: services[0].service: want a name, or the beginning of names with * behind it, got "a*b"` +
			"\nhds.yaml:1:42: services[0].health_checks: want a list, got \"1\"",
		"services: [{service: a, health_checks: [{timeout: 1s, pth: x}]}]": "hds.yaml:1:41: services[0].health_checks[0].health_checker: one of http_health_check, tcp_health_check, grpc_health_check, custom_health_check is required" +
			"\nhds.yaml:1:41: services[0].health_checks[0].healthy_threshold: value is required" +
			"\nhds.yaml:1:41: services[0].health_checks[0].interval: value is required" +
			"\nhds.yaml:1:41: services[0].health_checks[0].unhealthy_threshold: value is required" +
			"\nhds.yaml:1:55: services[0].health_checks[0].pth: unknown field of envoy.config.core.v3.HealthCheck",
		"services: [{service: a, health_checks: [" + tcpCheck + "], checkers: 17, unhealthy: 0}]": `hds.yaml:1:149: services[0].checkers: "17" is not a number from 1 to 16` +
			"\n" + `hds.yaml:1:164: services[0].unhealthy: "0" is not a number from 1 to 16`,
		"services: [{service: a, health_checks: [" + tcpCheck + "], checkers: 2, unhealthy: 3}]":                          "hds.yaml:1:152: services[0].unhealthy: 3, of 2 checkers",
		"services:\n- {service: a, health_checks: [" + tcpCheck + "]}\n- {service: a, health_checks: [" + tcpCheck + "]}": `hds.yaml:3:3: services[1].service: "a" is there twice, first on line 2`,
		"services: [{service: a, health_checks: [" + strings.Repeat("{}, ", 9) + "], host: b}]": "hds.yaml:1:40: services[0].health_checks: 9, of 8 at most" +
			"\n" + `hds.yaml:1:80: services[0]: "host" is not one of service, health_checks, checkers, unhealthy`,
	} {
		_, err := ReadRules("hds.yaml", []byte(text))
		require.Error(t, err, text)
		require.Equal(t, want, err.Error(), text)
	}
	_, err := ReadRules("hds.yaml", []byte("services: [{service: a, health_checks: [{timeout: 1s, tcp_health_check: {}}]}]"))
	require.ErrorContains(t, err, "services[0].health_checks[0].interval: value is required")
}

func TestTheRulesOfTheREADMEAreTaken(t *testing.T) {
	text, err := os.ReadFile("../../README.md")
	require.NoError(t, err)
	_, example, found := strings.Cut(string(text), "```yaml\n# DISCOVERY_HDS_FILE\n")
	require.True(t, found)
	example, _, _ = strings.Cut(example, "```")
	_, err = ReadRules("README.md", []byte(example))
	require.NoError(t, err)
}

// FuzzReadRules reads any text: what is taken is within the bounds.
func FuzzReadRules(f *testing.F) {
	f.Add("services: [{service: a, health_checks: [" + tcpCheck + "], checkers: 2, unhealthy: 1}]")
	f.Add("{interval: 1s, services: [{service: '*'}, &a {service: b*}, *a]}")
	f.Fuzz(func(t *testing.T, text string) {
		r, err := ReadRules("hds.yaml", []byte(text))
		if err != nil {
			return
		}
		require.GreaterOrEqual(t, r.interval, leastInterval)
		for _, one := range r.all() {
			require.NotEmpty(t, one.checks)
			require.LessOrEqual(t, one.checkers, mostCheckers)
			require.LessOrEqual(t, one.unhealthy, one.checkers)
			require.Positive(t, one.unhealthy)
		}
	})
}
