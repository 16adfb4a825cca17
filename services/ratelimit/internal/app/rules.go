package app

import (
	"context"
	"errors"
	"fmt"
	"net/http"

	"github.com/weirproxy/weir/internal/daemon"
	"github.com/weirproxy/weir/services/ratelimit/internal/builtin"
	"github.com/weirproxy/weir/services/ratelimit/internal/limiter"
	"github.com/weirproxy/weir/services/ratelimit/internal/limits"
	"github.com/weirproxy/weir/services/ratelimit/internal/limitsource"
	"github.com/weirproxy/weir/services/ratelimit/internal/limitsource/directory"
	"github.com/weirproxy/weir/services/ratelimit/internal/limitsource/xds"
)

// ruleSource is where rules come from.
type ruleSource interface {
	// Run hands on rules as they change, until ctx ends.
	Run(ctx context.Context) error
	// Refused lists what is wrong with what there is, one line each.
	Refused() []string
	// NoRules returns nil once there were rules, else why there were none.
	NoRules() error
}

// openRules takes rules from where the options say.
func (b *build) openRules() error {
	o := &b.options
	rules := limitsource.Options{
		MergeDomains: o.MergeDomains,
		AllOrNothing: o.AllOrNothing,
		Loading:      b.load,
		Parser:       &limits.Parser{Algorithms: builtin.Algorithms(), NearLimitRatio: o.NearLimitRatio, Stats: b.stats},
		Sink:         b.limiter,
		Log:          b.log,
		Metrics:      b.metrics,
	}
	if o.ConfigType == configXDS {
		return b.openControlPlane(rules)
	}
	b.openDirectory(rules)
	return nil
}

// load is called as rules of so many bytes are about to be read, and what it
// returns when they are in force: readiness follows them at once.
func (b *build) load(size int) (done func()) {
	end := loadFrugally(size)
	return func() {
		select {
		case b.loaded <- struct{}{}:
		default: // it has yet to look
		}
		end()
	}
}

// openDirectory takes rules from files.
func (b *build) openDirectory(rules limitsource.Options) {
	o := &b.options
	source := directory.New(directory.Options{
		Options:   rules,
		Directory: o.rulesDirectory(),
		Root:      o.RuntimeRoot,
		IgnoreDot: o.IgnoreDotFiles,
		Poll:      o.RulesPoll,
	})
	source.Load()
	b.addRules(source)
}

// openControlPlane takes rules from a control plane.
func (b *build) openControlPlane(rules limitsource.Options) error {
	o := &b.options
	options := xds.Options{
		Options: rules,
		Server:  o.XDSServer, NodeID: o.XDSNodeID, NodeMetadata: o.XDSNodeMetadata, Headers: o.XDSHeaders,
		ConnectRetry: o.XDSRetry,
		Backoff:      xds.Backoff{Initial: o.XDSBackoff, Max: o.XDSBackoffMax},
		MaxMessage:   o.XDSMaxMessage,
	}
	if o.XDSBackoffJitter {
		options.Backoff.Spread = min(1, o.XDSBackoffFactor)
	}
	if o.XDSTLS {
		options.TLS = &xds.TLS{CertFile: o.XDSTLSCert, KeyFile: o.XDSTLSKey, CAFile: o.XDSTLSCA, SAN: o.XDSTLSSAN}
	}
	source, err := xds.New(options)
	if err != nil {
		return fmt.Errorf("CONFIG_GRPC_XDS_…: %w", err)
	}
	b.addRules(source)
	return nil
}

func (b *build) addRules(source ruleSource) {
	b.group.Add(daemon.Background("rule source", source.Run))
	b.rules = source
	if b.options.HealthyWithConfig {
		b.rules = needsDomain{source, b.limiter}
	}
}

// needsDomain is a source that has no rules while no domain is in force, though
// there was one before.
type needsDomain struct {
	ruleSource
	limiter *limiter.Limiter
}

// NoRules is part of ruleSource.
func (s needsDomain) NoRules() error {
	if err := s.ruleSource.NoRules(); err != nil {
		return err
	}
	for range s.limiter.Rules().Domains() {
		return nil
	}
	return errors.New("no rules: no domain is left of those that were loaded")
}

// serveRules writes one line for each rule in force, and before them, as
// comments, what is wrong with the others.
func serveRules(l *limiter.Limiter, source ruleSource) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "text/plain; charset=utf-8")
		for _, line := range source.Refused() {
			fmt.Fprintf(w, "# refused: %s\n", line)
		}
		for d := range l.Rules().Domains() {
			for _, rule := range d.Rules {
				fmt.Fprintln(w, rule)
			}
		}
	})
}
