// Package v2 is the JSON face of the registry: hosts register, beat and go;
// readers list them, wait for changes and follow them; operators weigh hosts,
// drain them and set them in maintenance, and see what clients of xDS have and say.
// openapi.yaml says all of it, and a
// test holds the handlers to that file. The app serves its Routes. It checks
// and normalises all that comes in, and keeps no state but who waits.
package v2

import (
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/weirproxy/weir/services/discovery/internal/lrs"
	"github.com/weirproxy/weir/services/discovery/internal/registry"
	"github.com/weirproxy/weir/services/discovery/internal/resourcefiles"
	"github.com/weirproxy/weir/services/discovery/internal/rest/call"
	"github.com/weirproxy/weir/services/discovery/internal/rest/sheet"
	"github.com/weirproxy/weir/services/discovery/internal/xds"
)

// Options is what the face is made of. Every field but Loads is required.
type Options struct {
	Registry *registry.Registry
	// Env and Replica are what the status says of this process.
	Env, Replica string
	// TTL is that of a host that names none; MaxTTL is the longest that one may
	// name. Both are whole seconds.
	TTL, MaxTTL time.Duration
	// LongPollMax is how long a list may be waited for at most.
	LongPollMax time.Duration
	// MaxWaiters is how many lists are waited for and event streams open at
	// once.
	MaxWaiters int
	// Stopping is closed when no call is to wait any longer.
	Stopping <-chan struct{}
	// Loads tells the load of clusters, ordered by name. It may be nil: then none
	// is known.
	Loads func() []lrs.ClusterLoad
	// Clients tells of a part of the clients of xDS, Resources of what the client of
	// a stream's number has of names with a part, false if there is no such client.
	Clients   func(xds.ClientQuery) xds.ClientList
	Resources func(stream uint64, part string) ([]xds.ResourceStatus, bool)
	// Files tells of the files of resources; nil where there is no directory of them.
	Files   func() *resourcefiles.Status
	Metrics prometheus.Registerer
}

// face answers the calls.
type face struct {
	registry    *registry.Registry
	lists       *registry.Keeper[*sheet.Sheet]
	env         string
	replica     string
	terms       terms
	longPollMax time.Duration
	waiters     *waiters
	stopping    <-chan struct{}
	loadsOf     func() []lrs.ClusterLoad
	clientsOf   func(xds.ClientQuery) xds.ClientList
	resourcesOf func(uint64, string) ([]xds.ResourceStatus, bool)
	filesOf     func() *resourcefiles.Status
}

// Routes are the face's.
func Routes(o Options) []call.Route {
	f := &face{
		registry:    o.Registry,
		lists:       registry.NewKeeper(o.Registry, makeSheet),
		env:         o.Env,
		replica:     o.Replica,
		terms:       terms{ttl: o.TTL, maxTTL: o.MaxTTL},
		longPollMax: o.LongPollMax,
		waiters:     newWaiters(o.MaxWaiters, o.Metrics),
		stopping:    o.Stopping,
		loadsOf:     o.Loads,
		clientsOf:   o.Clients,
		resourcesOf: o.Resources,
		filesOf:     o.Files,
	}
	type methods = map[string]call.Handler
	const host = "/v2/services/{service}/hosts/{id}"
	return []call.Route{
		{Path: "/v2/services/{service}/hosts", Methods: methods{"GET": f.list}},
		{Path: "/v2/heartbeats", Methods: methods{"POST": f.beatMany}},
		{Path: host + "/heartbeat", Methods: methods{"POST": f.beat}},
		{Path: host, Methods: methods{"PUT": f.put, "GET": f.get, "DELETE": f.remove}},
		{Path: "/v2/services", Methods: methods{"GET": f.services}},
		{Path: "/v2/services/{service}/revisions", Methods: methods{"GET": f.revisions}},
		{Path: "/v2/services/{service}/history", Methods: methods{"GET": f.history}},
		{Path: "/v2/events", Methods: methods{"GET": f.events}},
		{Path: "/v2/settings", Methods: methods{"GET": f.settings}},
		{Path: "/v2/settings/{kind}", Methods: methods{"PUT": f.putSetting, "DELETE": f.deleteSetting}},
		{Path: "/v2/guard", Methods: methods{"GET": f.guard}},
		{Path: "/v2/guard/suspension", Methods: methods{"DELETE": f.liftGuard}},
		{Path: "/v2/loads", Methods: methods{"GET": f.loads}},
		{Path: "/v2/xds/clients", Methods: methods{"GET": f.clients}},
		{Path: "/v2/xds/clients/{number}", Methods: methods{"GET": f.clientResources}},
		{Path: "/v2/xds/files", Methods: methods{"GET": f.files}},
		{Path: "/v2/status", Methods: methods{"GET": f.status}},
		{Path: "/v2/openapi.yaml", Methods: methods{"GET": f.openAPI}},
	}
}
