package archtest

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

const module = "github.com/weirproxy/weir/services/mill"

func TestFaults(t *testing.T) {
	packages := []pkg{
		{ImportPath: module + "/cmd/mill", Imports: []string{"fmt", module + "/internal/app"}},
		{ImportPath: module + "/internal/app", Imports: []string{
			module + "/internal/stone", module + "/internal/store/redis", "github.com/weirproxy/weir/internal/daemon"}},
		{ImportPath: module + "/internal/stone", Imports: []string{"strings"}},
		{ImportPath: module + "/internal/store/redis", Imports: []string{module + "/internal/stone"}},
	}
	declared := func(change func(Edges)) Edges {
		edges := Edges{
			"cmd/mill":             {"internal/app"},
			"internal/app":         {"internal/stone", "internal/store/*", "weir/internal/daemon"},
			"internal/stone":       nil,
			"internal/store/redis": {"internal/stone"},
		}
		change(edges)
		return edges
	}
	for name, c := range map[string]struct {
		change func(Edges)
		want   []string
	}{
		"edges_as_declared_are_no_fault": {func(Edges) {}, nil},
		"a_star_stands_for_the_own_module_only": {
			func(e Edges) { e["internal/app"] = []string{"*"} },
			[]string{"internal/app imports weir/internal/daemon: edge not declared"}},
		"an_import_that_is_not_declared_is_named": {
			func(e Edges) { e["internal/store/redis"] = nil },
			[]string{"internal/store/redis imports internal/stone: edge not declared"}},
		"a_declared_edge_that_nothing_uses_is_named": {
			func(e Edges) { e["internal/stone"] = []string{"internal/app"} },
			[]string{"internal/stone imports internal/app: declared, but not so"}},
		"a_package_that_is_not_declared_is_named": {
			func(e Edges) { delete(e, "internal/stone") },
			[]string{"internal/stone: package not declared"}},
		"a_declared_package_that_does_not_exist_is_named": {
			func(e Edges) { e["internal/web"] = nil },
			[]string{"internal/web: declared, but there is no such package"}},
	} {
		t.Run(name, func(t *testing.T) {
			require.ElementsMatch(t, c.want, faults(module, packages, declared(c.change)))
		})
	}
}

func TestCommentFault(t *testing.T) {
	for name, c := range map[string]struct {
		files []string
		want  string
	}{
		"two_sentences_are_enough":              {[]string{"// Package a is one.\n// It calls none.\npackage a", "package a"}, ""},
		"none_is_a_fault":                       {[]string{"package a"}, "no package comment"},
		"one_in_two_files_is_a_fault":           {[]string{"// One. Two.\npackage a", "// One. Two.\npackage a"}, "2 package comments, want one"},
		"one_sentence_is_a_fault":               {[]string{"// Package a is one, e.g. this.\npackage a"}, "the package comment has one sentence; say also what calls the package and what it never does"},
		"a_comment_apart_belongs_to_no_package": {[]string{"// One. Two.\n\npackage a"}, "no package comment"},
	} {
		t.Run(name, func(t *testing.T) {
			p := pkg{Dir: t.TempDir()}
			for i, text := range c.files {
				file := strings.Repeat("a", i+1) + ".go"
				p.GoFiles = append(p.GoFiles, file)
				require.NoError(t, os.WriteFile(filepath.Join(p.Dir, file), []byte(text+"\n"), 0o644))
			}
			require.Equal(t, c.want, commentFault(p))
		})
	}
}

func TestASentenceEndsAtAStopBeforeACapitalOrTheEnd(t *testing.T) {
	for text, want := range map[string]int{
		"No stop":                           0,
		"One.":                              1,
		"One (see a.b). Two":                1,
		"One, e.g. this, at 1.5 s.":         1,
		"One? Two! Three.":                  3,
		"One\nline, and\nanother. Two.":     2,
		"It ends in a bracket (so.) Then.":  2,
		"It goes on with [a link]. [B] is.": 2,
	} {
		require.Equal(t, want, sentences(text), text)
	}
}
