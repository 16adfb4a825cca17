package retry_test

import (
	"math"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	routev3 "github.com/envoyproxy/go-control-plane/envoy/config/route/v3"
	"github.com/stretchr/testify/require"
	"google.golang.org/protobuf/encoding/protojson"

	"github.com/weirproxy/weir/internal/servicetest"
	"github.com/weirproxy/weir/services/proxy/internal/layeredruntime/runtimetest"
	"github.com/weirproxy/weir/services/proxy/internal/message"
	"github.com/weirproxy/weir/services/proxy/internal/retry"
	"github.com/weirproxy/weir/services/proxy/internal/strict"
)

func TestMain(m *testing.M) { servicetest.Main(m) }

func parse(t testing.TB, text string) (*retry.Policy, error) {
	t.Helper()
	m := &routev3.RetryPolicy{}
	require.NoError(t, protojson.Unmarshal([]byte(text), m))
	report := &strict.Report{}
	p := retry.Parse(m, "retry_policy", report)
	return p, report.Err()
}

// policy is a policy without faults; that of an empty text is none.
func policy(t testing.TB, text string) *retry.Policy {
	t.Helper()
	if text == "" {
		return nil
	}
	p, err := parse(t, text)
	require.NoError(t, err)
	return p
}

// request is one with these header fields, name and value in turn.
func request(fields ...string) *message.Request {
	r := &message.Request{}
	for i := 0; i < len(fields); i += 2 {
		r.Headers.Add(fields[i], fields[i+1])
	}
	return r
}

func begin(t testing.TB, text string, fields ...string) *retry.State {
	t.Helper()
	s := &retry.State{}
	s.Begin(policy(t, text), request(fields...), true)
	return s
}

func response(status int, fields ...string) *message.Response {
	return &message.Response{Status: status, Headers: request(fields...).Headers}
}

func TestResponsesAreRetriedOnTheirConditions(t *testing.T) {
	on := func(names string) string { return `{"retry_on": "` + names + `"}` }
	for _, c := range []struct {
		name, policy string
		request      []string
		response     *message.Response
		want         bool
	}{
		{"5xx", on("5xx"), nil, response(500), true},
		{"5xx is not 499", on("5xx"), nil, response(499), false},
		{"gateway-error", on("gateway-error"), nil, response(502), true},
		{"gateway-error of 504", on("gateway-error"), nil, response(504), true},
		{"gateway-error is not 500", on("gateway-error"), nil, response(500), false},
		{"gateway-error is not 505", on("gateway-error"), nil, response(505), false},
		{"retriable-4xx is 409", on("retriable-4xx"), nil, response(409), true},
		{"retriable-4xx is not 404", on("retriable-4xx"), nil, response(404), false},
		{"status codes", `{"retry_on": "retriable-status-codes", "retriable_status_codes": [404]}`, nil, response(404), true},
		{"status codes want their condition", `{"retry_on": "5xx", "retriable_status_codes": [404]}`, nil, response(404), false},
		{"status codes of the header", on("retriable-status-codes"), []string{"x-envoy-retriable-status-codes", "x, 418,404"}, response(404), true},
		{"headers", `{"retry_on": "retriable-headers", "retriable_headers": [{"name": "X-Again", "string_match": {"exact": "yes"}}]}`, nil, response(200, "x-again", "yes"), true},
		{"headers of another value", `{"retry_on": "retriable-headers", "retriable_headers": [{"name": "x-again", "string_match": {"exact": "yes"}}]}`, nil, response(200, "x-again", "no"), false},
		{"headers have the status", `{"retry_on": "retriable-headers", "retriable_headers": [{"name": ":status", "range_match": {"start": "400", "end": "500"}}]}`, nil, response(404), true},
		{"headers of the header", on("retriable-headers"), []string{"x-envoy-retriable-header-names", "a, X-Again"}, response(200, "x-again", ""), true},
		{"a rate limit", on("5xx"), nil, response(503, "x-envoy-ratelimited", "true"), false},
		{"a rate limit if wanted", on("envoy-ratelimited"), nil, response(429, "x-envoy-ratelimited", "true"), true},
		{"envoy-ratelimited alone", on("envoy-ratelimited"), nil, response(503), false},
		{"cancelled", on("cancelled"), nil, response(200, "grpc-status", "1"), true},
		{"deadline-exceeded", on("deadline-exceeded"), nil, response(200, "grpc-status", "4"), true},
		{"resource-exhausted", on("resource-exhausted"), nil, response(200, "grpc-status", "8"), true},
		{"internal", on("internal"), nil, response(200, "grpc-status", "13"), true},
		{"unavailable", on("unavailable"), nil, response(200, "grpc-status", "14"), true},
		{"another status of gRPC", on("cancelled,internal,unavailable"), nil, response(200, "grpc-status", "4"), false},
		{"gRPC without a status in the head", on("unavailable"), nil, response(200), false},
		{"by the header alone", "", []string{"x-envoy-retry-on", "5xx"}, response(500), true},
		{"by gRPC's header alone", "", []string{"x-envoy-retry-grpc-on", "unavailable"}, response(200, "grpc-status", "14"), true},
		{"by the header beside the policy", on("reset"), []string{"x-envoy-retry-on", "nonsense, retriable-4xx"}, response(409), true},
		{"a header takes no names of gRPC", "", []string{"x-envoy-retry-on", "unavailable"}, response(200, "grpc-status", "14"), false},
		{"by nothing", "", nil, response(500), false},
		{"requests that may be", `{"retry_on": "5xx", "retriable_request_headers": [{"name": "x-a"}, {"name": ":method", "string_match": {"exact": "GET"}}]}`, []string{"x-a", ""}, response(500), true},
		{"requests that may not be", `{"retry_on": "5xx", "retriable_request_headers": [{"name": "x-a"}]}`, []string{"x-envoy-retry-on", "5xx"}, response(500), false},
	} {
		t.Run(c.name, func(t *testing.T) {
			require.Equal(t, c.want, begin(t, c.policy, c.request...).WantsAfter(c.response))
		})
	}
}

func TestResetsAreRetriedOnTheirConditions(t *testing.T) {
	resets := map[string]retry.Reset{
		"connect": retry.ConnectFailure, "broken": retry.Broken, "refused": retry.RefusedStream, "timeout": retry.TimedOut, "overflow": retry.Overflow,
	}
	for _, c := range []struct{ on, unsent, sent string }{
		{"5xx", "connect broken refused timeout", "connect broken refused timeout"},
		{"gateway-error", "connect broken refused timeout", "connect broken refused timeout"},
		{"reset", "connect broken refused timeout", "connect broken refused timeout"},
		{"reset-before-request", "connect broken refused timeout", ""},
		{"connect-failure", "connect", "connect"},
		{"refused-stream", "refused", "refused"},
		{"retriable-4xx,retriable-headers,retriable-status-codes,unavailable", "", ""},
	} {
		for name, reset := range resets {
			s := begin(t, `{"retry_on": "`+c.on+`"}`)
			require.Equal(t, strings.Contains(c.unsent, name), s.WantsAfterReset(reset, false), "%s after %s", c.on, name)
			require.Equal(t, strings.Contains(c.sent, name), s.WantsAfterReset(reset, true), "%s after %s, sent", c.on, name)
		}
	}
}

func TestRetriesAreCounted(t *testing.T) {
	for _, c := range []struct {
		name, policy string
		request      []string
		want         int
	}{
		{"one unless set", `{"retry_on": "5xx"}`, nil, 1},
		{"as set", `{"retry_on": "5xx", "num_retries": 3}`, nil, 3},
		{"none", `{"retry_on": "5xx", "num_retries": 0}`, nil, 0},
		{"as the header has it", `{"retry_on": "5xx", "num_retries": 3}`, []string{"x-envoy-max-retries", "2"}, 2},
		{"not as a malformed header has it", `{"retry_on": "5xx", "num_retries": 3}`, []string{"x-envoy-max-retries", "-2"}, 3},
		{"one by the header alone", "", []string{"x-envoy-retry-on", "5xx"}, 1},
	} {
		t.Run(c.name, func(t *testing.T) {
			s := begin(t, c.policy, c.request...)
			for range c.want {
				require.True(t, s.Take())
			}
			require.False(t, s.Take())
		})
	}
}

func TestBackOffGrowsUpToItsMost(t *testing.T) {
	for _, c := range []struct {
		policy string
		below  []time.Duration // in milliseconds
	}{
		{`{"retry_on": "5xx", "num_retries": 9}`, []time.Duration{25, 75, 175, 250, 250}},
		{`{"retry_on": "5xx", "num_retries": 9, "retry_back_off": {"base_interval": "0.0001s"}}`, []time.Duration{1, 3, 7, 10, 10}},
		{`{"retry_on": "5xx", "num_retries": 9, "retry_back_off": {"base_interval": "1s", "max_interval": "60s"}}`, []time.Duration{1000, 3000, 7000, 15000, 31000, 60000}},
	} {
		longest := make([]time.Duration, len(c.below))
		for range 300 {
			s := begin(t, c.policy)
			for i, below := range c.below {
				require.True(t, s.Take())
				d, limited := s.BackOff(nil)
				require.False(t, limited)
				require.Less(t, d, below*time.Millisecond)
				require.GreaterOrEqual(t, d, time.Duration(0))
				longest[i] = max(longest[i], d)
			}
		}
		for i, below := range c.below {
			require.Greater(t, longest[i], below*time.Millisecond*8/10, "the whole range is used")
		}
	}
}

func TestTheRuntimeHasTheBackOffOfPoliciesWithoutOne(t *testing.T) {
	for _, c := range []struct {
		values, policy string
		below          []time.Duration // in milliseconds
	}{
		{"{upstream.base_retry_backoff_ms: 100}", `{"retry_on": "5xx", "num_retries": 9}`, []time.Duration{100, 300, 700, 1000, 1000}},
		{"{upstream.base_retry_backoff_ms: 0}", `{"retry_on": "5xx", "num_retries": 9}`, []time.Duration{1, 3, 7, 10}},
		{"{upstream.base_retry_backoff_ms: 86400000}", `{"retry_on": "5xx", "num_retries": 9}`, []time.Duration{86_400_000, 259_200_000, 604_800_000, 864_000_000}},
		{"{upstream.base_retry_backoff_ms: 100}", `{"retry_on": "5xx", "num_retries": 9, "retry_back_off": {"base_interval": "0.001s"}}`, []time.Duration{1, 3, 7, 10}},
	} {
		longest := make([]time.Duration, len(c.below))
		values := runtimetest.Values(t, c.values)
		for range 300 {
			s := begin(t, c.policy)
			for i, below := range c.below {
				require.True(t, s.Take())
				d, _ := s.BackOff(values)
				require.Less(t, d, below*time.Millisecond, c.values)
				longest[i] = max(longest[i], d)
			}
		}
		for i, below := range c.below {
			require.Greater(t, longest[i], below*time.Millisecond*8/10, c.values)
		}
	}
}

func TestBackOffOfManyRetriesStaysBelowItsMost(t *testing.T) {
	s := begin(t, `{"retry_on": "5xx", "num_retries": 1000}`)
	for range 1000 {
		require.True(t, s.Take())
		d, _ := s.BackOff(nil)
		require.Less(t, d, 250*time.Millisecond)
	}
}

func TestBackOffHeedsRateLimits(t *testing.T) {
	const limited = `{"retry_on": "5xx", "num_retries": 2, "rate_limited_retry_back_off": {"max_interval": "100s", "reset_headers": [
		{"name": "Retry-After"}, {"name": "X-Reset", "format": "UNIX_TIMESTAMP"}]}}`
	for _, c := range []struct {
		name   string
		fields []string
		want   time.Duration // 0 is the usual one
	}{
		{"seconds", []string{"retry-after", "7"}, 7 * time.Second},
		{"a time", []string{"x-reset", "946684850"}, 50 * time.Second}, // fifty seconds after the bubble's midnight
		{"the first that can be", []string{"retry-after", "101", "x-reset", "946684850"}, 50 * time.Second},
		{"too long", []string{"retry-after", "101"}, 0},
		{"in the past", []string{"x-reset", "946684799"}, 0},
		{"malformed", []string{"retry-after", "soon"}, 0},
		{"more than there is", []string{"retry-after", "9223372036854775807", "x-reset", "-9223372036854775808"}, 0},
		{"nothing", nil, 0},
	} {
		t.Run(c.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				s := begin(t, limited)
				require.True(t, s.WantsAfter(response(503, c.fields...)))
				require.True(t, s.Take())
				d, byHeader := s.BackOff(nil)
				require.Equal(t, c.want > 0, byHeader)
				if c.want > 0 {
					require.GreaterOrEqual(t, d, c.want)
					require.LessOrEqual(t, d, c.want*3/2+1)
				}
				require.True(t, s.Take())
				_, byHeader = s.BackOff(nil)
				require.False(t, byHeader, "it was for one retry")
			})
		})
	}
}

func TestHostsAreOmitted(t *testing.T) {
	const predicates = `{"retry_on": "5xx", "host_selection_retry_max_attempts": 3, "retry_host_predicate": [%s]}`
	previous := `{"name": "a", "typed_config": {"@type": "type.googleapis.com/envoy.extensions.retry.host.previous_hosts.v3.PreviousHostsPredicate"}}`
	canaries := `{"name": "b", "typed_config": {"@type": "type.googleapis.com/envoy.extensions.retry.host.omit_canary_hosts.v3.OmitCanaryHostsPredicate"}}`
	labelled := `{"name": "c", "typed_config": {"@type": "type.googleapis.com/envoy.extensions.retry.host.omit_host_metadata.v3.OmitHostMetadataConfig",
		"metadata_match": {"filter_metadata": {"envoy.lb": {"stage": "old", "n": 1}}}}}`
	for _, c := range []struct {
		name, predicates, metadata string
		before, want               bool
	}{
		{"none", "", `{"canary": true}`, true, false},
		{"a host tried before", previous, `{}`, true, true},
		{"another host", previous, `{}`, false, false},
		{"a canary", canaries, `{"canary": true}`, false, true},
		{"no canary", canaries, `{"canary": false}`, true, false},
		{"all labels", labelled, `{"stage": "old", "n": 1, "m": 2}`, false, true},
		{"one of a list", labelled, `{"stage": ["new", "old"], "n": 1}`, false, true},
		{"one of two labels", labelled, `{"stage": "old"}`, false, false},
		{"any predicate", previous + "," + canaries + "," + labelled, `{"canary": true}`, false, true},
	} {
		t.Run(c.name, func(t *testing.T) {
			p := policy(t, strings.Replace(predicates, "%s", c.predicates, 1))
			require.Equal(t, 3, p.Hosts.Attempts)
			require.Equal(t, c.predicates != "", p.Hosts.Any())
			metadata := &corev3.Metadata{}
			require.NoError(t, protojson.Unmarshal([]byte(`{"filter_metadata": {"envoy.lb": `+c.metadata+`}}`), metadata))
			require.Equal(t, c.want, p.Hosts.Omit(metadata, c.before))
			require.Equal(t, c.want && c.before, p.Hosts.Omit(nil, c.before))
		})
	}
}

func TestFaultsOfAPolicyAreAllTold(t *testing.T) {
	_, err := parse(t, `{"retry_on": "5xx,nonsense", "per_try_timeout": "-1s", "host_selection_retry_max_attempts": -1,
		"retry_back_off": {"base_interval": "2s", "max_interval": "1s"}, "rate_limited_retry_back_off": {"reset_headers": [{"name": "a b"}]}, "retriable_headers": [{"name": "a", "string_match": {"safe_regex": {"regex": "("}}}],
		"retry_host_predicate": [{"name": "a"}, {"name": "b", "typed_config": {"@type": "type.googleapis.com/google.protobuf.Duration", "value": "1s"}},
			{"name": "c", "typed_config": {"@type": "type.googleapis.com/envoy.extensions.retry.host.omit_host_metadata.v3.OmitHostMetadataConfig"}}]}`)
	for _, want := range []string{
		`retry_policy.retry_on: "nonsense" is no condition known here`,
		`retry_policy.per_try_timeout: -1s is negative`,
		`retry_policy.host_selection_retry_max_attempts: -1 is negative`,
		`retry_policy.retry_back_off.max_interval: 1s is less than the base_interval of 2s`,
		`retry_policy.rate_limited_retry_back_off.reset_headers[0].name: "a b" is no name of a header`,
		`retry_policy.retriable_headers[0]`,
		`retry_policy.retry_host_predicate[0].typed_config: a predicate for hosts is needed`,
		`retry_policy.retry_host_predicate[1].typed_config: a predicate for hosts is needed`,
		`retry_policy.retry_host_predicate[2].typed_config.metadata_match: has no field of envoy.lb`,
	} {
		require.ErrorContains(t, err, want)
	}
}

func TestTimeoutsOfATry(t *testing.T) {
	p := policy(t, `{"per_try_timeout": "2s", "per_try_idle_timeout": "1s"}`)
	require.Equal(t, 2*time.Second, p.PerTryTimeout)
	require.Equal(t, time.Second, p.PerTryIdleTimeout)
	require.Nil(t, retry.Parse(nil, "", nil))
	s := &retry.State{}
	s.Begin(p, request(), true)
	require.False(t, s.Enabled(), "there is no condition")
}

func TestStoppedStateRetriesNothing(t *testing.T) {
	s := begin(t, `{"retry_on": "5xx"}`)
	require.True(t, s.Enabled())
	s.Stop()
	require.False(t, s.Enabled())
	require.False(t, s.WantsAfter(response(500)))
	require.False(t, s.WantsAfterReset(retry.Broken, false))
}

func TestNamesOfConditionsAreChecked(t *testing.T) {
	require.True(t, retry.CheckHTTP("5xx, reset"))
	require.False(t, retry.CheckHTTP("5xx,unavailable"))
	require.True(t, retry.CheckGRPC("unavailable"))
	require.False(t, retry.CheckGRPC("unavailable,5xx"))
}

func TestRequestWithoutRetriesCostsNothing(t *testing.T) {
	var s retry.State
	p := policy(t, `{"retry_on": "5xx", "num_retries": 3}`)
	r, ok := request("a", "b", "content-type", "text/plain"), response(200)
	servicetest.Allocations(t, 0, func() {
		s.Begin(p, r, false)
		if s.WantsAfter(ok) {
			t.Fatal("200 is retried")
		}
	})
}

func FuzzHeaders(f *testing.F) {
	f.Add("5xx,reset", "unavailable", "3", "404, 503", "x-a,X-B", "17")
	f.Add(",,", "", "99999999999999999999", "-1", " ", "-9223372036854775808")
	p, _ := parse(f, `{"num_retries": 2, "rate_limited_retry_back_off": {"reset_headers": [{"name": "x-reset"}, {"name": "x-reset", "format": "UNIX_TIMESTAMP"}]}}`)
	f.Fuzz(func(t *testing.T, on, grpc, most, codes, names, reset string) {
		var s retry.State
		s.Begin(p, request("x-envoy-retry-on", on, "x-envoy-retry-grpc-on", grpc, "x-envoy-max-retries", most,
			"x-envoy-retriable-status-codes", codes, "x-envoy-retriable-header-names", names), true)
		for range 40 {
			if !s.WantsAfter(response(503, "x-reset", reset)) || !s.Take() {
				return
			}
			if d, _ := s.BackOff(nil); d < 0 || d > math.MaxInt64/2 {
				t.Fatalf("a wait of %v", d)
			}
		}
	})
}
