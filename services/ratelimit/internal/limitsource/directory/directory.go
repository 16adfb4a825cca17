// Package directory watches a directory of rule files and hands each new set
// of rules on. app starts it beside the listeners, with the limiter as its
// sink. Whatever happens to the files, it keeps the last good rules of every
// domain, and it never stops the service; until there were good rules once, it
// hands on none and says why.
package directory

import (
	"errors"
	"path/filepath"
	"time"

	"github.com/weirproxy/weir/internal/filewatch"
	"github.com/weirproxy/weir/services/ratelimit/internal/limits"
	"github.com/weirproxy/weir/services/ratelimit/internal/limitsource"
)

// Options says what is watched. All fields but the switches are required.
type Options struct {
	limitsource.Options
	// Directory holds the rule files, at any depth. It need not be there yet.
	Directory string
	// Root is Directory or a directory above it. Directory's path is watched
	// from Root's parent on, so that a link anywhere in it may be swapped.
	Root string
	// IgnoreDot leaves out entries whose name begins with a dot.
	IgnoreDot bool
	// Poll is the time between looks at the files' contents, which find what
	// the file system did not tell.
	Poll time.Duration
}

// Source is one watched directory. Load and Run belong to one goroutine, the
// methods of InForce but Take and Domains to any.
type Source struct {
	*limitsource.InForce
	options Options
	files   filewatch.Loop[snapshot]
	// path is the directories from Root's parent down to Directory.
	path []string
	// parts are what makes the domains in force, where domains are merged.
	parts []part
}

// New makes a source; nothing is read yet.
func New(o Options) *Source {
	none := func() error { return errors.New("no rule file in " + o.Directory) }
	s := &Source{InForce: limitsource.NewInForce(o.Options, none), options: o}
	s.options.Directory = filepath.Clean(o.Directory)
	s.path = pathFrom(filepath.Dir(filepath.Clean(o.Root)), s.options.Directory)
	s.files = filewatch.Loop[snapshot]{Poll: o.Poll, What: "rule files", Log: o.Log, Look: s.look, Concerns: s.concerns}
	return s
}

// Read reads the directory once, for a tool: it returns the rules that a source
// which starts now would put in force, and a line for each thing that is wrong.
// Of the options it takes those that say what is read and how, and neither
// Sink, Log nor Metrics. The error is that of the directory itself.
func Read(o Options) (rules *limits.Set, refused []string, err error) {
	now, err := read(o.Directory, o.IgnoreDot)
	if err != nil {
		return nil, nil, err
	}
	s := &Source{InForce: &limitsource.InForce{}, options: o}
	next, _, refused := s.choose(now.files)
	return next.Set(), refused, nil
}

// Load reads the directory, puts its good rules in force and logs what is
// wrong with the others.
func (s *Source) Load() { s.apply(s.files.First()) }

// apply makes rules of a snapshot, or, if the directory cannot be read, keeps
// those that there are. That nothing is left is a change of rules like others;
// that nothing was there yet is not, since a wrong path would switch all limits
// off.
func (s *Source) apply(now snapshot, err error) {
	defer s.options.BeginLoad(now.size())()
	unread := now.unread()
	sources := len(now.files) - unread
	var next limitsource.Domains
	var parts []part
	var refused []string
	if err != nil {
		unread, refused = 1, []string{err.Error()}
	} else {
		next, parts, refused = s.choose(now.files)
	}
	if len(next) == 0 && s.NoRules() != nil {
		next = nil
	}
	if s.Take(next, refused, sources, unread, "directory", s.options.Directory, "files", len(now.files)) {
		s.parts = parts
	}
}
