package xds

import (
	"bytes"
	"fmt"
	"log/slog"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	clusterv3 "github.com/envoyproxy/go-control-plane/envoy/config/cluster/v3"
	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	endpointv3 "github.com/envoyproxy/go-control-plane/envoy/config/endpoint/v3"
	discoveryv3 "github.com/envoyproxy/go-control-plane/envoy/service/discovery/v3"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/stretchr/testify/require"
	rpcstatus "google.golang.org/genproto/googleapis/rpc/status"

	"github.com/weirproxy/weir/internal/servicetest"
	"github.com/weirproxy/weir/services/discovery/internal/registry"
	"github.com/weirproxy/weir/services/discovery/internal/registry/registrytest"
)

func TestMain(m *testing.M) { servicetest.Main(m) }

// TestTranscripts plays each file of testdata/transcripts: what the registry
// does and what the client sends, with what the server is to send after each
// line. The lines are:
//
//	loaded                          the registry is loaded
//	warm                            the registry is warm
//	hosts users: 10.0.0.1:80 …      these are the hosts of users now, perhaps none
//	forget users                    users is not known any more
//	> clusters a b key=value …      the client's request for names a and b; keys
//	                                are nonce, version, node, and refused for the
//	                                reason of a NACK; ! in front, of a type that is not served
//	< clusters n1 v1: …             the server's response: nonce, version by order of appearance
//	# …                             why
//
// With -update the server's lines are written anew.
func TestTranscripts(t *testing.T) {
	files, err := filepath.Glob("testdata/transcripts/*.txt")
	require.NoError(t, err)
	require.NotEmpty(t, files)
	for _, file := range files {
		t.Run(strings.TrimSuffix(filepath.Base(file), ".txt"), func(t *testing.T) {
			text, err := os.ReadFile(file)
			require.NoError(t, err)
			servicetest.Golden(t, file, newPlay(t).play(string(text)))
		})
	}
}

// player plays one transcript on one stream.
type player struct {
	t        *testing.T
	hub      *hub
	stream   *stream
	versions map[string]string // symbols by version
	out      bytes.Buffer
}

func newPlay(t *testing.T) *player {
	h := newTestHub()
	s := newStream(h, anyKind, "replica-1", slog.New(slog.DiscardHandler))
	require.True(t, h.join(s, 1))
	t.Cleanup(func() { h.leave(s) })
	return &player{t: t, hub: h, stream: s, versions: map[string]string{}}
}

func newTestHub() *hub {
	hosts := registry.New(registrytest.Options())
	return newHub(hosts, 100*time.Millisecond, time.Second, slog.New(slog.DiscardHandler), newMetrics(prometheus.NewRegistry()))
}

// play returns text with the server's lines as they came.
func (p *player) play(text string) []byte {
	for line := range strings.Lines(text) {
		if strings.HasPrefix(line, "<") {
			continue
		}
		p.out.WriteString(line)
		line = strings.TrimSpace(line)
		verb, rest, _ := strings.Cut(line, " ")
		switch {
		case line == "" || strings.HasPrefix(line, "#"):
			continue
		case verb == "loaded":
			p.hub.open(&p.hub.loaded)
		case verb == "warm":
			p.hub.open(&p.hub.warm)
		case verb == "forget":
			p.hub.publish(rest, nil, nil)
		case verb == "hosts":
			service, addresses, _ := strings.Cut(rest, ":")
			publish(p.t, p.hub, service, strings.Fields(addresses)...)
		case verb == ">":
			if err := p.stream.request(p.request(strings.Fields(rest))); err != nil {
				fmt.Fprintf(&p.out, "< ended: %v\n", err)
			}
		default:
			p.t.Fatalf("transcript: %q", line)
		}
		for response := p.stream.next(); response != nil; response = p.stream.next() {
			p.show(response)
		}
	}
	return p.out.Bytes()
}

// publish makes addresses the hosts of service.
func publish(t testing.TB, h *hub, service string, addresses ...string) {
	t.Helper()
	var hosts []registry.View
	for _, address := range addresses {
		hosts = append(hosts, registry.View{Record: registry.Record{Host: &registry.Host{
			Key:     registry.Key{Service: service, ID: address},
			Address: netip.MustParseAddrPort(address),
			Tags:    registry.Tags{Region: "eu", Zone: "eu-1"},
		}}})
	}
	cluster, assignment, err := h.build(service, hosts)
	require.NoError(t, err)
	h.publish(service, cluster, assignment)
}

func (p *player) request(words []string) *discoveryv3.DiscoveryRequest {
	r := &discoveryv3.DiscoveryRequest{TypeUrl: map[string]string{"clusters": clusterURL, "endpoints": endpointURL}[words[0]]}
	if name, other := strings.CutPrefix(words[0], "!"); other {
		r.TypeUrl = "type.googleapis.com/" + name
	}
	for _, word := range words[1:] {
		key, value, isKey := strings.Cut(word, "=")
		switch {
		case !isKey:
			r.ResourceNames = append(r.ResourceNames, word)
		case key == "nonce":
			r.ResponseNonce = value
		case key == "version":
			r.VersionInfo = value
		case key == "node":
			r.Node = &corev3.Node{Id: value}
		case key == "refused":
			r.ErrorDetail = &rpcstatus.Status{Message: value}
		default:
			p.t.Fatalf("transcript: %q", word)
		}
	}
	return r
}

// show writes a response as one line.
func (p *player) show(r *discoveryv3.DiscoveryResponse) {
	require.Equal(p.t, "replica-1", r.GetControlPlane().GetIdentifier())
	k, ok := kindOf(r.GetTypeUrl())
	require.True(p.t, ok)
	if p.versions[r.GetVersionInfo()] == "" {
		p.versions[r.GetVersionInfo()] = fmt.Sprintf("v%d", len(p.versions)+1)
	}
	var shown []string
	for _, body := range r.GetResources() {
		require.Equal(p.t, r.GetTypeUrl(), body.GetTypeUrl())
		m, err := body.UnmarshalNew()
		require.NoError(p.t, err)
		switch m := m.(type) {
		case *clusterv3.Cluster:
			shown = append(shown, m.GetName())
		case *endpointv3.ClusterLoadAssignment:
			shown = append(shown, m.GetClusterName()+"("+strings.Join(addresses(m), " ")+")")
		}
	}
	require.True(p.t, slices.IsSorted(shown))
	fmt.Fprintf(&p.out, "< %s n%s %s: %s\n", k, r.GetNonce(), p.versions[r.GetVersionInfo()], strings.Join(shown, " "))
}

// addresses are those of an assignment's endpoints.
func addresses(m *endpointv3.ClusterLoadAssignment) (list []string) {
	for _, locality := range m.GetEndpoints() {
		for _, endpoint := range locality.GetLbEndpoints() {
			a := endpoint.GetEndpoint().GetAddress().GetSocketAddress()
			list = append(list, netip.AddrPortFrom(netip.MustParseAddr(a.GetAddress()), uint16(a.GetPortValue())).String())
		}
	}
	return list
}
