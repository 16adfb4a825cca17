package conformance

import (
	"bufio"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/weirproxy/weir/integration/harness"
	"github.com/weirproxy/weir/internal/servicetest"
)

// retried are requests to the routes of testdata/retries.yaml: the path, what the
// backend does with one attempt after the other, the last for all further ones,
// and header fields, or a body behind an empty one.
var retried = [][]string{
	// Each condition on each answer.
	{"/5xx", "200"}, {"/5xx", "503 200"}, {"/5xx", "500 501 200"}, {"/5xx", "500"}, {"/5xx", "404"}, {"/5xx", "close 200"}, {"/5xx", "close"}, {"/5xx", "garbage 200"}, {"/5xx", "garbage"},
	{"/gateway", "502 503 200"}, {"/gateway", "504 500"}, {"/gateway", "505"}, {"/gateway", "close 200"},
	{"/4xx", "409 200"}, {"/4xx", "409"}, {"/4xx", "404"}, {"/4xx", "close"},
	{"/reset", "close 200"}, {"/reset", "close"}, {"/reset", "503"}, {"/reset", "garbage 200"},
	{"/unsent", "close"}, {"/unsent", "503"}, {"/refused", "close"}, {"/refused", "503"},
	{"/limited", "limited 200"}, {"/limited", "limited"}, {"/limited", "503"}, {"/5xx", "limited503"},
	{"/codes", "404 418 200"}, {"/codes", "503"}, {"/codes", "418"},
	{"/headers", "again 200"}, {"/headers", "again"}, {"/headers", "503"},
	{"/grpc", "grpc14 grpc1 200"}, {"/grpc", "grpc13"}, {"/grpc", "grpc4"}, {"/grpc", "503"},
	{"/gate", "503 200"}, {"/gate", "503 200", "X-May: 1"},

	// Policies and headers.
	{"/host", "409 200"}, {"/host", "503"}, {"/", "503"}, {"/", "409"},
	{"/", "503 200", "X-Envoy-Retry-On: 5xx"}, {"/", "503 503 503 200", "X-Envoy-Retry-On: 5xx", "X-Envoy-Max-Retries: 2"},
	{"/", "grpc14 200", "X-Envoy-Retry-Grpc-On: unavailable"}, {"/", "404 200", "X-Envoy-Retry-On: retriable-status-codes", "X-Envoy-Retriable-Status-Codes: 403, 404"},
	{"/", "again 200", "X-Envoy-Retry-On: retriable-headers", "X-Envoy-Retriable-Header-Names: X-Other,X-Again"}, {"/5xx", "503", "X-Envoy-Max-Retries: 0"},
	{"/", "409 503 200", "X-Envoy-Retry-On: retriable-4xx,gateway-error"}, {"/", "200", "X-Envoy-Retry-On: nonsense"}, {"/", "200", "X-Envoy-Max-Retries: some"},
	{"/", "200", "X-Envoy-Upstream-Rq-Timeout-Ms: 1s"},

	// Times.
	{"/try", "hang 200"}, {"/try", "hang"}, {"/idle", "hang 200"}, {"/idle", "hang"}, {"/whole", "503 hang"}, {"/whole", "hang"},
	{"/", "hang", "X-Envoy-Upstream-Rq-Timeout-Ms: 1000"}, {"/", "hang", "X-Envoy-Upstream-Rq-Per-Try-Timeout-Ms: 1000"},
	{"/", "hang", "X-Envoy-Upstream-Rq-Timeout-Ms: 1000", "X-Envoy-Upstream-Rq-Timeout-Alt-Response: 1"},
	{"/5xx", "hang 200", "X-Envoy-Upstream-Rq-Per-Try-Timeout-Ms: 1000"},

	{"/duration/capped", "200", "Grpc-Timeout: 30S", "Content-Type: application/grpc"}, {"/duration/capped", "200", "Grpc-Timeout: 10S", "Content-Type: application/grpc"},
	{"/duration/capped", "503 200", "Grpc-Timeout: 30S", "Content-Type: application/grpc"}, {"/duration/capped", "200", "Grpc-Timeout: 30S"},
	{"/duration/less", "200", "Grpc-Timeout: 30S", "Content-Type: application/grpc"}, {"/duration/less", "200", "Grpc-Timeout: 18S", "Content-Type: application/grpc"},
	{"/duration/as", "200", "Grpc-Timeout: 30S", "Content-Type: application/grpc"}, {"/duration/as", "200", "Grpc-Timeout: what", "Content-Type: application/grpc"},
	{"/duration/as", "200", "Content-Type: application/grpc"},
	{"/duration", "503 hang"}, {"/duration/long", "200", "Grpc-Timeout: 30S", "Content-Type: application/grpc"},
	{"/duration/long", "200", "Grpc-Timeout: 10S", "Content-Type: application/grpc"},
	{"/duration/long", "200", "Content-Type: application/grpc"}, {"/5xx", "200", "Grpc-Timeout: 10S", "Content-Type: application/grpc"},

	// Clusters that take none.
	{"/dead", ""}, {"/dead/connect", ""}, {"/dead/unsent", ""}, {"/dead/gateway", ""}, {"/dead/grpc", ""}, {"/few", "503"}, {"/full", ""}, {"/patient", ""}, {"/empty", ""},

	// Bodies.
	{"/5xx", "503 close 200", "", strings.Repeat("a", 1000)}, {"/5xx", "503", "", strings.Repeat("a", 1001)}, {"/", "503", "", strings.Repeat("a", 1001)},
	{"/gateway", "503 502 200", "", strings.Repeat("a", 2000)}, {"/gateway", "503", "", strings.Repeat("a", 2001)},
}

// retryCounters are compared once all requests were made.
var retryCounters = []string{
	"upstream_rq_retry", "upstream_rq_retry_success", "upstream_rq_retry_overflow", "upstream_rq_retry_limit_exceeded", "upstream_rq_retry_backoff_exponential",
	"upstream_rq_retry_backoff_ratelimited", "upstream_rq_per_try_timeout", "upstream_rq_per_try_idle_timeout", "upstream_rq_timeout", "retry_or_shadow_abandoned",
	"upstream_rq_total", "upstream_rq_completed", "upstream_rq_5xx", "upstream_rq_503", "retry.upstream_rq_503", "retry.upstream_rq_5xx", "retry.upstream_rq_completed",
	"upstream_cx_none_healthy", "upstream_cx_connect_fail", "upstream_rq_pending_total", "upstream_rq_pending_overflow", "upstream_rq_pending_failure_eject",
	"circuit_breakers.default.remaining_pending", "circuit_breakers.default.remaining_cx", "circuit_breakers.default.remaining_rq", "circuit_breakers.default.remaining_retries",
}

func TestOurProxyAndARealEnvoyRetryAlike(t *testing.T) {
	text, err := os.ReadFile("testdata/retries.yaml")
	require.NoError(t, err)
	_, dead, err := net.SplitHostPort(servicetest.FreeAddress(t))
	require.NoError(t, err)
	before := func(up *flaky) string { // the bootstrap of a proxy before a backend
		_, port, err := net.SplitHostPort(up.address)
		require.NoError(t, err)
		return strings.NewReplacer("port_value: PORT", "port_value: "+port, "port_value: DEAD", "port_value: "+dead).Replace(string(text))
	}
	theirs, our := newFlaky(t), newFlaky(t)
	envoy, ours := harness.Envoy(t, before(theirs)), harness.Proxy(t, before(our))
	for _, r := range retried {
		t.Run(strings.Join(r[:min(len(r), 3)], " "), func(t *testing.T) {
			want := make(chan string, 1)
			// Both at once, since some take their time. Ends with the request, which
			// fails the test if there is no answer; received from below.
			go func() {
				defer close(want)
				want <- theirs.ask(t, envoy.Addr("ingress"), r)
			}()
			got := our.ask(t, ours.Addr("ingress"), r)
			require.Equal(t, <-want, got)
		})
	}
	for _, cluster := range []string{"up", "few", "full", "impatient", "dead", "empty"} {
		var want, got string
		// A proxy may still count when its answer is there.
		settled := awaited(func() bool {
			want, got = clusterCounters(t, envoy.Addr("admin"), cluster), clusterCounters(t, ours.Addr("admin"), cluster)
			return want == got
		})
		require.True(t, settled, "the counters of cluster %s: want\n%s\nhave\n%s", cluster, want, got)
	}
}

// clusterCounters are the retryCounters of a cluster, those that are not 0, as text.
func clusterCounters(t *testing.T, admin, cluster string) string {
	response, err := http.Get("http://" + admin + "/stats")
	require.NoError(t, err)
	defer response.Body.Close()
	all, err := io.ReadAll(response.Body)
	require.NoError(t, err)
	values := map[string]string{}
	for line := range strings.Lines(string(all)) {
		if name, value, ok := strings.Cut(strings.TrimSpace(line), ": "); ok {
			values[name] = value
		}
	}
	var b strings.Builder
	for _, name := range retryCounters {
		if value := values["cluster."+cluster+"."+name]; value != "" && value != "0" {
			fmt.Fprintf(&b, "%s: %s\n", name, value)
		}
	}
	return b.String()
}

// flaky is a backend that does with each attempt of a request what the request
// says in x-script, a word for each. It never uses a connection twice.
type flaky struct {
	address string

	mu       sync.Mutex
	requests int                 // so far: the present one's number
	attempts map[string][]string // what there is to tell of each, by the number of its request
}

func newFlaky(t *testing.T) *flaky {
	f := &flaky{attempts: map[string][]string{}}
	f.address = servicetest.Accept(t, f.serve)
	return f
}

func (f *flaky) serve(conn net.Conn) {
	r := bufio.NewReader(conn)
	request, err := http.ReadRequest(r)
	if err != nil {
		return
	}
	body, err := io.ReadAll(request.Body)
	if err != nil {
		return
	}
	f.mu.Lock()
	script, number := strings.Fields(request.Header.Get("X-Script")), request.Header.Get("X-Number")
	action := script[min(len(f.attempts[number]), len(script)-1)]
	attempt := fmt.Sprintf("%s: %d bytes", action, len(body))
	for _, name := range []string{"x-envoy-attempt-count", "x-envoy-is-timeout-retry", "x-envoy-retry-on", "x-envoy-max-retries", "x-envoy-upstream-rq-timeout-ms", "grpc-timeout"} {
		if value := request.Header.Get(name); value != "" {
			attempt += fmt.Sprintf(", %s %s", name, value)
		}
	}
	attempt += fmt.Sprintf(", with an expected time: %v", request.Header.Get("x-envoy-expected-rq-timeout-ms") != "")
	f.attempts[number] = append(f.attempts[number], attempt)
	f.mu.Unlock()

	status, fields := action, ""
	switch action {
	case "close":
		return
	case "hang":
		_, _ = io.Copy(io.Discard, r)
		return
	case "garbage":
		_, _ = io.WriteString(conn, "what?\r\n\r\n")
		return
	case "limited":
		status, fields = "429", "X-Envoy-Ratelimited: true\r\n"
	case "limited503":
		status, fields = "503", "X-Envoy-Ratelimited: true\r\n"
	case "again":
		status, fields = "200", "X-Again: yes\r\n"
	case "grpc1", "grpc4", "grpc13", "grpc14":
		status, fields = "200", "Grpc-Status: "+strings.TrimPrefix(action, "grpc")+"\r\n"
	}
	_, _ = fmt.Fprintf(conn, "HTTP/1.1 %s Said\r\nConnection: close\r\n%sContent-Length: 3\r\n\r\n%s", status, fields, status)
}

// ask sends a request, and says what the client got and what the backend saw.
func (f *flaky) ask(t *testing.T, address string, r []string) string {
	f.mu.Lock()
	f.requests++
	number := strconv.Itoa(f.requests)
	f.mu.Unlock()
	text := fmt.Sprintf(" %s HTTP/1.1\r\nHost: mill\r\nX-Script: %s\r\nX-Number: %s\r\n", r[0], r[1], number)
	fields, body := r[2:], ""
	if len(fields) == 2 && fields[0] == "" {
		body, fields = fields[1], nil
	}
	for _, field := range fields {
		text += field + "\r\n"
	}
	if body == "" {
		text = "GET" + text + "\r\n"
	} else {
		text = "POST" + text + fmt.Sprintf("Content-Length: %d\r\n\r\n%s", len(body), body)
	}
	answer, closed := harness.SendRaw(t, address, text)
	// Envoy tells flags in the order in which they were set, ours always in one.
	flags := strings.Split(answer.Header.Get("X-Flags"), ",")
	slices.Sort(flags)
	answer.Header.Set("X-Flags", strings.Join(flags, ","))
	// Envoy closes the connection of a request whose headers make no sense, though
	// it is well-formed; ours keeps it.
	got := show(answer, closed && answer.Status != 400)
	// A proxy that gives up an attempt may do so before the backend has read it.
	made, _ := strconv.Atoi(answer.Header.Get("X-Envoy-Attempt-Count")) // 0 if it does not say
	var attempts []string
	awaited(func() bool {
		f.mu.Lock()
		defer f.mu.Unlock()
		attempts = slices.Clone(f.attempts[number])
		return r[1] == "" || len(attempts) >= made
	})
	return got + "\n" + strings.Join(attempts, "\n")
}
