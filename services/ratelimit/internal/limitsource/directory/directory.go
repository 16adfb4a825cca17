// Package directory watches a directory of rule files and hands each new set
// of rules on. app starts it beside the listeners, with the limiter as its
// sink. Whatever happens to the files, it keeps the last good rules of every
// domain, and it never stops the service; until there were good rules once, it
// hands on none and says why.
package directory

import (
	"context"
	"errors"
	"time"

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
	// last is the directory as it was last read, without its files; its hash is of
	// those that were last applied, good or not.
	last snapshot
	// parts are what makes the domains in force, where domains are merged.
	parts []part
}

// New makes a source; nothing is read yet.
func New(o Options) *Source {
	none := func() error { return errors.New("no rule file in " + o.Directory) }
	return &Source{InForce: limitsource.NewInForce(o.Options, none), options: o}
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
func (s *Source) Load() {
	now, err := read(s.options.Directory, s.options.IgnoreDot)
	s.apply(now, err)
}

// settle is the time in which files must not change to be taken as complete:
// a file that is being written is often right YAML already, but not all of it.
const settle = 20 * time.Millisecond

// reload reads the directory until two reads in a row agree, then applies what
// they found if it is new. It gives up after a second of changes; the poll
// comes back to them.
func (s *Source) reload(ctx context.Context) {
	before, beforeErr := read(s.options.Directory, s.options.IgnoreDot)
	s.last.directories = before.directories // an empty one is watched too
	if beforeErr == nil && before.hash == s.last.hash {
		return
	}
	for deadline := time.Now().Add(time.Second); time.Now().Before(deadline); {
		select {
		case <-ctx.Done():
			return
		case <-time.After(settle):
		}
		now, err := read(s.options.Directory, s.options.IgnoreDot)
		s.last.directories = now.directories
		if now.hash == before.hash && (err == nil) == (beforeErr == nil) {
			if now.hash != s.last.hash {
				s.apply(now, err)
			}
			return
		}
		before, beforeErr = now, err
	}
}

// apply makes rules of a snapshot, or, if the directory cannot be read, keeps
// those that there are. That nothing is left is a change of rules like others;
// that nothing was there yet is not, since a wrong path would switch all limits
// off.
func (s *Source) apply(now snapshot, err error) {
	defer s.options.BeginLoad(now.size())()
	s.last = snapshot{directories: now.directories, hash: now.hash}
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
