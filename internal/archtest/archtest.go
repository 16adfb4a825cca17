// Package archtest holds a module's import edges against a declared list, so
// that the direction of imports is a test and not a custom. A service's
// app/imports_test.go calls Check; run it with -count=1, since Go's test cache
// does not see the packages that it lists.
package archtest

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os/exec"
	"path"
	"slices"
	"sort"
	"strings"
	"testing"
)

// Edges says which packages of the same workspace each package may import.
// Both sides are paths below the module ("internal/route"), or for other
// modules of the workspace below its root ("weir/internal/admin"). A trailing
// "/*" on the right stands for every package below; "*" for all of the module.
type Edges map[string][]string

// root is the path under which all modules of the workspace lie.
const root = "github.com/weirproxy/"

// pkg is what is used of the go tool's description of a package.
type pkg struct {
	ImportPath string
	Dir        string
	Imports    []string
	GoFiles    []string
}

// Check fails t for each import of module's packages that edges does not
// declare, for each declared edge or package that does not exist, and for each
// package that has not exactly one package comment of at least two sentences.
// Imports of test files are free.
func Check(t *testing.T, module string, edges Edges) {
	t.Helper()
	packages, err := list(module)
	if err != nil {
		t.Fatal(err)
	}
	found := faults(module, packages, edges)
	for _, p := range packages {
		if fault := commentFault(p); fault != "" {
			found = append(found, shortPath(module, p.ImportPath)+": "+fault)
		}
	}
	sort.Strings(found)
	for _, fault := range found {
		t.Error(fault)
	}
}

// list asks the go tool for module's packages that have more than tests.
func list(module string) ([]pkg, error) {
	out, err := exec.Command("go", "list", "-json=ImportPath,Dir,Imports,GoFiles", module+"/...").Output()
	if exit, ok := errors.AsType[*exec.ExitError](err); ok {
		return nil, fmt.Errorf("go list %s/...: %w: %s", module, err, exit.Stderr)
	}
	if err != nil {
		return nil, fmt.Errorf("go list %s/...: %w", module, err)
	}
	var packages []pkg
	for d := json.NewDecoder(bytes.NewReader(out)); ; {
		var p pkg
		if err := d.Decode(&p); errors.Is(err, io.EOF) {
			return packages, nil
		} else if err != nil {
			return nil, fmt.Errorf("read go list %s/...: %w", module, err)
		}
		if len(p.GoFiles) > 0 {
			packages = append(packages, p)
		}
	}
}

// shortPath is an import path as Edges names it.
func shortPath(module, importPath string) string {
	if rest, ok := strings.CutPrefix(importPath, module+"/"); ok {
		return rest
	}
	return strings.TrimPrefix(importPath, root)
}

// faults compares the imports with the declared edges, both ways.
func faults(module string, packages []pkg, edges Edges) []string {
	var found []string
	used := map[string]bool{}
	seen := map[string]bool{}
	for _, p := range packages {
		from := shortPath(module, p.ImportPath)
		seen[from] = true
		if _, ok := edges[from]; !ok {
			found = append(found, fmt.Sprintf("%s: package not declared", from))
		}
		for _, i := range p.Imports {
			if !strings.HasPrefix(i, root) {
				continue
			}
			to := shortPath(module, i)
			edge := slices.IndexFunc(edges[from], func(allowed string) bool { return matches(allowed, to) })
			if edge < 0 {
				found = append(found, fmt.Sprintf("%s imports %s: edge not declared", from, to))
				continue
			}
			used[from+" "+edges[from][edge]] = true
		}
	}
	for from, tos := range edges {
		if !seen[from] {
			found = append(found, fmt.Sprintf("%s: declared, but there is no such package", from))
			continue
		}
		for _, to := range tos {
			if !used[from+" "+to] {
				found = append(found, fmt.Sprintf("%s imports %s: declared, but not so", from, to))
			}
		}
	}
	return found
}

func matches(allowed, to string) bool {
	if allowed == "*" {
		return !strings.HasPrefix(to, "weir/")
	}
	if dir, ok := strings.CutSuffix(allowed, "/*"); ok {
		return strings.HasPrefix(to, dir+"/")
	}
	return path.Clean(allowed) == to
}
