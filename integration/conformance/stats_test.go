package conformance

import (
	"fmt"
	"io"
	"maps"
	"net/http"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
	"go.yaml.in/yaml/v3"

	"github.com/weirproxy/weir/integration/harness"
)

// metricsOf are the values of /stats by their names, and kindsOf the kinds in
// /stats/prometheus, with the ports of listeners left out.
func metricsOf(t *testing.T, p *harness.Process) map[string]string {
	return linesOf(t, p, "/stats", "", ": ")
}

func kindsOf(t *testing.T, p *harness.Process) map[string]string {
	return linesOf(t, p, "/stats/prometheus", "# TYPE ", " ")
}

// linesOf are the lines of an admin endpoint with a prefix, by what stands before a
// separator.
func linesOf(t *testing.T, p *harness.Process, path, prefix, separator string) map[string]string {
	t.Helper()
	response, err := http.Get("http://" + p.Addr("admin") + path)
	require.NoError(t, err)
	defer response.Body.Close()
	text, err := io.ReadAll(response.Body)
	require.NoError(t, err)
	all := map[string]string{}
	for line := range strings.Lines(listenersPort.ReplaceAllString(string(text), "127.0.0.1_0")) {
		line, with := strings.CutPrefix(strings.TrimSpace(line), prefix)
		if name, value, ok := strings.Cut(line, separator); with && ok {
			all[name] = value
		}
	}
	return all
}

var listenersPort = regexp.MustCompile(`127\.0\.0\.1_\d+`)

// discovered are resources of the files that a proxy of these tests watches.
type discovered struct{ directory string }

// put writes a file with a version and resources of a type, in YAML's flow style.
func (d discovered) put(t *testing.T, file, version, typeName string, resources ...string) {
	t.Helper()
	text := fmt.Sprintf("version_info: %q\nresources:%s", version, " []\n")
	if len(resources) > 0 {
		text = fmt.Sprintf("version_info: %q\nresources:\n", version)
	}
	for _, r := range resources {
		text += fmt.Sprintf("- {\"@type\": type.googleapis.com/envoy.config.%s, %s}\n", typeName, r)
	}
	replaceFile(t, filepath.Join(d.directory, file), text)
}

func (d discovered) source(file string) string {
	return "{resource_api_version: V3, path_config_source: {path: " + filepath.Join(d.directory, file) + "}}"
}

// The types of resources, below envoy.config.
const (
	clusterResource    = "cluster.v3.Cluster"
	assignmentResource = "endpoint.v3.ClusterLoadAssignment"
	listenerResource   = "listener.v3.Listener"
	routesResource     = "route.v3.RouteConfiguration"
)

func assignmentAt(address string) string {
	return "cluster_name: discovered, endpoints: [{lb_endpoints: [" + endpoint(address) + "]}]"
}

func routesTo(cluster string) string {
	return "name: routes, virtual_hosts: [{name: all, domains: [\"*\"], routes: [{match: {prefix: /}, route: {cluster: " + cluster + "}}]}]"
}

// discover writes a first version of all resources: a listener that serves routes to a
// cluster whose assignment leads to a host.
func discover(t *testing.T, host string) discovered {
	d := discovered{t.TempDir()}
	d.put(t, "eds.yaml", "1", assignmentResource, assignmentAt(host))
	d.put(t, "cds.yaml", "1", clusterResource, "name: discovered, type: EDS, connect_timeout: 60s, eds_cluster_config: {eds_config: "+d.source("eds.yaml")+"}")
	d.put(t, "rds.yaml", "1", routesResource, routesTo("discovered"))
	d.put(t, "lds.yaml", "1", listenerResource, `name: dynamic, stat_prefix: dynamic, address: {socket_address: {address: 127.0.0.1, port_value: 0}}, filter_chains: [{filters: [{name: http, typed_config: {`+
		`"@type": type.googleapis.com/envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager, stat_prefix: dynamic,`+
		`rds: {route_config_name: routes, config_source: `+d.source("rds.yaml")+`},`+
		`http_filters: [{name: router, typed_config: {"@type": type.googleapis.com/envoy.extensions.filters.http.router.v3.Router}}]}}]}]`)
	return d
}

// statsBootstrap is a proxy with clusters and filters of many kinds, and what discover
// has written.
func statsBootstrap(d discovered, host string) string {
	return bootstrap{
		more: `
dynamic_resources: {cds_config: ` + d.source("cds.yaml") + `, lds_config: ` + d.source("lds.yaml") + `}
layered_runtime: {layers: [{name: static, static_layer: {}}, {name: admin, admin_layer: {}}]}
`,
		listeners: []listener{{
			manager: `
route_config:
  virtual_hosts:
  - name: all
    domains: ["*"]
    routes:
    - {match: {prefix: /h2}, route: {cluster: h2}}
    - {match: {prefix: /ring}, route: {cluster: ring}}
    - {match: {prefix: /maglev}, route: {cluster: maglev}}
    - {match: {prefix: /names}, route: {cluster: names}}
    - {match: {prefix: /redirect}, redirect: {path_redirect: /}}
    - {match: {prefix: /}, route: {cluster: plain}, stat_prefix: root}
`,
			filters: filter("fault", "fault.v3.HTTPFault") +
				filter("tags", "ip_tagging.v3.IPTagging", "request_type: BOTH", "ip_tags: [{ip_tag_name: t, ip_list: [{address_prefix: 10.0.0.0, prefix_len: 8}]}]") +
				filter("local", "local_ratelimit.v3.LocalRateLimit", "stat_prefix: local", "token_bucket: {max_tokens: 1000, fill_interval: 1s}") +
				filter("limit", "ratelimit.v3.RateLimit", "domain: d", limiter("limiter")),
		}},
		clusters: []string{
			cluster("plain", host), cluster("limiter", host, overHTTP2),
			cluster("h2", host, overHTTP2, `
circuit_breakers: {thresholds: [{track_remaining: true, retry_budget: {}}, {priority: HIGH, track_remaining: true}]}
outlier_detection: {}
health_checks: [{timeout: 60s, interval: 60s, unhealthy_threshold: 1, healthy_threshold: 1, tcp_health_check: {}}]`),
			cluster("ring", host, "lb_policy: RING_HASH"), cluster("maglev", host, "lb_policy: MAGLEV"),
			strings.Replace(cluster("names", host), "type: STATIC", "type: STRICT_DNS", 1),
		},
	}.String()
}

// lacking is testdata/stats.yaml.
type lacking []struct {
	Reason string   `yaml:"reason"`
	Names  []string `yaml:"names"` // regular expressions
}

func TestOurProxyHasTheMetricsOfARealEnvoy(t *testing.T) {
	host := ""
	var d discovered
	envoy, ours := bothBefore(t, func(echo string) string {
		host, d = echo, discover(t, echo)
		return statsBootstrap(d, host)
	})
	for _, path := range []string{"/", "/h2", "/ring", "/maglev", "/names", "/redirect"} {
		for _, p := range []*harness.Process{envoy, ours} {
			answer, _ := harness.SendRaw(t, p.Addr("ingress"), "GET "+path+" HTTP/1.1\r\nHost: mill\r\n\r\n")
			require.Less(t, answer.Status, 400, "%s of %s", path, p.Addr("ingress"))
		}
	}
	for _, name := range []string{"http.ingress.downstream_rq_completed", "listener_manager.listener_create_success", "cluster.discovered.update_success"} {
		sameCounter(t, envoy, ours, name)
	}

	text, err := os.ReadFile("testdata/stats.yaml")
	require.NoError(t, err)
	var listed lacking
	require.NoError(t, yaml.Unmarshal(text, &listed))
	theirs, own := metricsOf(t, envoy), metricsOf(t, ours)
	maps.DeleteFunc(theirs, func(name, _ string) bool { _, both := own[name]; return both })
	for _, one := range listed {
		require.NotEmpty(t, one.Reason)
		for _, pattern := range one.Names {
			names, before := regexp.MustCompile("^"+pattern+"$"), len(theirs)
			maps.DeleteFunc(theirs, func(name, _ string) bool { return names.MatchString(name) })
			require.Less(t, len(theirs), before, "testdata/stats.yaml: Envoy has no %s that we have not", pattern)
		}
	}
	require.Empty(t, slices.Sorted(maps.Keys(theirs)), "names that Envoy has, and neither we nor testdata/stats.yaml")

	kinds, ownKinds := kindsOf(t, envoy), kindsOf(t, ours)
	maps.DeleteFunc(ownKinds, func(name, _ string) bool { return kinds[name] == "" })
	maps.DeleteFunc(kinds, func(name, _ string) bool { return ownKinds[name] == "" })
	require.NotEmpty(t, kinds)
	require.Equal(t, kinds, ownKinds)
}

// untold are metrics of updates that differ from one run to the next.
var untold = regexp.MustCompile(`time|duration`)

func TestOurProxyAndARealEnvoyCountUpdatesAlike(t *testing.T) {
	host := ""
	var d discovered
	envoy, ours := bothBefore(t, func(echo string) string {
		host, d = echo, discover(t, echo)
		return statsBootstrap(d, host)
	})
	counted := func(p *harness.Process, scope string) map[string]string {
		all := metricsOf(t, p)
		maps.DeleteFunc(all, func(name, _ string) bool {
			rest, of := strings.CutPrefix(name, scope)
			of = of && (strings.HasPrefix(rest, "update_") || strings.HasPrefix(rest, "version") || strings.HasPrefix(rest, "config_"))
			return !of || untold.MatchString(rest)
		})
		return all
	}
	alike := func(t *testing.T, scope string, attempts int) {
		t.Helper()
		var want, got map[string]string
		settled := awaited(func() bool {
			want, got = counted(envoy, scope), counted(ours, scope)
			return want[scope+"update_attempt"] == fmt.Sprint(attempts) && maps.Equal(want, got)
		})
		require.True(t, settled, "after %d: want\n%v\nhave\n%v", attempts, want, got)
	}
	assignments, routes, clusters := "cluster.discovered.", "http.dynamic.rds.routes.", "cluster_manager.cds."
	for _, scope := range []string{assignments, routes, clusters, "listener_manager.lds."} {
		alike(t, scope, 1)
	}
	attempts := map[string]int{assignments: 1, routes: 1, clusters: 1}
	for _, step := range []struct {
		name, scope string
		put         func()
	}{
		{"an assignment", assignments, func() { d.put(t, "eds.yaml", "2", assignmentResource, assignmentAt(host)) }},
		{"no assignment", assignments, func() { d.put(t, "eds.yaml", "3", assignmentResource) }},
		{"one of no hosts", assignments, func() { d.put(t, "eds.yaml", "4", assignmentResource, "cluster_name: discovered") }},
		{"no YAML", assignments, func() { replaceFile(t, filepath.Join(d.directory, "eds.yaml"), "{") }},
		{"one of another name", assignments, func() { d.put(t, "eds.yaml", "5", assignmentResource, "cluster_name: other") }},
		{"a bad one", assignments, func() {
			d.put(t, "eds.yaml", "6", assignmentResource, "cluster_name: discovered, endpoints: [{priority: 200}]")
		}},
		{"routes", routes, func() { d.put(t, "rds.yaml", "2", routesResource, routesTo("plain")) }},
		{"the same routes", routes, func() { d.put(t, "rds.yaml", "3", routesResource, routesTo("plain")) }},
		{"no routes", routes, func() { d.put(t, "rds.yaml", "4", routesResource) }},
		{"bad routes", routes, func() {
			d.put(t, "rds.yaml", "5", routesResource, `name: routes, virtual_hosts: [{name: v, domains: ["*", "*"]}]`)
		}},
		{"a bad cluster", clusters, func() { d.put(t, "cds.yaml", "2", clusterResource, "name: z, connect_timeout: -1s") }},
		{"another cluster", clusters, func() {
			d.put(t, "cds.yaml", "3", clusterResource, "name: z, connect_timeout: 1s, load_assignment: {cluster_name: z}")
		}},
		{"no clusters", clusters, func() { d.put(t, "cds.yaml", "4", clusterResource) }},
	} {
		attempts[step.scope]++
		step.put()
		alike(t, step.scope, attempts[step.scope])
		t.Log("alike: " + step.name)
	}
}
