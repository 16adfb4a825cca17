package resourcefiles

import (
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/weirproxy/weir/services/discovery/internal/resources"
)

// State is how a file is.
type State string

// The states of files.
const (
	// Good is a file that is in force as it is.
	Good State = "good"
	// Kept is one that is bad, of which what it gave before stays in force.
	Kept State = "kept"
	// Bad is one that is bad and never was good.
	Bad State = "bad"
)

// Status is what is in force of a directory, and what is wrong there. Of secrets
// it has the names.
type Status struct {
	Directory string       `json:"directory"`
	Files     []FileStatus `json:"files"`
	// Resources are the names by type, sorted.
	Resources map[string][]string `json:"resources"`
	// Warnings tell of resources that name one which no file has, a line each.
	Warnings []string `json:"warnings"`
}

// FileStatus is one file, or a directory that cannot be read.
type FileStatus struct {
	Path  string `json:"path"`
	State State  `json:"state"`
	// Faults are what is wrong with it, a line each.
	Faults []string `json:"faults,omitempty"`
	// Resources is how many are in force.
	Resources int `json:"resources"`
}

// status is a choice as it is shown.
func (c choice) status(directory string) Status {
	s := Status{Directory: directory, Files: []FileStatus{}, Resources: map[string][]string{}, Warnings: []string{}}
	paths := maps.Clone(c.faults)
	for path := range c.claims {
		paths[path] = nil
	}
	names := map[key]bool{}
	for _, path := range slices.Sorted(maps.Keys(paths)) {
		f := FileStatus{Path: path, State: Good}
		in := c.claims[path]
		if in != nil {
			f.Resources = len(in.entries)
			for _, e := range in.entries {
				names[e.key] = true
				s.Resources[e.typ.String()] = append(s.Resources[e.typ.String()], e.name)
			}
		}
		if err := c.faults[path]; err != nil {
			f.State, f.Faults = Kept, strings.Split(err.Error(), "\n")
			if len(c.kept(path)) == 0 {
				f.State = Bad
			}
		}
		s.Files = append(s.Files, f)
	}
	for _, list := range s.Resources {
		slices.Sort(list)
	}
	s.Warnings = append(s.Warnings, c.warnings(names)...)
	return s
}

// maxWarnings is how many warnings are shown.
const maxWarnings = 100

// warnings tells which resources name one that no file has. Such may come from
// the registry, or be the client's own.
func (c choice) warnings(names map[key]bool) (list []string) {
	for _, path := range slices.Sorted(maps.Keys(c.claims)) {
		for _, e := range c.claims[path].entries {
			for _, wanted := range e.names {
				if names[wanted] {
					continue
				}
				if len(list) == maxWarnings {
					return append(list, "and more")
				}
				list = append(list, fmt.Sprintf("%s: %v names %v, which no file has%s", e.place, e.key, wanted, unless(wanted.typ)))
			}
		}
	}
	return list
}

// unless says who else may have a resource of a type.
func unless(t resources.Type) string {
	switch t {
	case resources.Clusters, resources.Endpoints, resources.Routes:
		return ": it must be a service, or the client's own"
	default:
		return ""
	}
}
