package builtin_test

import (
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/weirproxy/weir/services/proxy/internal/builtin"
)

func TestAbsentMetricsHaveAReasonAndAreThereOnce(t *testing.T) {
	seen := map[[2]string]bool{}
	for _, a := range builtin.AbsentMetrics() {
		require.NotEmpty(t, a.Why, "%s %v", a.Scope, a.Names)
		for _, name := range a.Names {
			require.False(t, seen[[2]string{a.Scope, name}], "%s.%s is there twice", a.Scope, name)
			seen[[2]string{a.Scope, name}] = true
		}
	}
}
