// Package environtest helps the tests of a service whose settings come from
// the environment, as environ reads them. It is imported by tests only, and
// knows no setting by name.
package environtest

import (
	"fmt"
	"os"
	"regexp"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/weirproxy/weir/internal/environ"
)

// Unset takes the settings that the tester's own environment holds out of it,
// until the test ends. Settings is a struct tagged for environ.
func Unset(t testing.TB, settings any) {
	t.Helper()
	for _, v := range environ.Variables(settings) {
		t.Setenv(v.Name, "") // which sees to it that it is as before afterwards
		require.NoError(t, os.Unsetenv(v.Name))
	}
}

// Defaults fills *settings with what holds where the environment says nothing,
// and takes the settings out of the environment as Unset does.
func Defaults(t testing.TB, settings any) {
	t.Helper()
	Unset(t, settings)
	require.NoError(t, environ.Load(settings))
}

// row is a line of a README's table that begins with a variable.
var row = regexp.MustCompile("(?m)^\\| `[A-Z0-9_]+` \\|.*$")

// README fails the test unless the README at path has a table of all settings,
// in the order of the struct's fields: name, default, meaning.
func README(t testing.TB, path string, settings any) {
	t.Helper()
	text, err := os.ReadFile(path)
	require.NoError(t, err)
	var want []string
	for _, v := range environ.Variables(settings) {
		byDefault := ""
		if v.Default != "" {
			byDefault = "`" + v.Default + "`"
		}
		want = append(want, fmt.Sprintf("| `%s` | %s | %s |", v.Name, byDefault, v.Meaning))
	}
	require.Equal(t, strings.Join(want, "\n"), strings.Join(row.FindAllString(string(text), -1), "\n"))
}
