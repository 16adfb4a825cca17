package tracing_test

import (
	"strings"
	"testing"

	routev3 "github.com/envoyproxy/go-control-plane/envoy/config/route/v3"
	hcmv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/network/http_connection_manager/v3"
	"github.com/stretchr/testify/require"
	"google.golang.org/protobuf/encoding/protojson"

	"github.com/weirproxy/weir/internal/servicetest"
	"github.com/weirproxy/weir/services/proxy/internal/layeredruntime/runtimetest"
	"github.com/weirproxy/weir/services/proxy/internal/message"
	"github.com/weirproxy/weir/services/proxy/internal/requestid"
	"github.com/weirproxy/weir/services/proxy/internal/tracing"
)

func TestMain(m *testing.M) { servicetest.Main(m) }

// sampling reads a message of JSON: of a route if its shares have numerators.
func sampling(t *testing.T, text string) *tracing.Sampling {
	t.Helper()
	if strings.Contains(text, "numerator") {
		var m routev3.Tracing
		require.NoError(t, protojson.Unmarshal([]byte(text), &m))
		return tracing.ParseRoute(&m)
	}
	var m hcmv3.HttpConnectionManager_Tracing
	require.NoError(t, protojson.Unmarshal([]byte(text), &m))
	return tracing.Parse(&m)
}

func TestARequestIsTracedForAReason(t *testing.T) {
	const force, client = "x-envoy-force-trace", "x-client-trace-id"
	const random0 = `{"random_sampling": {"value": 0}}`
	id := func(number, version string) string { return number + "-1111-" + version + "111-8111-111111111111" }
	first := func(version string) string { return id("00000000", version) }
	for _, c := range []struct {
		name, sampling, runtime, id, header string
		want                                requestid.TraceReason
		marked                              string // the id afterwards
	}{
		{"all are, unless less is said", `{}`, "{}", first("4"), "", requestid.Sampled, first("9")},
		{"none of a share of 0", random0, "{}", first("4"), "", requestid.NotTraced, first("4")},
		{"a service wants it", random0, "{}", first("4"), force, requestid.ByService, first("a")},
		{"a client wants it", random0, "{}", first("4"), client, requestid.ByClient, first("b")},
		{"no client may", `{"random_sampling": {"value": 0}, "client_sampling": {"value": 0}}`, "{}", first("4"), client, requestid.NotTraced, first("4")},
		{"an id says so", random0, "{}", first("a"), "", requestid.ByService, first("a")},
		{"an id says it first", random0, "{}", first("9"), force, requestid.Sampled, first("9")},
		{"nothing is after all", `{"overall_sampling": {"value": 0}}`, "{}", first("a"), force, requestid.NotTraced, first("4")},
		{"an id that is marked otherwise", `{"overall_sampling": {"value": 0}}`, "{}", first("7"), "", requestid.NotTraced, first("4")},
		{"a number below the share", `{"random_sampling": {"value": 49.999}}`, "{}", id("00001386", "4"), "", requestid.Sampled, id("00001386", "9")},
		{"a number at it", `{"random_sampling": {"value": 49.999}}`, "{}", id("00001387", "4"), "", requestid.NotTraced, id("00001387", "4")},
		{"an id without a number", `{}`, "{}", id("zzzzzzzz", "4"), force, requestid.NotTraced, id("zzzzzzzz", "4")},
		{"an id that is no UUID", random0, "{}", "00000000xyz", force, requestid.ByService, "00000000xyz"},
		{"the runtime's share", random0, "{tracing.random_sampling: 50}", id("00000031", "4"), "", requestid.Sampled, id("00000031", "9")},
		{"beyond the runtime's share", `{}`, "{tracing.random_sampling: 50}", id("00000032", "4"), "", requestid.NotTraced, id("00000032", "4")},
		{"the runtime turns it off", `{}`, "{tracing.global_enabled: 0}", first("4"), force, requestid.NotTraced, first("4")},
		{"the runtime lets no client", random0, "{tracing.client_enabled: 0}", first("4"), client, requestid.NotTraced, first("4")},
		{"a route's share", `{"random_sampling": {"numerator": 100, "denominator": "MILLION"}}`, "{}", id("00000064", "4"), "", requestid.NotTraced, id("00000064", "4")},
		{"within a route's share", `{"random_sampling": {"numerator": 101, "denominator": "MILLION"}}`, "{}", id("00000064", "4"), "", requestid.Sampled, id("00000064", "9")},
	} {
		t.Run(c.name, func(t *testing.T) {
			h := &message.Headers{}
			h.Add("x-request-id", c.id)
			if c.header != "" {
				h.Add(c.header, "")
			}
			require.Equal(t, string(c.want), string(sampling(t, c.sampling).Decide(h, true, runtimetest.Values(t, c.runtime))))
			marked, _ := h.Get("x-request-id")
			require.Equal(t, c.marked, string(marked))
		})
	}
}

func TestWhereIDsAreNotMarkedTheirMarksSayNothing(t *testing.T) {
	s := sampling(t, `{"random_sampling": {"value": 0}}`)
	h := &message.Headers{}
	h.Add("x-request-id", "00000000-1111-9111-8111-111111111111")
	require.Equal(t, requestid.NotTraced, s.Decide(h, false, nil))
	h.Add("x-envoy-force-trace", "1")
	require.Equal(t, requestid.ByService, s.Decide(h, false, nil))
	id, _ := h.Get("x-request-id")
	require.Equal(t, "00000000-1111-9111-8111-111111111111", string(id))
}

func TestARequestWithoutAnIDIsNotTraced(t *testing.T) {
	h := &message.Headers{}
	h.Add("x-envoy-force-trace", "1")
	require.Equal(t, requestid.NotTraced, sampling(t, `{}`).Decide(h, true, nil))
}

func TestWhatSaysNothingSamplesNothing(t *testing.T) {
	require.Nil(t, tracing.Parse(nil))
	require.Nil(t, tracing.ParseRoute(nil))
}
