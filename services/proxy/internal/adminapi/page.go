package adminapi

import (
	"encoding/json"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"time"

	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	routev3 "github.com/envoyproxy/go-control-plane/envoy/config/route/v3"
	hcmv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/network/http_connection_manager/v3"

	"github.com/weirproxy/weir/services/proxy/internal/cluster"
	"github.com/weirproxy/weir/services/proxy/internal/listener"
	"github.com/weirproxy/weir/services/proxy/internal/stats"
)

// The most of each that one answer of /page.json holds; a filter finds others.
const (
	shownListeners, shownClusters, shownHosts, shownRoutes = 50, 50, 50, 200
)

// pageState is what the page shows. Counters are totals since start, of which the
// page makes rates, and of buckets of time quantiles.
type pageState struct {
	Node      string         `json:"node"`
	Version   string         `json:"version"`
	State     string         `json:"state"`
	Uptime    float64        `json:"uptime"` // seconds
	Bounds    []float64      `json:"bounds"` // of all times, in milliseconds
	Control   pageControl    `json:"control"`
	Listeners []pageListener `json:"listeners"`
	Clusters  []pageCluster  `json:"clusters"`
	Routes    []pageRoute    `json:"routes"`
	// How many there are of those that match the filter.
	AllListeners int `json:"all_listeners"`
	AllClusters  int `json:"all_clusters"`
	AllRoutes    int `json:"all_routes"`
}

type pageControl struct {
	// Wanted says that the bootstrap names a control plane.
	Wanted     bool          `json:"wanted"`
	Connected  bool          `json:"connected"`
	Identifier string        `json:"identifier"`
	Refused    []pageRefusal `json:"refused"`
}

type pageRefusal struct {
	Type string `json:"type"`
	Why  string `json:"why"`
}

// pageLoad is what one side of the proxy has to do.
type pageLoad struct {
	Connections int64    `json:"connections"`
	Active      int64    `json:"active"` // requests
	Total       uint64   `json:"total"`
	Failed      uint64   `json:"failed"` // 5xx
	Times       []uint64 `json:"times"`  // counts of Bounds
}

type pageListener struct {
	Name    string `json:"name"`
	Address string `json:"address"`
	State   string `json:"state"`
	Refused string `json:"refused"`
	pageLoad
}

type pageCluster struct {
	Name     string     `json:"name"`
	Static   bool       `json:"static"`
	Healthy  int        `json:"healthy"`
	All      int        `json:"all"`
	Pending  int64      `json:"pending"`
	Hosts    []pageHost `json:"hosts"`
	pageLoad            // whose Failed are responses of 5xx
}

type pageHost struct {
	Address     string `json:"address"`
	Health      string `json:"health"`
	Good        bool   `json:"good"`
	Zone        string `json:"zone"`
	Weight      uint32 `json:"weight"`
	Connections int64  `json:"connections"`
	Active      int64  `json:"active"`
	Total       uint64 `json:"total"`
	Failed      uint64 `json:"failed"`
}

type pageRoute struct {
	Table   string `json:"table"`
	Domains string `json:"domains"`
	Match   string `json:"match"`
	Target  string `json:"target"`
}

// pageData serves /page.json.
func (a *api) pageData(w http.ResponseWriter, query url.Values) error {
	text := query.Get("filter")
	wanted := func(names ...string) bool {
		return slices.ContainsFunc(names, func(name string) bool { return strings.Contains(name, text) })
	}
	p := &pageState{
		Node: a.Node.GetId(), Version: a.Version, State: a.State(), Uptime: time.Since(a.Started).Seconds(), Bounds: stats.Bounds(),
		Listeners: []pageListener{}, Clusters: []pageCluster{}, Routes: []pageRoute{},
	}
	p.Control = a.pageControl()
	var tables []*routev3.RouteConfiguration
	for _, l := range a.Listeners.States() {
		unpacked := managers(l.Active)
		tables = append(tables, staticTables(unpacked)...)
		if !wanted(l.Name) {
			continue
		}
		if p.AllListeners++; p.AllListeners <= shownListeners {
			p.Listeners = append(p.Listeners, a.pageListener(l, unpacked))
		}
	}
	for _, c := range a.Clusters.All() {
		if !wanted(c.Config.Name) {
			continue
		}
		if p.AllClusters++; p.AllClusters <= shownClusters {
			p.Clusters = append(p.Clusters, a.pageCluster(c))
		}
	}
	for _, t := range a.Routes.Tables() {
		tables = append(tables, t.Message)
	}
	for _, table := range tables {
		for _, host := range table.GetVirtualHosts() {
			p.addRoutes(table.GetName(), host, wanted)
		}
	}
	answer, err := json.Marshal(p)
	if err != nil {
		return err
	}
	w.Header().Set("Content-Type", "application/json")
	_, _ = w.Write(answer) // a failed write means that the reader has gone
	return nil
}

// addRoutes adds the routes of a virtual host that are wanted. Beyond those that are
// shown it makes texts only where they tell whether a route is.
func (p *pageState) addRoutes(table string, host *routev3.VirtualHost, wanted func(names ...string) bool) {
	domains := strings.Join(host.GetDomains(), " ")
	all := wanted(table, domains)
	for _, route := range host.GetRoutes() {
		if all && p.AllRoutes >= shownRoutes {
			p.AllRoutes++
			continue
		}
		shown := pageRoute{table, domains, matchText(route.GetMatch()), targetText(route)}
		if !all && !wanted(shown.Match, shown.Target) {
			continue
		}
		if p.AllRoutes++; p.AllRoutes <= shownRoutes {
			p.Routes = append(p.Routes, shown)
		}
	}
}

func (a *api) pageControl() pageControl {
	dynamic := a.Bootstrap.GetDynamicResources()
	status := a.ControlPlane.Status()
	c := pageControl{Wanted: dynamic != nil, Connected: status.Connected, Identifier: status.Identifier, Refused: []pageRefusal{}}
	for _, t := range status.Types {
		if t.Refused != "" {
			c.Refused = append(c.Refused, pageRefusal{t.TypeURL[strings.LastIndexByte(t.TypeURL, '.')+1:], t.Refused})
		}
	}
	return c
}

// pageListener has the load of the listener's http_connection_managers, which share
// their numbers with others of the same stat_prefix.
func (a *api) pageListener(l listener.State, managers []*hcmv3.HttpConnectionManager) pageListener {
	shown := pageListener{Name: l.Name, Address: l.Address.String(), State: "active"}
	if l.Refused != nil {
		shown.Refused = l.Refused.Details
	}
	if l.Active == nil {
		shown.State = "warming"
		return shown
	}
	if l.Warming != nil {
		shown.State = "active, an update is warming"
	}
	seen := map[string]bool{}
	for _, m := range managers {
		prefix := m.GetStatPrefix()
		if seen[prefix] {
			continue
		}
		seen[prefix] = true
		scope := a.Stats.Scope("http").Tagged("envoy_http_conn_manager_prefix", prefix)
		shown.Connections += scope.Gauge("downstream_cx_active").Value()
		shown.Active += scope.Gauge("downstream_rq_active").Value()
		shown.Total += scope.Counter("downstream_rq_total").Value()
		shown.Failed += scope.Counter("downstream_rq_5xx").Value()
		counts := scope.Histogram("downstream_rq_time").Distribution().Counts()
		if shown.Times == nil {
			shown.Times = make([]uint64, len(counts))
		}
		for i, n := range counts {
			shown.Times[i] += n
		}
	}
	return shown
}

func (a *api) pageCluster(c *cluster.Cluster) pageCluster {
	shown := pageCluster{
		Name: c.Config.Name, Static: a.Clusters.IsStatic(c.Config.Name), Pending: c.Stats.PendingActive.Value(), Hosts: []pageHost{},
		pageLoad: pageLoad{
			Connections: c.Stats.ConnectionsActive.Value(), Active: c.Stats.RequestsActive.Value(), Total: c.Stats.RequestsTotal.Value(),
			Failed: c.Stats.Scope.Counter("upstream_rq_5xx").Value(), Times: c.Stats.RequestTime.Distribution().Counts(),
		},
	}
	for _, m := range c.Hosts().Members {
		flags := m.Host.Flags()
		host := pageHost{
			Address: m.Address.String(), Health: flags.String(), Good: flags == 0, Zone: m.Locality.GetZone(), Weight: m.Weight,
			Connections: m.Host.Stats.ConnectionsActive.Load(), Active: m.Host.Stats.RequestsActive.Load(),
			Total: m.Host.Stats.RequestsTotal.Load(), Failed: m.Host.Stats.RequestErrors.Load(),
		}
		if m.Health != corev3.HealthStatus_UNKNOWN && m.Health != corev3.HealthStatus_HEALTHY {
			host.Health, host.Good = strings.ToLower(m.Health.String())+" by its assignment", false
		}
		if host.Good {
			shown.Healthy++
		}
		if shown.All++; shown.All <= shownHosts {
			shown.Hosts = append(shown.Hosts, host)
		}
	}
	return shown
}

// matchText is a route's match in short: "prefix /a", and how many conditions more.
func matchText(m *routev3.RouteMatch) string {
	var text string
	switch {
	case m.GetPath() != "":
		text = "path " + m.GetPath()
	case m.GetPathSeparatedPrefix() != "":
		text = "prefix " + m.GetPathSeparatedPrefix() + "/"
	case m.GetSafeRegex() != nil:
		text = "regex " + m.GetSafeRegex().GetRegex()
	default:
		text = "prefix " + m.GetPrefix()
	}
	for _, h := range m.GetHeaders() {
		text += ", header " + h.GetName()
	}
	for _, q := range m.GetQueryParameters() {
		text += ", query " + q.GetName()
	}
	if m.GetGrpc() != nil {
		text += ", gRPC"
	}
	if m.GetRuntimeFraction() != nil {
		text += ", a fraction"
	}
	return text
}

// targetText is where a route leads in short.
func targetText(r *routev3.Route) string {
	to := r.GetRoute()
	switch {
	case r.GetRedirect() != nil:
		return "redirect"
	case r.GetDirectResponse() != nil:
		return "direct response"
	case to.GetClusterHeader() != "":
		return "cluster of header " + to.GetClusterHeader()
	case to.GetWeightedClusters() != nil:
		var names []string
		for _, c := range to.GetWeightedClusters().GetClusters() {
			names = append(names, c.GetName()+c.GetClusterHeader())
		}
		return strings.Join(names, ", ")
	}
	return to.GetCluster()
}
