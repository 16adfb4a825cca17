// Package limitsource watches a directory of rule files and hands each new set
// of rules on. app starts it beside the listeners, with the limiter as its
// sink. Whatever happens to the files, it keeps the last good rules of every
// domain, and it never stops the service; until there were good rules once, it
// hands on none and says why.
package limitsource

import (
	"context"
	"fmt"
	"log/slog"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/weirproxy/weir/services/ratelimit/internal/limits"
)

// Sink takes the rules that are to be in force. The first that it is given
// hold a domain at least.
type Sink interface {
	SetRules(*limits.Set)
}

// Options says what is watched. All fields but the switches are required.
type Options struct {
	// Directory holds the rule files, at any depth. It need not be there yet.
	Directory string
	// Root is Directory or a directory above it. Directory's path is watched
	// from Root's parent on, so that a link anywhere in it may be swapped.
	Root string
	// IgnoreDot leaves out entries whose name begins with a dot.
	IgnoreDot bool
	// MergeDomains has several files give one domain, each other descriptors.
	MergeDomains bool
	// AllOrNothing keeps all rules as they are while anything is wrong with any
	// file, instead of those of the files concerned.
	AllOrNothing bool
	// Poll is the time between looks at the files' contents, which find what
	// the file system did not tell.
	Poll    time.Duration
	Parser  *limits.Parser
	Sink    Sink
	Log     *slog.Logger
	Metrics prometheus.Registerer
}

// Source is one watched directory. Load and Run belong to one goroutine.
type Source struct {
	options Options
	stats   *stats
	// last is the directory as it was last read; its files are those that were
	// last applied, good or not.
	last snapshot
	// chosen is what is in force.
	chosen choice
	// refused is what was wrong with last; read by Refused.
	refused atomic.Pointer[[]string]
	// loaded is whether rules were in force once; read by NoRules.
	loaded atomic.Bool
}

// New makes a source; nothing is read yet.
func New(o Options) *Source {
	s := &Source{options: o, stats: newStats(o.Metrics)}
	s.refused.Store(&[]string{})
	return s
}

// Refused lists what is wrong with the files as they are, one line each,
// "file:line:column: what". It may be called from any goroutine.
func (s *Source) Refused() []string { return *s.refused.Load() }

// NoRules returns nil if a domain was loaded since the start, else why there
// was none: what is wrong first, or that no file is there. It may be called
// from any goroutine.
func (s *Source) NoRules() error {
	if s.loaded.Load() {
		return nil
	}
	if refused := s.Refused(); len(refused) > 0 {
		return fmt.Errorf("no rules: %s", refused[0])
	}
	return fmt.Errorf("no rules: no rule file in %s", s.options.Directory)
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
	s := &Source{options: o}
	chosen, refused := s.choose(now.files)
	return chosen.set(), refused, nil
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
	s.last = now
	refusal := "rules refused"
	if len(s.chosen.domains) > 0 {
		refusal = "rules refused, the last good ones stay"
	}
	refused := []string{}
	if err != nil {
		refused = append(refused, err.Error())
	} else {
		var next choice
		next, refused = s.choose(now.files)
		if len(refused) == 0 || !s.options.AllOrNothing {
			s.put(next)
		}
		s.options.Parser.Stats.Retain(s.chosen.set())
	}
	s.refused.Store(&refused)
	for _, line := range refused {
		s.options.Log.Error(refusal, "error", line)
	}
	if len(refused) > 0 {
		s.stats.loadError.Inc()
	} else {
		s.stats.loadSuccess.Inc()
	}
	rules := 0
	for _, d := range s.chosen.domains {
		rules += len(d.Rules)
	}
	s.options.Log.Info("rules in force", "directory", s.options.Directory,
		"domains", len(s.chosen.domains), "rules", rules, "files", len(now.files), "refused", len(refused))
	if err := s.NoRules(); err != nil {
		s.options.Log.Error("every call is refused until there are rules", "error", err)
	}
}

// put puts a choice in force.
func (s *Source) put(next choice) {
	s.chosen = next
	if s.loaded.Load() || len(next.domains) > 0 {
		s.options.Sink.SetRules(next.set())
		s.loaded.Store(true)
	}
}
