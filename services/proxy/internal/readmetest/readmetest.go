// Package readmetest holds the README.md of a filter to its form, for the tests of
// filters of every kind. What an example is, and whether it is right, is theirs.
package readmetest

import (
	"os"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

// sections are those of a filter's README.md, in their order.
var sections = []string{"Name", "Description", "Config", "Stats", "Examples"}

// Examples holds the README.md beside the test that runs to its form, and returns its
// YAML blocks, one at least.
func Examples(t testing.TB) []string {
	t.Helper()
	text, err := os.ReadFile("README.md")
	require.NoError(t, err)
	var found []string
	for line := range strings.Lines(string(text)) {
		if name, ok := strings.CutPrefix(line, "## "); ok {
			found = append(found, strings.TrimSpace(name))
		}
	}
	require.Equal(t, sections, found, "the sections of README.md")
	var examples []string
	for _, example := range strings.Split(string(text), "```yaml\n")[1:] {
		example, _, _ = strings.Cut(example, "```")
		examples = append(examples, example)
	}
	require.NotEmpty(t, examples, "README.md has no YAML block")
	return examples
}
