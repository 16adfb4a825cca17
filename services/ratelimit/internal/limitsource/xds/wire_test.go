package xds

import (
	"crypto/tls"
	"crypto/x509"
	"net"
	"net/url"
	"os"
	"path/filepath"
	"strconv"
	"sync"
	"testing"
	"time"

	discoveryv3 "github.com/envoyproxy/go-control-plane/envoy/service/discovery/v3"
	"github.com/envoyproxy/go-control-plane/pkg/cache/types"
	"github.com/envoyproxy/go-control-plane/pkg/cache/v3"
	"github.com/envoyproxy/go-control-plane/pkg/resource/v3"
	"github.com/envoyproxy/go-control-plane/pkg/server/v3"
	ratelimitv3 "github.com/envoyproxy/go-control-plane/ratelimit/config/ratelimit/v3"
	"github.com/prometheus/client_golang/prometheus/testutil"
	"github.com/stretchr/testify/require"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/metadata"

	"github.com/weirproxy/weir/internal/servicetest"
)

// serve serves ads on a free port until the test ends, and returns the port's
// address.
func serve(t *testing.T, ads discoveryv3.AggregatedDiscoveryServiceServer, options ...grpc.ServerOption) string {
	t.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	g := grpc.NewServer(options...)
	discoveryv3.RegisterAggregatedDiscoveryServiceServer(g, ads)
	var serving sync.WaitGroup
	serving.Go(func() { _ = g.Serve(listener) }) // ends with Stop
	t.Cleanup(func() { g.Stop(); serving.Wait() })
	return listener.Addr().String()
}

// config is a resource with one rule; no key is a fault.
func config(name, domain, key string) types.Resource {
	return &ratelimitv3.RateLimitConfig{Name: name, Domain: domain, Descriptors: []*ratelimitv3.RateLimitDescriptor{{
		Key: key, RateLimit: &ratelimitv3.RateLimitPolicy{Unit: ratelimitv3.RateLimitUnit_HOUR, RequestsPerUnit: 1},
	}}}
}

func TestRulesOfAUsualControlPlaneAreFollowed(t *testing.T) {
	ctx := t.Context()
	plane := cache.NewSnapshotCache(true, cache.IDHash{}, nil)
	version := 0
	send := func(resources ...types.Resource) {
		t.Helper()
		version++
		snapshot, err := cache.NewSnapshot(strconv.Itoa(version), map[resource.Type][]types.Resource{typeURL: resources})
		require.NoError(t, err)
		require.NoError(t, plane.SetSnapshot(ctx, "p", snapshot))
	}
	send(config("one", "a", "k"), config("two", "b", "k"))
	rules := &sink{}
	o := options(rules, t.Output())
	o.Server = serve(t, server.NewServer(ctx, plane, nil))
	s := running(t, o, nil)
	follows := func(what, want string) {
		t.Helper()
		servicetest.Eventually(t, what, func() bool { return rules.String() == want })
	}
	follows("the first rules are in force", "a.k b.k")
	send(config("one", "a", "new"), config("two", "b", "k"))
	follows("a changed resource is taken", "a.new b.k")
	send(config("one", "a", ""), config("two", "b", "new"))
	follows("a bad resource keeps its rules", "a.new b.new")
	servicetest.Eventually(t, "the fault is listed", func() bool { return len(s.Refused()) == 1 })
	require.Equal(t, "resource one: descriptors[0]: a descriptor has no key", s.Refused()[0])
	send(config("one", "a", "good"), config("two", "b", "new"))
	follows("the resource is good again", "a.good b.new")
	send(config("one", "a", "good"))
	follows("a resource that is gone takes its rules along", "a.good")
	send()
	follows("no rules are rules", "")
	require.NoError(t, s.NoRules())
	servicetest.Eventually(t, "no fault is left", func() bool { return len(s.Refused()) == 0 })
}

func TestRunEndsWhileThePlaneIsSilent(t *testing.T) {
	silent, err := net.Listen("tcp", "127.0.0.1:0") // accepts nobody
	require.NoError(t, err)
	defer silent.Close()
	o := options(&sink{}, t.Output())
	o.Server = silent.Addr().String()
	s := running(t, o, nil)
	require.EqualError(t, s.NoRules(), "no rules: control plane "+o.Server+": not connected yet")
}

// asker notes how it was asked, and sends one rule.
type asker struct {
	discoveryv3.UnimplementedAggregatedDiscoveryServiceServer
	t       *testing.T
	request chan *discoveryv3.DiscoveryRequest
	headers chan metadata.MD
}

func newAsker(t *testing.T) *asker {
	return &asker{t: t, request: make(chan *discoveryv3.DiscoveryRequest, 1), headers: make(chan metadata.MD, 1)}
}

func (a *asker) StreamAggregatedResources(stream discoveryv3.AggregatedDiscoveryService_StreamAggregatedResourcesServer) error {
	request, err := stream.Recv()
	if err != nil {
		return err
	}
	headers, _ := metadata.FromIncomingContext(stream.Context())
	a.headers <- headers
	a.request <- request
	if err := stream.Send(response(a.t, "1", "x", "one=a:k")); err != nil {
		return err
	}
	<-stream.Context().Done()
	return nil
}

func TestThePlaneIsToldWhoAsks(t *testing.T) {
	a := newAsker(t)
	o := options(&sink{}, t.Output())
	o.Server = serve(t, a)
	o.NodeID, o.NodeMetadata, o.Headers = "n1", "zone=z,team=a=b", "Authorization:Bearer: x, x-team:t,x-team:u"
	s := running(t, o, nil)
	headers, request := <-a.headers, <-a.request
	require.Equal(t, []string{"Bearer: x"}, headers.Get("authorization"))
	require.Equal(t, []string{"t", "u"}, headers.Get("x-team"))
	require.Equal(t, "n1", request.GetNode().GetId())
	require.Equal(t, map[string]any{"zone": "z", "team": "a=b"}, request.GetNode().GetMetadata().AsMap())
	servicetest.Eventually(t, "rules are there", func() bool { return s.NoRules() == nil })
	require.Equal(t, 1.0, testutil.ToFloat64(s.stats.connected))
}

func TestAResponseLargerThanTheMaximumBreaksTheStream(t *testing.T) {
	o := options(&sink{}, t.Output())
	o.Server, o.MaxMessage = serve(t, newAsker(t)), 10
	s := running(t, o, nil)
	servicetest.Eventually(t, "why there are no rules is told", func() bool {
		err := s.NoRules()
		return err != nil && containsAll(err.Error(), "larger than max", o.Server)
	})
}

func TestTLSKnowsThePlaneByItsName(t *testing.T) {
	ca := servicetest.NewAuthority(t)
	caFile := ca.File()
	certFile, keyFile := ca.IssueFiles(named(t, "plane"))
	clientCert, clientKey := ca.IssueFiles(named(t, "client"))
	pair, err := tls.LoadX509KeyPair(certFile, keyFile)
	require.NoError(t, err)
	mutual := credentials.NewTLS(&tls.Config{
		Certificates: []tls.Certificate{pair}, ClientAuth: tls.RequireAndVerifyClientCert, ClientCAs: ca.Pool(),
	})
	for _, c := range []struct {
		name string
		tls  TLS
		want string // in the error; empty if rules come
	}{
		{"by a DNS name", TLS{clientCert, clientKey, caFile, "plane.test"}, ""},
		{"by a URI", TLS{clientCert, clientKey, caFile, "spiffe://test/plane"}, ""},
		{"not by the address", TLS{clientCert, clientKey, caFile, ""}, "127.0.0.1"},
		{"not by another name", TLS{clientCert, clientKey, caFile, "other.test"}, "other.test"},
		{"not by another URI", TLS{clientCert, clientKey, caFile, "spiffe://test/other"}, "spiffe://test/other"},
		{"not by a stranger's certificate", TLS{clientCert, clientKey, servicetest.NewAuthority(t).File(), "spiffe://test/plane"}, "signed by unknown authority"},
		{"not without a certificate of the client", TLS{CAFile: caFile, SAN: "plane.test"}, "certificate required"},
	} {
		t.Run(c.name, func(t *testing.T) {
			o := options(&sink{}, t.Output())
			o.Server, o.TLS = serve(t, newAsker(t), grpc.Creds(mutual)), &c.tls
			o.ConnectRetry, o.Backoff = time.Millisecond, Backoff{Initial: time.Millisecond, Max: time.Millisecond}
			s := running(t, o, nil)
			servicetest.Eventually(t, "the outcome is known: "+c.want, func() bool {
				err := s.NoRules()
				return err == nil && c.want == "" || err != nil && c.want != "" && containsAll(err.Error(), c.want)
			})
		})
	}
}

func TestNewSaysWhichOptionsItCannotRead(t *testing.T) {
	notPEM := filepath.Join(t.TempDir(), "not.pem")
	require.NoError(t, os.WriteFile(notPEM, []byte("x"), 0o600))
	for _, c := range []struct {
		name    string
		options Options
		want    string
	}{
		{"metadata without a value", Options{NodeMetadata: "a=1,b"}, `node metadata "a=1,b": "b" is not key=value`},
		{"metadata without a key", Options{NodeMetadata: "=1"}, `node metadata "=1": "=1" is not key=value`},
		{"metadata that is no text", Options{NodeMetadata: "a=\xff"}, `node metadata "a=\xff": `},
		{"a header without a value", Options{Headers: "a:1,secret"}, "header 2 of the list is not name:value"},
		{"a header with an odd name", Options{Headers: "a b:1"}, `header "a b": a name has letters, digits, and -_. only`},
		{"a header of gRPC", Options{Headers: "Grpc-Timeout:1"}, `header "Grpc-Timeout": names that begin with grpc- are gRPC's own`},
		{"a header that is not ASCII", Options{Headers: "a:ü"}, `header "a": its value has more than printable ASCII`},
		{"a certificate that is not there", Options{TLS: &TLS{CertFile: "/nowhere/c", KeyFile: "/nowhere/k"}}, `client certificate "/nowhere/c" with key "/nowhere/k": open /nowhere/c`},
		{"authorities that are not there", Options{TLS: &TLS{CAFile: "/nowhere/ca"}}, "authorities of the control plane: open /nowhere/ca"},
		{"authorities that are none", Options{TLS: &TLS{CAFile: notPEM}}, "authorities of the control plane: " + notPEM + ": no certificate in it"},
	} {
		t.Run(c.name, func(t *testing.T) {
			o := options(&sink{}, t.Output())
			o.NodeMetadata, o.Headers, o.TLS = c.options.NodeMetadata, c.options.Headers, c.options.TLS
			_, err := New(o)
			require.ErrorContains(t, err, c.want)
		})
	}
	o := options(&sink{}, t.Output())
	o.NodeMetadata, o.Headers = "a", "b"
	_, err := New(o)
	require.ErrorContains(t, err, "node metadata")
	require.ErrorContains(t, err, "header 1", "all of it is said")
}

// named is what a certificate of this name and of that of a workload has.
func named(t *testing.T, name string) x509.Certificate {
	t.Helper()
	uri, err := url.Parse("spiffe://test/" + name)
	require.NoError(t, err)
	return x509.Certificate{DNSNames: []string{name + ".test"}, URIs: []*url.URL{uri}}
}
