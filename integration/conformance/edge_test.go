package conformance

import (
	"os/exec"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/weirproxy/weir/integration/harness"
)

func TestARealEnvoyTakesTheExampleForAnEdge(t *testing.T) {
	path := harness.Path(t, "services", "proxy", "docs", "edge.yaml")
	out, err := exec.CommandContext(t.Context(), harness.EnvoyPath(t), "--mode", "validate", "--use-dynamic-base-id", "-c", path).CombinedOutput()
	require.NoError(t, err, "%s", out)
}
