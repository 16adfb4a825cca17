package app

import (
	"runtime/debug"
	"testing"

	"github.com/stretchr/testify/require"
)

func TestManyRulesAreReadFrugallyUnlessGOGCIsSet(t *testing.T) {
	t.Setenv("GOGC", "")
	defer debug.SetGCPercent(debug.SetGCPercent(servingGC))
	percent := func() int {
		now := debug.SetGCPercent(servingGC)
		debug.SetGCPercent(now)
		return now
	}
	done := loadFrugally(manyRules)
	require.Equal(t, loadingGC, percent())
	done()
	require.Equal(t, servingGC, percent())
	done = loadFrugally(manyRules - 1)
	require.Equal(t, servingGC, percent())
	done()
	t.Setenv("GOGC", "100")
	done = loadFrugally(manyRules)
	require.Equal(t, servingGC, percent())
	done()
}
