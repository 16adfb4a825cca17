package xds

import (
	"bytes"
	"context"
	"fmt"
	"log/slog"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	clusterv3 "github.com/envoyproxy/go-control-plane/envoy/config/cluster/v3"
	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	endpointv3 "github.com/envoyproxy/go-control-plane/envoy/config/endpoint/v3"
	listenerv3 "github.com/envoyproxy/go-control-plane/envoy/config/listener/v3"
	routev3 "github.com/envoyproxy/go-control-plane/envoy/config/route/v3"
	tlsv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/transport_sockets/tls/v3"
	discoveryv3 "github.com/envoyproxy/go-control-plane/envoy/service/discovery/v3"
	runtimev3 "github.com/envoyproxy/go-control-plane/envoy/service/runtime/v3"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/stretchr/testify/require"
	rpcstatus "google.golang.org/genproto/googleapis/rpc/status"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/anypb"

	"github.com/weirproxy/weir/internal/servicetest"
	"github.com/weirproxy/weir/services/discovery/internal/registry"
	"github.com/weirproxy/weir/services/discovery/internal/registry/registrytest"
	"github.com/weirproxy/weir/services/discovery/internal/resources"
)

func TestMain(m *testing.M) { servicetest.Main(m) }

// TestTranscripts plays each file of testdata/sotw and testdata/delta: what the
// registry and operators' files do and what the client sends, with what the
// server is to send after each line. The lines are:
//
//	loaded                          the registry is loaded
//	warm                            the registry is warm; until then hosts may be missing
//	hosts users: 10.0.0.1:80 …      these are the hosts of users now, perhaps none;
//	                                @eu-1 behind an address for its zone, # for a canary
//	forget users                    users is not known any more
//	files routes/main:1 …           these are the resources of files now, with their
//	                                contents; +30s behind them for a time to live, =users
//	                                for the assignment of a cluster, which else has none
//	zones                           a maker comes that puts hosts of the asker's zone first
//	after 10s                       so much time passes
//	> clusters a b key=value …      the client's request for names a and b; in delta a
//	                                name with - in front is unsubscribed from; keys are
//	                                nonce, version, node, zone, features, refused for the
//	                                reason of a NACK; in delta has and had for a resource
//	                                that the client has as it is now, or otherwise; ! in
//	                                front of the type, of one that is not served
//	< clusters n1 v1: …             the server's response: nonce, version by order of
//	                                appearance; in delta without, and with what is removed
//	# …                             why
//
// A letter before > and < tells clients apart. A ~ behind a resource is for one
// that is only kept alive. With -update the server's lines are written anew.
func TestTranscripts(t *testing.T) {
	for _, variant := range []string{"sotw", "delta"} {
		files, err := filepath.Glob("testdata/" + variant + "/*.txt")
		require.NoError(t, err)
		require.NotEmpty(t, files)
		for _, file := range files {
			t.Run(variant+"/"+strings.TrimSuffix(filepath.Base(file), ".txt"), func(t *testing.T) {
				text, err := os.ReadFile(file)
				require.NoError(t, err)
				synctest.Test(t, func(t *testing.T) {
					servicetest.Golden(t, file, newPlay(t, variant == "delta").play(string(text)))
				})
			})
		}
	}
}

// player plays one transcript.
type player struct {
	t        *testing.T
	hub      *testHub
	delta    bool
	clients  map[string]*stream
	versions map[string]string // symbols by version
	out      bytes.Buffer
}

func newPlay(t *testing.T, delta bool) *player {
	p := &player{t: t, hub: newTestHub(t), delta: delta, clients: map[string]*stream{}, versions: map[string]string{}}
	p.hub.full, p.hub.warm = false, false
	return p
}

// testHub is a hub with a registry of the test's own, which is warm unless the test
// says otherwise.
type testHub struct {
	*hub
	full     bool // no hosts may be missing
	listings map[string]registry.Listing
}

func newTestHub(t testing.TB) *testHub {
	maker, err := resources.NewMaker(resources.Options{})
	require.NoError(t, err)
	hosts := registry.New(registrytest.Options())
	h := &testHub{
		hub:  newHub(hosts, maker, Debounce{}, slog.New(slog.DiscardHandler), newMetrics(prometheus.NewRegistry())),
		full: true, listings: map[string]registry.Listing{},
	}
	h.warm = true
	h.listing = func(service string) (registry.Listing, error) {
		list := h.listings[service]
		list.Partial = !h.full
		return list, nil
	}
	return h
}

// stream opens a stream of all types.
func (h *testHub) stream(t testing.TB, delta bool) *stream {
	s := &stream{
		hub: h.hub, only: allTypes, delta: delta, limits: &Limits{Streams: 1 << 20, Names: 100}, ctx: context.Background(),
		log: slog.New(slog.DiscardHandler), ended: make(chan error, 1), wake: func() {}, since: time.Now(),
	}
	require.NoError(t, h.join(s))
	t.Cleanup(s.close)
	return s
}

// set makes hosts those of a service.
func (h *testHub) set(service string, hosts ...registry.View) {
	h.listings[service] = registry.Listing{Known: true, Hosts: hosts}
	h.refresh(service, time.Now())
}

// host is one at an address of a service, with @ and a zone or # behind it.
func host(service, text string) registry.View {
	address, isCanary := strings.CutSuffix(text, "#")
	address, zone, _ := strings.Cut(address, "@")
	return registry.View{Record: registry.Record{Host: &registry.Host{
		Key:     registry.Key{Service: service, ID: address},
		Address: netip.MustParseAddrPort(address),
		Tags:    registry.Tags{Region: "eu", Zone: zone, Canary: &isCanary},
	}}}
}

// hosts makes addresses the hosts of a service.
func (h *testHub) hosts(service string, addresses ...string) {
	var list []registry.View
	for _, address := range addresses {
		list = append(list, host(service, address))
	}
	h.set(service, list...)
}

// play returns text with the server's lines as they came.
func (p *player) play(text string) []byte {
	for line := range strings.Lines(text) {
		verb, rest, _ := strings.Cut(strings.TrimSpace(line), " ")
		if strings.HasSuffix(verb, "<") && len(verb) <= 2 {
			continue
		}
		p.out.WriteString(line)
		if verb == "" || strings.HasPrefix(verb, "#") {
			continue
		}
		p.do(verb, rest)
		p.hub.makeAsked()
		labels := slices.Sorted(func(yield func(string) bool) {
			for label := range p.clients {
				if !yield(label) {
					return
				}
			}
		})
		for _, label := range labels {
			for r := p.clients[label].next(time.Now()); r != nil; r = p.clients[label].next(time.Now()) {
				p.show(label, r)
			}
		}
	}
	return p.out.Bytes()
}

// do does what a line says.
func (p *player) do(verb, rest string) {
	label, isRequest := strings.CutSuffix(verb, ">")
	switch {
	case isRequest:
		if p.clients[label] == nil {
			p.clients[label] = p.hub.stream(p.t, p.delta)
		}
		if err := p.clients[label].request(p.request(strings.Fields(rest))); err != nil {
			fmt.Fprintf(&p.out, "%s< ended: %v\n", label, err)
		}
	case verb == "loaded":
		p.hub.open(&p.hub.loaded)
	case verb == "warm":
		p.hub.full = true
		p.hub.warmUp()
	case verb == "forget":
		delete(p.hub.listings, rest)
		p.hub.refresh(rest, time.Now())
	case verb == "hosts":
		service, addresses, _ := strings.Cut(rest, ":")
		p.hub.hosts(service, strings.Fields(addresses)...)
	case verb == "files":
		p.hub.setFiles(p.files(strings.Fields(rest)))
	case verb == "zones":
		maker, err := resources.NewMaker(resources.Options{ZonePriorities: true})
		require.NoError(p.t, err)
		p.hub.setMaker(maker)
	case verb == "after":
		d, err := time.ParseDuration(rest)
		require.NoError(p.t, err)
		time.Sleep(d)
	default:
		p.t.Fatalf("transcript: %q", verb)
	}
}

// typeNamed is the type of a name.
func typeNamed(t testing.TB, name string) resources.Type {
	for typ := range resources.Types {
		if typ.String() == name {
			return typ
		}
	}
	t.Fatalf("type %q", name)
	return 0
}

// files are the resources that words tell of.
func (p *player) files(words []string) map[resources.Type][]*resources.Resource {
	files := map[resources.Type][]*resources.Resource{}
	for _, word := range words {
		typ, rest, _ := strings.Cut(word, "/")
		name, content, _ := strings.Cut(rest, ":")
		content, ttl, mortal := strings.Cut(content, "+")
		content, assignment, _ := strings.Cut(content, "=")
		t := typeNamed(p.t, typ)
		var lives time.Duration
		if mortal {
			var err error
			lives, err = time.ParseDuration(ttl)
			require.NoError(p.t, err)
		}
		r, err := resources.New(t, name, fileMessage(t, name, content, assignment), lives)
		require.NoError(p.t, err)
		files[t] = append(files[t], r)
	}
	return files
}

func fileMessage(t resources.Type, name, content, assignment string) proto.Message {
	switch t {
	case resources.Clusters:
		c := &clusterv3.Cluster{Name: name, AltStatName: content}
		if assignment != "" {
			c.ClusterDiscoveryType = &clusterv3.Cluster_Type{Type: clusterv3.Cluster_EDS}
			c.EdsClusterConfig = &clusterv3.Cluster_EdsClusterConfig{}
			if assignment != name {
				c.EdsClusterConfig.ServiceName = assignment
			}
		}
		return c
	case resources.Listeners:
		return &listenerv3.Listener{Name: name, StatPrefix: content}
	case resources.Routes:
		return &routev3.RouteConfiguration{Name: name, InternalOnlyHeaders: []string{content}}
	case resources.Secrets:
		return &tlsv3.Secret{Name: name}
	case resources.Runtimes:
		return &runtimev3.Runtime{Name: name}
	case resources.Extensions:
		return &corev3.TypedExtensionConfig{Name: name}
	default:
		return &endpointv3.ClusterLoadAssignment{ClusterName: name}
	}
}

// request is what words tell of, over the wire.
func (p *player) request(words []string) *request {
	url := "type.googleapis.com/"
	if other, ok := strings.CutPrefix(words[0], "!"); ok {
		url += other
	} else if words[0] != "nothing" {
		url = typeNamed(p.t, words[0]).URL()
	} else {
		url = ""
	}
	sotw := &discoveryv3.DiscoveryRequest{TypeUrl: url}
	delta := &discoveryv3.DeltaDiscoveryRequest{TypeUrl: url, InitialResourceVersions: map[string]string{}}
	node := &corev3.Node{}
	for _, word := range words[1:] {
		key, value, isKey := strings.Cut(word, "=")
		switch {
		case !isKey:
			sotw.ResourceNames = append(sotw.ResourceNames, word)
			if name, drops := strings.CutPrefix(word, "-"); drops {
				delta.ResourceNamesUnsubscribe = append(delta.ResourceNamesUnsubscribe, name)
			} else {
				delta.ResourceNamesSubscribe = append(delta.ResourceNamesSubscribe, word)
			}
		case key == "nonce":
			sotw.ResponseNonce, delta.ResponseNonce = value, value
		case key == "version":
			sotw.VersionInfo = p.version(value)
		case key == "has":
			delta.InitialResourceVersions[value] = p.current(typeNamed(p.t, words[0]), value)
		case key == "had":
			delta.InitialResourceVersions[value] = "other"
		case key == "node":
			node.Id = value
		case key == "zone":
			node.Locality = &corev3.Locality{Zone: value}
		case key == "features":
			node.ClientFeatures = strings.Split(value, ",")
		case key == "refused":
			sotw.ErrorDetail = &rpcstatus.Status{Message: value}
			delta.ErrorDetail = sotw.GetErrorDetail()
		default:
			p.t.Fatalf("transcript: %q", word)
		}
	}
	sotw.Node, delta.Node = node, node
	r := &request{delta: p.delta}
	var message proto.Message = sotw
	if p.delta {
		message = delta
	}
	text, err := proto.Marshal(message)
	require.NoError(p.t, err)
	require.NoError(p.t, r.read(text))
	return r
}

// version is that of a symbol, or the text itself.
func (p *player) version(symbol string) string {
	for version, s := range p.versions {
		if s == symbol {
			return version
		}
	}
	return symbol
}

// current is the version of a resource as it is now.
func (p *player) current(t resources.Type, name string) string {
	if topic := p.hub.find(t, []byte(name)); topic != nil && topic.file != nil {
		return versionText(topic.file.Version)
	}
	service, _ := p.hub.maker.Service(t, name)
	r, err := p.hub.maker.Make(t, name, service, "", p.hub.listings[service])
	require.NoError(p.t, err)
	if r == nil {
		return "0123456789abcdef"
	}
	return versionText(r.Version)
}

// show writes a response as one line, as it comes out of the wire.
func (p *player) show(label string, response *response) {
	message := newWireForm("replica-1").encode(response).Materialize()
	var url, nonce, version, identifier string
	var shown []string
	if p.delta {
		var r discoveryv3.DeltaDiscoveryResponse
		require.NoError(p.t, proto.Unmarshal(message, &r))
		url, nonce, identifier = r.GetTypeUrl(), r.GetNonce(), r.GetControlPlane().GetIdentifier()
		for _, resource := range r.GetResources() {
			shown = append(shown, p.wrapped(resource))
		}
		for _, name := range r.GetRemovedResources() {
			shown = append(shown, "-"+name)
		}
	} else {
		var r discoveryv3.DiscoveryResponse
		require.NoError(p.t, proto.Unmarshal(message, &r))
		url, nonce, identifier = r.GetTypeUrl(), r.GetNonce(), r.GetControlPlane().GetIdentifier()
		if p.versions[r.GetVersionInfo()] == "" {
			p.versions[r.GetVersionInfo()] = fmt.Sprintf("v%d", len(p.versions)+1)
		}
		version = " " + p.versions[r.GetVersionInfo()]
		for _, body := range r.GetResources() {
			shown = append(shown, p.body(body))
		}
	}
	require.Equal(p.t, "replica-1", identifier)
	t, ok := resources.OfURL(url)
	require.True(p.t, ok)
	fmt.Fprintf(&p.out, "%s< %s n%s%s: %s\n", label, t, nonce, version, strings.Join(shown, " "))
}

// wrapped shows a resource that comes within a Resource.
func (p *player) wrapped(r *discoveryv3.Resource) string {
	text := r.GetName() + "~"
	if r.GetResource() != nil {
		text = p.body(r.GetResource())
		require.True(p.t, strings.HasPrefix(text, r.GetName()))
	}
	require.NotEmpty(p.t, r.GetVersion())
	if r.GetTtl() != nil {
		text += "+" + r.GetTtl().AsDuration().String()
	}
	return text
}

// body shows a resource.
func (p *player) body(body *anypb.Any) string {
	m, err := body.UnmarshalNew()
	require.NoError(p.t, err)
	switch m := m.(type) {
	case *discoveryv3.Resource:
		return p.wrapped(m)
	case *clusterv3.Cluster:
		return withContent(m.GetName(), m.GetAltStatName())
	case *listenerv3.Listener:
		return withContent(m.GetName(), m.GetStatPrefix())
	case *routev3.RouteConfiguration:
		return withContent(m.GetName(), strings.Join(m.GetInternalOnlyHeaders(), ","))
	case *endpointv3.ClusterLoadAssignment:
		return m.GetClusterName() + "(" + strings.Join(addresses(m), " ") + ")"
	default:
		return m.(interface{ GetName() string }).GetName()
	}
}

func withContent(name, content string) string {
	if content == "" {
		return name
	}
	return name + ":" + content
}

// addresses are those of an assignment's endpoints, with the priority behind
// those that do not come first.
func addresses(m *endpointv3.ClusterLoadAssignment) (list []string) {
	for _, locality := range m.GetEndpoints() {
		for _, endpoint := range locality.GetLbEndpoints() {
			a := endpoint.GetEndpoint().GetAddress().GetSocketAddress()
			text := netip.AddrPortFrom(netip.MustParseAddr(a.GetAddress()), uint16(a.GetPortValue())).String()
			if p := locality.GetPriority(); p > 0 {
				text += "^" + strconv.Itoa(int(p))
			}
			list = append(list, text)
		}
	}
	return list
}
