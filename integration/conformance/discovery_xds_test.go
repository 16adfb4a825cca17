package conformance

import (
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/weirproxy/weir/integration/harness"
)

// discoveryService is how an Envoy reaches the gRPC listener of discovery. It
// comes back soon, so that a test need not wait for up to thirty seconds.
const discoveryService = "{envoy_grpc: {cluster_name: discovery, retry_policy: {retry_back_off: {base_interval: 0.1s, max_interval: 0.5s}}}}"

// transport is a way in which an Envoy takes all of its resources from discovery.
type transport struct {
	name string
	// source is the config source of every type, ads its ads_config, if any.
	source, ads string
	// socket is the transport socket to discovery, if it is not a plain one.
	socket string
}

// aggregated takes all types on one stream of a gRPC service.
func aggregated(name, api, service string) transport {
	return transport{name: name, source: "{ads: {}, resource_api_version: V3}", ads: fmt.Sprintf(
		"ads_config: {api_type: %s, transport_api_version: V3, grpc_services: [%s]}", api, service)}
}

// single takes each type on a stream of its own, and each cluster's hosts too.
func single(name, api string) transport {
	return transport{name: name, source: fmt.Sprintf(
		"{resource_api_version: V3, api_config_source: {api_type: %s, transport_api_version: V3, grpc_services: [%s]}}", api, discoveryService)}
}

// polled asks for each type by REST-JSON, over and over.
func polled(name string) transport {
	return transport{name: name, source: "{resource_api_version: V3, api_config_source: {api_type: REST, transport_api_version: V3, " +
		"cluster_names: [discovery_rest], refresh_delay: 0.1s, request_timeout: 5s}}"}
}

var (
	aggregatedState = aggregated("ADS, state of the world", "GRPC", discoveryService)
	aggregatedDelta = aggregated("ADS, delta", "DELTA_GRPC", discoveryService)
)

// bootstrap is that of an Envoy without a listener of its own.
func (tr transport) bootstrap(discovery *harness.Process) string {
	return bootstrap{
		node: fmt.Sprintf("id: %q\ncluster: tests\nlocality: {region: eu, zone: eu-1}", tr.name),
		more: fmt.Sprintf(`
dynamic_resources:
  %s
  cds_config: %s
  lds_config: %[2]s
`, tr.ads, tr.source),
		clusters: []string{
			cluster("discovery", discovery.Addr("xds"), overHTTP2, tr.socket),
			cluster("discovery_rest", discovery.Addr("http")),
		},
	}.String()
}

// ingress is a listener "ingress", whose routes lead all to the cluster "echo".
// Both come by xDS.
func (tr transport) ingress() string {
	return "resources:" + list([]string{
		listenerType + listener{manager: "rds: {route_config_name: ingress, config_source: " + tr.source + "}"}.String(),
		`
"@type": type.googleapis.com/envoy.config.route.v3.RouteConfiguration
name: ingress
virtual_hosts: [{name: all, domains: ["*"], routes: [{match: {prefix: /}, route: {cluster: echo}}]}]
`})
}

// listenerType is that of a listener that comes by xDS, before its fields.
const listenerType = `"@type": type.googleapis.com/envoy.config.listener.v3.Listener` + "\n"

// template is what all clusters are made of. A cluster that has changed waits for
// its assignment, for ever: that it is active at last shows that it came again.
func (tr transport) template(connectTimeout string) string {
	return fmt.Sprintf("cluster: {connect_timeout: %s, eds_cluster_config: {eds_config: {initial_fetch_timeout: 0s, %s}}\n", connectTimeout, tr.source[1:])
}

// slowMachine is how long a machine that has much else to do may need for what
// another one does at once.
const slowMachine = time.Minute

// awaited waits for a condition, for as long as a slow machine may need, and says
// whether it holds.
func awaited(condition func() bool) bool {
	tick := time.NewTicker(10 * time.Millisecond)
	defer tick.Stop()
	for deadline := time.Now().Add(slowMachine); !condition(); <-tick.C {
		if time.Now().After(deadline) {
			return false
		}
	}
	return true
}

// eventually waits for a condition, and fails the test if it never holds.
func eventually(t *testing.T, what string, condition func() bool) {
	t.Helper()
	require.True(t, awaited(condition), "not within %v: %s", slowMachine, what)
}

// replaceFile replaces a file in one step, as a careful editor does.
func replaceFile(t *testing.T, path, text string) {
	t.Helper()
	require.NoError(t, os.WriteFile(path+".new", []byte(text), 0o600))
	require.NoError(t, os.Rename(path+".new", path))
}

// writeFile writes a file into a new directory and returns its path.
func writeFile(t *testing.T, name, text string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), name)
	replaceFile(t, path, text)
	return path
}

// registrar registers hosts at a discovery, as an operator's script would.
type registrar struct {
	t      *testing.T
	client *http.Client
	base   string
	token  string
}

func newRegistrar(t *testing.T, discovery *harness.Process) *registrar {
	t.Helper()
	return &registrar{t: t, client: harness.Client(t), base: "http://" + discovery.Addr("http")}
}

// put registers a host by its address for ten minutes; more is further members.
func (r *registrar) put(service, id, address, more string) {
	r.t.Helper()
	ip, port, err := net.SplitHostPort(address)
	require.NoError(r.t, err)
	r.call(http.MethodPut, service, id, fmt.Sprintf(`{"address": %q, "port": %s, "region": "eu", "zone": "eu-1", "ttl": "10m"%s}`, ip, port, more))
}

// remove deregisters a host.
func (r *registrar) remove(service, id string) {
	r.t.Helper()
	r.call(http.MethodDelete, service, id, "")
}

func (r *registrar) call(method, service, id, body string) {
	r.t.Helper()
	header := http.Header{"Content-Type": {"application/json"}}
	if r.token != "" {
		header.Set("Authorization", "Bearer "+r.token)
	}
	answer, err := harness.Send(r.client, harness.Request{
		Method: method, URL: r.base + "/v2/services/" + service + "/hosts/" + id, Header: header, Body: body,
	})
	require.NoError(r.t, err)
	require.Less(r.t, answer.Status, 300, "%s %s %s: %s", method, service, id, answer.Body)
}

// envoy is a real Envoy and what it tells of itself.
type envoy struct {
	*harness.Process
	t      *testing.T
	client *http.Client
}

func startEnvoy(t *testing.T, bootstrap string) *envoy {
	t.Helper()
	return &envoy{t: t, client: harness.Client(t), Process: harness.Envoy(t, bootstrap)}
}

// tell is what its admin listener answers.
func (e *envoy) tell(target string) []byte {
	e.t.Helper()
	response, err := e.client.Get("http://" + e.Addr("admin") + target)
	require.NoError(e.t, err)
	defer response.Body.Close()
	text, err := io.ReadAll(response.Body)
	require.NoError(e.t, err)
	require.Equal(e.t, http.StatusOK, response.StatusCode, "%s: %s", target, text)
	return text
}

// stat is one counter or gauge, 0 if it does not exist yet.
func (e *envoy) stat(name string) int {
	e.t.Helper()
	for line := range strings.Lines(string(e.tell("/stats?filter=" + url.QueryEscape("^"+regexp.QuoteMeta(name)+"$")))) {
		if value, ok := strings.CutPrefix(line, name+": "); ok {
			n, err := strconv.Atoi(strings.TrimSpace(value))
			require.NoError(e.t, err)
			return n
		}
	}
	return 0
}

// rejected is how many updates of any type it has refused.
func (e *envoy) rejected() (n int) {
	e.t.Helper()
	text := string(e.tell("/stats?filter=update_rejected"))
	require.Contains(e.t, text, "update_rejected")
	for line := range strings.Lines(text) {
		_, value, _ := strings.Cut(strings.TrimSpace(line), ": ")
		one, err := strconv.Atoi(value)
		require.NoError(e.t, err, line)
		n += one
	}
	return n
}

// hosts is what /clusters shows of a cluster: by address, the health that came
// by EDS, weight and place. Nil if there is no such cluster.
func (e *envoy) hosts(cluster string) map[string]string {
	e.t.Helper()
	var got struct {
		Clusters []struct {
			Name string
			API  bool `json:"added_via_api"`
			Host []struct {
				Address struct {
					Socket struct {
						Address string
						Port    int `json:"port_value"`
					} `json:"socket_address"`
				}
				Health struct {
					EDS string `json:"eds_health_status"`
				} `json:"health_status"`
				Weight   int
				Locality struct{ Region, Zone string }
			} `json:"host_statuses"`
		} `json:"cluster_statuses"`
	}
	require.NoError(e.t, json.Unmarshal(e.tell("/clusters?format=json"), &got))
	for _, c := range got.Clusters {
		if c.Name != cluster {
			continue
		}
		require.True(e.t, c.API)
		hosts := map[string]string{}
		for _, h := range c.Host {
			address := net.JoinHostPort(h.Address.Socket.Address, strconv.Itoa(h.Address.Socket.Port))
			hosts[address] = fmt.Sprintf("%s %d %s/%s", h.Health.EDS, h.Weight, h.Locality.Region, h.Locality.Zone)
		}
		return hosts
	}
	return nil
}

// dumped is a cluster, an assignment or another resource in /config_dump.
type dumped struct {
	Version string `json:"version_info"`
	Cluster struct {
		Name           string
		ConnectTimeout string `json:"connect_timeout"`
	}
	Endpoint struct {
		Cluster   string `json:"cluster_name"`
		Endpoints []struct {
			Hosts []json.RawMessage `json:"lb_endpoints"`
		}
	} `json:"endpoint_config"`
}

// dump is the resources of one kind in /config_dump, such as
// dynamic_active_clusters.
func (e *envoy) dump(kind string) []dumped {
	e.t.Helper()
	var got struct{ Configs []dumped }
	require.NoError(e.t, json.Unmarshal(e.tell("/config_dump?include_eds&resource="+kind), &got))
	return got.Configs
}

// connectTimeouts is how many active clusters have each connect timeout.
func (e *envoy) connectTimeouts() map[string]int {
	e.t.Helper()
	n := map[string]int{}
	for _, c := range e.dump("dynamic_active_clusters") {
		n[c.Cluster.ConnectTimeout]++
	}
	return n
}

// answered waits until so many requests in a row are answered by one instance, or
// all 503 without one. What the admin listener shows of hosts, the worker that
// takes requests hears a moment later.
func (e *envoy) answered(requests int, instance string) {
	e.t.Helper()
	eventually(e.t, fmt.Sprintf("%d requests in a row are answered by %q", requests, instance), func() bool {
		for range requests {
			answer, err := harness.Send(e.client, harness.Request{URL: "http://" + e.Addr("ingress") + "/"})
			require.NoError(e.t, err)
			if instance == "" && (answer.Status != http.StatusServiceUnavailable || answer.Body != "no healthy upstream") ||
				instance != "" && (answer.Status != http.StatusOK || answer.Instance != instance) {
				return false
			}
		}
		return true
	})
}

// shares waits until an instance answers so many of 40 requests, give or take
// four. All must be good.
func (e *envoy) shares(instance string, want int, why string) {
	e.t.Helper()
	eventually(e.t, fmt.Sprintf("%s answers %d of 40 requests, %s", instance, want, why), func() bool {
		n := 0
		for range 40 {
			answer, err := harness.Send(e.client, harness.Request{URL: "http://" + e.Addr("ingress") + "/"})
			require.NoError(e.t, err)
			require.Equal(e.t, http.StatusOK, answer.Status, answer.Body)
			if answer.Instance == instance {
				n++
			}
		}
		return n >= want-4 && n <= want+4
	})
}

// site is a discovery, an Envoy that takes all from it by one transport, and
// what changes both.
type site struct {
	*registrar
	transport
	discovery *harness.Process
	envoy     *envoy
	// echo are the addresses of the backends one, two and three.
	echo map[string]string
	// snapshot and templateFile are files of discovery.
	snapshot, templateFile string
}

func newSite(t *testing.T, tr transport, echo map[string]string) *site {
	t.Helper()
	s := &site{transport: tr, echo: echo, snapshot: filepath.Join(t.TempDir(), "hosts"), templateFile: writeFile(t, "template.yaml", tr.template("1s"))}
	s.discovery = harness.Discovery(t, "DISCOVERY_STORE=file://"+s.snapshot, "DISCOVERY_DRAIN_TIME=10s", "DISCOVERY_IDENTIFIER=replica-7",
		"DISCOVERY_XDS_RESOURCES="+filepath.Dir(writeFile(t, "ingress.yaml", tr.ingress())), "DISCOVERY_XDS_CLUSTER_TEMPLATE="+s.templateFile)
	s.registrar = newRegistrar(t, s.discovery)
	s.put("echo", "one", echo["one"], "")
	// After a start with hosts there is no warm-up, in which a client that polls
	// would be left with what it has.
	s.discovery.Stop()
	s.discovery.Restart()
	s.envoy = startEnvoy(t, tr.bootstrap(s.discovery))
	return s
}

// shows waits until Envoy shows the hosts of the cluster echo so, by name.
func (s *site) shows(what string, byName map[string]string) {
	s.t.Helper()
	want := map[string]string{}
	for name, state := range byName {
		want[s.echo[name]] = state + " eu/eu-1"
	}
	var got map[string]string
	defer func() {
		if s.t.Failed() {
			s.t.Logf("want %v, have %v", want, got)
		}
	}()
	eventually(s.t, what, func() bool {
		got = s.envoy.hosts("echo")
		return got != nil && fmt.Sprint(got) == fmt.Sprint(want)
	})
}

// TestEnvoyFollowsTheRegistry has an Envoy live with a discovery by each
// transport: hosts, the cluster and discovery itself come, change and go.
func TestEnvoyFollowsTheRegistry(t *testing.T) {
	harness.EnvoyPath(t) // skips before anything has started
	echo := map[string]string{}
	for _, name := range []string{"one", "two", "three"} {
		echo[name] = harness.Echo(t, name).Addr("http")
	}
	for _, tr := range []transport{
		aggregatedState,
		aggregatedDelta,
		single("single streams, state of the world", "GRPC"),
		single("single streams, delta", "DELTA_GRPC"),
		polled("REST-JSON"),
	} {
		t.Run(tr.name, func(t *testing.T) {
			t.Parallel()
			s := newSite(t, tr, echo)
			hostsComeAndGo(s)
			aClusterChangesUnderLoad(s)
			discoveryRestartsUnderLoad(s)
			require.Zero(t, s.envoy.rejected(), "nothing was refused")
		})
	}
}

// hostsComeAndGo begins and ends with one alone.
func hostsComeAndGo(s *site) {
	s.t.Helper()
	s.shows("the first host comes", map[string]string{"one": "HEALTHY 1"})
	s.envoy.answered(5, "one")

	s.put("echo", "two", s.echo["two"], `, "weight": 3`)
	s.shows("another comes", map[string]string{"one": "HEALTHY 1", "two": "HEALTHY 3"})
	s.envoy.shares("two", 30, "by weights of 1 to 3")
	s.put("echo", "one", s.echo["one"], `, "weight": 9`)
	s.shows("its weight changes", map[string]string{"one": "HEALTHY 9", "two": "HEALTHY 3"})
	s.envoy.shares("two", 10, "by weights of 9 to 3")

	// It is as it was afterwards, and a second time gone at once.
	for _, end := range []string{"when its time to drain is over", "at once"} {
		if end == "at once" {
			s.put("echo", "two", s.echo["two"], "")
			s.shows("a host comes back", map[string]string{"one": "HEALTHY 9", "two": "HEALTHY 1"})
			s.remove("echo", "two")
		} else {
			s.put("echo", "two", s.echo["two"], `, "weight": 3, "draining": true`)
			s.shows("a host drains", map[string]string{"one": "HEALTHY 9", "two": "DRAINING 3"})
			s.envoy.answered(10, "one")
		}
		s.shows("it is gone "+end, map[string]string{"one": "HEALTHY 9"})
		s.envoy.answered(5, "one")
	}

	s.remove("echo", "one")
	s.shows("the last one goes", map[string]string{})
	s.envoy.answered(1, "")
	s.put("echo", "one", s.echo["one"], "")
	s.shows("and comes back", map[string]string{"one": "HEALTHY 1"})
	s.envoy.answered(5, "one")

	for kind, want := range map[string]int{
		"dynamic_active_clusters": 1, "dynamic_warming_clusters": 0, "dynamic_endpoint_configs": 1,
		"dynamic_listeners": 1, "dynamic_route_configs": 1,
	} {
		require.Len(s.t, s.envoy.dump(kind), want, kind)
	}
	require.Equal(s.t, map[string]int{"1s": 1}, s.envoy.connectTimeouts())
	require.NotEmpty(s.t, s.envoy.dump("dynamic_active_clusters")[0].Version)
	assignment := s.envoy.dump("dynamic_endpoint_configs")[0].Endpoint
	require.Equal(s.t, "echo", assignment.Cluster)
	require.Len(s.t, assignment.Endpoints, 1)
	require.Len(s.t, assignment.Endpoints[0].Hosts, 1)
	if s.name != "REST-JSON" { // of which it does not keep it
		require.Contains(s.t, string(s.envoy.tell("/stats?filter=control_plane.identifier")), `"replica-7"`, "who sent it")
	}
}

// aClusterChangesUnderLoad changes the warm cluster. Its assignment, which stays
// as it is, must come once more.
func aClusterChangesUnderLoad(s *site) {
	s.t.Helper()
	load := harness.StartLoad(s.t, s.envoy.Addr("ingress"))
	load.Await(20)
	began := time.Now()
	replaceFile(s.t, s.templateFile, s.template("0.500s"))
	eventually(s.t, "the changed cluster is active", func() bool { return s.envoy.connectTimeouts()["0.500s"] == 1 })
	s.t.Logf("a changed cluster was active after %v", time.Since(began).Round(time.Millisecond))
	require.Empty(s.t, s.envoy.dump("dynamic_warming_clusters"))
	load.Await(20)
	require.Empty(s.t, load.Stop().Failures)
	s.shows("the host is still there", map[string]string{"one": "HEALTHY 1"})
}

// discoveryRestartsUnderLoad has discovery end by a crash and by a signal, once
// with its snapshot and once without. No request may fail.
func discoveryRestartsUnderLoad(s *site) {
	s.t.Helper()
	s.put("echo", "two", s.echo["two"], "")
	both := map[string]string{"one": "HEALTHY 1", "two": "HEALTHY 1"}
	s.shows("there are two hosts", both)
	load := harness.StartLoad(s.t, s.envoy.Addr("ingress"))
	load.Await(20)

	s.discovery.Stop() // which writes the snapshot
	load.Await(20)
	s.discovery.Restart()
	s.put("echo", "three", s.echo["three"], "")
	s.shows("what the snapshot had, and the new host", map[string]string{"one": "HEALTHY 1", "two": "HEALTHY 1", "three": "HEALTHY 1"})
	s.remove("echo", "three")
	s.shows("it is gone again", both)

	s.discovery.Kill()
	require.NoError(s.t, os.Remove(s.snapshot))
	load.Await(20)
	s.discovery.Restart()
	eventually(s.t, "Envoy asks again, for each of four types", func() bool { return s.asked() >= 4 })
	load.Await(20)
	s.shows("what a registry that knows nothing leaves alone", both)
	s.put("echo", "one", s.echo["one"], "")
	s.put("echo", "two", s.echo["two"], "")
	load.Await(20)
	s.shows("the hosts are back", both)
	require.Empty(s.t, load.Stop().Failures)
}

// asked is how many requests this run of discovery has had from Envoy.
func (s *site) asked() (n float64) {
	s.t.Helper()
	answer, err := harness.Send(s.client, harness.Request{URL: "http://" + s.discovery.Addr("admin") + "/metrics"})
	require.NoError(s.t, err)
	for line := range strings.Lines(answer.Body) {
		name, value, _ := strings.Cut(strings.TrimSpace(line), " ")
		if name == "discovery_xds_requests_total" || strings.HasPrefix(name, "discovery_rest_requests_total{") && strings.Contains(name, "/v3/discovery:") {
			count, err := strconv.ParseFloat(value, 64)
			require.NoError(s.t, err, line)
			n += count
		}
	}
	return n
}
