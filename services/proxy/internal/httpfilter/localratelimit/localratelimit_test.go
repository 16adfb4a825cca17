package localratelimit_test

import (
	"fmt"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	routev3 "github.com/envoyproxy/go-control-plane/envoy/config/route/v3"
	"github.com/stretchr/testify/require"

	"github.com/weirproxy/weir/internal/servicetest"
	"github.com/weirproxy/weir/services/proxy/internal/descriptor"
	"github.com/weirproxy/weir/services/proxy/internal/format"
	"github.com/weirproxy/weir/services/proxy/internal/httpfilter"
	"github.com/weirproxy/weir/services/proxy/internal/httpfilter/filtertest"
	"github.com/weirproxy/weir/services/proxy/internal/httpfilter/localratelimit"
	"github.com/weirproxy/weir/services/proxy/internal/layeredruntime/runtimetest"
	"github.com/weirproxy/weir/services/proxy/internal/route"
	"github.com/weirproxy/weir/services/proxy/internal/stats"
	"github.com/weirproxy/weir/services/proxy/internal/stream"
	"github.com/weirproxy/weir/services/proxy/internal/strict"
)

func TestMain(m *testing.M) { servicetest.Main(m) }

func TestReadme(t *testing.T) { filtertest.Readme(t, factory(stats.NewRegistry())) }

// factory has every chance come to 30.
func factory(registry *stats.Registry) localratelimit.Factory {
	return localratelimit.Factory{Stats: registry, Random: func() uint64 { return 30 }}
}

// limiter is a filter at work in a bubble.
type limiter struct {
	t        *testing.T
	config   httpfilter.Config
	registry *stats.Registry
}

const (
	// on lets all requests be limited.
	on = "stat_prefix: p\nfilter_enabled: {default_value: {numerator: 100}}\nfilter_enforced: {default_value: {numerator: 100}}\n"
	// two is a bucket of two tokens.
	two = "token_bucket: {max_tokens: 2, tokens_per_fill: 1, fill_interval: 10s}\n"
	// users has the header x-user make a descriptor, and x-tier another with both.
	users = `
rate_limits:
- actions: [{request_headers: {header_name: x-user, descriptor_key: user}}]
- actions: [{request_headers: {header_name: x-user, descriptor_key: user}}, {request_headers: {header_name: x-tier, descriptor_key: tier}}]
`
)

func start(t *testing.T, yaml string) *limiter {
	t.Helper()
	registry := stats.NewRegistry()
	return &limiter{t, filtertest.MustParse(t, factory(registry), yaml), registry}
}

// ask sends a request and returns the response.
func (l *limiter) ask(headers string) string {
	l.t.Helper()
	return filtertest.Run(l.t, l.config, filtertest.Exchange{Request: "GET /" + headers}).Response
}

// passes counts how many of n requests pass.
func (l *limiter) passes(n int, headers string) (passed int) {
	l.t.Helper()
	for range n {
		if filtertest.Run(l.t, l.config, filtertest.Exchange{Request: "GET /" + headers}).Forwarded != "" {
			passed++
		}
	}
	return passed
}

func (l *limiter) counts() map[string]int {
	return filtertest.Counts(l.registry, "p.http_local_rate_limit.")
}

const refused = "429\ncontent-type: text/plain\n\nlocal_rate_limited"

func TestOneBucket(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := start(t, on+two)
		require.Equal(t, "200", l.ask(""))
		require.Equal(t, "200", l.ask(""))
		require.Equal(t, refused, l.ask(""))
		require.Equal(t, map[string]int{"enabled": 3, "ok": 2, "rate_limited": 1, "enforced": 1}, l.counts())
		time.Sleep(10 * time.Second)
		require.Equal(t, 1, l.passes(2, ""))
	})
}

func TestAccessLogsTellOfARefusal(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := start(t, on+two)
		require.Equal(t, 2, l.passes(2, ""))
		var s *stream.Stream
		filtertest.Run(t, l.config, filtertest.Exchange{Request: "GET /", Prepare: func(given *stream.Stream) { s = given }})
		require.Equal(t, "RL local_rate_limited", s.Facts.Flags.String()+" "+s.Facts.Details)
	})
}

func TestSharesOfRequests(t *testing.T) {
	const fraction = "filter_%s: {default_value: {numerator: %d}, runtime_key: a.b}\n"
	for _, c := range []struct {
		enabled, enforced int
		passed            int
		counts            map[string]int
	}{
		{30, 100, 3, map[string]int{}},
		{31, 30, 3, map[string]int{"enabled": 3, "ok": 2, "rate_limited": 1}},
		{31, 31, 2, map[string]int{"enabled": 3, "ok": 2, "rate_limited": 1, "enforced": 1}},
	} {
		synctest.Test(t, func(t *testing.T) {
			l := start(t, "stat_prefix: p\n"+two+fmt.Sprintf(fraction, "enabled", c.enabled)+fmt.Sprintf(fraction, "enforced", c.enforced))
			require.Equal(t, c.passed, l.passes(3, ""))
			require.Equal(t, c.counts, l.counts())
		})
	}
	synctest.Test(t, func(t *testing.T) {
		require.Equal(t, 3, start(t, "stat_prefix: p\n"+two).passes(3, ""), "by default no request is looked at")
		l := start(t, on)
		require.Equal(t, 3, l.passes(3, ""), "without a bucket nothing is limited")
		require.Equal(t, map[string]int{"enabled": 3, "ok": 3}, l.counts(), "and all is counted")
	})
}

func TestTheRuntimeSaysWhichRequestsAreLimited(t *testing.T) {
	const keyed = "stat_prefix: p\nfilter_enabled: {default_value: {}, runtime_key: a}\nfilter_enforced: {default_value: {}, runtime_key: b}\n"
	for values, counts := range map[string]map[string]int{
		"{}":              {},
		"{a: 100}":        {"enabled": 3, "ok": 2, "rate_limited": 1},
		"{a: 31, b: 31}":  {"enabled": 3, "ok": 2, "rate_limited": 1, "enforced": 1},
		"{a: 30, b: 100}": {},
	} {
		synctest.Test(t, func(t *testing.T) {
			l := start(t, keyed+two)
			set := runtimetest.Values(t, values)
			for range 3 {
				filtertest.Run(t, l.config, filtertest.Exchange{Request: "GET /", Runtime: set})
			}
			require.Equal(t, counts, l.counts(), values)
		})
	}
}

func TestARequestThatIsNotRefusedIsMarked(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := start(t, "stat_prefix: p\nfilter_enabled: {default_value: {numerator: 100}}\n"+two+
			"request_headers_to_add_when_not_enforced: [{header: {key: x-limited, value: '%REQ(:PATH)% for 100%%'}}]\nresponse_headers_to_add: [{header: {key: x-a, value: b}}]")
		require.Equal(t, 2, l.passes(2, ""))
		got := filtertest.Run(t, l.config, filtertest.Exchange{Request: "GET /"})
		require.Equal(t, filtertest.Result{Forwarded: "GET /\nhost: a.example\nx-limited: / for 100%", Response: "200"}, got)
	})
}

func TestRefusals(t *testing.T) {
	const grpc = "\ncontent-type: application/grpc"
	for _, c := range []struct{ name, config, headers, want string }{
		{"a status", "status: {code: ServiceUnavailable}", "", "503\ncontent-type: text/plain\n\nlocal_rate_limited"},
		{"a status below 400 is 429", "status: {code: OK}", "", refused},
		{"headers", "response_headers_to_add: [{header: {key: x-a, value: b}}, {header: {key: content-type, value: text/x}, append_action: OVERWRITE_IF_EXISTS_OR_ADD}]", "",
			"429\ncontent-type: text/x\nx-a: b\n\nlocal_rate_limited"},
		{"headers of what is known", "response_headers_to_add: [{header: {key: x-a, value: '%REQ(:PATH)% %RESPONSE_CODE_DETAILS%'}}, {header: {key: x-b, value: '%REQ(x-none)%'}}]", "",
			"429\ncontent-type: text/plain\nx-a: / local_rate_limited\n\nlocal_rate_limited"},
		{"gRPC", "{}", grpc, "200\ncontent-type: application/grpc\ngrpc-status: 14\ngrpc-message: local_rate_limited"},
		{"gRPC, as exhausted", "rate_limited_as_resource_exhausted: true", grpc, "200\ncontent-type: application/grpc\ngrpc-status: 8\ngrpc-message: local_rate_limited"},
		{"when to come back", "enable_retry_after_header: true", "", "429\ncontent-type: text/plain\nretry-after: 10\n\nlocal_rate_limited"},
		{"when to come back, of another status", "{enable_retry_after_header: true, status: {code: ServiceUnavailable}}", "", "503\ncontent-type: text/plain\n\nlocal_rate_limited"},
		{"when to come back, set otherwise", "{enable_retry_after_header: true, response_headers_to_add: [{header: {key: retry-after, value: '7'}}]}", "",
			"429\ncontent-type: text/plain\nretry-after: 7\n\nlocal_rate_limited"},
		{"limits", "enable_x_ratelimit_headers: DRAFT_VERSION_03", "",
			"429\ncontent-type: text/plain\nx-ratelimit-limit: 2\nx-ratelimit-remaining: 0\nx-ratelimit-reset: 10\n\nlocal_rate_limited"},
	} {
		t.Run(c.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				yaml := on + two + c.config
				if c.config[0] == '{' {
					yaml = "{stat_prefix: p, filter_enabled: {default_value: {numerator: 100}}, filter_enforced: {default_value: {numerator: 100}}, " +
						"token_bucket: {max_tokens: 2, tokens_per_fill: 1, fill_interval: 10s}, " + c.config[1:]
				}
				l := start(t, yaml)
				require.Equal(t, 2, l.passes(2, c.headers))
				require.Equal(t, c.want, l.ask(c.headers))
			})
		})
	}
}

func TestLimitsAreShownOnResponsesThatPass(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := start(t, on+two+"enable_x_ratelimit_headers: DRAFT_VERSION_03")
		require.Equal(t, "200\nx-ratelimit-limit: 2\nx-ratelimit-remaining: 1\nx-ratelimit-reset: 0", l.ask(""))
		require.Equal(t, "200\nx-ratelimit-limit: 2\nx-ratelimit-remaining: 0\nx-ratelimit-reset: 10", l.ask(""))
	})
}

func TestDescriptors(t *testing.T) {
	const (
		large = "token_bucket: {max_tokens: 100, fill_interval: 1s}\n"
		ann   = "descriptors:\n- entries: [{key: user, value: ann}]\n  token_bucket: {max_tokens: 3, fill_interval: 60s}\n"
		gold  = "- entries: [{key: user, value: ann}, {key: tier, value: gold}]\n  token_bucket: {max_tokens: 2, fill_interval: 60s}\n"
	)
	for _, c := range []struct {
		name    string
		config  string
		headers string
		want    int // of 10 that pass
	}{
		{"a descriptor that matches", large + ann, "\nx-user: ann", 3},
		{"one that does not", large + ann, "\nx-user: bob", 10},
		{"all that match give a token", large + ann + gold, "\nx-user: ann\nx-tier: gold", 2},
		{"a part of a descriptor does not match", large + ann + gold, "\nx-user: ann\nx-tier: iron", 3},
		{"the common bucket gives one too", "token_bucket: {max_tokens: 1, fill_interval: 1s}\n" + ann, "\nx-user: ann", 1},
		{"unless it is for the others alone", "token_bucket: {max_tokens: 1, fill_interval: 1s}\nalways_consume_default_token_bucket: false\n" + ann, "\nx-user: ann", 3},
		{"those that match none", "token_bucket: {max_tokens: 1, fill_interval: 1s}\nalways_consume_default_token_bucket: false\n" + ann, "\nx-user: bob", 1},
		{"one in shadow mode refuses nothing", large + ann + "  shadow_mode: true\n", "\nx-user: ann", 10},
	} {
		t.Run(c.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				l := start(t, on+users+c.config)
				require.Equal(t, c.want, l.passes(10, c.headers))
			})
		})
	}
}

func TestShadowModeRefusesNothingAndCounts(t *testing.T) {
	const (
		large = "token_bucket: {max_tokens: 100, fill_interval: 60s}\ndescriptors:\n"
		user  = "- {entries: [{key: user, value: ann}], token_bucket: {max_tokens: %d, fill_interval: 60s}, shadow_mode: %v}\n"
		tier  = "- {entries: [{key: user, value: ann}, {key: tier, value: gold}], token_bucket: {max_tokens: %d, fill_interval: 60s}, shadow_mode: %v}\n"
	)
	for _, c := range []struct {
		name, config string
		shown        string // the limits that responses tell
		counts       map[string]int
	}{
		{"alone", large + fmt.Sprintf(user, 1, true), "1 1 1", map[string]int{"ok": 1, "rate_limited": 2, "shadow_mode": 2}},
		{"the first of two", large + fmt.Sprintf(user, 1, true) + fmt.Sprintf(tier, 2, true), "1 1 1", map[string]int{"ok": 1, "rate_limited": 2, "shadow_mode": 2}},
		{"the second of two", large + fmt.Sprintf(user, 2, true) + fmt.Sprintf(tier, 1, true), "2 1 2", map[string]int{"ok": 1, "rate_limited": 2, "shadow_mode": 2}},
		{"beside one that refuses", large + fmt.Sprintf(user, 1, true) + fmt.Sprintf(tier, 2, false), "1 1 2", map[string]int{"ok": 1, "rate_limited": 2, "shadow_mode": 1, "enforced": 1}},
		{"over the common bucket", strings.Replace(large, "100", "2", 1) + fmt.Sprintf(user, 1, true), "1 1 2", map[string]int{"ok": 1, "rate_limited": 2, "shadow_mode": 1, "enforced": 1}},
		{"without the common bucket", "always_consume_default_token_bucket: false\n" + strings.Replace(large, "100", "1", 1) + fmt.Sprintf(user, 1, true), "1 1 1",
			map[string]int{"ok": 1, "rate_limited": 2, "shadow_mode": 2}},
	} {
		t.Run(c.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				l := start(t, on+users+"enable_x_ratelimit_headers: DRAFT_VERSION_03\n"+c.config)
				var shown []string
				for range 3 {
					_, rest, _ := strings.Cut(l.ask("\nx-user: ann\nx-tier: gold"), "x-ratelimit-limit: ")
					limit, _, _ := strings.Cut(rest, "\n")
					shown = append(shown, limit)
				}
				require.Equal(t, c.shown, strings.Join(shown, " "))
				c.counts["enabled"] = 3
				require.Equal(t, c.counts, l.counts())
			})
		})
	}
}

func TestDescriptorsOfTheRoute(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		report := &strict.Report{}
		limits := descriptor.Parse([]*routev3.RateLimit{{Actions: []*routev3.RateLimit_Action{{ActionSpecifier: &routev3.RateLimit_Action_DestinationCluster_{
			DestinationCluster: &routev3.RateLimit_Action_DestinationCluster{}}}}}}, "", report)
		require.NoError(t, report.Err())
		l := start(t, on+"token_bucket: {max_tokens: 100, fill_interval: 1s}\ndescriptors: [{entries: [{key: destination_cluster, value: echo}], token_bucket: {max_tokens: 1, fill_interval: 1s}}]")
		to := func(cluster string) string {
			return filtertest.Run(t, l.config, filtertest.Exchange{Request: "GET /", Prepare: func(s *stream.Stream) {
				s.Route = &route.Route{Cluster: cluster, RateLimits: limits}
			}}).Response
		}
		require.Equal(t, "200", to("echo"))
		require.Equal(t, refused, to("echo"))
		require.Equal(t, "200", to("other"))
	})
}

func TestWildcards(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := start(t, on+users+"token_bucket: {max_tokens: 100, fill_interval: 1s}\nmax_dynamic_descriptors: 2\n"+
			"descriptors: [{entries: [{key: user}], token_bucket: {max_tokens: 1, fill_interval: 60s}}]")
		require.Equal(t, 1, l.passes(3, "\nx-user: ann"))
		require.Equal(t, 1, l.passes(3, "\nx-user: bob"), "each value has a bucket of its own")
		require.Equal(t, 0, l.passes(1, "\nx-user: ann"))
		require.Equal(t, 1, l.passes(1, "\nx-user: cyd"))
		require.Equal(t, 0, l.passes(1, "\nx-user: ann"), "ann's was used after bob's")
		require.Equal(t, 1, l.passes(1, "\nx-user: bob"), "which made room, and begins anew")
		require.Equal(t, 3, l.passes(3, ""), "no descriptor")
	})
}

func TestAWildcardBesideAValue(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := start(t, on+users+"token_bucket: {max_tokens: 100, fill_interval: 1s}\n"+
			"descriptors: [{entries: [{key: user}, {key: tier, value: gold}], token_bucket: {max_tokens: 1, fill_interval: 60s}}]")
		require.Equal(t, 1, l.passes(3, "\nx-user: ann\nx-tier: gold"))
		require.Equal(t, 3, l.passes(3, "\nx-user: ann\nx-tier: iron"))
	})
}

const perRoute = `{"@type": type.googleapis.com/envoy.extensions.filters.http.local_ratelimit.v3.LocalRateLimit, stat_prefix: r, filter_enabled: {default_value: {numerator: 100}}, filter_enforced: {default_value: {numerator: 100}}`

func TestARouteHasBucketsOfItsOwn(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := start(t, on+two)
		routes := filtertest.MustParseRoutes(t, factory(l.registry), `
virtual_hosts:
- name: all
  domains: ["*"]
  routes:
  - {match: {path: /own}, direct_response: {status: 200}, typed_per_filter_config: {test: `+perRoute+`, token_bucket: {max_tokens: 1, fill_interval: 1s}}}}
  - {match: {prefix: /}, direct_response: {status: 200}}
`)
		for _, c := range []struct{ path, want string }{{"/own", "200"}, {"/own", refused}, {"/", "200"}, {"/a", "200"}, {"/", refused}} {
			require.Equal(t, c.want, filtertest.Run(t, l.config, filtertest.Exchange{Request: "GET " + c.path, Routes: routes}).Response, c.path)
		}
		require.Equal(t, 2, filtertest.Counts(l.registry, "r.http_local_rate_limit.")["enabled"])
	})
	_, report := filtertest.ParseRoutes(t, factory(stats.NewRegistry()), `typed_per_filter_config: {test: `+perRoute+`}}`)
	require.ErrorContains(t, report.Err(), `typed_per_filter_config["test"]: a token_bucket is needed where a route configures the filter`)
}

func TestBucketsOfEachConnection(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := start(t, on+two+users+"local_rate_limit_per_downstream_connection: true\ndescriptors: [{entries: [{key: user, value: ann}], token_bucket: {max_tokens: 1, fill_interval: 10s}}, {entries: [{key: user}], token_bucket: {max_tokens: 1, fill_interval: 10s}}]\n")
		one, other := &format.Connection{}, &format.Connection{}
		for _, c := range []struct {
			connection *format.Connection
			user, want string
		}{
			{one, "ann", "200"}, {one, "ann", refused}, {other, "ann", "200"},
			{one, "bob", "200"}, {other, "bob", "200"}, {one, "cyd", refused}, // the common bucket is empty
		} {
			got := filtertest.Run(t, l.config, filtertest.Exchange{Request: "GET /\nx-user: " + c.user, Prepare: func(s *stream.Stream) {
				s.Facts.Connection = c.connection
			}})
			require.Equal(t, c.want, got.Response, "%+v", c)
		}
	})
}

func TestHitsOfADescriptor(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const policy = "rate_limits: [{actions: [{request_headers: {header_name: x-user, descriptor_key: user}}], x_ratelimit_option: DRAFT_VERSION_03, hits_addend: "
		const descriptors = "}]\ntoken_bucket: {max_tokens: 100, tokens_per_fill: 1, fill_interval: 10s}\ndescriptors: [{entries: [{key: user, value: ann}], token_bucket: {max_tokens: 5, fill_interval: 10s}}]\n"
		l := start(t, on+policy+`{format: "%REQ(x-hits)%"}`+descriptors)
		left := func(n string) string {
			return "\nx-ratelimit-limit: 5\nx-ratelimit-remaining: " + n + "\nx-ratelimit-reset: "
		}
		require.Equal(t, "200"+left("2")+"0", l.ask("\nx-user: ann\nx-hits: 3"))
		require.Equal(t, "429\ncontent-type: text/plain"+left("2")+"0\n\nlocal_rate_limited", l.ask("\nx-user: ann\nx-hits: 3"))
		require.Equal(t, "200"+left("0")+"10", l.ask("\nx-user: ann\nx-hits: 2"))
		require.Equal(t, "429\ncontent-type: text/plain"+left("0")+"10\n\nlocal_rate_limited", l.ask("\nx-user: ann\nx-hits: 0"), "0 only asks")
		require.Equal(t, "200", l.ask("\nx-user: ann\nx-hits: many"), "no descriptor")
	})
}

func TestStageAndVirtualHost(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := start(t, on+"stage: 1\nvh_rate_limits: INCLUDE\ntoken_bucket: {max_tokens: 100, tokens_per_fill: 100, fill_interval: 10s}\n"+
			"descriptors: [{entries: [{key: generic_key, value: host}], token_bucket: {max_tokens: 1, fill_interval: 10s}}, {entries: [{key: generic_key, value: first}], token_bucket: {max_tokens: 0, fill_interval: 10s}}]\n")
		routes := filtertest.MustParseRoutes(t, factory(l.registry), `
virtual_hosts:
- name: all
  domains: ["*"]
  rate_limits: [{stage: 1, actions: [{generic_key: {descriptor_value: host}}]}]
  routes: [{match: {prefix: /}, route: {cluster: echo, rate_limits: [{actions: [{generic_key: {descriptor_value: first}}]}, {stage: 1, actions: [{generic_key: {descriptor_value: route}}]}]}}]
`)
		for _, want := range []string{"200", refused} {
			require.Equal(t, want, filtertest.Run(t, l.config, filtertest.Exchange{Request: "GET /", Routes: routes}).Response)
		}
	})
}

func TestFaultsAreTold(t *testing.T) {
	const bucket = "token_bucket: {max_tokens: 1, fill_interval: 1s}"
	const entry = "entries: [{key: a, value: b}]"
	for config, want := range map[string]string{
		"{}": "stat_prefix",
		"{stat_prefix: p, token_bucket: {max_tokens: 1, fill_interval: 0.049s}}":                                               "token_bucket.fill_interval: 49ms is less than 50ms",
		"{stat_prefix: p, token_bucket: {max_tokens: 1}}":                                                                      "token_bucket.fill_interval",
		"{stat_prefix: p, descriptors: [{" + entry + ", " + bucket + "}]}":                                                     "descriptors need a token_bucket beside them",
		"{stat_prefix: p, " + bucket + ", descriptors: [{" + entry + ", token_bucket: {max_tokens: 1, fill_interval: 1.5s}}]}": "descriptors[0].token_bucket.fill_interval: 1.5s is no multiple of token_bucket.fill_interval, which is 1s",
		"{stat_prefix: p, " + bucket + ", descriptors: [{" + entry + ", " + bucket + "}, {" + entry + ", " + bucket + "}]}":    "descriptors[1]: the same descriptor is there twice",
		"{stat_prefix: p, local_cluster_rate_limit: {}}":                                                                       "local_cluster_rate_limit: not supported",
		"{stat_prefix: p, stage: 11}": "stage",
		"{stat_prefix: p, rate_limits: [{actions: [{remote_address: {}}], limit: {rate_limit: {requests_per_unit: 1, unit: HOUR}}}]}": "rate_limits[0].limit: is not for local limits",
		"{stat_prefix: p, rate_limits: [{actions: [{remote_address: {}}], apply_on_stream_done: true}]}":                              "rate_limits[0].apply_on_stream_done: is not for local limits",
		"{stat_prefix: p, rate_limits: [{actions: [{remote_address: {}}], hits_addend: {number: 1, is_negative_hits: true}}]}":        "rate_limits[0].hits_addend.is_negative_hits: is not for local limits",
		"{stat_prefix: p, rate_limits: [{actions: [{remote_address: {}}], stage: 1}]}":                                                "rate_limits[0].stage: is for the rate_limits of routes and virtual hosts only",
		"{stat_prefix: p, response_headers_to_add: [{header: {key: a, value: '%B%'}}]}":                                               "response_headers_to_add[0].header.value",
		"{stat_prefix: p, max_dynamic_descriptors: 0}":                                                                                "max_dynamic_descriptors",
	} {
		_, report := filtertest.Parse(t, factory(stats.NewRegistry()), config)
		require.ErrorContains(t, report.Err(), want, config)
	}
}

// limited is a filter with a bucket for each user, and a request of one.
func limited(t testing.TB) (httpfilter.Config, *stream.Stream) {
	config := filtertest.MustParse(t, factory(stats.NewRegistry()), on+users+
		"token_bucket: {max_tokens: 4000000000, fill_interval: 1s}\ndescriptors: [{entries: [{key: user, value: ann}], token_bucket: {max_tokens: 4000000000, fill_interval: 1s}}]")
	s := &stream.Stream{Context: t.Context()}
	s.Request.Headers.Add("x-user", "ann")
	return config, s
}

func TestARequestThatPassesAllocatesNothing(t *testing.T) {
	config, s := limited(t)
	servicetest.Allocations(t, 0, func() { pass(config, s) })
}

func pass(config httpfilter.Config, s *stream.Stream) {
	f := config.NewFilter()
	f.(httpfilter.RequestHead).RequestHead(s)
	f.(httpfilter.ResponseHead).ResponseHead(s)
	f.(httpfilter.Done).Done(s)
}

func BenchmarkRequestHead(b *testing.B) {
	config, s := limited(b)
	b.ReportAllocs()
	for b.Loop() {
		pass(config, s)
	}
}
