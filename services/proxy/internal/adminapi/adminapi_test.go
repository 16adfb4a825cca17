package adminapi_test

import (
	"encoding/base64"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"regexp"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	adminv3 "github.com/envoyproxy/go-control-plane/envoy/admin/v3"
	bootstrapv3 "github.com/envoyproxy/go-control-plane/envoy/config/bootstrap/v3"
	clusterv3 "github.com/envoyproxy/go-control-plane/envoy/config/cluster/v3"
	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	endpointv3 "github.com/envoyproxy/go-control-plane/envoy/config/endpoint/v3"
	listenerv3 "github.com/envoyproxy/go-control-plane/envoy/config/listener/v3"
	routev3 "github.com/envoyproxy/go-control-plane/envoy/config/route/v3"
	tlsv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/transport_sockets/tls/v3"
	_ "github.com/envoyproxy/go-control-plane/envoy/extensions/upstreams/http/v3"
	"github.com/stretchr/testify/require"
	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/types/known/anypb"

	"github.com/weirproxy/weir/internal/servicetest"
	"github.com/weirproxy/weir/services/proxy/internal/adminapi"
	"github.com/weirproxy/weir/services/proxy/internal/bootstrap"
	"github.com/weirproxy/weir/services/proxy/internal/cluster"
	"github.com/weirproxy/weir/services/proxy/internal/cluster/lb"
	"github.com/weirproxy/weir/services/proxy/internal/coreconfig"
	"github.com/weirproxy/weir/services/proxy/internal/layeredruntime"
	"github.com/weirproxy/weir/services/proxy/internal/listener"
	"github.com/weirproxy/weir/services/proxy/internal/rds"
	"github.com/weirproxy/weir/services/proxy/internal/stats"
	"github.com/weirproxy/weir/services/proxy/internal/strict"
	"github.com/weirproxy/weir/services/proxy/internal/xds"
)

func TestMain(m *testing.M) { servicetest.Main(m) }

// controlPlane is one that sent a list of clusters, and then a bad one.
type controlPlane struct{ updated time.Time }

func (c controlPlane) Status() xds.Status {
	return xds.Status{Connected: true, Identifier: "weir-discovery", Types: []xds.TypeStatus{
		{TypeURL: xds.ClusterType, Version: "c7", Updated: c.updated, Refused: `cluster "bad": lb_policy: MAGLEV is not supported`},
		{TypeURL: xds.AssignmentType, Names: []string{"users"}, Version: "e3", Updated: c.updated},
	}}
}

// listeners are a static one and one of LDS, whose newest update was refused.
type listeners struct{ static *listenerv3.Listener }

func (l listeners) States() []listener.State {
	port := func(n int) net.Addr { return &net.TCPAddr{IP: net.IPv4(127, 0, 0, 1), Port: n} }
	now := time.Now()
	return []listener.State{
		{Name: l.static.GetName(), Static: true, Address: port(10000), Active: &listener.Version{Message: l.static, Updated: now}},
		{
			Name: "dynamic", Address: port(10001),
			Active:  &listener.Version{Message: &listenerv3.Listener{Name: "dynamic"}, Version: "l1", Updated: now},
			Warming: &listener.Version{Message: &listenerv3.Listener{Name: "dynamic", StatPrefix: "new"}, Version: "l2", Updated: now},
			Refused: &listener.Refusal{Message: &listenerv3.Listener{Name: "dynamic", StatPrefix: "bad"}, Details: "stat_prefix: no", At: now},
		},
	}
}

// routes are one table of RDS.
type routes struct{}

func (routes) Tables() []rds.Table {
	return []rds.Table{{Message: &routev3.RouteConfiguration{Name: "r"}, Version: "r1", Updated: time.Now()}}
}

// read makes a message of JSON.
func read[M proto.Message](t *testing.T, m M, text string) M {
	require.NoError(t, protojson.Unmarshal([]byte(text), m))
	return m
}

// proxy mounts the endpoints over a static and a dynamic cluster. It must be
// called in a synctest bubble, whose clock the answers show.
func proxy(t *testing.T, change func(*adminapi.Options)) http.Handler {
	text, err := os.ReadFile("testdata/bootstrap.yaml")
	require.NoError(t, err)
	schema, err := strict.NewSchema(bootstrap.Fields(), coreconfig.Fields(), cluster.Fields(), layeredruntime.Fields(), strict.Fields{
		"envoy.config.listener.v3.Listener": {"name", "address"},
	})
	require.NoError(t, err)
	boot, report := bootstrap.Load(bootstrap.Source{File: "bootstrap.yaml", Text: text}, schema)
	require.NoError(t, report.Err())

	registry := stats.NewRegistry()
	policies := []cluster.Policy{lb.RoundRobin()}
	clusters := cluster.NewManager(cluster.ManagerOptions{
		Policies: policies, Schema: schema, Stats: registry, Log: slog.New(slog.DiscardHandler), SetServices: func(coreconfig.Source, []string) {},
	}, true)
	var static []*cluster.Config
	for _, c := range boot.Clusters {
		static = append(static, cluster.Parse(c.Message, c.At, policies, report))
	}
	require.NoError(t, report.Err())
	clusters.AddStatic(static)
	require.NoError(t, clusters.ApplyClusters([]xds.Resource{{Name: "users", Message: read(t, &clusterv3.Cluster{}, `{
		"name": "users", "type": "EDS", "edsClusterConfig": {"edsConfig": {"ads": {}, "resourceApiVersion": "V3"}}
	}`)}}))
	require.NoError(t, clusters.ApplyAssignments([]xds.Resource{{Name: "users", Version: "e3", Message: read(t, &endpointv3.ClusterLoadAssignment{}, `{
		"clusterName": "users", "endpoints": [
			{"locality": {"region": "r", "zone": "a"}, "lbEndpoints": [
				{"endpoint": {"address": {"socketAddress": {"address": "10.0.0.1", "portValue": 80}}}, "loadBalancingWeight": 3},
				{"endpoint": {"address": {"socketAddress": {"address": "::1", "portValue": 80}}}, "healthStatus": "UNHEALTHY"}]},
			{"locality": {"region": "r", "zone": "b"}, "lbEndpoints": [
				{"endpoint": {"address": {"socketAddress": {"address": "10.0.0.2", "portValue": 80}}}, "healthStatus": "DRAINING"},
				{"endpoint": {"address": {"socketAddress": {"address": "10.0.0.3", "portValue": 80}}}, "healthStatus": "DEGRADED"}]}
		]}`)}}))
	host := &clusters.Get("users").Hosts().Members[0].Host.Stats
	host.RequestsTotal.Add(5)
	host.RequestsSucceeded.Add(4)
	host.RequestErrors.Add(1)
	host.ConnectionsActive.Add(2)
	clusters.Get("users").Stats.CountResponse(503, cluster.Response{})
	for i := range 100 {
		clusters.Get("users").Stats.RequestTime.Record(time.Duration(i+1) * 100 * time.Microsecond)
	}

	o := adminapi.Options{
		Version: "1.2.3", Started: time.Now(), State: func() string { return "LIVE" },
		CommandLine: &adminv3.CommandLineOptions{ConfigPath: "bootstrap.yaml", LogLevel: "info"},
		Bootstrap:   boot.Message, Node: boot.Node, Clusters: clusters,
		Listeners: listeners{boot.Listeners[0].Message}, Routes: routes{}, ControlPlane: controlPlane{time.Now()}, Stats: registry,
		Runtime: layeredruntime.New(boot.Runtime, stats.NewRegistry().Scope("runtime")),
		Control: &control{}, LogLevel: &slog.LevelVar{},
	}
	if change != nil {
		change(&o)
	}
	mux := muxServer{http.NewServeMux()}
	adminapi.Mount(mux, o)
	time.Sleep(90 * time.Second) // of the bubble: what uptime shows
	return mux
}

type muxServer struct{ *http.ServeMux }

func (m muxServer) Handle(pattern, _ string, h http.Handler) { m.ServeMux.Handle(pattern, h) }

func get(h http.Handler, url string) *httptest.ResponseRecorder {
	answer := httptest.NewRecorder()
	h.ServeHTTP(answer, httptest.NewRequest(http.MethodGet, url, nil))
	return answer
}

func TestAnswersAreThoseOfTheGoldenFiles(t *testing.T) {
	for url, kind := range map[string]string{
		"/clusters":                       "text/plain; charset=UTF-8",
		"/clusters?format=json":           "application/json",
		"/clusters?filter=^us":            "text/plain; charset=UTF-8",
		"/listeners":                      "text/plain; charset=UTF-8",
		"/listeners?format=json":          "application/json",
		"/stats?usedonly":                 "text/plain; charset=UTF-8",
		"/stats?filter=membership_total$": "text/plain; charset=UTF-8",
		"/stats?format=json&filter=cluster.users.*[54]..$":                             "application/json",
		"/stats?format=prometheus&filter=upstream_rq_5":                                "text/plain; charset=UTF-8",
		"/stats?filter=users.*(time|ms)$":                                              "text/plain; charset=UTF-8",
		"/stats?type=Histograms&usedonly&histogram_buckets=cumulative":                 "text/plain; charset=UTF-8",
		"/stats?type=Histograms&usedonly&histogram_buckets=disjoint":                   "text/plain; charset=UTF-8",
		"/stats?format=json&filter=users.*(rq_total|rq_time|cx_length_ms)":             "application/json",
		"/stats?format=json&filter=users.upstream_rq_time&histogram_buckets=disjoint":  "application/json",
		"/stats?usedonly&filter=users&invert_filter&type=Counters":                     "text/plain; charset=UTF-8",
		"/stats?format=json&filter=users.version":                                      "application/json",
		"/stats?format=prometheus&filter=users.version&text_readouts":                  "text/plain; charset=UTF-8",
		"/stats?type=TextReadouts":                                                     "text/plain; charset=UTF-8",
		"/stats?usedonly&type=Gauges&filter=users":                                     "text/plain; charset=UTF-8",
		"/stats/prometheus?usedonly&filter=users&histogram_buckets=cumulative":         "text/plain; charset=UTF-8",
		"/stats?filter=users.*upstream_rq_time&histogram_buckets=detailed":             "text/plain; charset=UTF-8",
		"/stats?format=json&filter=users.*upstream_rq_time&histogram_buckets=detailed": "application/json",
		"/stats/prometheus?filter=upstream_rq_time&histogram_buckets=summary":          "text/plain; charset=UTF-8",
		"/stats?format=html&filter=users.*rq_time&usedonly&histogram_buckets=detailed": "text/html; charset=UTF-8",
		"/config_dump":             "application/json",
		"/config_dump?include_eds": "application/json",
		"/server_info":             "application/json",
		"/config_dump?resource=dynamic_listeners&name_regex=^dyn&mask=name,error_state.details":           "application/json",
		"/config_dump?resource=static_clusters&mask=cluster.name,lastUpdated":                             "application/json",
		"/config_dump?mask=bootstrap.node.id,dynamic_active_clusters,version_info&name_regex=nothing":     "application/json",
		"/config_dump?include_eds&name_regex=^users&mask=static_endpoint_configs,dynamic_active_clusters": "application/json",
		"/page.json?filter=users": "application/json",
		"/certs":                  "application/json",
		"/runtime":                "application/json",
		"/hot_restart_version":    "text/plain; charset=UTF-8",
		"/xds":                    "application/json",
	} {
		t.Run(url, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				answer := get(proxy(t, nil), url)
				require.Equal(t, http.StatusOK, answer.Code, answer.Body)
				require.Equal(t, kind, answer.Header().Get("Content-Type"))
				name := strings.NewReplacer("/", "_", "?", "-", "&", "-", "=", "-", "*", "", "^", "", "$", "", "(", "", ")", "", "|", "-", "[", "", "]", "", ".", "", ",", "-").Replace(url[1:])
				servicetest.Golden(t, fmt.Sprintf("testdata/%s.txt", name), answer.Body.Bytes())
			})
		})
	}
}

// The formats are Envoy's if its own messages can read them.
func TestJSONReadsBackAsEnvoysMessages(t *testing.T) {
	for url, m := range map[string]proto.Message{
		"/clusters?format=json":    &adminv3.Clusters{},
		"/listeners?format=json":   &adminv3.Listeners{},
		"/config_dump?include_eds": &adminv3.ConfigDump{},
		"/server_info":             &adminv3.ServerInfo{},
	} {
		synctest.Test(t, func(t *testing.T) {
			require.NoError(t, protojson.Unmarshal(get(proxy(t, nil), url).Body.Bytes(), m), url)
			fields := 0
			m.ProtoReflect().Range(func(protoreflect.FieldDescriptor, protoreflect.Value) bool { fields++; return true })
			require.NotZero(t, fields, url)
		})
	}
}

func TestBadRequestsSayWhatIsWrong(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := proxy(t, nil)
		for url, want := range map[string]string{
			"/clusters?format=xml":                                    `parameter format="xml" is not one of text, json`,
			"/clusters?filter=(":                                      "parameter filter=\"(\": error parsing regexp: missing closing ): `(`",
			"/clusters?fliter=a":                                      `parameter "fliter" is not supported; supported are: format, filter`,
			"/listeners?format=xml":                                   `parameter format="xml" is not one of text, json`,
			"/stats?format=xml":                                       `parameter format="xml" is not one of text, json, html, active-html, prometheus`,
			"/stats?histogram_buckets=all":                            `parameter histogram_buckets="all" is not one of summary, cumulative, disjoint, detailed, none`,
			"/stats/prometheus?histogram_buckets=disjoint":            `parameter histogram_buckets="disjoint" is not one of cumulative, summary, none`,
			"/stats?type=Texts":                                       `parameter type="Texts" is not one of All, Counters, Gauges, Histograms, TextReadouts`,
			"/stats/prometheus?filter=[":                              "parameter filter=\"[\": error parsing regexp: missing closing ]: `[`",
			"/config_dump?resources=x":                                `parameter "resources" is not supported; supported are: resource, mask, name_regex, include_eds`,
			"/config_dump?name_regex=(":                               "parameter name_regex=\"(\": error parsing regexp: missing closing ): `(`",
			"/config_dump?mask=x":                                     `parameter mask: no part of the dump has a field "x"`,
			"/config_dump?mask=bootstrap.node.ids":                    `parameter mask: envoy.config.core.v3.Node has no field "ids"`,
			"/config_dump?mask=bootstrap.node.id.x":                   `parameter mask: envoy.config.core.v3.Node.id is no message, and has no field "x"`,
			"/config_dump?mask=static_clusters.cluster":               `parameter mask: envoy.admin.v3.ClustersConfigDump.static_clusters is no message, and has no field "cluster"`,
			"/config_dump?resource=static_clusters&mask=cluster.nome": `parameter mask: envoy.config.cluster.v3.Cluster has no field "nome"`,
			"/config_dump?resource=bootstrap":                         `parameter resource="bootstrap": not a list; mask=bootstrap selects it`,
			"/runtime?format=text":                                    `parameter format="text" is not one of json`,
			"/server_info?x":                                          `parameter "x" is not supported, nor is any other`,
			"/stats?filter=%zz":                                       `query "filter=%zz": invalid URL escape "%zz"`,
			"/config_dump?include_eds;=x":                             `query "include_eds;=x": invalid semicolon separator in query`,
		} {
			answer := get(h, url)
			require.Equal(t, http.StatusBadRequest, answer.Code, url)
			require.Equal(t, want+"\n", answer.Body.String(), url)
		}
		missing := get(h, "/config_dump?resource=secrets")
		require.Equal(t, http.StatusNotFound, missing.Code)
		require.Equal(t, "parameter resource=\"secrets\": not found in the dump\n", missing.Body.String())
	})
}

func TestViewsTakeAnyMethod(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := proxy(t, nil)
		want := get(h, "/stats?filter=users&usedonly").Body.String()
		require.NotEmpty(t, want)
		for _, method := range []string{http.MethodPost, http.MethodPut, http.MethodDelete, http.MethodHead, "BREW"} {
			answer := httptest.NewRecorder()
			h.ServeHTTP(answer, httptest.NewRequest(method, "/stats?filter=users&usedonly", strings.NewReader("usedonly")))
			require.Equal(t, http.StatusOK, answer.Code, method)
			require.Equal(t, want, answer.Body.String(), method)
		}
	})
}

func TestWithoutAControlPlane(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := proxy(t, func(o *adminapi.Options) {
			o.ControlPlane = xds.New(xds.Options{Stats: o.Stats})
			o.State = func() string { return "DRAINING" }
			o.Bootstrap.Node = &corev3.Node{Id: "n"}
		})
		require.JSONEq(t, `{"connected": false, "types": []}`, get(h, "/xds").Body.String())
		require.Contains(t, get(h, "/server_info").Body.String(), `"state": "DRAINING"`)
	})
}

func TestNoSecretIsInADump(t *testing.T) {
	const secret = "-----BEGIN KEY-----"
	key := &corev3.DataSource{Specifier: &corev3.DataSource_InlineString{InlineString: secret}}
	bytes := &corev3.DataSource{Specifier: &corev3.DataSource_InlineBytes{InlineBytes: []byte(secret)}}
	tls := &tlsv3.UpstreamTlsContext{Sni: "shown", CommonTlsContext: &tlsv3.CommonTlsContext{
		TlsCertificates: []*tlsv3.TlsCertificate{{PrivateKey: key, Password: bytes, CertificateChain: &corev3.DataSource{
			Specifier: &corev3.DataSource_InlineString{InlineString: "the chain"},
		}}},
	}}
	packed, err := anypb.New(tls)
	require.NoError(t, err)
	synctest.Test(t, func(t *testing.T) {
		var given *bootstrapv3.Bootstrap
		h := proxy(t, func(o *adminapi.Options) {
			given = o.Bootstrap
			cluster := given.GetStaticResources().GetClusters()[0]
			cluster.TransportSocket = &corev3.TransportSocket{Name: "tls", ConfigType: &corev3.TransportSocket_TypedConfig{TypedConfig: packed}}
			given.StaticResources.Secrets = []*tlsv3.Secret{{Name: "s", Type: &tlsv3.Secret_SessionTicketKeys{
				SessionTicketKeys: &tlsv3.TlsSessionTicketKeys{Keys: []*corev3.DataSource{key}},
			}}}
		})
		before := proto.CloneOf(given)
		for _, url := range []string{"/config_dump", "/config_dump?resource=static_clusters", "/config_dump?mask=bootstrap"} {
			text := get(h, url).Body.String()
			require.NotContains(t, text, secret, url)
			require.NotContains(t, text, base64.StdEncoding.EncodeToString([]byte(secret)), url)
			require.Contains(t, text, `"inline_string": "[redacted]"`, url)
			require.Contains(t, text, base64.StdEncoding.EncodeToString([]byte("[redacted]")), url)
			require.Contains(t, text, "the chain", url)
			require.Contains(t, text, "shown", url)
		}
		require.True(t, proto.Equal(before, given), "the proxy's own configuration is not touched")
	})
}

func TestMemoryIsToldInEnvoysFields(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := read(t, &adminv3.Memory{}, get(proxy(t, nil), "/memory").Body.String())
		require.NotZero(t, m.GetAllocated())
		require.GreaterOrEqual(t, m.GetTotalPhysicalBytes(), m.GetHeapSize())
	})
}

// full is a response writer whose reader has gone.
type full struct{ http.ResponseWriter }

func (full) Write([]byte) (int, error) { return 0, errors.New("gone") }

func TestAReaderThatLeavesHarmsNobody(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := proxy(t, nil)
		for _, url := range []string{"/clusters", "/config_dump", "/xds", "/stats/prometheus"} {
			answer := httptest.NewRecorder()
			h.ServeHTTP(full{answer}, httptest.NewRequest(http.MethodGet, url, nil))
			require.Equal(t, http.StatusOK, answer.Code)
		}
	})
}

func TestThePageOfStatsShowsNoMarkupOfOthers(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := proxy(t, func(o *adminapi.Options) {
			o.Stats.Scope("cluster").Tagged("envoy_cluster_name", "<b>x</b>").Counter("c").Inc()
		})
		answer := get(h, `/stats?format=active-html&filter=%3Cb%3E%7C%22%3E%3Cscript%3E`)
		require.Equal(t, http.StatusOK, answer.Code)
		require.Equal(t, "5", answer.Header().Get("Refresh"))
		require.Contains(t, answer.Header().Get("Content-Security-Policy"), "default-src 'none'; style-src 'self'")
		require.Contains(t, answer.Body.String(), "cluster.&lt;b&gt;x&lt;/b&gt;.c: 1")
		require.NotContains(t, answer.Body.String(), "<script")
		require.NotContains(t, answer.Body.String(), "<b>")
		require.Empty(t, get(h, "/stats?format=html").Header().Get("Refresh"))
	})
}

// TestTheFormOfStatsOffersNothingThatIsRefused sends its parameters as it does: all.
func TestTheFormOfStatsOffersNothingThatIsRefused(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := proxy(t, nil)
		page := get(h, "/stats?format=html").Body.String()
		choices := map[string][]string{}
		for _, choice := range regexp.MustCompile(`<select name="(\w+)">(.*)</select>`).FindAllStringSubmatch(page, -1) {
			for _, value := range regexp.MustCompile(`<option[^>]*>([^<]+)`).FindAllStringSubmatch(choice[2], -1) {
				choices[choice[1]] = append(choices[choice[1]], value[1])
			}
		}
		require.Len(t, choices, 3)
		for _, kind := range choices["type"] {
			for _, buckets := range choices["histogram_buckets"] {
				for _, format := range choices["format"] {
					url := fmt.Sprintf("/stats?filter=&type=%s&histogram_buckets=%s&format=%s", kind, buckets, format)
					require.Equal(t, http.StatusOK, get(h, url).Code, url)
				}
			}
		}
		require.Contains(t, page, `<a href="stats/prometheus">`)
		require.Equal(t, http.StatusOK, get(h, "/stats/prometheus").Code)
	})
}
