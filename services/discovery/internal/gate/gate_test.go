package gate_test

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/stretchr/testify/require"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/credentials/insecure"
	healthpb "google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"

	"github.com/weirproxy/weir/internal/certificates"
	"github.com/weirproxy/weir/internal/filewatch"
	"github.com/weirproxy/weir/internal/grpchttp2"
	"github.com/weirproxy/weir/internal/servicetest"
	"github.com/weirproxy/weir/services/discovery/internal/auth"
	"github.com/weirproxy/weir/services/discovery/internal/denial"
	"github.com/weirproxy/weir/services/discovery/internal/gate"
	"github.com/weirproxy/weir/services/discovery/internal/quota"
)

func TestMain(m *testing.M) { servicetest.Main(m) }

const usersToken = "users-0123456789abcdef"

const ruleFile = `
tokens: [{name: users-team, token: ` + usersToken + `, services: [users]}]
identities: [{spiffe: "spiffe://td/ns/*/sa/users", services: [users]}]
`

// options is what a test's gate is made of.
type options struct {
	rules       string // "" for none
	closedReads bool
	perSecond   float64
}

// newGate makes a gate, and says what it counts.
func newGate(t testing.TB, o options) (g *gate.Gate, refused func(denial.Reason) float64) {
	t.Helper()
	metrics := prometheus.NewRegistry()
	denials := denial.NewCounters(metrics)
	file := filewatch.File{Setting: "RULES"}
	if o.rules != "" {
		file.Path = filepath.Join(t.TempDir(), "rules.yaml")
		require.NoError(t, os.WriteFile(file.Path, []byte(o.rules), 0o600))
	}
	policy, err := auth.New(auth.Options{
		File: file, Poll: time.Hour, ClosedReads: o.closedReads,
		Log: slog.New(slog.DiscardHandler), Metrics: prometheus.NewRegistry(), Denials: denials,
	})
	require.NoError(t, err)
	g = &gate.Gate{
		Policy:    policy,
		Sources:   quota.NewSources(o.perSecond, 2, denials),
		Open:      func(path string) bool { return path == "/healthcheck" },
		OnlyReads: func(path string) bool { return path == healthpb.Health_Watch_FullMethodName || path == "/ask" },
		Denials:   denials,
	}
	return g, func(reason denial.Reason) float64 {
		families, err := metrics.Gather()
		require.NoError(t, err)
		for _, m := range families[0].GetMetric() {
			if m.GetLabel()[0].GetValue() == reason.String() {
				return m.GetCounter().GetValue()
			}
		}
		return -1
	}
}

// face answers a call with who makes it, as the face behind the gate knows it.
var face = http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
	text, _ := io.ReadAll(r.Body)
	_, _ = io.WriteString(w, auth.FromContext(r.Context()).Actor()+" says "+string(text))
})

func TestWhichCallsPass(t *testing.T) {
	const missing = `{"error":"to read takes a token, as Authorization: Bearer, or a client certificate that has a rule"}` + "\n"
	for name, test := range map[string]struct {
		options options
		method  string
		path    string
		token   string
		body    io.Reader
		status  int
		want    string
		counted denial.Reason
		by      float64
	}{
		"a read":                   {options{}, "GET", "/v1", "", nil, 200, "192.0.2.1 says ", denial.Token, 0},
		"a read with rules":        {options{rules: ruleFile}, "GET", "/v1", "", nil, 200, "192.0.2.1 says ", denial.Token, 0},
		"one with a bad token":     {options{rules: ruleFile}, "GET", "/v1", "s3cret", nil, 200, "192.0.2.1 says ", denial.Token, 0},
		"a closed read":            {options{rules: ruleFile, closedReads: true}, "GET", "/v1", "", nil, 401, missing, denial.Token, 1},
		"a closed head":            {options{rules: ruleFile, closedReads: true}, "HEAD", "/v1", "", nil, 401, missing, denial.Token, 1},
		"a closed read with token": {options{rules: ruleFile, closedReads: true}, "GET", "/v1", usersToken, nil, 200, "users-team says ", denial.Token, 0},
		"the open path":            {options{rules: ruleFile, closedReads: true}, "GET", "/healthcheck", "", nil, 200, "192.0.2.1 says ", denial.Token, 0},
		"a change":                 {options{}, "POST", "/v1", "", strings.NewReader("hello"), 200, "192.0.2.1 says hello", denial.Token, 0},
		"a change with rules":      {options{rules: ruleFile}, "POST", "/v1", "", strings.NewReader("hello"), 401, strings.Replace(missing, "read", "change anything", 1), denial.Token, 1},
		"a question by POST":       {options{rules: ruleFile}, "POST", "/ask", "", strings.NewReader("hello"), 200, "192.0.2.1 says hello", denial.Token, 0},
		"one that may not be put":  {options{rules: ruleFile}, "PUT", "/ask", "", strings.NewReader("hello"), 401, strings.Replace(missing, "read", "change anything", 1), denial.Token, 1},
		"a change with token":      {options{rules: ruleFile}, "POST", "/v1", usersToken, strings.NewReader("hello"), 200, "users-team says hello", denial.Token, 0},
	} {
		t.Run(name, func(t *testing.T) {
			g, refused := newGate(t, test.options)
			r := httptest.NewRequest(test.method, test.path, test.body)
			if test.token != "" {
				r.Header.Set("Authorization", "Bearer "+test.token)
			}
			w := httptest.NewRecorder()
			g.HTTP(face).ServeHTTP(w, r)
			require.Equal(t, test.status, w.Code)
			require.Equal(t, test.want, w.Body.String())
			require.Equal(t, test.by, refused(test.counted))
			if test.status == 401 {
				require.Equal(t, `Bearer realm="discovery"`, w.Header().Get("WWW-Authenticate"))
			}
		})
	}
}

func TestASourceThatCallsTooOftenIsToldWhenItMayAgain(t *testing.T) {
	g, refused := newGate(t, options{perSecond: 0.01})
	handler := g.HTTP(face)
	call := func(method, path, remote string) *httptest.ResponseRecorder {
		r := httptest.NewRequest(method, path, nil)
		r.RemoteAddr = remote
		w := httptest.NewRecorder()
		handler.ServeHTTP(w, r)
		return w
	}
	require.Equal(t, 200, call("POST", "/v1", "10.0.0.1:1").Code)
	require.Equal(t, 200, call("PUT", "/v2", "10.0.0.1:2").Code)
	over := call("DELETE", "/v2", "10.0.0.1:3")
	require.Equal(t, 429, over.Code)
	require.Equal(t, "100", over.Header().Get("Retry-After"))
	require.JSONEq(t, `{"error":"10.0.0.1 calls oftener than once in 1m40s"}`, over.Body.String())
	require.Equal(t, 1.0, refused(denial.Rate))
	require.Equal(t, 200, call("GET", "/v1", "10.0.0.1:4").Code, "reads are not held to it")
	require.Equal(t, 200, call("POST", "/v1", "10.0.0.2:1").Code, "nor is another source")
}

// certified is a server's certificate that a signed; clients show one of a's, or
// none.
func certified(t *testing.T, a *servicetest.Authority) *certificates.Certificates {
	t.Helper()
	cert, key := a.IssueFiles(x509.Certificate{IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)}})
	c, err := certificates.Load(certificates.Options{
		Cert: filewatch.File{Setting: "CERT", Path: cert}, Key: filewatch.File{Setting: "KEY", Path: key},
		ClientCA: filewatch.File{Setting: "CA", Path: a.File()}, Optional: true,
		Poll: time.Hour, Log: slog.New(slog.DiscardHandler),
	})
	require.NoError(t, err)
	return c
}

// client trusts a and shows a certificate with that URI, if it is not empty.
func client(t *testing.T, a *servicetest.Authority, uri string) *tls.Config {
	t.Helper()
	config := &tls.Config{RootCAs: a.Pool()}
	if uri != "" {
		u, err := url.Parse(uri)
		require.NoError(t, err)
		pair, err := tls.X509KeyPair(a.Issue(x509.Certificate{URIs: []*url.URL{u}}))
		require.NoError(t, err)
		config.Certificates = []tls.Certificate{pair}
	}
	return config
}

// identities are what clients show in the tests below, and what comes of it
// where reads are closed.
var identities = map[string]struct {
	uri    string
	status int
	code   codes.Code
	want   string
}{
	"an identity with a rule": {"spiffe://td/ns/prod/sa/users", 200, codes.OK, "spiffe://td/ns/prod/sa/users"},
	"one without":             {"spiffe://td/ns/prod/sa/eve", 403, codes.PermissionDenied, `no rule is for identity "spiffe://td/ns/prod/sa/eve", and to read takes one`},
	"none":                    {"", 401, codes.Unauthenticated, "to read takes a token, as Authorization: Bearer, or a client certificate that has a rule"},
}

func TestIdentitiesOverHTTPS(t *testing.T) {
	a := servicetest.NewAuthority(t)
	g, _ := newGate(t, options{rules: ruleFile, closedReads: true})
	l, err := tls.Listen("tcp", "127.0.0.1:0", certified(t, a).Config("h2", "http/1.1"))
	require.NoError(t, err)
	server := &http.Server{Handler: g.HTTP(face)}
	served := make(chan error, 1)
	// Ends with the server's Close; the test's end waits for it.
	go func() { served <- server.Serve(l) }()
	t.Cleanup(func() { server.Close(); <-served })
	for name, test := range identities {
		for _, h2 := range []bool{false, true} {
			t.Run(name, func(t *testing.T) {
				transport := &http.Transport{TLSClientConfig: client(t, a, test.uri), ForceAttemptHTTP2: h2}
				defer transport.CloseIdleConnections()
				response, err := (&http.Client{Transport: transport}).Get("https://" + l.Addr().String())
				require.NoError(t, err)
				defer response.Body.Close()
				text, err := io.ReadAll(response.Body)
				require.NoError(t, err)
				require.Equal(t, test.status, response.StatusCode)
				require.Contains(t, strings.ReplaceAll(string(text), `\"`, `"`), test.want)
				require.Equal(t, h2, response.ProtoMajor == 2)
			})
		}
	}
}

// health answers with who calls, as an error where that can be told.
type health struct {
	healthpb.UnimplementedHealthServer
}

func (health) Check(ctx context.Context, _ *healthpb.HealthCheckRequest) (*healthpb.HealthCheckResponse, error) {
	return nil, status.Error(codes.Aborted, auth.FromContext(ctx).Actor())
}

func (health) Watch(_ *healthpb.HealthCheckRequest, wire healthpb.Health_WatchServer) error {
	return status.Error(codes.Aborted, auth.FromContext(wire.Context()).Actor())
}

// serveGRPC serves health behind a gate, and returns a connection to it.
func serveGRPC(t *testing.T, g *gate.Gate, by credentials.TransportCredentials, with credentials.TransportCredentials) *grpc.ClientConn {
	t.Helper()
	server := grpchttp2.New(grpchttp2.Options{Credentials: by, UnaryInterceptor: g.Unary, StreamInterceptor: g.Stream})
	healthpb.RegisterHealthServer(server, health{})
	l, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	served := make(chan error, 1)
	// Ends with the server's Stop; the test's end waits for it.
	go func() { served <- server.Serve(l) }()
	conn, err := grpc.NewClient(l.Addr().String(), grpc.WithTransportCredentials(with))
	require.NoError(t, err)
	t.Cleanup(func() { conn.Close(); server.Stop(); <-served })
	return conn
}

// watch opens a stream and returns what it ends with.
func watch(ctx context.Context, t *testing.T, conn *grpc.ClientConn) error {
	t.Helper()
	stream, err := conn.NewStream(ctx, &healthpb.Health_ServiceDesc.Streams[0], healthpb.Health_Watch_FullMethodName)
	require.NoError(t, err)
	_ = stream.SendMsg(&healthpb.HealthCheckRequest{}) // it may have ended; RecvMsg says why
	_ = stream.CloseSend()
	return stream.RecvMsg(&healthpb.HealthCheckResponse{})
}

// check calls, and returns what it is answered.
func check(ctx context.Context, conn *grpc.ClientConn) error {
	_, err := healthpb.NewHealthClient(conn).Check(ctx, &healthpb.HealthCheckRequest{})
	return err
}

func TestIdentitiesOverGRPC(t *testing.T) {
	a := servicetest.NewAuthority(t)
	for name, test := range identities {
		t.Run(name, func(t *testing.T) {
			g, _ := newGate(t, options{rules: ruleFile, closedReads: true})
			c := serveGRPC(t, g, credentials.NewTLS(certified(t, a).Config("h2")), credentials.NewTLS(client(t, a, test.uri)))
			if test.code == codes.OK {
				test.code = codes.Aborted // as the face says
			}
			require.Equal(t, status.Error(test.code, test.want).Error(), watch(t.Context(), t, c).Error())
		})
	}
}

func TestTokensAndRatesOverGRPC(t *testing.T) {
	g, refused := newGate(t, options{rules: ruleFile, closedReads: true, perSecond: 0.01})
	c := serveGRPC(t, g, insecure.NewCredentials(), insecure.NewCredentials())
	known := metadata.AppendToOutgoingContext(t.Context(), "authorization", "Bearer "+usersToken)
	require.Equal(t, "rpc error: code = Aborted desc = users-team", watch(known, t, c).Error())
	require.Equal(t, codes.Unauthenticated, status.Code(watch(t.Context(), t, c)))

	// Other methods are held to the rate, be the caller known or not.
	require.Equal(t, "rpc error: code = Aborted desc = users-team", check(known, c).Error())
	require.Equal(t, codes.Unauthenticated, status.Code(check(t.Context(), c)))
	require.Equal(t, codes.ResourceExhausted, status.Code(check(known, c)))
	require.Equal(t, "rpc error: code = Aborted desc = users-team", watch(known, t, c).Error(), "reads are not")
	require.Equal(t, 1.0, refused(denial.Rate))
	require.Equal(t, 2.0, refused(denial.Token))
}

func TestRefusalsAsGRPCTellsThem(t *testing.T) {
	g, _ := newGate(t, options{})
	for httpStatus, want := range map[int]codes.Code{
		400: codes.InvalidArgument, 401: codes.Unauthenticated, 403: codes.PermissionDenied,
		413: codes.ResourceExhausted, 429: codes.ResourceExhausted,
	} {
		require.Equal(t, want, status.Code(g.Status(&denial.Error{Status: httpStatus})), "%d", httpStatus)
	}
	refused := &denial.Error{Status: 403, Text: "why"}
	require.Equal(t, "rpc error: code = PermissionDenied desc = why", g.Status(refused).Error())
	require.ErrorIs(t, g.Status(refused), refused, "a face over HTTP finds it")
	other := errors.New("away")
	require.Equal(t, other, g.Status(other))
}

// BenchmarkHTTP is what the gate adds to a heartbeat with everything on.
func BenchmarkHTTP(b *testing.B) {
	g, _ := newGate(b, options{rules: ruleFile, perSecond: 1e9})
	handler := g.HTTP(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		if auth.FromContext(r.Context()).MayRegister("users") != nil {
			b.Error("refused")
		}
	}))
	r := httptest.NewRequest("POST", "/v1/registration/users", strings.NewReader("hello"))
	r.Header.Set("Authorization", "Bearer "+usersToken)
	b.ReportAllocs()
	for b.Loop() {
		handler.ServeHTTP(nil, r)
	}
}
