// Package route is the route table of an http_connection_manager: made once
// from a RouteConfiguration, never changed, and asked for each request. It
// picks the virtual host by the request's authority and the first route that
// matches its path, and says which cluster the route names; it does not know
// whether that cluster exists, and sends nothing anywhere.
package route

import (
	"strings"
	"time"

	routev3 "github.com/envoyproxy/go-control-plane/envoy/config/route/v3"

	"github.com/weirproxy/weir/services/proxy/internal/coreconfig"
	"github.com/weirproxy/weir/services/proxy/internal/descriptor"
	"github.com/weirproxy/weir/services/proxy/internal/strict"
)

// Fields are the supported fields of the messages that Parse reads.
func Fields() strict.Fields {
	return strict.Fields{
		"envoy.config.route.v3.RouteConfiguration": {"name", "virtual_hosts", "validate_clusters"},
		"envoy.config.route.v3.VirtualHost":        {"name", "domains", "routes", "rate_limits"},
		"envoy.config.route.v3.Route":              {"name", "match", "route"},
		"envoy.config.route.v3.RouteMatch":         {"prefix", "path"},
		"envoy.config.route.v3.RouteAction":        {"cluster", "timeout", "rate_limits", "include_vh_rate_limits"},
	}
}

// defaultTimeout bounds an upstream exchange where a route sets no timeout
// (RouteAction.timeout).
const defaultTimeout = 15 * time.Second

// Table is a parsed RouteConfiguration.
type Table struct {
	// The four kinds of domains, in the order in which they are tried: the
	// whole name, "*.suffix" with the longest suffix first, "prefix.*" with
	// the longest prefix first, and "*". All in lower case.
	exact    map[string]*virtualHost
	suffixes []wildcard
	prefixes []wildcard
	fallback *virtualHost

	references []Reference
}

// wildcard is a domain with its * cut off.
type wildcard struct {
	text string
	host *virtualHost
}

// virtualHost is the routes of some domains, in the order in which they are tried.
type virtualHost struct{ routes []Route }

// Route is one entry of a virtual host that forwards to a cluster.
type Route struct {
	// Cluster is the name of the cluster that gets the request.
	Cluster string
	// Timeout is the time from the end of the request to the end of the
	// response; 0 is none.
	Timeout time.Duration
	// RateLimits are the policies that apply: the route's own, and the virtual
	// host's where the route has none or includes them.
	RateLimits []descriptor.Policy

	path   string
	prefix bool
}

// Reference is a cluster that a route names, with its place.
type Reference struct {
	Cluster string
	At      strict.Path
}

// References lists the clusters that the routes name.
func (t *Table) References() []Reference { return t.references }

// Parse makes a table of config, which lies at the path at. Faults go to
// report; the table is for use only if there are none.
func Parse(config *routev3.RouteConfiguration, at strict.Path, report *strict.Report) *Table {
	t := &Table{exact: map[string]*virtualHost{}}
	names := map[string]bool{}
	domains := map[string]bool{}
	for i, v := range config.GetVirtualHosts() {
		at := at.Field("virtual_hosts").Index(i)
		if names[v.GetName()] {
			report.Add(at.Field("name"), "virtual host %q is there twice", v.GetName())
		}
		names[v.GetName()] = true
		host := t.parseVirtualHost(v, at, report)
		for j, domain := range v.GetDomains() {
			at := at.Field("domains").Index(j)
			domain = strings.ToLower(domain)
			if domains[domain] {
				report.Add(at, "domain %q is there twice", domain)
			}
			domains[domain] = true
			if !t.addDomain(domain, host) {
				report.Add(at, "domain %q: a * stands at its beginning or its end, once", domain)
			}
		}
	}
	longestFirst(t.suffixes)
	longestFirst(t.prefixes)
	return t
}

func (t *Table) parseVirtualHost(v *routev3.VirtualHost, at strict.Path, report *strict.Report) *virtualHost {
	host := &virtualHost{}
	shared := descriptor.Parse(v.GetRateLimits(), at.Field("rate_limits"), report)
	for i, r := range v.GetRoutes() {
		at := at.Field("routes").Index(i)
		entry := Route{}
		switch match := r.GetMatch().GetPathSpecifier().(type) {
		case *routev3.RouteMatch_Prefix:
			entry.path, entry.prefix = match.Prefix, true
		case *routev3.RouteMatch_Path:
			entry.path = match.Path
		}
		action := r.GetRoute()
		if action == nil {
			report.Add(at, "a route needs the action route: {cluster: …}")
			continue
		}
		actionAt := at.Field("route")
		entry.Cluster = action.GetCluster()
		t.references = append(t.references, Reference{entry.Cluster, actionAt.Field("cluster")})
		entry.Timeout = coreconfig.Duration(action.GetTimeout(), defaultTimeout, actionAt.Field("timeout"), report)
		entry.RateLimits = descriptor.Parse(action.GetRateLimits(), actionAt.Field("rate_limits"), report)
		//nolint:staticcheck // deprecated, but Envoy accepts it and so do we
		include := action.GetIncludeVhRateLimits().GetValue()
		if len(entry.RateLimits) == 0 || include {
			entry.RateLimits = append(entry.RateLimits, shared...)
		}
		host.routes = append(host.routes, entry)
	}
	return host
}

// addDomain files a domain by its kind; false if its * stands elsewhere.
func (t *Table) addDomain(domain string, host *virtualHost) bool {
	switch strings.Count(domain, "*") {
	case 0:
		t.exact[domain] = host
	case 1:
		if domain == "*" {
			t.fallback = host
		} else if suffix, ok := strings.CutPrefix(domain, "*"); ok {
			t.suffixes = append(t.suffixes, wildcard{suffix, host})
		} else if prefix, ok := strings.CutSuffix(domain, "*"); ok {
			t.prefixes = append(t.prefixes, wildcard{prefix, host})
		} else {
			return false
		}
	default:
		return false
	}
	return true
}
