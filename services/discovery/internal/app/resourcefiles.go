package app

import (
	"context"
	"time"

	"github.com/weirproxy/weir/internal/admin"
	"github.com/weirproxy/weir/internal/daemon"
	"github.com/weirproxy/weir/internal/filewatch"
	"github.com/weirproxy/weir/internal/setting"
	"github.com/weirproxy/weir/services/discovery/internal/auth"
	"github.com/weirproxy/weir/services/discovery/internal/resourcefiles"
	"github.com/weirproxy/weir/services/discovery/internal/resources"
	"github.com/weirproxy/weir/services/discovery/internal/xds"
)

// FileOptions are the settings of resources that operators write.
type FileOptions struct {
	Resources     string        `envconfig:"DISCOVERY_XDS_RESOURCES" desc:"directory of resources for xDS clients, YAML or JSON, at any depth; read again when they change; if unset, there are none"`
	ResourcesPoll time.Duration `envconfig:"DISCOVERY_XDS_RESOURCES_POLL" default:"10s" desc:"time between looks at them, for changes of which the file system does not tell, 10ms at least"`
	SecretRules   string        `envconfig:"DISCOVERY_XDS_SECRET_RULES" desc:"file of rules of which xDS client may have which secret of DISCOVERY_XDS_RESOURCES, YAML; read again when it changes; if unset, no client may have any"`
}

// check reports each fault of a value that its type alone does not rule out.
func (o FileOptions) check(fault func(format string, args ...any)) {
	setting.AtLeast("DISCOVERY_XDS_RESOURCES_POLL", o.ResourcesPoll, leastPoll, fault)
	if o.SecretRules != "" && o.Resources == "" {
		fault("DISCOVERY_XDS_SECRET_RULES=%s: without DISCOVERY_XDS_RESOURCES there are no secrets", o.SecretRules)
	}
}

// fileStatus is what is in force of the resources of files, and what is wrong with
// which; nil where there are none.
func (a *App) fileStatus() *resourcefiles.Status {
	if a.inputs.source == nil {
		return nil
	}
	return a.inputs.source.Status()
}

// openSecrets reads the rules of secrets, if there are any.
func (a *App) openSecrets() (*resourcefiles.Secrets, error) {
	if a.options.SecretRules == "" {
		return &resourcefiles.Secrets{}, nil
	}
	return resourcefiles.OpenSecrets(resourcefiles.SecretOptions{
		File:    filewatch.File{Setting: "DISCOVERY_XDS_SECRET_RULES", Path: a.options.SecretRules},
		Poll:    a.options.ResourcesPoll,
		Log:     a.log,
		Metrics: a.metrics,
	})
}

// mayHaveSecret says who may have a secret by rules: as who they are by the rules
// of access of now, whatever those were when their streams were opened, and as
// the node that these let them be.
func mayHaveSecret(rules *resourcefiles.Secrets) func(context.Context, resources.Asker, string) bool {
	return func(ctx context.Context, node resources.Asker, secret string) bool {
		caller := auth.FromContext(ctx).Now()
		return caller.IsNode(node.ID, node.Cluster) && rules.Allowed(secret, node, caller.Identity())
	}
}

// openResources reads the resources of files, if there are any, and returns where more
// of them come from.
func (a *App) openResources() (*resourcefiles.Source, resourcefiles.Resources, error) {
	if a.options.Resources == "" {
		return nil, nil, nil
	}
	return resourcefiles.Open(resourcefiles.Options{
		Directory: filewatch.File{Setting: "DISCOVERY_XDS_RESOURCES", Path: a.options.Resources},
		Poll:      a.options.ResourcesPoll,
		Log:       a.log,
		Metrics:   a.metrics,
	})
}

// addFiles has the resources of files served, if there are any, by rules.
func (a *App) addFiles(server *xds.Server, operators *admin.Server) {
	source, rules := a.inputs.source, a.inputs.rules
	operators.Handle("GET /xds/files", "resources of files: what is in force, and what is wrong with which file", shown(func() (any, error) {
		if now := a.fileStatus(); now != nil {
			return now, nil
		}
		return resourcefiles.Status{Files: []resourcefiles.FileStatus{}, Resources: map[string][]string{}, Warnings: []string{}}, nil
	}))
	if source == nil {
		return
	}
	server.SetFiles(a.inputs.resources)
	a.group.Add(daemon.Background("resource files", func(ctx context.Context) error {
		source.Run(ctx, func(all resourcefiles.Resources) { server.SetFiles(all) })
		return nil
	}))
	if a.options.SecretRules != "" {
		a.group.Add(daemon.Background("rules of secrets", func(ctx context.Context) error {
			rules.Run(ctx, server.RecheckSecrets)
			return nil
		}))
	}
}
