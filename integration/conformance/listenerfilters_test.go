package conformance

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/weirproxy/weir/integration/harness"
)

// inspectedListener is a listener with a listener filter, settings and chains in YAML. The
// stat_prefix of a chain is that of the listener and its own name.
func inspectedListener(name, filter, settings string, chains ...string) string {
	return fmt.Sprintf(`
  - name: %[1]s
    stat_prefix: %[1]s
    address: {socket_address: {address: 127.0.0.1, port_value: 0}}
    listener_filters:
    - %[2]s
    %[3]s
    filter_chains:%[4]s`, name, filter, settings, strings.ReplaceAll(strings.Join(chains, ""), "LISTENER", name))
}

// sayingChain is a filter chain that answers every request by its name.
func sayingChain(name, match string) string {
	return fmt.Sprintf(`
    - name: %[1]s
      filter_chain_match: {%[2]s}
      filters:
      - name: http
        typed_config:
          "@type": type.googleapis.com/envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager
          stat_prefix: LISTENER.%[1]s
          http_protocol_options: {accept_http_10: true}
          route_config: {virtual_hosts: [{name: all, domains: ["*"], routes: [{match: {prefix: /}, direct_response: {status: 200, body: {inline_string: %[1]s}}}]}]}
          http_filters: [{name: router, typed_config: {"@type": type.googleapis.com/envoy.extensions.filters.http.router.v3.Router}}]`, name, match)
}

// listenerFiltersBootstrap has listeners that differ in what listener filters do: one
// with time for them, one without a chain for what they do not find, two without time, of
// which one goes on, one that is disabled and one that lets two connections in.
func listenerFiltersBootstrap() string {
	const (
		inspector = `{name: inspector, typed_config: {"@type": type.googleapis.com/envoy.extensions.filters.listener.http_inspector.v3.HttpInspector}%s}`
		limit     = `{name: limit, typed_config: {"@type": type.googleapis.com/envoy.extensions.filters.listener.local_ratelimit.v3.LocalRateLimit, stat_prefix: door, token_bucket: {max_tokens: 2, fill_interval: 3600s}}}`
		short     = "listener_filters_timeout: 0.2s"
	)
	looks := fmt.Sprintf(inspector, "")
	known := sayingChain("ten", `application_protocols: ["http/1.0"]`) + sayingChain("eleven", `application_protocols: ["http/1.1"]`) + sayingChain("two", "application_protocols: [h2c]")
	other := sayingChain("other", "")
	return `
node: {id: mill, cluster: edge}
admin: {address: {socket_address: {address: 127.0.0.1, port_value: 0}}}
static_resources:
  listeners:` + strings.Join([]string{
		inspectedListener("patient", looks, "", known, other),
		inspectedListener("strict", looks, "", known),
		inspectedListener("closes", looks, short, known, other),
		inspectedListener("goes_on", looks, short+"\n    continue_on_listener_filters_timeout: true", known, other),
		inspectedListener("blind", fmt.Sprintf(inspector, ", filter_disabled: {not_match: {destination_port_range: {start: 1, end: 2}}}"), "", known, other),
		inspectedListener("limited", limit, "", known, other),
	}, "")
}

const closing = "\r\nhost: mill\r\nconnection: close\r\n\r\n"

// inspectedClients are sent in this order, since the bucket remembers.
var inspectedClients = []struct {
	name, listener, sends string
	ends                  bool // the client closes its direction behind what it sends
}{
	{"HTTP/1.1", "patient", "GET / HTTP/1.1" + closing, false},
	{"HTTP/1.0", "patient", "GET / HTTP/1.0" + closing, false},
	{"a_version_between", "patient", "GET / HTTP/1.2" + closing, false},
	{"no_version", "patient", "GET /" + closing, false},
	{"bare_LF", "patient", "GET / HTTP/1.1\nhost: mill\nconnection: close\n\n", false},
	{"a_preface_that_is_none", "patient", "PRI * HTTP/2.0\r\n\r\nXX\r\n\r\n", false},
	{"PRI_of_HTTP/1.1", "patient", "PRI * HTTP/1.1" + closing, false},
	{"a_URI", "patient", "GET http://mill/ HTTP/1.1" + closing, false},
	{"a_long_line", "patient", "GET /" + strings.Repeat("a", 20<<10) + " HTTP/1.1" + closing, false},
	{"a_line_too_long", "patient", "GET /" + strings.Repeat("a", 64<<10) + " HTTP/1.1" + closing, false},
	{"TLS", "patient", "\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03\r\n\r\n", false},
	{"words", "patient", "hello world\r\n\r\n", false},
	{"no_method", "patient", " GET / HTTP/1.1" + closing, false},
	{"no_target", "patient", "GET mill HTTP/1.1" + closing, false},
	{"a_version_that_is_none", "patient", "GET / HTTPX" + closing, false},
	{"a_client_that_hangs_up", "patient", "", true},
	{"a_client_that_hangs_up_within_a_line", "patient", "GET / HT", true},
	{"a_client_that_hangs_up_within_the_preface", "patient", "PRI * HT", true},

	{"HTTP/1.1_where_all_is_known", "strict", "GET / HTTP/1.1" + closing, false},
	{"words_where_all_is_known", "strict", "hello world\r\n\r\n", false},

	{"silence", "closes", "", false},
	{"half_a_line", "closes", "GET / HT", false},
	{"half_a_preface", "closes", "PRI * HTTP/2.0\r\n\r\nS", false},

	{"HTTP/1.1_to_a_filter_that_is_disabled", "blind", "GET / HTTP/1.1" + closing, false},

	{"the_first_of_two", "limited", "GET / HTTP/1.1" + closing, false},
	{"the_second_of_two", "limited", "GET / HTTP/1.1" + closing, false},
	{"the_third_of_two", "limited", "GET / HTTP/1.1" + closing, false},
}

// chainTaken is the filter chain that a proxy gives a client to, "" for none, once the
// client was answered or its connection closed.
func chainTaken(t *testing.T, proxy *harness.Process, listener, sends string, ends bool) (chain string) {
	t.Helper()
	count := func() map[string]int {
		counts := map[string]int{}
		for _, name := range []string{"ten", "eleven", "two", "other"} {
			counts[name] = harness.Stat(t, proxy, "http."+listener+"."+name+".downstream_cx_total")
		}
		return counts
	}
	before := count()
	conn, err := net.Dial("tcp", proxy.Addr(listener))
	require.NoError(t, err)
	defer conn.Close()
	require.NoError(t, conn.SetDeadline(time.Now().Add(slowMachine)))
	_, _ = io.WriteString(conn, sends) // it may be closed before it has all
	if ends {
		_ = conn.(*net.TCPConn).CloseWrite()
	}
	if _, err := io.Copy(io.Discard, conn); !errors.Is(err, syscall.ECONNRESET) {
		require.NoError(t, err)
	}
	for name, n := range count() {
		if n != before[name] {
			chain += name
		}
	}
	return chain
}

func TestListenerFiltersOfOurProxyAndOfARealEnvoyFindTheSame(t *testing.T) {
	envoy, ours := harness.Envoy(t, listenerFiltersBootstrap()), harness.Proxy(t, listenerFiltersBootstrap())
	for _, c := range inspectedClients {
		t.Run(c.name, func(t *testing.T) {
			require.Equal(t, chainTaken(t, envoy, c.listener, c.sends, c.ends), chainTaken(t, ours, c.listener, c.sends, c.ends))
		})
	}
	t.Run("HTTP/2", func(t *testing.T) {
		var protocols http.Protocols
		protocols.SetUnencryptedHTTP2(true)
		transport := &http.Transport{Protocols: &protocols, DisableKeepAlives: true}
		for _, proxy := range []*harness.Process{envoy, ours} {
			for _, listener := range []string{"patient", "strict"} {
				answer, err := harness.Send(&http.Client{Transport: transport, Timeout: slowMachine}, harness.Request{URL: "http://" + proxy.Addr(listener) + "/"})
				require.NoError(t, err)
				require.Equal(t, "two", answer.Body)
			}
		}
		transport.CloseIdleConnections()
	})
	for name, first := range map[string]string{"silence": "", "half a line": "GET / HT"} {
		t.Run(name+"_and_more_once_the_time_is_over", func(t *testing.T) {
			for _, proxy := range []*harness.Process{envoy, ours} {
				const counter = "listener.goes_on.downstream_pre_cx_timeout"
				before := harness.Stat(t, proxy, counter)
				conn, err := net.Dial("tcp", proxy.Addr("goes_on"))
				require.NoError(t, err)
				defer conn.Close()
				_, err = io.WriteString(conn, first)
				require.NoError(t, err)
				eventually(t, "the time is over", func() bool { return harness.Stat(t, proxy, counter) == before+1 })
				_, err = io.WriteString(conn, strings.TrimPrefix("GET / HTTP/1.1"+closing, first))
				require.NoError(t, err)
				m, err := readRaw(bufio.NewReader(conn), false, true)
				require.NoError(t, err)
				require.Equal(t, "other", m.body)
			}
		})
	}
	t.Run("counters", func(t *testing.T) {
		for _, name := range []string{
			"http_inspector.http10_found", "http_inspector.http11_found", "http_inspector.http2_found", "http_inspector.http_not_found", "http_inspector.read_error",
			"listener.patient.downstream_cx_total", "listener.patient.downstream_listener_filter_remote_close",
			"listener.strict.downstream_cx_total", "listener.strict.no_filter_chain_match",
			"listener.closes.downstream_pre_cx_timeout",
			"listener.goes_on.downstream_pre_cx_timeout", "listener.goes_on.downstream_cx_total",
			"listener.limited.downstream_cx_total", "listener_local_ratelimit.door.rate_limited",
		} {
			sameCounter(t, envoy, ours, name)
		}
		for _, listener := range []string{"patient", "strict", "closes", "goes_on", "blind", "limited"} {
			for _, proxy := range []*harness.Process{envoy, ours} {
				eventually(t, "nothing is looked at any more", func() bool { return harness.Stat(t, proxy, "listener."+listener+".downstream_pre_cx_active") == 0 })
			}
		}
		require.Zero(t, harness.Stat(t, ours, "listener.closes.downstream_cx_total"))
	})
}
