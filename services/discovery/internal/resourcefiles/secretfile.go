package resourcefiles

import (
	"context"
	"fmt"
	"log/slog"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/weirproxy/weir/internal/filewatch"
	"github.com/weirproxy/weir/services/discovery/internal/resources"
)

// SecretOptions is how the file of rules is watched. Every field is required.
type SecretOptions struct {
	File    filewatch.File
	Poll    time.Duration
	Log     *slog.Logger
	Metrics prometheus.Registerer
}

// Secrets are the rules of a file as they are in force. The zero value has none,
// so that nobody may have a secret. Allowed may be called from any goroutine.
type Secrets struct {
	options SecretOptions
	watch   *filewatch.Watch
	rules   atomic.Pointer[SecretRules]
	good    prometheus.Gauge
}

// OpenSecrets reads the file for the first time. The error names the setting and
// all that is wrong with the file.
func OpenSecrets(o SecretOptions) (*Secrets, error) {
	watch, contents, err := filewatch.Open(filewatch.Options{
		Files: []filewatch.File{o.File}, Poll: o.Poll, What: "rules of secrets", Log: o.Log,
	})
	if err != nil {
		return nil, err
	}
	rules, err := ReadSecretRules(o.File.Path, contents[0])
	if err != nil {
		return nil, fmt.Errorf("%s: %w", o.File.Setting, err)
	}
	s := &Secrets{options: o, watch: watch, good: prometheus.NewGauge(prometheus.GaugeOpts{
		Name: "discovery_xds_secret_rules_good",
		Help: "1 while secrets go by the rules of their file, 0 while that is bad and those before it stay.",
	})}
	o.Metrics.MustRegister(s.good)
	s.good.Set(1)
	s.rules.Store(rules)
	return s, nil
}

// Allowed is SecretRules.Allowed by the rules in force.
func (s *Secrets) Allowed(secret string, node resources.Asker, identity string) bool {
	rules := s.rules.Load()
	return rules != nil && rules.Allowed(secret, node, identity)
}

// Run reads the file anew whenever it changes, until ctx ends, and calls changed
// once the new rules are in force. A bad file is logged, and the rules before it
// stay.
func (s *Secrets) Run(ctx context.Context, changed func()) {
	s.watch.Run(ctx, func(contents [][]byte, err error) {
		var rules *SecretRules
		if err == nil {
			rules, err = ReadSecretRules(s.options.File.Path, contents[0])
		}
		if err != nil {
			s.good.Set(0)
			s.options.Log.Error("the rules of secrets are not changed", "error", err)
			return
		}
		s.rules.Store(rules)
		s.good.Set(1)
		s.options.Log.Info("rules of secrets changed", "rules", len(rules.rules))
		changed()
	})
}
