package app

import (
	"log/slog"
	"net/http"
	"slices"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/weirproxy/weir/services/discovery/internal/denial"
	"github.com/weirproxy/weir/services/discovery/internal/registry"
	"github.com/weirproxy/weir/services/discovery/internal/rest/call"
	scrape "github.com/weirproxy/weir/services/discovery/internal/rest/prometheus"
	v1 "github.com/weirproxy/weir/services/discovery/internal/rest/v1"
	v2 "github.com/weirproxy/weir/services/discovery/internal/rest/v2"
)

// newFaces makes all that is served over HTTP. registration is told of each
// registration by v1; it may be nil. No call waits once stopping is closed.
func newFaces(
	o Options, hosts *registry.Registry, registration func(service string, taken bool), stopping <-chan struct{},
	denials *denial.Counters, metrics prometheus.Registerer, log *slog.Logger,
) http.Handler {
	routes := slices.Concat(
		v1.Routes(v1.Options{
			Registry:     hosts,
			Env:          o.Env,
			TTL:          o.hostTTL(),
			MaxTTL:       o.MaxTTL,
			AutoIPHops:   o.AutoIPHops,
			AutoIPRanges: o.AutoIPRanges,
			Registration: registration,
		}),
		v2.Routes(v2.Options{
			Registry:    hosts,
			TTL:         o.hostTTL(),
			MaxTTL:      o.MaxTTL,
			LongPollMax: o.LongPollMax,
			MaxWaiters:  o.MaxWaiters,
			Stopping:    stopping,
			Metrics:     metrics,
		}),
		scrape.Routes(hosts),
	)
	return call.NewRouter(call.Options{Log: log, Metrics: metrics, Denials: denials}, routes...)
}
