// Package resourcefiles reads the resources that operators write for xDS clients,
// and the rules of which client may have which secret, from files, and reads them
// anew when they change. The app opens it beside the xds server, which is handed
// all resources at once; the tool that checks such files calls it too. A bad file
// changes nothing of what it gave before. The content of a secret is in nothing
// that this package tells.
package resourcefiles

import (
	"context"
	"fmt"
	"log/slog"
	"maps"
	"slices"
	"strings"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/weirproxy/weir/internal/filewatch"
	"github.com/weirproxy/weir/services/discovery/internal/resources"
)

// Options says what is watched. Every field is required.
type Options struct {
	// Directory holds the files, at any depth, whose names end in .yaml, .yml or
	// .json and do not begin with a dot.
	Directory filewatch.File
	// Poll is the time between looks at the files, for changes of which the file
	// system does not tell.
	Poll    time.Duration
	Log     *slog.Logger
	Metrics prometheus.Registerer
}

// tree is what is read of a directory.
func (o Options) tree() filewatch.TreeOptions {
	return filewatch.TreeOptions{
		Directory: o.Directory, Endings: []string{".yaml", ".yml", ".json"},
		Poll: o.Poll, What: "resource files", Log: o.Log,
	}
}

// Resources are resources by type; a name is there once in each.
type Resources map[resources.Type][]*resources.Resource

// Source is one watched directory.
type Source struct {
	options Options
	tree    *filewatch.Tree
	chosen  choice
	metrics *metrics
	status  atomic.Pointer[Status]
}

// Read reads a directory once, for a tool, and says what a server would serve
// that starts now, if it did with bad files. Of the options it takes Directory.
// The error is of the directory itself.
func Read(o Options) (Status, error) {
	files, err := filewatch.ReadTree(o.tree())
	if err != nil {
		return Status{}, err
	}
	return choice{}.choose(files).status(o.Directory.Path), nil
}

// Open reads the files for the first time. The error names the setting and all
// that is wrong with any of them: nobody knows what a bad file gave before, and
// clients would lose that if the others were served without it.
func Open(o Options) (*Source, Resources, error) {
	tree, files, err := filewatch.OpenTree(o.tree())
	if err != nil {
		return nil, nil, err
	}
	s := &Source{options: o, tree: tree, chosen: choice{}.choose(files)}
	if err := s.chosen.err(); err != nil {
		return nil, nil, fmt.Errorf("%s: %w", o.Directory.Setting, err)
	}
	s.metrics = newMetrics(o.Metrics)
	s.show()
	return s, s.chosen.resources(), nil
}

// Run gives take all resources whenever some of them may have changed, until ctx
// ends. A bad file is logged, and what it gave before stays.
func (s *Source) Run(ctx context.Context, take func(Resources)) {
	s.tree.Run(ctx, func(files []filewatch.TreeFile, err error) {
		if err != nil {
			s.options.Log.Error("resource files are not changed", "error", err)
			s.chosen.faults = map[string]error{s.options.Directory.Path: err}
			s.show()
			return
		}
		s.chosen = s.chosen.choose(files)
		s.show()
		s.log()
		take(s.chosen.resources())
	})
}

// Status is what is in force and what is wrong. It may be called from any
// goroutine, and nobody may change it.
func (s *Source) Status() *Status { return s.status.Load() }

// show makes status and metrics those of what is in force.
func (s *Source) show() {
	now := s.chosen.status(s.options.Directory.Path)
	s.status.Store(&now)
	s.metrics.set(now.Files)
}

// log tells what came of the files.
func (s *Source) log() {
	now := s.Status()
	for _, f := range now.Files {
		message := "resource file refused"
		if f.State == Kept {
			message = "resource file refused, what it gave before stays"
		}
		for _, fault := range f.Faults {
			s.options.Log.Error(message, "file", f.Path, "error", fault)
		}
	}
	count := 0
	for _, list := range now.Resources {
		count += len(list)
	}
	s.options.Log.Info("resource files read", "directory", now.Directory, "files", len(s.chosen.claims), "refused", len(s.chosen.faults), "resources", count)
}

// err joins all that is wrong, file by file.
func (c choice) err() error {
	if len(c.faults) == 0 {
		return nil
	}
	var all []string
	for _, path := range slices.Sorted(maps.Keys(c.faults)) {
		all = append(all, c.faults[path].Error())
	}
	return fmt.Errorf("%s", strings.Join(all, "\n"))
}

// resources are those in force.
func (c choice) resources() Resources {
	all := Resources{}
	for _, path := range slices.Sorted(maps.Keys(c.claims)) {
		for _, e := range c.claims[path].entries {
			all[e.typ] = append(all[e.typ], e.resource)
		}
	}
	return all
}
