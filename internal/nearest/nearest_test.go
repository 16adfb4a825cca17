package nearest

import (
	"testing"

	"github.com/stretchr/testify/require"
)

func TestTheNearestIsOfTheFewestEdits(t *testing.T) {
	names := []string{"lb_policy", "name", "type", "timeout"}
	for written, want := range map[string]struct {
		name  string
		edits int
	}{
		"name":      {"name", 0},
		"nam":       {"name", 1},
		"lb_polcy":  {"lb_policy", 1},
		"tiemout":   {"timeout", 2},
		"tyme":      {"type", 1},
		"":          {"name", 4},
		"lb-policy": {"lb_policy", 1},
	} {
		t.Run(written, func(t *testing.T) {
			name, edits := Of(written, names)
			require.Equal(t, want.name, name)
			require.Equal(t, want.edits, edits)
		})
	}
}

func TestOfNoNamesNoneIsNear(t *testing.T) {
	name, edits := Of("name", nil)
	require.Empty(t, name)
	require.Greater(t, edits, 1000)
}
