package environtest

import (
	"os"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/weirproxy/weir/internal/servicetest"
)

func TestMain(m *testing.M) { servicetest.Main(m) }

type settings struct {
	Grain  string `envconfig:"MILL_GRAIN" default:"rye" desc:"what is ground"`
	Stones int    `envconfig:"MILL_STONES" desc:"how many"`
}

func TestTheEnvironmentIsAsBeforeOnceTheTestHasEnded(t *testing.T) {
	t.Setenv("MILL_GRAIN", "oats")
	t.Run("within", func(t *testing.T) {
		Unset(t, settings{})
		_, set := os.LookupEnv("MILL_GRAIN")
		require.False(t, set)
		_, set = os.LookupEnv("MILL_STONES")
		require.False(t, set)
	})
	require.Equal(t, "oats", os.Getenv("MILL_GRAIN"))
	_, set := os.LookupEnv("MILL_STONES")
	require.False(t, set)
}

func TestDefaultsAreThoseOfTheTagsWhateverTheEnvironmentSays(t *testing.T) {
	t.Setenv("MILL_GRAIN", "oats")
	var s settings
	Defaults(t, &s)
	require.Equal(t, settings{Grain: "rye"}, s)
}

// failure is a testing.TB that ends the helper which fails it.
type failure struct{ testing.TB }

func (failure) Helper()               {}
func (failure) Errorf(string, ...any) {}
func (f failure) FailNow()            { panic(f) }

func TestAREADMEThatLeavesOutASettingFailsTheTest(t *testing.T) {
	path := filepath.Join(t.TempDir(), "README.md")
	const grain, stones = "| `MILL_GRAIN` | `rye` | what is ground |\n", "| `MILL_STONES` |  | how many |\n"
	for name, c := range map[string]struct {
		text string
		good bool
	}{
		"all":              {"# Mill\n\n| variable | default | meaning |\n| --- | --- | --- |\n" + grain + stones + "\nIt grinds.\n", true},
		"one_left_out":     {grain, false},
		"another_order":    {stones + grain, false},
		"one_that_is_none": {grain + stones + "| `MILL_SAILS` | | how many |\n", false},
		"another_default":  {"| `MILL_GRAIN` | `oats` | what is ground |\n" + stones, false},
	} {
		t.Run(name, func(t *testing.T) {
			require.NoError(t, os.WriteFile(path, []byte(c.text), 0o644))
			check := func() { README(failure{t}, path, settings{}) }
			if c.good {
				require.NotPanics(t, check)
			} else {
				require.Panics(t, check)
			}
		})
	}
}
