package conformance

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/weirproxy/weir/integration/harness"
)

// caller is a gRPC client without a proxy that calls all the time.
type caller struct {
	t       *testing.T
	process *harness.Process
}

// calls is who answered each call so far, or "error" and why nobody did.
func (c *caller) calls() []string {
	lines := strings.Split(c.process.Log(), "\n")
	return lines[:len(lines)-1] // the last one is not whole yet
}

// answered waits until so many calls in a row were answered by just these.
func (c *caller) answered(what string, instances ...string) {
	c.t.Helper()
	const enough = 20
	var last []string
	defer func() {
		if c.t.Failed() {
			c.t.Logf("the last calls: %q", last)
		}
	}()
	eventually(c.t, what, func() bool {
		require.False(c.t, c.process.Ended(), "the client has ended")
		calls := c.calls()
		last = calls[max(0, len(calls)-enough):]
		distinct := slices.Compact(slices.Sorted(slices.Values(last)))
		return len(last) == enough && slices.Equal(distinct, instances)
	})
}

// more waits until it has made more calls.
func (c *caller) more() {
	c.t.Helper()
	n := len(c.calls())
	eventually(c.t, "the client calls", func() bool { return len(c.calls()) > n+20 })
}

// wantNoErrors fails the test if a call has failed.
func (c *caller) wantNoErrors() {
	c.t.Helper()
	for _, call := range c.calls() {
		require.False(c.t, strings.HasPrefix(call, "error"), call)
	}
}

// TestGRPCClientsFollowTheRegistry has gRPC clients that are their own proxies
// call a service whose hosts come and go. They know its name and discovery alone.
func TestGRPCClientsFollowTheRegistry(t *testing.T) {
	for name, program := range map[string]func(t testing.TB, target, bootstrap string) harness.Program{
		"grpc-go": harness.XDSClientProgram,
		"C core":  harness.CoreXDSClientProgram,
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			program(t, "", "") // skips before anything has started
			discovery := harness.Discovery(t, "DISCOVERY_LRS_INTERVAL=1s", "DISCOVERY_XDS_CLUSTER_TEMPLATE="+
				writeFile(t, "template.yaml", "cluster: {lrs_server: {self: {}, resource_api_version: V3}}"))
			hosts := newRegistrar(t, discovery)
			one, two, three := harness.Echo(t, "one"), harness.Echo(t, "two"), harness.Echo(t, "three")
			hosts.put("echo", "one", one.Addr("http"), "")
			client := &caller{t: t, process: harness.Start(t, program(t, "xds:///echo", fmt.Sprintf(
				`{"xds_servers": [{"server_uri": %q, "channel_creds": [{"type": "insecure"}], "server_features": ["xds_v3"]}],
				"node": {"id": %q, "cluster": "tests", "locality": {"region": "eu", "zone": "eu-1"}}}`, discovery.Addr("xds"), name)))}
			client.answered("the first host comes", "one")
			hosts.put("echo", "two", two.Addr("http"), "")
			client.answered("another comes", "one", "two")

			hosts.put("echo", "one", one.Addr("http"), `, "draining": true`)
			client.answered("a host drains", "two")
			hosts.remove("echo", "one")
			one.Stop()
			hosts.put("echo", "three", three.Addr("http"), "")
			client.answered("one has gone, another has come", "three", "two")
			hosts.remove("echo", "two")
			client.answered("a host goes", "three")
			two.Stop()

			eventually(t, "its load is shown", func() bool {
				var got struct{ Clusters []load }
				getJSON(t, discovery, "/v2/loads?cluster=echo", &got)
				return len(got.Clusters) == 1 && got.Clusters[0].Successful > 0
			})
			for _, kind := range []string{"listeners", "clusters", "endpoints"} {
				require.Positive(t, harness.Metric(t, discovery, fmt.Sprintf("discovery_xds_acks_total{type=%q}", kind)), kind)
				require.Zero(t, harness.Metric(t, discovery, fmt.Sprintf("discovery_xds_nacks_total{type=%q}", kind)), kind)
			}

			discovery.Kill()
			client.more()
			discovery.Restart()
			hosts.put("echo", "three", three.Addr("http"), "")
			client.more()
			client.wantNoErrors()
		})
	}
}
