package e2e

import (
	"net/http"
	"net/url"
	"testing"

	"github.com/stretchr/testify/require"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/status"

	commonpb "github.com/envoyproxy/go-control-plane/envoy/extensions/common/ratelimit/v3"
	rlspb "github.com/envoyproxy/go-control-plane/envoy/service/ratelimit/v3"

	"github.com/weirproxy/weir/integration/harness"
)

func TestAMalformedRegistrationIsRefusedAndNoHostIsLost(t *testing.T) {
	s := harness.NewStack(t, harness.Options{})
	s.AddHost("one")
	load := s.StartLoad()
	target := "http://" + s.Discovery.Addr("http") + "/v1/registration/echo"
	form := func(change ...string) string {
		values := url.Values{
			"ip": {"127.0.0.1"}, "port": {"9"}, "revision": {"1"},
			"tags": {`{"az":"here","region":"here","instance_id":"bad"}`},
		}
		values.Set(change[0], change[1])
		return values.Encode()
	}
	client := harness.Client(t)
	for name, c := range map[string]struct{ body, says string }{
		"no_form":                 {"%zz", "read the form"},
		"nothing":                 {"", "ip: missing; port: missing; revision: missing"},
		"an_ip_that_is_none":      {form("ip", "10.0.0.300"), `ip: \"10.0.0.300\" is not an IPv4 or IPv6 address`},
		"a_port_that_is_none":     {form("port", "70000"), `port: \"70000\" is not an integer from 1 to 65535`},
		"tags_that_are_no_JSON":   {form("tags", "{az"), "tags: not a JSON object"},
		"tags_without_a_zone":     {form("tags", `{"region":"r","instance_id":"i"}`), "tags.az: missing"},
		"a_tag_of_the_wrong_type": {form("tags", `{"az":1,"region":"r","instance_id":"i"}`), "tags.az: 1 is not a string"},
		"a_ttl_of_nothing":        {form("ttl", "0"), `ttl: \"0\" is not an integer from 1 to 3600`},
	} {
		t.Run(name, func(t *testing.T) {
			answer, err := harness.Send(client, harness.Request{
				Method: http.MethodPost, URL: target, Body: c.body,
				Header: http.Header{"Content-Type": {"application/x-www-form-urlencoded"}},
			})
			require.NoError(t, err)
			require.Equal(t, http.StatusBadRequest, answer.Status)
			require.Contains(t, answer.Body, `{"error":"`)
			require.Contains(t, answer.Body, c.says)
		})
	}
	load.Await(50)
	report := load.Stop()
	require.Empty(t, report.Failures)
	require.Len(t, report.Instances, 1)
}

func TestAMalformedLimitRequestIsRefusedAndLimitsGoOn(t *testing.T) {
	s := harness.NewStack(t, harness.Options{Rules: minuteRules})
	s.AddHost("one")
	connection, err := grpc.NewClient(s.Ratelimit.Addr("grpc"), grpc.WithTransportCredentials(insecure.NewCredentials()))
	require.NoError(t, err)
	defer connection.Close()
	limits := rlspb.NewRateLimitServiceClient(connection)
	descriptors := []*commonpb.RateLimitDescriptor{{Entries: []*commonpb.RateLimitDescriptor_Entry{{Key: "user", Value: "ann"}}}}
	client := harness.Client(t)
	for name, c := range map[string]struct {
		request    *rlspb.RateLimitRequest
		json, says string
	}{
		"no_domain":      {&rlspb.RateLimitRequest{Descriptors: descriptors}, `{"descriptors":[{"entries":[{"key":"user","value":"ann"}]}]}`, "domain: empty"},
		"no_descriptors": {&rlspb.RateLimitRequest{Domain: "demo"}, `{"domain":"demo"}`, "descriptors: empty"},
	} {
		t.Run(name, func(t *testing.T) {
			_, err := limits.ShouldRateLimit(t.Context(), c.request)
			require.Equal(t, codes.InvalidArgument, status.Code(err))
			require.Equal(t, c.says, status.Convert(err).Message())
			answer, err := harness.Send(client, harness.Request{Method: http.MethodPost, URL: "http://" + s.Ratelimit.Addr("http") + "/json", Body: c.json})
			require.NoError(t, err)
			require.Equal(t, http.StatusBadRequest, answer.Status)
			require.Equal(t, c.says+"\n", answer.Body)
		})
	}
	answer, err := harness.Send(client, harness.Request{Method: http.MethodPost, URL: "http://" + s.Ratelimit.Addr("http") + "/json", Body: `{"domain":`})
	require.NoError(t, err)
	require.Equal(t, http.StatusBadRequest, answer.Status)
	require.Contains(t, answer.Body, "read the request as JSON")
	requireFiveThen429(t, "ben", s)
}

func TestMalformedHTTPIsRefusedAndTheProxyServesOn(t *testing.T) {
	s := harness.NewStack(t, harness.Options{})
	s.AddHost("one")
	load := s.StartLoad()
	for name, c := range map[string]struct {
		text   string
		status int
	}{
		"a_request_line_without_a_version": {"GET /\r\n\r\n", 426},
		"a_method_that_is_none":            {"G@T / HTTP/1.1\r\nHost: a\r\n\r\n", 400},
		"a_version_that_is_none":           {"GET / HTTP/1.x\r\nHost: a\r\n\r\n", 400},
		"no_host":                          {"GET / HTTP/1.1\r\n\r\n", 400},
		"a_header_without_a_colon":         {"GET / HTTP/1.1\r\nHost: a\r\nnonsense\r\n\r\n", 400},
		"a_header_with_space_in_its_name":  {"GET / HTTP/1.1\r\nHost: a\r\nx y: z\r\n\r\n", 400},
		"a_length_that_is_none":            {"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 1x\r\n\r\n", 400},
		"two_lengths":                      {"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\nab", 400},
		"a_length_and_chunks":              {"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", 400},
		"a_chunk_size_that_is_none":        {"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\nabc\r\n0\r\n\r\n", 400},
		"a_chunk_longer_than_it_says":      {"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n1\r\nabc\r\n0\r\n\r\n", 400},
	} {
		t.Run(name, func(t *testing.T) {
			answer, closed := harness.SendRaw(t, s.Ingress(), c.text)
			require.Equal(t, c.status, answer.Status)
			require.NotEmpty(t, answer.Body, "it says what is wrong")
			require.True(t, closed, "what follows cannot be trusted")
		})
	}
	load.Await(50)
	require.Empty(t, load.Stop().Failures)
}
