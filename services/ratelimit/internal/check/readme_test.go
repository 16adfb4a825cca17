package check

import (
	"bytes"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

// blocks are the code blocks of the service's README that are of a language.
func blocks(t *testing.T, language string) []string {
	text, err := os.ReadFile("../../README.md")
	require.NoError(t, err)
	found := strings.Split(string(text), "\n```"+language+"\n")[1:]
	require.NotEmpty(t, found)
	for i := range found {
		found[i], _, _ = strings.Cut(found[i], "```")
	}
	return found
}

func TestTheREADMEShowsWhatTheToolSays(t *testing.T) {
	examples := blocks(t, "console")
	t.Chdir("../..")
	for _, example := range examples {
		command, want, _ := strings.Cut(example, "\n")
		args := strings.Fields(command)
		require.Equal(t, []string{"$", "ratelimit-check"}, args[:2], command)
		var stdout, stderr bytes.Buffer
		Main(args[2:], "", &stdout, &stderr)
		require.Equal(t, want, stdout.String()+stderr.String(), command)
	}
}

func TestTheRulesOfTheREADMEAndOfTheExamplesAreGood(t *testing.T) {
	dir := t.TempDir()
	for _, example := range blocks(t, "yaml") {
		require.NoError(t, os.WriteFile(filepath.Join(dir, "example.yaml"), []byte(example), 0o600))
		require.Contains(t, transcript("check", dir), "no faults")
	}
	require.Contains(t, transcript("check", "../../testdata"), "no faults")
}
