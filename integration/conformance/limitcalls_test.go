package conformance

import (
	"cmp"
	"encoding/binary"
	"fmt"
	"io"
	"net"
	"net/http"
	"regexp"
	"slices"
	"strings"
	"testing"

	rlspb "github.com/envoyproxy/go-control-plane/envoy/service/ratelimit/v3"
	"github.com/stretchr/testify/require"
	"google.golang.org/protobuf/proto"

	"github.com/weirproxy/weir/integration/harness"
)

// startScripted serves rate-limit calls over plain HTTP/2, and heeds no grpc-timeout. What it
// answers is the value of the first entry.
func startScripted(t *testing.T) (address string) {
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	server := &http.Server{Protocols: &http.Protocols{}, Handler: http.HandlerFunc(answerScripted)}
	server.Protocols.SetUnencryptedHTTP2(true)
	served := make(chan error, 1)
	go func() { served <- server.Serve(listener) }() // ends with Close, below
	t.Cleanup(func() {
		require.NoError(t, server.Close())
		require.ErrorIs(t, <-served, http.ErrServerClosed)
	})
	return listener.Addr().String()
}

func answerScripted(w http.ResponseWriter, r *http.Request) {
	body, err := io.ReadAll(r.Body)
	request := &rlspb.RateLimitRequest{}
	if err != nil || len(body) < 5 || proto.Unmarshal(body[5:], request) != nil {
		http.Error(w, "this is no call", http.StatusBadRequest)
		return
	}
	h := w.Header()
	h.Set("content-type", "application/grpc")
	switch script := request.GetDescriptors()[0].GetEntries()[0].GetValue(); script {
	case "html":
		http.Error(w, "later", http.StatusServiceUnavailable)
		_ = http.NewResponseController(w).Flush()
		<-r.Context().Done() // until the rest is not wanted
	case "reset":
		panic(http.ErrAbortHandler)
	case "silence":
		<-r.Context().Done()
	case "refusal":
		h.Set("grpc-status", "14")
	case "late-refusal":
		_ = http.NewResponseController(w).Flush()
		h.Set(http.TrailerPrefix+"grpc-status", "13")
	default:
		answer := &rlspb.RateLimitResponse{OverallCode: rlspb.RateLimitResponse_OK}
		if script == "over" {
			answer.OverallCode = rlspb.RateLimitResponse_OVER_LIMIT
		}
		text, _ := proto.Marshal(answer) // which takes every message
		_, _ = w.Write(append(binary.BigEndian.AppendUint32([]byte{0}, uint32(len(text))), text...))
		h.Set(http.TrailerPrefix+"grpc-status", "0")
	}
}

// limitCallers are the clusters that are asked, each by a filter of a stage of its own, with
// further fields of the cluster and of its envoy_grpc. The timeout of one lets its connection
// come to be, and the others' is to be met by no call.
var limitCallers = []struct{ name, cluster, grpc, timeout string }{
	{name: "asked"},
	{name: "late", timeout: "2s"},
	{name: "away"}, // nobody serves there
	{name: "full", cluster: `circuit_breakers: {thresholds: [{max_requests: 0}]}`},
	{name: "pending", cluster: `circuit_breakers: {thresholds: [{max_pending_requests: 0}]}`},
	{name: "plain", grpc: `, skip_envoy_headers: true`},
	{name: "ejected", cluster: "outlier_detection: {consecutive_5xx: 2, always_eject_one_host: true, interval: 600s}\ncommon_lb_config: {healthy_panic_threshold: {value: 0}}"},
}

func limitCallsBootstrap(rls, backend string) string {
	clusters := []string{cluster("backend", backend)}
	var hosts, filters strings.Builder
	for stage, c := range limitCallers {
		address, timeout := rls, cmp.Or(c.timeout, "60s")
		if c.name == "away" {
			address = "127.0.0.1:1"
		}
		clusters = append(clusters, cluster(c.name, address, overHTTP2, c.cluster))
		fmt.Fprintf(&hosts, `
  - {name: %[1]s, domains: [%[1]s], routes: [{match: {prefix: /}, route: {cluster: backend, rate_limits: [{stage: %[2]d, actions: [{request_headers: {header_name: x-script, descriptor_key: script}}]}]}}]}`,
			c.name, stage)
		filters.WriteString(filter(c.name, "ratelimit.v3.RateLimit", "domain: edge", fmt.Sprintf("stage: %d, timeout: %s", stage, timeout), limiter(c.name+c.grpc)))
	}
	return bootstrap{
		listeners: []listener{{
			manager: "route_config:\n  virtual_hosts:" + hosts.String(),
			filters: filters.String(),
		}},
		clusters: clusters,
	}.String()
}

// ofLimitCalls are the counters of calls and of their connections that are not 0.
var ofLimitCalls = regexp.MustCompile(`^cluster\.(asked|late|away|full|pending|plain|ejected)\.(((in|ex)ternal\.)?upstream_(rq|cx)_\w+|http2\.[rt]x_reset|outlier_detection\.\w+): [1-9]\d*$`)

// notAlike are those of bytes, since the headers of calls differ, and those of the
// connections of an ejected host, which Envoy closes.
var notAlike = regexp.MustCompile(`_bytes_|ejected\.upstream_cx_(active|destroy)`)

// limitCallCounters are the counters of a proxy.
func limitCallCounters(t *testing.T, admin string) string {
	t.Helper()
	response, err := http.Get("http://" + admin + "/stats")
	require.NoError(t, err)
	defer response.Body.Close()
	text, err := io.ReadAll(response.Body)
	require.NoError(t, err)
	return strings.Join(slices.DeleteFunc(strings.Split(string(text), "\n"), func(line string) bool {
		return !ofLimitCalls.MatchString(line) || notAlike.MatchString(line)
	}), "\n")
}

func TestOurProxyCountsItsCallsOfARateLimitServiceAsARealEnvoyDoes(t *testing.T) {
	envoy, ours := bothBefore(t, func(backend string) string { return limitCallsBootstrap(startScripted(t), backend) })
	for _, c := range []struct{ host, scripts string }{
		{"asked", "ok ok over refusal late-refusal html reset ok"},
		{"late", "silence"},
		{"away", "ok ok"},
		{"full", "ok ok"},
		{"pending", "ok ok"},
		{"plain", "ok over"},
		{"ejected", "ok refusal refusal ok"},
	} {
		for script := range strings.FieldsSeq(c.scripts) {
			text := "GET / HTTP/1.1\r\nHost: " + c.host + "\r\nx-script: " + script + "\r\n\r\n"
			want, _ := harness.SendRaw(t, envoy.Addr("ingress"), text)
			got, _ := harness.SendRaw(t, ours.Addr("ingress"), text)
			require.Equal(t, want.Status, got.Status, "%s of %s", script, c.host)
		}
	}
	var want, got string
	alike := awaited(func() bool { // the end of a call may be counted behind its answer
		want, got = limitCallCounters(t, envoy.Addr("admin")), limitCallCounters(t, ours.Addr("admin"))
		return want == got
	})
	require.True(t, alike, "Envoy has\n%s\nours\n%s", want, got)
}
