package app

import (
	"github.com/weirproxy/weir/internal/filewatch"
	"github.com/weirproxy/weir/internal/setting"
	"github.com/weirproxy/weir/services/discovery/internal/hds"
)

// HealthCheckOptions are the settings of what Envoys check.
type HealthCheckOptions struct {
	HDSFile        string  `envconfig:"DISCOVERY_HDS_FILE" desc:"file of the services whose hosts Envoys check, and how, YAML; read again when it changes; if unset, none is checked"`
	HDSMaxCheckers int     `envconfig:"DISCOVERY_HDS_MAX_CHECKERS" default:"100" desc:"Envoys that check hosts at once; more are refused"`
	HDSMaxShare    float64 `envconfig:"DISCOVERY_HDS_MAX_SHARE" default:"0.5" desc:"share of a service's checked hosts that are unhealthy at most; where more are found to be so, none is"`
}

// check reports each fault of a value that its type alone does not rule out.
func (o HealthCheckOptions) check(fault func(format string, args ...any)) {
	setting.AtLeast("DISCOVERY_HDS_MAX_CHECKERS", o.HDSMaxCheckers, 1, fault)
	setting.Share("DISCOVERY_HDS_MAX_SHARE", o.HDSMaxShare, fault)
}

// newHealthChecks makes what has Envoys check hosts, if there is a file that says
// which; if not, it returns nil. The error names the setting and all that is wrong.
func (a *App) newHealthChecks() (*hds.Server, error) {
	if a.options.HDSFile == "" {
		return nil, nil
	}
	return hds.New(hds.Options{
		Registry:    a.hosts,
		File:        filewatch.File{Setting: "DISCOVERY_HDS_FILE", Path: a.options.HDSFile},
		Poll:        filePoll,
		MaxCheckers: a.options.HDSMaxCheckers,
		MaxShare:    a.options.HDSMaxShare,
		Refusal:     a.access.gate.Status,
		Log:         a.log,
		Metrics:     a.metrics,
	})
}
