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

// heading is a heading of a page: how deep it is, and its text.
type heading struct {
	depth int
	text  string
}

// headings are those of a page, and those of them that nothing
// stands below, be it text or a deeper heading.
func headings(text string) (all, empty []heading) {
	line := regexp.MustCompile(`^(#+) +(.*\S)`)
	owed, inCode := false, false // the last heading has nothing below it yet
	for l := range strings.Lines(text) {
		if strings.HasPrefix(l, "```") {
			inCode = !inCode
		}
		found := line.FindStringSubmatch(l)
		if inCode || found == nil {
			owed = owed && strings.TrimSpace(l) == ""
			continue
		}
		next := heading{len(found[1]), found[2]}
		if owed && next.depth <= all[len(all)-1].depth {
			empty = append(empty, all[len(all)-1])
		}
		all, owed = append(all, next), true
	}
	if owed {
		empty = append(empty, all[len(all)-1])
	}
	return all, empty
}

func TestNoHeadingOfAREADMEStandsTwiceInAPlaceOrOverNothing(t *testing.T) {
	all, empty := headings("# a\n\n## b\ntext\n## c\n\n## b\n```\n# d\n```\n### e\n\n")
	require.Equal(t, []heading{{1, "a"}, {2, "b"}, {2, "c"}, {2, "b"}, {3, "e"}}, all)
	require.Equal(t, []heading{{2, "c"}, {3, "e"}}, empty)
	for _, page := range pages(t) {
		if filepath.Base(page) != "README.md" {
			continue
		}
		text, err := os.ReadFile(page)
		require.NoError(t, err)
		all, empty := headings(string(text))
		require.NotEmpty(t, all, page)
		require.Empty(t, empty, page)
		var above []string // the texts of the headings that h is below, and its own
		seen := map[string]bool{}
		for _, h := range all {
			require.GreaterOrEqual(t, len(above), h.depth-1, "%s: nothing is a level above %q", page, h.text)
			above = append(above[:h.depth-1], h.text)
			place := strings.Join(above, " > ")
			require.False(t, seen[place], "%s has %q twice", page, place)
			seen[place] = true
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
