package healthcheck_test

import (
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/weirproxy/weir/internal/servicetest"
	"github.com/weirproxy/weir/services/proxy/internal/format"
	"github.com/weirproxy/weir/services/proxy/internal/httpfilter"
	"github.com/weirproxy/weir/services/proxy/internal/httpfilter/filtertest"
	"github.com/weirproxy/weir/services/proxy/internal/httpfilter/healthcheck"
	"github.com/weirproxy/weir/services/proxy/internal/stream"
)

func TestMain(m *testing.M) { servicetest.Main(m) }

func TestReadme(t *testing.T) { filtertest.Readme(t, healthcheck.Factory{}) }

// parse makes a config whose counts nobody looks at.
func parse(t *testing.T, factory healthcheck.Factory, yaml string) httpfilter.Config {
	t.Helper()
	config := filtertest.MustParse(t, factory, yaml)
	filtertest.Measure(config)
	return config
}

const match = `headers: [{name: ":path", string_match: {exact: /healthz}}]`

// hosts are the clusters of a test: healthy hosts and all of them.
type hosts map[string][2]int

func (h hosts) healthy(name string) (int, int, bool) {
	c, ok := h[name]
	return c[0], c[1], ok
}

func TestOthersAreToldWhichRequestsAreHealthChecks(t *testing.T) {
	config := parse(t, healthcheck.Factory{Failing: func() bool { return false }}, "{pass_through_mode: true, headers: [{name: \":path\", string_match: {exact: /healthz}}]}")
	for path, want := range map[string]bool{"/healthz": true, "/a": false} {
		var s *stream.Stream
		filtertest.Run(t, config, filtertest.Exchange{Request: "GET " + path, Prepare: func(given *stream.Stream) { s = given }})
		require.Equal(t, want, s.Facts.HealthCheck, path)
	}
}

func TestAnswers(t *testing.T) {
	clusters := hosts{"half": {1, 2}, "third": {1, 3}, "none": {0, 0}}
	const forwarded, name = "GET /healthz\nhost: a.example", "\nx-envoy-upstream-healthchecked-cluster: edge"
	for _, c := range []struct {
		name    string
		config  string
		request string
		failing bool
		want    filtertest.Result
	}{
		{"200 by itself", "pass_through_mode: false", "GET /healthz", false, filtertest.Result{Response: "200" + name}},
		{"503 while failing", "pass_through_mode: false", "GET /healthz", true,
			filtertest.Result{Response: "503" + name + "\nx-envoy-immediate-health-check-fail: true"}},
		{"another request passes", "pass_through_mode: false", "GET /a", false, filtertest.Result{Forwarded: "GET /a\nhost: a.example", Response: "200"}},
		{"and is told while failing", "pass_through_mode: false", "GET /a", true,
			filtertest.Result{Forwarded: "GET /a\nhost: a.example", Response: "200\nx-envoy-immediate-health-check-fail: true"}},
		{"the upstream answers in pass-through mode", "pass_through_mode: true", "GET /healthz", false, filtertest.Result{Forwarded: forwarded, Response: "200" + name}},
		{"but not while failing", "pass_through_mode: true", "GET /healthz", true,
			filtertest.Result{Response: "503" + name + "\nx-envoy-immediate-health-check-fail: true"}},
		{"enough hosts are healthy", "{pass_through_mode: false, cluster_min_healthy_percentages: {half: {value: 50}, third: {value: 33.9}}}", "GET /healthz", false,
			filtertest.Result{Response: "200" + name}},
		{"not enough hosts are", "{pass_through_mode: false, cluster_min_healthy_percentages: {third: {value: 34}}}", "GET /healthz", false,
			filtertest.Result{Response: "503" + name}},
		{"a cluster that is not there", "{pass_through_mode: false, cluster_min_healthy_percentages: {gone: {value: 0}}}", "GET /healthz", false,
			filtertest.Result{Response: "503" + name}},
		{"a cluster without hosts", "{pass_through_mode: false, cluster_min_healthy_percentages: {none: {value: 1}}}", "GET /healthz", false,
			filtertest.Result{Response: "503" + name}},
		{"a cluster without hosts of which none are wanted", "{pass_through_mode: false, cluster_min_healthy_percentages: {none: {value: 0}}}", "GET /healthz", false,
			filtertest.Result{Response: "200" + name}},
	} {
		t.Run(c.name, func(t *testing.T) {
			factory := healthcheck.Factory{ServiceName: "edge", Failing: func() bool { return c.failing }, Healthy: clusters.healthy}
			yaml := c.config
			if yaml[0] == '{' {
				yaml = yaml[:len(yaml)-1] + ", " + match + "}"
			} else {
				yaml += "\n" + match
			}
			require.Equal(t, c.want, filtertest.Run(t, parse(t, factory, yaml), filtertest.Exchange{Request: c.request}))
		})
	}
}

func TestTheUpstreamsAnswerIsKept(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		config := parse(t, healthcheck.Factory{}, "pass_through_mode: true\ncache_time: 2s\n"+match)
		ask := func(upstream string) (asked bool, response string) {
			got := filtertest.Run(t, config, filtertest.Exchange{Request: "GET /healthz", Response: upstream})
			response, named := strings.CutSuffix(got.Response, "\nx-envoy-upstream-healthchecked-cluster: ")
			require.True(t, named, "%s: of a node without a cluster too", got.Response)
			return got.Forwarded != "", response
		}
		left := filtertest.Run(t, config, filtertest.Exchange{Request: "GET /healthz", Prepare: func(s *stream.Stream) { s.Expire(&stream.Expiry{}) }})
		require.Equal(t, "0", left.Response)
		asked, response := ask("503")
		require.True(t, asked, "nothing is kept of a check whose client left before the answer")
		require.Equal(t, "503", response)
		time.Sleep(1999 * time.Millisecond)
		asked, response = ask("200")
		require.False(t, asked, "a kept answer does not make itself younger")
		require.Equal(t, "503", response)
		time.Sleep(time.Millisecond)
		asked, response = ask("200")
		require.True(t, asked)
		require.Equal(t, "200", response)
		got := filtertest.Run(t, config, filtertest.Exchange{Request: "GET /a", Response: "500"})
		require.Equal(t, "500", got.Response)
		_, response = ask("404")
		require.Equal(t, "200", response, "answers to other requests are not kept")
	})
}

func TestAccessLogsAreToldWhyACheckFailed(t *testing.T) {
	clusters := hosts{"half": {1, 2}, "none": {0, 0}}
	const percentages = "pass_through_mode: false\ncluster_min_healthy_percentages: "
	for _, c := range []struct {
		config  string
		failing bool
		details string
		flags   format.Flags
	}{
		{"pass_through_mode: false", false, "health_check_ok", 0},
		{"pass_through_mode: false", true, "health_check_failed", format.FailedLocalHealthCheck},
		{"pass_through_mode: true", true, "health_check_failed", format.FailedLocalHealthCheck},
		{"pass_through_mode: true", false, "", 0},
		{percentages + "{half: {value: 50}}", false, "health_check_ok_cluster_healthy", 0},
		{percentages + "{half: {value: 51}}", false, "health_check_failed_cluster_unhealthy", format.FailedLocalHealthCheck},
		{percentages + "{none: {value: 1}}", false, "health_check_failed_cluster_empty", format.FailedLocalHealthCheck},
		{percentages + "{gone: {value: 1}}", false, "health_check_failed_no_cluster_found", format.FailedLocalHealthCheck},
	} {
		factory := healthcheck.Factory{Failing: func() bool { return c.failing }, Healthy: clusters.healthy}
		details, flags := facts(t, parse(t, factory, c.config+"\n"+match), "200")
		require.Equal(t, c.details, details, c.config)
		require.Equal(t, c.flags, flags, c.config)
	}

	kept := parse(t, healthcheck.Factory{}, "pass_through_mode: true\ncache_time: 3600s\n"+match)
	facts(t, kept, "500")
	details, flags := facts(t, kept, "")
	require.Equal(t, "health_check_cached", details)
	require.Equal(t, format.FailedLocalHealthCheck, flags)
}

// facts is what is noted of a health check, which the upstream answers with a status
// if it is asked.
func facts(t *testing.T, config httpfilter.Config, upstream string) (details string, flags format.Flags) {
	var s *stream.Stream
	filtertest.Run(t, config, filtertest.Exchange{Request: "GET /healthz", Response: upstream, Prepare: func(given *stream.Stream) { s = given }})
	return s.Facts.Details, s.Facts.Flags
}

func TestFaultsAreTold(t *testing.T) {
	for config, want := range map[string]string{
		"{}": "pass_through_mode",
		"{pass_through_mode: false, cache_time: 1s}":                                                 "cache_time: only answers of an upstream are kept",
		"{pass_through_mode: true, cluster_min_healthy_percentages: {a: {value: 1}}}":                "cluster_min_healthy_percentages: in pass_through_mode",
		"{pass_through_mode: false, cluster_min_healthy_percentages: {a: {value: 101}}}":             "cluster_min_healthy_percentages",
		"{pass_through_mode: false, headers: [{name: a, string_match: {safe_regex: {regex: '('}}}]}": "headers[0].string_match.safe_regex.regex",
	} {
		_, report := filtertest.Parse(t, healthcheck.Factory{}, config)
		require.ErrorContains(t, report.Err(), want, config)
	}
}

func TestChecksThatAreAnsweredHereAreCounted(t *testing.T) {
	clusters := hosts{"half": {1, 2}, "none": {0, 0}}
	for _, c := range []struct {
		config   string
		failing  bool
		upstream string
		want     map[string]int
	}{
		{"pass_through_mode: false", false, "", map[string]int{"request_total": 2, "ok": 2}},
		{"pass_through_mode: false", true, "", map[string]int{"request_total": 2, "failed": 2}},
		{"pass_through_mode: true", false, "503", map[string]int{}},
		{"{pass_through_mode: true, cache_time: 3600s}", false, "200", map[string]int{"request_total": 1, "ok": 1, "cached_response": 1}},
		{"{pass_through_mode: true, cache_time: 3600s}", false, "503", map[string]int{"request_total": 1, "failed": 1, "cached_response": 1}},
		{"{pass_through_mode: false, cluster_min_healthy_percentages: {half: {value: 51}}}", false, "", map[string]int{"request_total": 2, "failed": 2, "failed_cluster_unhealthy": 2}},
		{"{pass_through_mode: false, cluster_min_healthy_percentages: {none: {value: 1}}}", false, "", map[string]int{"request_total": 2, "failed": 2, "failed_cluster_empty": 2}},
		{"{pass_through_mode: false, cluster_min_healthy_percentages: {gone: {value: 1}}}", false, "", map[string]int{"request_total": 2, "failed": 2, "failed_cluster_not_found": 2}},
	} {
		config := filtertest.MustParse(t, healthcheck.Factory{Failing: func() bool { return c.failing }, Healthy: clusters.healthy}, c.config)
		counts := filtertest.Measure(config)
		for range 2 {
			filtertest.Run(t, config, filtertest.Exchange{Request: "GET /", Response: c.upstream})
		}
		want := map[string]int{}
		for name, n := range c.want {
			want["health_check."+name] = n
		}
		require.Equal(t, want, counts(), c.config)
	}
}
