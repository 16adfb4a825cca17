package e2e

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/weirproxy/weir/integration/harness"
	"github.com/weirproxy/weir/internal/servicetest"
)

// brokenBootstrap has one fault of each kind; its text says where.
const brokenBootstrap = `node: {id: demo, cluster: demo}
admin:
  address:
    socket_address: {address: 127.0.0.1, port_value: many}
static_resources:
  clusters:
    - name: mill
      conect_timeout: 1s
    - name: granary
      name: barn
      type: ORIGINAL_DST
`

func TestABrokenBootstrapIsRefusedWithAllItsFaults(t *testing.T) {
	path := filepath.Join(t.TempDir(), "broken.yaml")
	require.NoError(t, os.WriteFile(path, []byte(brokenBootstrap), 0o644))
	validated, code := harness.Validate(t, path)
	require.Equal(t, 1, code)
	for _, fault := range []string{
		`broken.yaml:4:54: admin.address.socket_address.port_value: "many" is not a uint32`,
		"broken.yaml:8:7: static_resources.clusters[0].conect_timeout: unknown field",
		`broken.yaml:10:7: static_resources.clusters[1]: duplicate key "name"`,
		"broken.yaml:11:7: static_resources.clusters[1].type: ORIGINAL_DST is not supported",
	} {
		require.Contains(t, validated, fault)
	}

	// To serve it is refused the same way, and nothing is bound.
	served := harness.Launch(t, harness.ProxyProgram(t, brokenBootstrap))
	require.Equal(t, 1, served.Wait())
	require.Equal(t, strings.Count(validated, "\n"), strings.Count(served.Log(), "\n"), "faults: %s", served.Log())
}

func TestTheDemosBootstrapIsValid(t *testing.T) {
	text, code := harness.Validate(t, harness.Path(t, "deploy", "proxy.yaml"))
	require.Zero(t, code, text)
}

func TestAMissingFileIsNamed(t *testing.T) {
	missing := filepath.Join(t.TempDir(), "missing.yaml")
	text, code := harness.Validate(t, missing)
	require.Equal(t, 1, code)
	require.Contains(t, text, missing+": no such file or directory")

	// Rules may come later: ratelimit starts, says what is missing, and is not
	// ready until they are there.
	limiter := harness.Launch(t, harness.RatelimitProgram(t, missing))
	servicetest.Eventually(t, "the missing directory is named", func() bool {
		return strings.Contains(limiter.Log(), missing+": no such file or directory")
	})
}

func TestAWrongSettingIsNamed(t *testing.T) {
	rules := t.TempDir()
	for name, c := range map[string]struct {
		program harness.Program
		says    []string
	}{
		"of_ratelimit":         {harness.RatelimitProgram(t, rules, "REDIS_TIMEOUT=soon"), []string{`REDIS_TIMEOUT="soon"`, "duration"}},
		"of_ratelimit's_store": {harness.RatelimitProgram(t, rules, "BACKEND_TYPE=stone"), []string{"BACKEND_TYPE", "stone", "memory", "redis"}},
		"of_discovery":         {harness.DiscoveryProgram(t, "HOST_TTL=-3"), []string{"HOST_TTL=-3", "below 1 second"}},
		"of_discovery's_store": {harness.DiscoveryProgram(t, "DISCOVERY_STORE=stone://x"), []string{"DISCOVERY_STORE", "stone", "memory:"}},
	} {
		t.Run(name, func(t *testing.T) {
			p := harness.Launch(t, c.program)
			require.Equal(t, 1, p.Wait())
			for _, words := range c.says {
				require.Contains(t, p.Log(), words)
			}
		})
	}
}

func TestAPortInUseIsNamedWithWhatMovesIt(t *testing.T) {
	taken := harness.Echo(t, "squatter").Addr("http")
	port := taken[strings.LastIndexByte(taken, ':')+1:]
	rules := t.TempDir()
	bootstrap := func(admin, ingress string) string {
		text, err := os.ReadFile(harness.Path(t, "deploy", "proxy.yaml"))
		require.NoError(t, err)
		// On loopback, where the squatter is.
		text = []byte(strings.Replace(string(text), "address: 0.0.0.0", "address: 127.0.0.1", 1))
		return harness.WithPorts(t, string(text), map[string]string{"9901": admin, "10000": ingress, "18000": "1", "8081": "1"})
	}
	for name, c := range map[string]struct {
		program harness.Program
		moves   string
	}{
		"ratelimit_grpc":  {harness.RatelimitProgram(t, rules, "GRPC_PORT="+port), "GRPC_PORT"},
		"ratelimit_http":  {harness.RatelimitProgram(t, rules, "PORT="+port), "PORT"},
		"ratelimit_admin": {harness.RatelimitProgram(t, rules, "DEBUG_PORT="+port), "DEBUG_PORT"},
		"discovery_http":  {harness.DiscoveryProgram(t, "DISCOVERY_HTTP_ADDRESS="+taken), "DISCOVERY_HTTP_ADDRESS"},
		"discovery_xds":   {harness.DiscoveryProgram(t, "DISCOVERY_XDS_ADDRESS="+taken), "DISCOVERY_XDS_ADDRESS"},
		"discovery_admin": {harness.DiscoveryProgram(t, "DISCOVERY_ADMIN_ADDRESS="+taken), "DISCOVERY_ADMIN_ADDRESS"},
		"proxy_admin":     {harness.ProxyProgram(t, bootstrap(port, "0")), "admin.address"},
		"proxy_listener":  {harness.ProxyProgram(t, bootstrap("0", port)), "static_resources.listeners[0].address"},
	} {
		t.Run(name, func(t *testing.T) {
			p := harness.Launch(t, c.program)
			require.Equal(t, 1, p.Wait())
			require.Contains(t, p.Log(), "listen on "+taken+": the port is in use; "+c.moves+" moves it")
		})
	}
}
