package harness

import (
	"io"
	"net/http"
	"os"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/weirproxy/weir/internal/servicetest"
)

// EnvoyPath returns the path of the real Envoy that make peers installs. Where
// it is missing the test is skipped, or fails, as servicetest.Peer says.
func EnvoyPath(t testing.TB) string {
	t.Helper()
	if os.Getenv("ENVOY") == "" {
		if path := Path(t, "bin", "envoy"); isFile(path) {
			return path
		}
	}
	return servicetest.Peer(t, "envoy", "ENVOY", "make peers")
}

// Envoy starts a real Envoy with a bootstrap that has an admin listener, and
// waits until it is live. Its listeners are admin and those of the bootstrap.
func Envoy(t testing.TB, bootstrap string) *Process {
	t.Helper()
	return Start(t, EnvoyProgram(t, bootstrap))
}

// EnvoyProgram is a real Envoy with one worker.
func EnvoyProgram(t testing.TB, bootstrap string) Program {
	t.Helper()
	file := writeFile(t, "envoy.yaml", bootstrap)
	return Program{
		Name: "envoy",
		Path: EnvoyPath(t),
		// Its ready file is its own: the admin listener's address alone.
		Command: func(_ Addresses, readyFile string) (arguments, environment []string) {
			return []string{"-c", file, "--concurrency", "1", "-l", "warning", "--use-dynamic-base-id", "--admin-address-path", readyFile}, nil
		},
		Ready: envoyReady,
	}
}

func envoyReady(p *Process) Addresses {
	p.t.Helper()
	addresses := Addresses{}
	p.await("is live", func() bool {
		admin, err := os.ReadFile(p.readyFile())
		if err != nil || len(admin) == 0 {
			return false
		}
		addresses["admin"] = string(admin)
		return isReady(addresses["admin"])
	})
	for line := range strings.Lines(ask(addresses["admin"], "/listeners")) {
		name, address, ok := strings.Cut(strings.TrimSpace(line), "::")
		require.True(p.t, ok, "a line of Envoy's /listeners: %q", line)
		addresses[name] = reachable(address)
	}
	return addresses
}

// isReady says whether an admin listener answers /ready with 200.
func isReady(address string) bool {
	client := http.Client{Timeout: patience, Transport: &http.Transport{DisableKeepAlives: true}}
	response, err := client.Get("http://" + address + "/ready")
	if err != nil {
		return false
	}
	return response.Body.Close() == nil && response.StatusCode == http.StatusOK
}

// ask returns the body of an admin listener's answer, empty if there was none.
func ask(address, target string) string {
	client := http.Client{Timeout: patience, Transport: &http.Transport{DisableKeepAlives: true}}
	response, err := client.Get("http://" + address + target)
	if err != nil {
		return ""
	}
	defer response.Body.Close()
	text, err := io.ReadAll(response.Body)
	if err != nil {
		return ""
	}
	return string(text)
}

func isFile(path string) bool {
	info, err := os.Stat(path)
	return err == nil && info.Mode().IsRegular()
}
