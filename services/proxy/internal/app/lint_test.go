package app_test

import (
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/weirproxy/weir/internal/servicetest"
	"github.com/weirproxy/weir/services/proxy/internal/app"
)

func TestTheExampleForAnEdgeHasNothingRisky(t *testing.T) {
	require.NoError(t, app.Lint(app.Options{ConfigPath: "../../docs/edge.yaml", LogLevel: "info"}))
}

func TestWhatIsRiskyAtAnEdgeIsToldWithItsPlace(t *testing.T) {
	require.NoError(t, app.Validate(app.Options{ConfigPath: "testdata/risky.yaml", LogLevel: "info"}))
	err := app.Lint(app.Options{ConfigPath: "testdata/risky.yaml", LogLevel: "info"})
	require.Error(t, err)
	servicetest.Golden(t, "testdata/risky.txt", []byte(err.Error()+"\n"))
}

func TestFaultsAreToldBeforeWhatIsRisky(t *testing.T) {
	valid, risky := app.Validate(app.Options{ConfigPath: "testdata/broken.yaml", LogLevel: "info"}), app.Lint(app.Options{ConfigPath: "testdata/broken.yaml", LogLevel: "info"})
	require.Error(t, risky)
	require.Equal(t, valid.Error(), risky.Error())
}
