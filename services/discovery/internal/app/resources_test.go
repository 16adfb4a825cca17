package app_test

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

func TestTheTemplateOfTheREADMEIsOne(t *testing.T) {
	readme, err := os.ReadFile("../../README.md")
	require.NoError(t, err)
	_, section, _ := strings.Cut(string(readme), "### The template of clusters\n")
	_, block, _ := strings.Cut(section, "```yaml\n")
	text, _, found := strings.Cut(block, "```\n")
	require.True(t, found)
	o := options(t)
	o.ClusterTemplate = filepath.Join(t.TempDir(), "clusters.yaml")
	require.NoError(t, os.WriteFile(o.ClusterTemplate, []byte(text), 0o600))
	start(t, o)
}
