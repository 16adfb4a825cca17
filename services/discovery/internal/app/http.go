package app

import (
	"context"
	"net/http"
	"slices"

	"github.com/weirproxy/weir/internal/admin"
	"github.com/weirproxy/weir/internal/daemon"
	"github.com/weirproxy/weir/services/discovery/internal/rest/call"
	scrape "github.com/weirproxy/weir/services/discovery/internal/rest/prometheus"
	v1 "github.com/weirproxy/weir/services/discovery/internal/rest/v1"
	v2 "github.com/weirproxy/weir/services/discovery/internal/rest/v2"
	"github.com/weirproxy/weir/services/discovery/internal/web"
)

// addHTTP serves the listener of all REST faces and the page, behind the gate.
// registration is told of each registration by v1; it may be nil. operators are
// led to the page.
func (a *App) addHTTP(registration func(service string, taken bool), operators *admin.Server) {
	stopping := make(chan struct{})
	operators.Handle("GET /page", "services and hosts, live, to look at and to drain: the page of the HTTP listener",
		pageElsewhere(a.access.scheme(), a.Addrs()["http"]))
	a.group.Add(daemon.ServeHTTP("http listener", a.access.http(a.inputs.http), a.access.gate.HTTP(a.faces(registration, a.control.Routes(), stopping)), a.log,
		func(s *http.Server) { s.DisableGeneralOptionsHandler = true })) // the router answers all
	// Just before the listener stops, which waits for the calls in flight: those
	// that wait for a change are answered, and find another replica.
	a.group.Add(daemon.Part{Name: "waiting calls", Stop: func(context.Context) error {
		close(stopping)
		a.control.StopWaiting()
		return nil
	}})
}

// faces makes the REST faces and the page. No call waits once stopping is closed.
func (a *App) faces(registration func(service string, taken bool), polls []call.Route, stopping <-chan struct{}) http.Handler {
	o := a.options
	routes := slices.Concat(
		v1.Routes(v1.Options{
			Registry:     a.hosts,
			Env:          o.Env,
			TTL:          o.hostTTL(),
			MaxTTL:       o.MaxTTL,
			AutoIPHops:   o.AutoIPHops,
			AutoIPRanges: o.AutoIPRanges,
			Registration: registration,
		}),
		v2.Routes(v2.Options{
			Registry:    a.hosts,
			Env:         o.Env,
			Replica:     o.identifier(),
			TTL:         o.hostTTL(),
			MaxTTL:      o.MaxTTL,
			LongPollMax: o.LongPollMax,
			MaxWaiters:  o.MaxWaiters,
			Stopping:    stopping,
			Loads:       a.loads.Loads,
			Clients:     a.control.Clients,
			Resources:   a.control.Resources,
			Files:       a.fileStatus,
			Metrics:     a.metrics,
		}),
		scrape.Routes(a.hosts),
		web.Routes(),
		polls,
	)
	return call.NewRouter(call.Options{Log: a.log, Metrics: a.metrics, Denials: a.access.denials}, routes...)
}
