// Package integration_test holds what is said about the project as a whole
// against the project.
package integration_test

import (
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

const root = ".."

// pages are the paths of all Markdown files of the project.
func pages(t *testing.T) []string {
	var list []string
	require.NoError(t, filepath.WalkDir(root, func(path string, entry fs.DirEntry, err error) error {
		switch {
		case err != nil:
			return err
		case entry.IsDir() && (entry.Name() == "bin" || strings.HasPrefix(entry.Name(), ".") && path != root):
			return filepath.SkipDir
		case filepath.Ext(path) == ".md":
			list = append(list, path)
		}
		return nil
	}))
	return list
}

func TestLinksOfAllPagesLeadSomewhere(t *testing.T) {
	link := regexp.MustCompile(`\]\(([^)#:]+)(?:#[^)]*)?\)`)
	for _, page := range pages(t) {
		text, err := os.ReadFile(page)
		require.NoError(t, err)
		for _, found := range link.FindAllStringSubmatch(string(text), -1) {
			target := filepath.Join(filepath.Dir(page), found[1])
			_, err := os.Stat(target)
			require.NoError(t, err, "%s links to %s", page, found[1])
		}
	}
}

func TestThePathOfOneRequestNamesFilesAndFunctionsThatAreThere(t *testing.T) {
	text, err := os.ReadFile(filepath.Join(root, "README.md"))
	require.NoError(t, err)
	_, path, ok := strings.Cut(string(text), "### The path of one request\n")
	require.True(t, ok)
	path, _, _ = strings.Cut(path, "\n## ")
	file, function := regexp.MustCompile("`([a-z0-9/]+\\.go)`"), regexp.MustCompile("`([A-Za-z]+)`")
	require.NotEmpty(t, file.FindAllString(path, -1))
	for line := range strings.Lines(path) {
		source := ""
		for _, name := range file.FindAllStringSubmatch(line, -1) {
			found, err := filepath.Glob(filepath.Join(root, "services", "*", "internal", name[1]))
			require.NoError(t, err)
			require.NotEmpty(t, found, "no service has internal/%s", name[1])
			for _, one := range found { // two services may have a file of one name
				text, err := os.ReadFile(one)
				require.NoError(t, err)
				source += string(text)
			}
		}
		if !strings.HasPrefix(line, "|") || source == "" {
			continue
		}
		names := function.FindAllStringSubmatch(line, -1)
		require.NotEmpty(t, names, "%s names no function", line)
		for _, name := range names {
			require.Regexp(t, `(?m)^func (\([^)]*\) )?`+name[1]+`\(`, source, line)
		}
	}
}
