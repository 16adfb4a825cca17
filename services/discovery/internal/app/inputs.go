package app

import (
	"errors"
	"fmt"
	"log/slog"
	"net"

	"github.com/weirproxy/weir/services/discovery/internal/builtin"
	"github.com/weirproxy/weir/services/discovery/internal/registry"
	"github.com/weirproxy/weir/services/discovery/internal/resourcefiles"
	"github.com/weirproxy/weir/services/discovery/internal/resources"
	"github.com/weirproxy/weir/services/discovery/internal/templatefile"
)

// inputs are the sockets and what was read of files. All are opened before the first
// fault of any ends the start, so that all that is wrong with settings is told at once.
type inputs struct {
	http, xds, admin net.Listener

	// template is what the template of clusters said at first, and templates what reads
	// it again; nil if there is none.
	template  *resources.Template
	templates *templatefile.Watch
	rules     *resourcefiles.Secrets
	// source is the files of resources, nil if there are none, and resources what
	// these said at first.
	source    *resourcefiles.Source
	resources resourcefiles.Resources
}

// openStore opens the store of the settings. The error names them.
func (a *App) openStore() (builtin.Store, error) {
	o := a.options
	store, err := builtin.OpenStore(o.Store, builtin.StoreOptions{
		Snapshot: o.Snapshot, SnapshotInterval: o.SnapshotInterval, Name: o.identifier(), Log: a.log, Metrics: a.metrics,
	})
	if err != nil {
		return nil, fmt.Errorf("DISCOVERY_STORE: %w", err)
	}
	return store, nil
}

// openFiles reads all files that settings name but the store's, for access and for
// what is served, and makes what can't be without them. It says nothing of values, which
// check does. What has hosts checked reads its file as it is made, for which it takes
// the registry: so this is made without a store too, and then never run. The error names
// the settings and all that is wrong.
func (a *App) openFiles(store registry.Store) error {
	var badAccess, badTemplate, badRules, badFiles, badChecks error
	a.access, badAccess = newAccess(a.options.AccessOptions, a.metrics, a.log)
	a.inputs.templates, a.inputs.template, badTemplate = a.options.openTemplate(a.metrics, a.log)
	a.inputs.rules, badRules = a.openSecrets()
	a.inputs.source, a.inputs.resources, badFiles = a.openResources()
	a.hosts = a.newRegistry(store)
	a.checks, badChecks = a.newHealthChecks()
	return errors.Join(badAccess, badTemplate, badRules, badFiles, badChecks)
}

// faults is all that is wrong with the values of settings, with the store and with the
// files that they name: where a value is wrong no listener is opened, and so what is
// wrong with those is told in another round. Nothing stays open.
func (o Options) faults() error {
	bad := o.check()
	o.SnapshotInterval = max(o.SnapshotInterval, leastPoll) // which may be what is wrong
	a := newApp(o, slog.New(slog.DiscardHandler))
	store, badStore := a.openStore()
	err := errors.Join(bad, badStore, a.openFiles(store))
	if store != nil {
		err = errors.Join(err, store.Close())
	}
	return err
}

// openListeners opens all listeners. The error names the settings of those that cannot
// be.
func (a *App) openListeners() error {
	var badHTTP, badXDS, badAdmin error
	address, setting := a.options.httpAddress()
	a.inputs.http, badHTTP = a.listeners.Open("http", address, setting)
	a.inputs.xds, badXDS = a.listeners.Open("xds", a.options.XDSAddress, "DISCOVERY_XDS_ADDRESS")
	a.inputs.admin, badAdmin = a.listeners.Open("admin", a.options.AdminAddress, "DISCOVERY_ADMIN_ADDRESS")
	return errors.Join(badHTTP, badXDS, badAdmin)
}
