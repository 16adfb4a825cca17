// Package v1 is the first REST face of the registry: hosts register and beat
// with one form-encoded call, and anyone lists, deregisters and weighs them.
// The app serves its Routes; Envoys of the legacy SDS poll the list. It checks
// and normalises all that comes in, so that no host can spoil a list for the
// others, and it keeps no state.
package v1

import (
	"fmt"
	"net/http"
	"net/netip"
	"time"

	"github.com/cespare/xxhash/v2"

	"github.com/weirproxy/weir/services/discovery/internal/registry"
	"github.com/weirproxy/weir/services/discovery/internal/rest/call"
	"github.com/weirproxy/weir/services/discovery/internal/rest/sheet"
	"github.com/weirproxy/weir/services/discovery/internal/rule"
)

// Options is what the face is made of. Every field but Registration is required.
type Options struct {
	Registry *registry.Registry
	// Env is what lists say as their env.
	Env string
	// TTL is that of a host that names none; MaxTTL is the longest that one may
	// name. Both are whole seconds.
	TTL, MaxTTL time.Duration
	// AutoIPHops is how many proxies of one's own stand in front: auto_ip is the
	// address that many from the end of X-Forwarded-For; with 0 it is that of
	// the connection. AutoIPRanges is where it must lie.
	AutoIPHops   int
	AutoIPRanges []netip.Prefix
	// Registration, unless nil, is told of each call by which a host of a
	// service registers or beats, and whether it was taken.
	Registration func(service string, taken bool)
}

// face answers the calls.
type face struct {
	registry *registry.Registry
	env      string
	envHash  uint64
	lists    *registry.Keeper[*sheet.Sheet]
	terms    terms
	told     func(service string, taken bool)
}

// Routes are the face's.
func Routes(o Options) []call.Route {
	f := &face{
		registry: o.Registry,
		env:      o.Env,
		envHash:  xxhash.Sum64String(o.Env),
		terms:    terms{ttl: o.TTL, maxTTL: o.MaxTTL, autoIP: autoIP{hops: o.AutoIPHops, ranges: o.AutoIPRanges}},
		told:     o.Registration,
	}
	f.lists = registry.NewKeeper(o.Registry, f.makeSheet)
	if f.told == nil {
		f.told = func(string, bool) {}
	}
	type methods = map[string]call.Handler
	return []call.Route{
		{Path: "/healthcheck", Methods: methods{"GET": healthcheck}},
		{Path: "/v1/registration/{service}", Methods: methods{"GET": named("service", f.list), "POST": f.checkIn}},
		{Path: "/v1/registration/{service}/{ip}", Methods: methods{"DELETE": f.deregister}},
		// Hides the route above for the service "repo", and so takes its part too.
		{Path: "/v1/registration/repo/{repo}", Methods: methods{"GET": named("repo", f.listRepo), "DELETE": f.deregister}},
		{Path: "/v1/loadbalancing/{service}", Methods: methods{"POST": f.weigh}},
		{Path: "/v1/loadbalancing/{service}/{ip}", Methods: methods{"POST": f.weigh}},
	}
}

// named refuses a list whose segment of the path is no text, or holds a control
// character: nothing is registered under such a name, and no reader could be told
// which list that is.
func named(segment string, list call.Handler) call.Handler {
	return func(w http.ResponseWriter, r *http.Request) (int, error) {
		if err := rule.Text(r.PathValue(segment)); err != nil {
			return 0, call.Refuse(http.StatusBadRequest, "%s: %v", segment, err)
		}
		return list(w, r)
	}
}

// healthcheck says that the process lives; it asks nothing of the registry.
func healthcheck(w http.ResponseWriter, _ *http.Request) (int, error) {
	w.Header().Set("Content-Type", "text/plain; charset=utf-8")
	fmt.Fprint(w, "OK")
	return http.StatusOK, nil
}
