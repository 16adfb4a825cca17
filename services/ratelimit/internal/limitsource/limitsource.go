// Package limitsource holds what all sources of rules have in common: which of
// several claims on a domain is put in force, and what is known of the rules
// that are. Its packages watch a directory or a control plane, and hand what
// they read to an InForce. Whatever they read, the last good rules of every
// domain stay; it never reads rules itself.
package limitsource

import (
	"fmt"
	"log/slog"
	"slices"
	"sync/atomic"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/weirproxy/weir/services/ratelimit/internal/limits"
)

// Sink takes the rules that are to be in force.
type Sink interface {
	SetRules(*limits.Set)
}

// Options are those of every source. All fields but the switches and
// Loading are required.
type Options struct {
	// MergeDomains has several files or resources give one domain, each other
	// descriptors.
	MergeDomains bool
	// AllOrNothing keeps all rules as they are while anything is wrong, instead
	// of those of the files or resources concerned.
	AllOrNothing bool
	// Loading, if it is not nil, is told of how many bytes rules are about to be
	// read, and what it returns is called when they are in force.
	Loading func(size int) (done func())
	Parser  *limits.Parser
	Sink    Sink
	Log     *slog.Logger
	Metrics prometheus.Registerer
}

// InForce is the rules of one source that are in force, and what was wrong with
// what it read last. Take and Domains belong to one goroutine; the other methods
// may be called from any. The zero InForce has no rules and takes none.
type InForce struct {
	options Options
	why     func() error
	stats   *stats
	domains Domains
	// refused is what was wrong with the last load; nil before the first.
	refused atomic.Pointer[[]string]
	// loaded is whether rules were in force once.
	loaded atomic.Bool
}

// BeginLoad begins a load of rules of so many bytes; done ends it, after Take.
func (o *Options) BeginLoad(size int) (done func()) {
	if o.Loading == nil {
		return func() {}
	}
	return o.Loading(size)
}

// NewInForce makes an InForce without rules. Why says why a source has read none
// though nothing is wrong with what it read; it is called from any goroutine.
func NewInForce(o Options, why func() error) *InForce {
	return &InForce{options: o, why: why, stats: newStats(o.Metrics)}
}

// Domains are those in force. They must not be changed.
func (f *InForce) Domains() Domains { return f.domains }

// Take ends a load. It puts next in force and returns true, unless
//
//   - next is nil;
//   - something is wrong, and all or nothing is wanted;
//   - something is wrong and nothing is good, and there were no rules yet.
//
// Refused is a line for each thing that is wrong; it is logged where it is not
// that of the load before, the first hundred of many. Sources is how many files or
// resources were read, good or not, and unread how many, or directories, could not
// be. The log's line of what is in force begins with load, which are names and
// values.
func (f *InForce) Take(next Domains, refused []string, sources, unread int, load ...any) (taken bool) {
	refusal := "rules refused"
	if len(f.domains) > 0 {
		refusal = "rules refused, the last good ones stay"
	}
	good := len(refused) == 0
	if taken = next != nil && (good || !f.options.AllOrNothing && (len(next) > 0 || f.loaded.Load())); taken {
		f.domains = next
		f.options.Sink.SetRules(next.Set())
		f.loaded.Store(true)
	}
	f.options.Parser.Stats.Retain(f.domains.Set())
	f.stats.sources.Set(float64(sources))
	f.stats.unread.Add(float64(unread))
	if good {
		f.stats.loadSuccess.Inc()
	} else {
		f.stats.loadError.Inc()
	}
	wrong := len(refused)
	refused = Bounded(refused)
	before := f.refused.Swap(&refused)
	news := before == nil || !slices.Equal(*before, refused)
	if news {
		for _, line := range refused {
			f.options.Log.Error(refusal, "error", line)
		}
	}
	rules := 0
	for _, c := range f.domains {
		rules += len(c.Domain.Rules)
	}
	f.options.Log.Info("rules in force",
		append(load, "domains", len(f.domains), "rules", rules, "refused", wrong)...)
	if err := f.NoRules(); err != nil && news {
		f.options.Log.Error("every call is refused until there are rules", "error", err)
	}
	return taken
}

// Refused lists what is wrong with what was read last, one line each, the first
// hundred of many. The list must not be changed.
func (f *InForce) Refused() []string {
	if refused := f.refused.Load(); refused != nil {
		return *refused
	}
	return []string{}
}

// NoRules returns nil if rules were in force since the start, else why there
// were none: what is wrong first, or else what the source says.
func (f *InForce) NoRules() error {
	if f.loaded.Load() {
		return nil
	}
	if refused := f.Refused(); len(refused) > 0 {
		return fmt.Errorf("no rules: %s", refused[0])
	}
	return fmt.Errorf("no rules: %w", f.why())
}
